"""Statistics over slabs of classes, merged, are those over all classes: value and derivative."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise

import array_api_compat.numpy as xp
import numpy as np
import pytest

from xent.ops.slabs import Whole, finish, mass_of, merged, share_of, slab_of, slab_vjp
from xent.ops.stats import RowStats
from xent.ops.tiles import Engine

N, D, V = 4, 2, 9
STATS = RowStats(0.8, 5.0, smooth=True, entropy=True)
CUTS = [[0, 4, 9], [0, 0, 3, 3, 7, 9, 9], [0, 9], list(range(10))]


@pytest.fixture(autouse=True)
def quiet():
    """As a backend computes: infinite logits are no error."""
    with np.errstate(all="ignore"):
        yield


def slabs(x, t, w, ends, stats=STATS):
    engine, found = Engine(xp), []
    for a, b in pairwise(ends):
        of = t[:, :, a:b] if t.ndim == 3 else t
        found.append(slab_of(engine, stats, x[:, :, a:b], of, w[a:b], slice(a, b), V))
    return found


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("ends", CUTS, ids=str)
def test_slabs_are_merged_to_the_whole(rng, ends, soft):
    x, w = rng.normal(0, 3, (N, D, V)), rng.uniform(0.5, 2, V)
    t = rng.dirichlet(np.ones(V), (N, D)) if soft else rng.integers(0, V, (N, D))
    if not soft:
        t[0, 0] = -1
    engine = Engine(xp)
    wanted, kept = engine.forward(STATS, (x, t, w))
    parts = slabs(x, t, w, ends)
    found, (k, tail, top, entropy) = finish(xp, reduce(lambda a, b: merged(xp, a, b), parts), t, V)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-13)
    np.testing.assert_array_equal(k, kept[0])
    g = tuple(rng.normal(size=(N, D)) for _ in range(4))
    g = tuple(np.where(t == -1, 0.0, c) for c in g) if not soft else g
    by_all = engine.vjp(STATS, (x, t, w), kept, g, (True, soft, soft))
    mass, share = mass_of(xp, t, None, w, x.dtype), share_of(xp, w, V, x.dtype)
    whole = Whole(tail, top, entropy, mass, share)
    made = []
    for part, (a, b) in zip(parts, pairwise(ends), strict=True):
        if a == b:
            continue
        given = (x[:, :, a:b], t[:, :, a:b] if soft else t, w[a:b])
        wants = (True, soft, soft)
        made.append(slab_vjp(engine, STATS, given, slice(a, b), V, part, whole, g, wants))
    for i in range(3 if soft else 1):
        joined = np.concatenate([m[i] for m in made], axis=-1)
        np.testing.assert_allclose(joined, by_all[i], rtol=1e-11, atol=1e-14)


def test_slabs_that_are_masked_take_no_share(rng):
    """Three slabs of -inf, the first among them: once their sum was NaN."""
    x = rng.normal(size=(1, 1, V))
    x[..., :6] = -np.inf
    t, w = np.array([[7]]), np.ones(V)
    plain = RowStats()
    parts = slabs(x, t, w, [0, 2, 4, 6, 9], plain)
    (lse, nll, *_), _ = finish(xp, reduce(lambda a, b: merged(xp, a, b), parts), t, V)
    wanted = Engine(xp).forward(plain, (x[..., 6:], np.array([[1]]), None)).outputs
    np.testing.assert_allclose([lse, nll], wanted[:2], rtol=1e-14)


def test_a_row_of_nothing_but_masked_classes_has_no_loss():
    x, t, w = np.full((1, 1, V), -np.inf), np.array([[7]]), np.ones(V)
    parts = slabs(x, t, w, [0, 3, 9], RowStats())
    (lse, nll, *_), _ = finish(xp, merged(xp, *parts), t, V)
    assert lse == -np.inf
    assert np.isnan(nll)


def test_a_small_loss_keeps_its_digits():
    x = np.full((1, 1, V), -40.0)
    x[..., 0] = 0.0
    t, w = np.array([[0]]), np.ones(V)
    (_, nll, *_), _ = finish(xp, merged(xp, *slabs(x, t, w, [0, 4, 9], RowStats())), t, V)
    assert nll.item() == pytest.approx(8 * np.exp(-40.0), rel=1e-14, abs=0)
