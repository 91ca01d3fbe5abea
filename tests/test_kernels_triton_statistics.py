"""The Triton kernels' statistics and gradients against those of the op: sizes and layouts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from kernel_cases import FORMATS, LAYOUTS, cast, same_bits
from triton_cases import DTYPES, EVERY, PLAIN, arrays_of, by_kernel, check

from xent.kernels import triton_rows
from xent.ops.stats import IGNORED, RowStats


@DTYPES
@pytest.mark.parametrize("classes", [1, 2, 31, 1000, 5000])
def test_it_is_what_the_op_gives(rng, dtype, classes):
    check(rng, PLAIN, (2, 2, classes), dtype)
    op, target = (RowStats(smooth=True), "codes") if rng.random() < 0.5 else (PLAIN, None)
    check(rng, op, (1, 1, classes), dtype, target=target, spread=float(rng.choice([0.1, 20])))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_vocabulary(rng, dtype):
    check(rng, PLAIN, (1, 1, 50257), dtype)


@pytest.mark.parametrize("places", [1, 5])
def test_many_programs(rng, places):
    dtype = str(rng.choice(FORMATS))
    tile = triton_rows.Tile(8, 16, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_rows, "tile_of", lambda *given: tile)
        check(rng, PLAIN, (20, places, 17), dtype)
    check(rng, PLAIN, (2, places, 40), dtype, layout="images")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(rng, layout):
    for dtype in map(str, rng.choice(FORMATS, 2, replace=False)):
        check(rng, PLAIN, (2, 2, 131), dtype, layout=layout)
    dtype = str(rng.choice(FORMATS))
    check(rng, EVERY, (2, 3, 21), dtype, layout=layout, target=dtype, weight=dtype)


def split(parts):
    """Whether a row of so many parts was split."""
    assert parts[0] > 1
    return parts


def test_a_row_over_several_programs(rng, monkeypatch):
    dtype = str(rng.choice(FORMATS[:3]))
    cut = triton_rows.parts_of
    monkeypatch.setattr(triton_rows, "parts_of", lambda *given: split(cut(*given)))
    found = check(rng, PLAIN, (1, 1, 300_000), dtype)
    assert found[0].shape == (1, 1)


@pytest.mark.parametrize("target", ["codes", "float32"])
def test_every_option_of_a_row_over_several_programs(rng, target, monkeypatch):
    def three(rows, classes, tile, count):
        return 3, tile.classes

    monkeypatch.setattr(triton_rows, "parts_of", three)
    tile = triton_rows.Tile(4, 64, 4)
    monkeypatch.setattr(triton_rows, "tile_of", lambda *given: tile)
    for op, weight in ((RowStats(smooth=True), None), (EVERY, "float32")):
        dtype = str(rng.choice(FORMATS))
        check(rng, op, (2, 1, 170), dtype, target=target, weight=weight)


@DTYPES
def test_the_bits_of_a_second_run(rng, dtype):
    arrays = arrays_of(rng, (2, 1, 3000), dtype)
    g = (None, torch.ones((2, 1), dtype=torch.float64), None, None)
    same_bits(by_kernel(PLAIN, arrays, g), by_kernel(PLAIN, arrays, g))


@pytest.mark.parametrize("ignored", ["all", "none", "one"])
@DTYPES
def test_ignored_rows(rng, dtype, ignored):
    logits, target, _ = arrays_of(rng, (6, 1, 50), dtype)
    target = target.clamp(min=0)
    rows = {"all": slice(None), "none": slice(0), "one": slice(2, 3)}[ignored]
    target[rows] = IGNORED
    logits[rows] = float("nan")
    g = (None, torch.ones((6, 1), dtype=torch.float64), None, None)
    triton_cases.compare(PLAIN, (logits, target, None), g)


@DTYPES
@pytest.mark.parametrize("classes", [5, 300, 9000])
def test_the_first_of_equal_logits_is_the_argmax(rng, dtype, classes):
    logits = cast(rng.integers(-3, 2, (4, 1, classes)), dtype)
    g = (torch.ones((4, 1), dtype=torch.float64), None, None, None)
    found = by_kernel(PLAIN, (logits, None, None), g)
    assert torch.equal(found[4], logits.double().argmax(2))
