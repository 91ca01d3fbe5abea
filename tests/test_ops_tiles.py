"""What is worked on together, and sums of gradients."""

from __future__ import annotations

import array_api_compat.numpy as xp
import numpy as np

from xent.ops.tiles import Engine, Head, Sums, cuts


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
