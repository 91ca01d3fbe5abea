"""Statistics of a linear head, tile by tile: those of the logits themselves."""

from __future__ import annotations

import itertools

import array_api_compat.numpy as xp
import numpy as np
import pytest

from xent.ops.blocks import Blocks
from xent.ops.linear import LinearStats
from xent.ops.stats import RowStats
from xent.ops.tiles import Engine, cuts, tile

N, D, V = 7, 5, 23
STATS = [RowStats(), RowStats(0.7, 2.0, True, True), RowStats(1.3, None, True, True)]


class Compacting(Engine):
    def kept(self, target):
        if target is None or target.ndim == 3:
            return None
        return np.nonzero(target[:, 0] != -1)[0]


TILES = [
    (None, None, Engine),
    (300, "rows", Compacting),
    (300, "classes", Compacting),
    (700, "classes", Engine),
]


def arrays_of(rng, kind, weighted, masked=False):
    target = None
    if kind == "indices":
        target = rng.integers(0, V, (N, 1))
        target[2], target[4] = -1, -2
    elif kind == "probabilities":
        target = rng.dirichlet(np.ones(V), (N, 1))
    bias = rng.normal(size=V)
    if masked:
        bias[4:17] = -np.inf
        if target is not None and kind == "indices":
            target[:] = np.where(target < 0, target, target % 4)
        elif target is not None:
            target[..., 4:17] = 0
    weight = rng.random(V) if weighted else None
    return rng.normal(size=(N, D)), 2 * rng.normal(size=(V, D)), bias, target, weight


@pytest.mark.parametrize(("limit", "over", "engine"), TILES)
@pytest.mark.parametrize("kind", [None, "indices", "probabilities"])
def test_statistics_and_gradients_are_those_of_the_logits(rng, kind, limit, over, engine):
    for stats, weighted, masked in itertools.product(STATS, (False, True), (False, True)):
        if masked and (stats.smooth or stats.softcap):
            continue  # the spread over a masked class is infinite
        arrays = arrays_of(rng, kind, weighted, masked)
        h, w, b, target, weight = arrays
        logits = (h @ w.T + b)[:, None, :]
        op, how = LinearStats(stats), engine(xp, limit, over)
        with np.errstate(all="ignore"):
            right = stats.forward(xp, (logits, target, weight), Blocks())
            found = op.forward(xp, arrays, how)
        for ours, theirs in zip(found.outputs, right.outputs, strict=True):
            assert (ours is None) == (theirs is None)
            if theirs is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(found.residuals[0], right.residuals[0])
        g = tuple(None if o is None else rng.normal(size=o.shape) for o in right.outputs)
        soft = kind == "probabilities" and not masked
        of_weight = soft and weighted
        wanted = (True, True, True, soft, of_weight)
        with np.errstate(all="ignore"):
            first = (True, soft, of_weight)
            given = (logits, target, weight)
            dx, *rest = stats.vjp(xp, given, right.residuals, g, first, Blocks())
            got = op.vjp(xp, arrays, found.residuals, g, wanted, how)
        dx = dx[:, 0]
        for ours, theirs in zip(got, (dx @ w, dx.T @ h, dx.sum(0), *rest), strict=True):
            assert (ours is None) == (theirs is None)
            if theirs is not None:
                np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_confident_row_keeps_its_digits_in_slabs():
    # logits 40, 0, ..., 0: 1 - p is 22 exp(-40), which 1 - exp(-nll) would lose
    hidden, linear_weight = np.array([[40.0]]), np.zeros((V, 1))
    linear_weight[20] = 1
    target = np.array([[20]])
    arrays = (hidden, linear_weight, None, target, None)
    op, engine = LinearStats(), Engine(xp, 40, "classes")
    outputs, residuals = op.forward(xp, arrays, engine)
    tail = 22 * np.exp(-40)
    np.testing.assert_allclose(outputs[1], np.log1p(tail), rtol=1e-14)
    g = (None, np.ones((1, 1)), None, None)
    wanted = (False, True, False, False, False)
    _, dweight, *_ = op.vjp(xp, arrays, residuals, g, wanted, engine)
    np.testing.assert_allclose(dweight[20], -40 * tail / (1 + tail), rtol=1e-13)
    np.testing.assert_allclose(dweight[3], 40 * np.exp(-40) / (1 + tail), rtol=1e-13)


def test_the_rule_of_tiles():
    # rows of all classes; slabs where fewer than 64 rows fit, or weights are converted
    assert tile(2048, 32000, 0, 4, None, None) == (262, 32000)
    assert tile(512, 128256, 0, 4, None, None) == (65, 128256)
    assert tile(512, 256000, 0, 4, None, None) == (512, 16384)
    assert tile(20, 256000, 0, 4, None, None) == (20, 256000)
    assert tile(2048, 32000, 2048, 4, None, None) == (2048, 2048)
    assert tile(512, 128256, 0, 4, None, "classes") == (512, 16384)
    assert tile(9, 100, 0, 8, 1, "rows") == (1, 100)
    assert tile(9, 100, 0, 8, 1, "classes") == (1, 1)
    for n in (0, 1, 7, 64):
        covered = [i for cut in cuts(n, 3) for i in range(n)[cut]]
        assert covered == list(range(n))


@pytest.mark.parametrize(("n", "classes"), [(0, 4), (3, 0), (0, 0)])
def test_no_rows_and_no_classes(n, classes):
    arrays = (np.ones((n, 2)), np.ones((classes, 2)), None, None, None)
    op, engine = LinearStats(RowStats(entropy=True)), Engine(xp)
    outputs, residuals = op.forward(xp, arrays, engine)
    assert outputs[0].shape == (n, 1)
    g = (np.ones((n, 1)), None, None, None)
    dhidden, dweight, *_ = op.vjp(
        xp, arrays, residuals, g, (True, True, False, False, False), engine
    )
    assert not dhidden.any()
    assert not dweight.any()
    assert dhidden.shape == (n, 2)
    assert dweight.shape == (classes, 2)
