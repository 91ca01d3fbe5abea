"""The Triton kernels' statistics and gradients against those of the op: options and extremes."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from kernel_cases import FORMATS, cast, cotangents_of, same_bits
from triton_cases import DTYPES, EVERY, PLAIN, arrays_of, check

from xent import Plan
from xent.kernels import triton_rows
from xent.ops.stats import IGNORED, INVALID, RowStats

OPTIONS = {
    "scale": RowStats(logit_scale=0.37),
    "softcap": RowStats(softcap=12.0),
    "large softcap": RowStats(logit_scale=1.7, softcap=150.0),
    "entropy": RowStats(entropy=True),
    "smooth": RowStats(smooth=True),
    "all": EVERY,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option(rng, option):
    op = OPTIONS[option]
    for target, weight in ((None, None), ("codes", None), ("codes", "same"), ("same", None)):
        classes, dtype = int(rng.choice([1, 5, 100])), str(rng.choice(FORMATS))
        target, weight = (dtype if a == "same" else a for a in (target, weight))
        check(rng, op, (3, 2, classes), dtype, target=target, weight=weight)
    tile = triton_rows.Tile(1, 128, 4)
    with pytest.MonkeyPatch.context() as patch:  # several blocks
        patch.setattr(triton_rows, "tile_of", lambda *given: tile)
        dtype = str(rng.choice(FORMATS))
        check(rng, op, (1, 1, 300), dtype, target=dtype, weight="float64")


SPECIAL = [
    [math.nan, 1, 2],
    [1, math.nan, math.nan],
    [math.inf, 1, 2],
    [1, math.inf, math.inf],
    [-math.inf, 1, 1],
    [3, -math.inf, -math.inf],
    [-math.inf] * 3,
    [math.inf, -math.inf, math.nan],
    [6e4, -6e4, 6e4],
    [-6e4, -6e4, 1e-7],
    [0, -0.0, 0],
]


@DTYPES
@pytest.mark.parametrize("code", [0, 1, 2, IGNORED, INVALID, "probabilities"])
def test_rows_of_infinities_and_nan(rng, dtype, code):
    classes, weighted = int(rng.choice([3, 200])), bool(rng.integers(2))
    numbers = rng.normal(0, 1, (len(SPECIAL), 1, classes)) - 2
    numbers[:, 0, -3:] = SPECIAL
    logits = cast(numbers, dtype)
    if code == "probabilities":
        target = torch.zeros_like(logits)
        target[:, :, -2] = 1
    else:
        target = torch.full(logits.shape[:2], code + classes - 3 if code >= 0 else code)
    weight = torch.ones(classes, dtype=torch.float64) if weighted else None
    if weight is not None:
        weight[classes - 3] = 0
    for op in (PLAIN, RowStats(softcap=5.0 if rng.random() < 0.5 else None, smooth=True)):
        g = cotangents_of(rng, op, logits.shape, target)
        triton_cases.compare(op, (logits, target, weight), g)


@DTYPES
@pytest.mark.parametrize("kind", ["sure", "far", "ties", "wide", "shifted"])
def test_losses_down_to_nothing_and_large_logits(rng, dtype, kind):
    for shape in ((6, 1, 40), (1, 1, 2500))[: 1 + bool(rng.integers(2))]:
        x = rng.normal(0, 1, shape)
        if kind == "sure":
            x = np.minimum(x, 0)
            x[..., 3] = rng.uniform(1, 46, shape[:2])
        elif kind == "far":
            x = -rng.uniform(60, 105, shape)
            x[..., 3] = 0
        elif kind == "ties":
            x = 1 + 2.0**-7 * rng.integers(0, 5, shape)
        elif kind == "wide":
            x = 1e4 * x
        else:
            x = np.sort(x + 1000, -1)
        target = torch.full(shape[:2], 3)
        logits = cast(x, dtype)
        g = (None, torch.ones(shape[:2], dtype=torch.float64), None, None)
        found = triton_cases.compare(PLAIN, (logits, target, None), g)
        if kind == "sure":
            assert (found[1] > 0).all()


@DTYPES
@pytest.mark.parametrize("size", [1e-44, 1e-20, 1e20, 1e37])
def test_upstream_near_the_ends_of_float32(rng, dtype, size):
    arrays = arrays_of(rng, (5, 2, 30), dtype)
    g = (None, torch.full((5, 2), size, dtype=torch.float64), None, None)
    triton_cases.compare(PLAIN, arrays, g)


@pytest.mark.parametrize("classes", [10, 2500])
def test_accurate_float32_is_as_good_as_half_precision(rng, classes):
    limits, plan = {"float32": (0.51, 0.51)}, Plan(accurate=True)
    for op in (PLAIN, RowStats(smooth=True)):
        check(rng, op, (3, 2, classes), "float32", plan=plan, limits=limits)


@DTYPES
@pytest.mark.parametrize("out", ["the logits", "float32"])
def test_a_gradient_written_where_it_is_asked(rng, dtype, out):
    op = RowStats(smooth=True)
    arrays = tuple(map(triton_cases.there, arrays_of(rng, (4, 2, 300), dtype)))
    g = tuple(map(triton_cases.there, cotangents_of(rng, op, (4, 2, 300), arrays[1])))
    with triton_cases.running():
        residuals = triton_rows.forward(op, arrays, None).residuals
        right = triton_rows.vjp(op, arrays, residuals, g, None)
        to = arrays[0] if out == "the logits" else torch.empty_like(right, dtype=torch.float32)
        found = triton_rows.gradient_into(to, op, arrays, residuals, g, None)
    assert found is to
    kind = torch.float32 if dtype == "float64" else right.dtype
    same_bits(found.to(kind).cpu(), right.to(kind).cpu())
