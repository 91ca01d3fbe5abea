"""Row statistics in chunks of torch's operations: against the op, and in ULP against the oracle."""

from __future__ import annotations

import math

import array_api_compat.torch as xp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xent.conformance import exact, oracle
from xent.kernels import ONLY_FIRST, choose, library, torch_chunks
from xent.kernels.torch_chunks import FAR, LARGEST, forward, vjp, why_not
from xent.ops.blocks import Blocks
from xent.ops.softmax import Softmax
from xent.ops.stats import IGNORED, INVALID, RowStats
from xent.spec import Plan

FORMATS = ["float32", "float16", "bfloat16"]


@pytest.fixture(autouse=True)
def few_logits(monkeypatch):
    """Serve small arrays too."""
    monkeypatch.setattr(torch_chunks, "FEWEST", 1)


DTYPES = pytest.mark.parametrize("dtype", FORMATS)
LIMITS = {"float32": (3.0, 4.0), "float16": (0.51, 0.51), "bfloat16": (0.51, 0.51)}
CHUNKS = [4, 4096, 1 << 21]
# Rows and classes: pieces that divide a row and that do not, rows side by side, one class.
SHAPES = [(5, 1, 300), (3, 1, 256), (2, 1, 1), (40, 1, 7), (2, 6, 5), (3, 4, 130)]


def draw(rng, shape, dtype, scale=3.0, shift=0.0):
    """Logits, and a target with every kind of code."""
    logits = torch.from_numpy(rng.normal(shift, scale, shape)).to(getattr(torch, dtype))
    target = torch.from_numpy(rng.integers(0, shape[2], shape[:2]))
    return logits, target


def cotangents_of(rng, op, shape, target=True):
    given = [torch.from_numpy(rng.normal(0, 0.1, shape[:2])) for _ in range(3)]
    return given[0], given[1] if target else None, given[2] if op.smooth else None, None


def both(op, arrays, cotangents, chunk_bytes=None):
    """Statistics, residuals and gradient here, and those of the op in float64."""
    before = [None if a is None else a.clone() for a in arrays]
    plan = Plan(chunk_bytes=chunk_bytes)
    here = forward(op, arrays, plan)
    gradient = vjp(op, arrays, here.residuals, cotangents, plan)
    for array, copy in zip(arrays, before, strict=True):
        if array is not None and copy is not None:
            assert torch.equal(array.nan_to_num(7), copy.nan_to_num(7))
    assert gradient.dtype == arrays[0].dtype
    there = op.forward(xp, arrays, Blocks())
    wanted = (True, False, False)
    right = op.vjp(xp, arrays, there.residuals, cotangents, wanted, Blocks())[0]
    return (*here.outputs, *here.residuals, gradient), (*there.outputs, *there.residuals, right)


def agree(found, right, dtype, atol=1e-7):
    """Statistics as good as float32 sums make them; the gradient in its own dtype."""
    for place, (got, expected) in enumerate(zip(found[:-1], right[:-1], strict=True)):
        assert (got is None) == (expected is None)
        if got is not None:
            assert got.dtype == expected.dtype
            least = 1e-6 if place == 0 else 0  # lse is a sum of numbers of both signs
            torch.testing.assert_close(got, expected, rtol=4e-6, atol=least, equal_nan=True)
    four = 2.0 ** (3 - exact.FORMATS[dtype][0])
    torch.testing.assert_close(found[-1], right[-1], rtol=four, atol=atol, equal_nan=True)


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize("options", ["plain", "weight", "smooth", "no target"])
def test_it_is_what_the_op_gives(rng, dtype, shape, chunk_bytes, options):
    op = RowStats(smooth=options == "smooth")
    logits, target = draw(rng, shape, dtype)
    target[rng.random(shape[:2]) < 0.2] = IGNORED
    target[rng.random(shape[:2]) < 0.1] = INVALID
    weight = torch.from_numpy(rng.uniform(0, 2, shape[2])) if options == "weight" else None
    arrays = (logits, None if options == "no target" else target, weight)
    assert why_not(op, arrays, (True, False, False)) is None
    cotangents = cotangents_of(rng, op, shape, target=arrays[1] is not None)
    found, right = both(op, arrays, cotangents, chunk_bytes)
    agree(found, right, dtype)
    assert torch.equal(found[4], right[4])
    zeros = tuple(None if c is None else torch.zeros_like(c) for c in cotangents)
    flat = vjp(op, (logits, target.clamp(min=0), weight), found[4:6], zeros, None)
    assert not flat.any()


def rows_of(kind, rng, shape):
    """Logits (N, V) of one kind, in float64."""
    if kind == "near ties":
        return 1 + 2.0**-7 * rng.integers(0, 5, shape)
    if kind == "deep tail":
        logits = -rng.uniform(85, 105, shape)
        logits[:, 0] = 0
        return logits
    if kind.startswith("sure"):
        logits = np.minimum(rng.normal(0, 1, shape), 0)
        logits[:, 0] = rng.uniform(1, 40, shape[0])
        return logits + float(kind[5:])
    if kind.startswith("uniform"):
        return rng.uniform(-1, 1, shape) * float(kind[8:])
    return rng.normal(float(kind), 4, shape)


KINDS = ["0", "-70", "-0.5", "100", "170", "300", "1e4", "near ties", "deep tail"]
KINDS += ["sure 0", "sure -60", "sure 60", "sure 5000", "uniform 1e4", "uniform 50", "uniform 1e-3"]


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 10, 150])
@pytest.mark.parametrize("upstream", [1.0, 0.003, 300.0])
def test_ulp_of_losses_and_gradients(rng, dtype, kind, classes, upstream):
    rows = 8 if classes < 100 else 2
    drawn = torch.from_numpy(rows_of(kind, rng, (rows, classes))).to(getattr(torch, dtype))
    target = torch.from_numpy(rng.integers(0, classes, rows))
    target[: rows // 2] = 0
    numbers = drawn.double().numpy()
    loss = oracle.cross_entropy(numbers, target.numpy(), reduction="none")
    slope = oracle.cross_entropy_grad(numbers, target.numpy(), reduction="sum").dlogits
    slope = slope * exact.exactly(upstream)
    g = torch.full((rows, 1), upstream, dtype=torch.float64)
    below = float(np.ldexp(1.0, exact.FORMATS[dtype][1]))
    # Side by side (D > 1) and, from 64 classes on, piece by piece.
    for fold in (lambda a: a[:, None], lambda a: a[None]):
        logits, codes, upstreams = fold(drawn), fold(target), fold(g[:, 0])
        found, residuals = forward(RowStats(), (logits, codes, None), None)
        cotangents = (None, upstreams, None, None)
        got = vjp(RowStats(), (logits, codes, None), residuals, cotangents, None)
        values = found[1].reshape(rows).to(drawn.dtype), got.reshape(drawn.shape)
        for value, right, limit in zip(values, (loss, slope), LIMITS[dtype], strict=True):
            errors = exact.ulp_error(value.double().numpy(), right, dtype)
            # Just below the smallest normal number a spacing is half a unit of the same digits.
            small = np.abs(np.asarray(right, float)) < below
            assert (errors <= np.where(small, np.maximum(limit / 2, 1), limit)).all()


SPECIAL = [
    [math.nan, 1, 2],
    [1, math.nan, math.nan],
    [math.inf, 1, 2],
    [1, math.inf, math.inf],
    [-math.inf, 1, 1],
    [3, -math.inf, -math.inf],
    [-math.inf] * 3,
    [math.inf, -math.inf, math.nan],
    [3e38, -3e38, 3e38],
    [-3e38, -3e38, 1e-45],
]


@DTYPES
@pytest.mark.parametrize("classes", [3, 200])
@pytest.mark.parametrize("code", [0, 1, 2, IGNORED, INVALID])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_infinities_and_nan(rng, dtype, classes, code, weighted):
    logits = torch.from_numpy(rng.normal(0, 1, (len(SPECIAL), 1, classes)) - 2)
    logits[:, 0, -3:] = torch.tensor(SPECIAL, dtype=torch.float64)
    codes = code + classes - 3 if code >= 0 else code
    target = torch.full(logits.shape[:2], codes)
    weight = torch.ones(classes, dtype=torch.float64) if weighted else None
    if weight is not None:
        weight[classes - 3] = 0
    for smooth in (False, True)[: 1 if weighted else 2]:
        op = RowStats(smooth=smooth)
        cotangents = cotangents_of(rng, op, logits.shape)
        for axis in (0, 1):
            turned = logits.transpose(0, axis).contiguous().to(getattr(torch, dtype))
            g = tuple(None if c is None else c.transpose(0, axis) for c in cotangents)
            arrays = (turned, target.transpose(0, axis), weight)
            found, right = both(op, arrays, g)
            agree(found, right, dtype)
            assert torch.equal(found[4], right[4])


@pytest.mark.parametrize("classes", [5, 64, 300, 1000])
def test_the_first_of_equal_logits_is_the_argmax(rng, classes):
    logits = torch.from_numpy(rng.integers(-3, 2, (50, 1, classes))).float()
    for x in (logits, logits.transpose(0, 1)):
        k = forward(RowStats(), (x, None, None), None).residuals[0]
        assert torch.equal(k, x.argmax(2))


@DTYPES
def test_the_gradient_has_the_layout_of_the_logits(rng, dtype):
    op = RowStats()
    logits, target = draw(rng, (6, 4, 70), dtype)
    g = cotangents_of(rng, op, logits.shape)
    right = both(op, (logits.contiguous(), target, None), g)[1]
    wide = torch.zeros((6, 4, 140), dtype=logits.dtype)[:, :, ::2].copy_(logits)
    orders = [(0, 2, 1), (1, 2, 0), (2, 1, 0), (2, 0, 1)]
    views = [logits.permute(o).contiguous().permute(np.argsort(o).tolist()) for o in orders]
    for view in [*views, wide]:
        found, _ = both(op, (view, target, None), g)
        agree(found, right, dtype)
        assert found[-1].stride() == torch.empty_like(view).stride()
    alone = logits[:, :1]
    g = tuple(None if c is None else c[:, :1] for c in g)
    for view in (alone, alone.expand(6, 1, 70), alone.permute(1, 2, 0).contiguous()):
        view = view if view.shape == alone.shape else view.permute(2, 0, 1)
        found, right = both(op, (view, target[:, :1], None), g)
        agree(found, right, dtype)
    shared = logits[:1, :1].expand(6, 1, 70)
    agree(*both(op, (shared, target[:, :1], None), g), dtype)


@DTYPES
def test_chunks_do_not_change_the_gradient(rng, dtype):
    logits, target = draw(rng, (30, 1, 130), dtype)
    arrays, op = (logits, target, None), RowStats(smooth=True)
    g = cotangents_of(rng, op, logits.shape)
    whole = both(op, arrays, g)[0]
    pieces = both(op, arrays, g, 130 * 4 * 7)[0]
    for one, other in zip(whole, pieces, strict=True):
        assert one is None or torch.equal(one, other)


@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-20, 1e20, 1e37])
def test_upstream_near_the_ends_of_float32(rng, size):
    logits, target = draw(rng, (20, 1, 100), "float32", 20)
    g = (None, torch.full((20, 1), size, dtype=torch.float64), None, None)
    found, right = both(RowStats(), (logits, target, None), g)
    agree(found, right, "float32", atol=2.0**-148)


NUMBERS = st.floats(width=32) | st.floats(-200, 200, width=32)


@given(
    st.integers(1, 6).flatmap(
        lambda v: st.lists(st.lists(NUMBERS, min_size=v, max_size=v), min_size=1, max_size=4)
    ),
    st.integers(INVALID, 0),
    st.sampled_from(FORMATS),
)
def test_any_numbers(rows, code, dtype):
    logits = torch.tensor(rows).to(getattr(torch, dtype))[:, None]
    target = torch.full(logits.shape[:2], code)
    ones = torch.ones(logits.shape[:2], dtype=torch.float64)
    for axis in (0, 1):
        arrays = (logits.transpose(0, axis), target.transpose(0, axis), None)
        g = (None, ones.transpose(0, axis), None, None)
        agree(*both(RowStats(), arrays, g), dtype, atol=2.0**-148)


def test_why_not():
    logits, target = torch.zeros((2, 1, 3)), torch.zeros((2, 1), dtype=torch.int64)
    weight = torch.ones(3)
    plain = (logits, target, None)
    assert why_not(RowStats(), plain) is None
    assert why_not(RowStats(smooth=True), (logits, None, None)) is None
    assert why_not(RowStats(), (logits, target, weight), (True, False, False)) is None
    assert why_not(Softmax(), plain) == "only row statistics are computed in chunks"
    elsewhere = "only torch tensors on a CPU are computed in chunks"
    assert why_not(RowStats(), (logits.to("meta"), target, None)) == elsewhere
    assert why_not(RowStats(), (logits.numpy(), target, None)) == elsewhere
    long = torch.zeros(1).expand(1, 1, 1 << 24)
    refused = [
        ("torch.float64 logits", RowStats(), (logits.double(), target, None), ONLY_FIRST),
        ("no logits", RowStats(), (logits[:0], target[:0], None), ONLY_FIRST),
        ("2^24 classes or more", RowStats(), (long, None, None), ONLY_FIRST),
        ("a softcap or a logit scale", RowStats(softcap=3.0), plain, ONLY_FIRST),
        ("a softcap or a logit scale", RowStats(logit_scale=2.0), plain, ONLY_FIRST),
        ("the entropy", RowStats(entropy=True), plain, ONLY_FIRST),
        ("target probabilities", RowStats(), (logits, logits, None), ONLY_FIRST),
        (
            "label smoothing with class weights",
            RowStats(smooth=True),
            (logits, target, weight),
            ONLY_FIRST,
        ),
        ("a gradient of target or weight", RowStats(), plain, (True, False, True)),
    ]
    for what, op, arrays, wanted in refused:
        assert why_not(op, arrays, wanted) == f"{what}: not computed in chunks"
    assert LARGEST + math.log(128) < math.log(3.4e38)
    assert math.exp(-FAR / 2) < 2.0**-126


class Odd(torch.Tensor):
    """A tensor with a type of its own."""


def test_when_it_is_chosen(rng, monkeypatch):
    monkeypatch.setattr(library, "found", lambda: (None, "there is none"))
    monkeypatch.setattr(torch_chunks, "FEWEST", 12)
    logits, target = draw(rng, (4, 1, 3), "float32")
    arrays, op = (logits, target, None), RowStats()
    for plan in (None, Plan(), Plan(chunk_bytes=1), Plan(inplace=True)):
        assert choose(op, arrays, plan) is torch_chunks
    few = (logits[:3], target[:3], None)
    assert why_not(op, few) == "too few logits: not computed in chunks"
    assert choose(op, few, None) is None
    for plan in (Plan(accurate=True), Plan(kernel="reference")):
        assert choose(op, arrays, plan) is None
    assert choose(op, tuple(None if a is None else a.numpy() for a in arrays), None) is None
    odd = (logits.as_subclass(Odd), target, None)
    assert why_not(op, odd) == "only torch tensors on a CPU are computed in chunks"
    with pytest.raises(ValueError, match="there is none"):
        choose(op, arrays, Plan(kernel="native"))


def test_torchs_defaults_change_nothing(rng):
    op = RowStats(smooth=True)
    for shape in ((4, 1, 300), (4, 3, 7)):
        logits, target = draw(rng, shape, "bfloat16")
        g = cotangents_of(rng, op, shape)
        found = both(op, (logits, target, None), g)[0]
        before = torch.get_default_dtype()
        try:
            torch.set_default_dtype(torch.float64)
            with torch.device("meta"):
                again = forward(op, (logits, target, None), None)
                gradient = vjp(op, (logits, target, None), again.residuals, g, None)
        finally:
            torch.set_default_dtype(before)
        assert torch.equal(gradient, found[-1])
        assert torch.equal(again.outputs[1], found[1])
