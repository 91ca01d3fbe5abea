"""Row statistics and their derivatives: against the oracle and its finite differences."""

from __future__ import annotations

import itertools
import math

import array_api_strict
import mpmath
import numpy as np
import pytest
import torch

from xent.conformance import exact, oracle
from xent.inputs import namespace
from xent.ops.blocks import Blocks
from xent.ops.stats import IGNORED, INVALID, RowStats, silence

ARRAYS = [np.asarray, torch.asarray, array_api_strict.asarray]
LIBRARIES = pytest.mark.parametrize("array", ARRAYS, ids=["numpy", "torch", "strict"])
KINDS = pytest.mark.parametrize("kind", ["codes", "probabilities"])
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])
TRANSFORMS = pytest.mark.parametrize(
    "transform", [{}, {"logit_scale": 0.4}, {"softcap": 3.0}, {"softcap": 4.0, "logit_scale": 2.0}]
)
BLOCKS = [Blocks(None), Blocks(1), Blocks(70, write=True)]
SHAPE = (2, 3, 4)


def draw(rng, kind, weighted):
    """Logits, target and class weight; some rows are ignored."""
    logits, target = rng.normal(0, 2, SHAPE), rng.random(SHAPE)
    if kind == "codes":
        target = rng.integers(0, SHAPE[2], SHAPE[:2])
        target[1, 1] = IGNORED
    return logits, target, rng.uniform(0.5, 2, SHAPE[2]) if weighted else None


def by_oracle(logits, target, weight, transform):
    """lse, nll, smooth and entropy, (N, D)."""
    options = {"axis": -1, "ignore_index": IGNORED, **transform}
    none = {"reduction": "none", **options}
    codes = target if np.ndim(target) == 2 else np.zeros(SHAPE[:2], int)
    statistics = oracle.token_statistics(logits, codes, **options)
    nll = oracle.cross_entropy(logits, target, weight, **none)
    smooth = oracle.cross_entropy(logits, target, weight, label_smoothing=1.0, **none)
    return statistics.lse, nll, smooth, statistics.entropy


def contracted(cotangents, transform):
    """A function of logits, target and weight: the sum of cotangents times statistics."""

    def function(logits, target, weight):
        outputs = by_oracle(logits, target, weight, transform)
        terms = zip(cotangents, outputs, strict=True)
        return mpmath.fsum(np.ravel(sum(exact.exactly(c) * o for c, o in terms)))

    return function


def slopes_of(function, given, place):
    """Finite differences of a function by one of its arguments, as floats."""

    def moved(values):
        return function(*(values if i == place else a for i, a in enumerate(given)))

    return np.asarray(exact.differences(moved, given[place]), float)


def close(got, right):
    np.testing.assert_allclose(np.asarray(got), right, rtol=1e-12, atol=1e-13)


@LIBRARIES
@KINDS
@WEIGHTED
@TRANSFORMS
def test_the_statistics_are_the_oracles(rng, kind, weighted, transform, array):
    given = draw(rng, kind, weighted)
    right = by_oracle(*given, transform)
    ready = tuple(None if a is None else array(a) for a in given)
    op = RowStats(**transform, smooth=True, entropy=True)
    for blocks in BLOCKS:
        outputs, (k, tail) = op.forward(namespace(ready[0]), ready, blocks)
        for got, expected in zip(outputs, right, strict=True):
            close(got, np.asarray(expected, float))
        assert tuple(k.shape) == tuple(tail.shape) == SHAPE[:2]


@KINDS
@WEIGHTED
@TRANSFORMS
def test_vjp_and_jvp_are_finite_differences_of_the_oracle(rng, kind, weighted, transform):
    given = draw(rng, kind, weighted)
    cotangents = tuple(rng.normal(size=SHAPE[:2]) for _ in range(4))
    movable = [0] + ([1] if kind == "probabilities" else [])
    movable += [2] if weighted and kind == "probabilities" else []
    function = contracted(cotangents, transform)
    slopes = {place: slopes_of(function, given, place) for place in movable}
    tangents = [None, None, None]
    for place in movable:
        tangents[place] = rng.normal(size=given[place].shape)
    moved = math.fsum(float(np.sum(slopes[p] * tangents[p])) for p in movable)

    op = RowStats(**transform, smooth=True, entropy=True)
    wanted = tuple(place in movable for place in range(3))
    for array, blocks in itertools.product(ARRAYS, BLOCKS):
        ready, upstream, moves = (
            tuple(None if a is None else array(a) for a in arrays)
            for arrays in (given, cotangents, tangents)
        )
        xp = namespace(ready[0])
        residuals = op.forward(xp, ready, blocks).residuals
        gradients = op.vjp(xp, ready, residuals, upstream, wanted, blocks)
        for place, gradient in enumerate(gradients):
            assert (gradient is not None) == wanted[place]
            if wanted[place]:
                close(gradient, slopes[place])
        outputs = op.jvp(xp, ready, residuals, moves, blocks)
        pairs = zip(cotangents, outputs, strict=True)
        again = math.fsum(np.ravel([c * np.asarray(o) for c, o in pairs]))
        assert again == pytest.approx(moved, rel=1e-12, abs=1e-12)


@KINDS
def test_what_is_not_asked_for_is_not_computed(rng, kind):
    given = draw(rng, kind, True)
    outputs, residuals = RowStats().forward(np, given, Blocks(None))
    assert outputs[2:] == (None, None)
    cotangents = (None, np.ones(SHAPE[:2]), None, None)
    gradients = RowStats().vjp(np, given, residuals, cotangents, (True, False, False), Blocks())
    assert gradients[1:] == (None, None)
    zeros = (np.zeros(SHAPE[:2]), cotangents[1], None, None)
    same = RowStats().vjp(np, given, residuals, zeros, (True, False, False), Blocks())
    np.testing.assert_array_equal(gradients[0], same[0])
    moved = RowStats().jvp(np, given, residuals, (np.ones(SHAPE), None, None), Blocks())
    assert moved[2:] == (None, None)


def test_a_target_without_a_cotangent_has_a_gradient_of_zero(rng):
    given = draw(rng, "probabilities", False)
    op = RowStats()
    residuals = op.forward(np, given, Blocks()).residuals
    cotangents = (np.ones(SHAPE[:2]), None, None, None)
    gradients = op.vjp(np, given, residuals, cotangents, (True, True, False), Blocks())
    assert not gradients[1].any()
    assert gradients[1].shape == SHAPE
    close(gradients[0], np.asarray(oracle.softmax(given[0]), float))


def test_lse_alone_needs_no_target(rng):
    logits = rng.normal(0, 5, SHAPE)
    outputs, residuals = RowStats().forward(np, (logits, None, None), Blocks())
    assert outputs[1:] == (None, None, None)
    close(outputs[0], np.asarray(oracle.logsumexp(logits), float))
    (du,) = RowStats().jvp(np, (logits, None, None), residuals, (logits, None, None), Blocks())[:1]
    close(du, np.asarray(oracle.softmax(logits) * logits, float).sum(axis=2))


@LIBRARIES
def test_codes_that_are_no_class(array):
    logits = np.full((4, 1, 3), math.nan)
    logits[:2] = 1.0
    codes = np.array([[IGNORED], [INVALID], [IGNORED], [0]])
    ready = (array(logits), array(codes), None)
    xp, op = namespace(ready[0]), RowStats(smooth=True, entropy=True)
    with np.errstate(all="ignore"):
        outputs, residuals = op.forward(xp, ready, Blocks())
        ones = tuple(array(np.ones((4, 1))) for _ in range(4))
        dlogits = op.vjp(xp, ready, residuals, ones, (True, False, False), Blocks())[0]
        moved = op.jvp(xp, ready, residuals, (array(np.ones((4, 1, 3))), None, None), Blocks())
    for values in (*outputs, *moved):
        np.testing.assert_array_equal(np.asarray(values)[:, 0], [0.0, math.nan, 0.0, math.nan])
    right = np.zeros((4, 1, 3))
    right[[1, 3]] = math.nan
    np.testing.assert_array_equal(np.asarray(dlogits), right)


@LIBRARIES
def test_silence_leaves_probabilities_and_no_target_alone(array):
    values = (array(np.ones(2)), None)
    xp = namespace(values[0])
    assert silence(xp, None, values) is values
    assert silence(xp, array(np.ones((2, 3))), values) is values
    silenced = silence(xp, array(np.array([IGNORED, 1])), (array(np.full(2, math.nan)), None))
    assert silenced[1] is None
    np.testing.assert_array_equal(np.asarray(silenced[0]), [0.0, math.nan])


@LIBRARIES
@pytest.mark.parametrize("soft", [False, True])
def test_rows_without_classes(array, soft):
    logits = array(np.zeros((2, 3, 0)))
    target = array(np.zeros((2, 3, 0)) if soft else np.full((2, 3), IGNORED))
    given, xp = (logits, target, None), namespace(logits)
    op = RowStats(smooth=True, entropy=True)
    (lse, *others), residuals = op.forward(xp, given, Blocks())
    # An ignored row is 0 in all statistics; the sum of no exponentials is 0 otherwise.
    np.testing.assert_array_equal(np.asarray(lse), np.full((2, 3), -math.inf if soft else 0.0))
    for values in others:
        np.testing.assert_array_equal(np.asarray(values), np.zeros((2, 3)))
    arrays = [lse, *others, *residuals]
    assert len({id(a) for a in arrays}) == len(arrays)
    ones = tuple(array(np.ones((2, 3))) for _ in range(4))
    gradients = op.vjp(xp, given, residuals, ones, (True, soft, False), Blocks())
    assert tuple(gradients[0].shape) == (2, 3, 0)
    assert (gradients[1] is None) == (not soft)
    moved = op.jvp(xp, given, residuals, (logits, None, None), Blocks())
    for values in moved:
        np.testing.assert_array_equal(np.asarray(values), np.zeros((2, 3)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_statistics_are_float64_and_the_gradient_has_the_dtype_of_the_logits(rng, dtype):
    logits, target, _ = draw(rng, "codes", False)
    given = (logits.astype(dtype), target, None)
    op = RowStats(smooth=True, entropy=True)
    outputs, residuals = op.forward(np, given, Blocks())
    assert {o.dtype for o in outputs} == {np.dtype("float64")}
    ones = (np.ones(SHAPE[:2]),) * 4
    assert op.vjp(np, given, residuals, ones, (True, False, False), Blocks())[0].dtype == dtype


@pytest.mark.parametrize("gap", [5.0, 20.0, 40.0, 300.0])
def test_a_sure_row_keeps_the_gradient_of_its_largest_entry(gap):
    logits = np.array([[[gap, 0.0, -1.0]]])
    right = -math.fsum([math.exp(-gap), math.exp(-gap - 1)])  # times p of the largest, almost 1
    right /= 1 - right
    for target in (np.array([[0]]), np.array([[[1.0, 0.0, 0.0]]])):
        op, given = RowStats(), (logits, target, None)
        residuals = op.forward(np, given, Blocks()).residuals
        cotangents = (None, np.ones((1, 1)), None, None)
        gradients = op.vjp(np, given, residuals, cotangents, (True, False, False), Blocks())
        assert gradients[0][0, 0, 0] == pytest.approx(right, rel=2e-15, abs=0)
