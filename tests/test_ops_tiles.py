"""What is worked on together, and sums of gradients."""

from __future__ import annotations

import array_api_compat.numpy as xp
import numpy as np
import pytest

from xent.ops.tiles import FEW, Engine, Head, Sums, cuts, room


def test_slices_are_of_about_equal_length():
    assert [c.stop - c.start for c in cuts(10, 4)] == [4, 4, 2]
    assert [c.stop - c.start for c in cuts(9, 8)] == [5, 4]
    assert list(cuts(0, 3)) == [slice(0, 0)]


def test_half_precision_is_multiplied_in_float32_and_rounded_once():
    left, right = np.ones((300, 2), np.float16), np.ones((3, 2), np.float16)
    engine = Engine(xp)
    assert engine.work(Head(((left, right),), None)) == np.float32
    arrays = (left, right, None, None, None)
    sums = Sums(engine, arrays, (True, True, False, False, False), np.float32)
    dx = np.full((100, 1, 3), 2.0**-11, np.float32)
    dx[0] = 1.0
    wide = [a.astype(np.float32) for a in (left, right)]
    for start in (0, 100, 200):
        cut = slice(start, start + 100)
        sums.add(cut, slice(0, 3), [wide[0][cut]], [wide[1]], (dx, None, None))
    sums.close(slice(0, 3))
    dleft, dright, *rest = sums.gradients()
    assert rest == [None, None, None]
    assert dleft.dtype == dright.dtype == np.float16
    assert (dright == np.float16(3 + 297 * 2.0**-11)).all()  # in float16 it would stay 3
    assert dleft[0, 0] == 3


LLAMA = 8192, 131_072, 4096  # rows, classes, width


def bytes_of(n, classes, width, limit, over=None):
    """What a head of half precision takes beside its gradients, by its rule."""
    found = room(n, classes, width, limit, over)
    (rows, some), kept = found.tile, found.kept
    if kept == 0:  # a tile in float32, once more and rounded; sums of hidden states or of weights
        return 10 * rows * some + 4 * width * max(min(found.apart, n), some)
    before = 4 * width * (n + classes) if kept < n else 0
    return 2 * kept * classes + 4 * rows * classes + found.sums + before


def test_memory_on_a_gpu_is_within_what_is_promised():
    assert bytes_of(*LLAMA, None) <= 2.5e9
    assert room(*LLAMA, None).tile.rows == 512
    assert bytes_of(*LLAMA, 1 << 25) <= 1 << 25
    # More rows: their sums in float32, and no more of dlogits.
    assert bytes_of(4 * 8192, *LLAMA[1:], None) <= 2.5e9 + 4 * 4096 * (4 * 8192 + 131_072)


@pytest.mark.parametrize("limit", [1 << 16, 1 << 20, 1 << 25, 1 << 28, 1 << 31, 1 << 33])
@pytest.mark.parametrize("shape", [LLAMA, (1, 7, 3), (300, 50_000, 64), (4096, 1_000_000, 128)])
def test_a_limit_on_a_gpu_is_for_all_of_it(shape, limit):
    n, classes, _ = shape
    found = room(*shape, limit)
    assert 1 <= found.tile.rows <= n
    assert 1 <= found.tile.classes <= classes
    assert found.kept in (0, n)
    assert bytes_of(*shape, limit) <= limit
    if found.kept:
        assert found.tile.classes == classes
        assert found.tile.rows >= min(n, FEW)
    slabs = room(*shape, limit, "classes")
    assert slabs.kept == 0
    rows = room(*shape, limit, "rows")
    assert rows.tile.classes == classes
    assert rows.kept == rows.tile.rows == max(1, min(n, limit // (6 * classes)))
