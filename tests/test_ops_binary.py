"""Binary cross entropy as an op: four arrays, their derivatives against finite differences."""

from __future__ import annotations

import itertools
import math

import array_api_strict
import numpy as np
import pytest
import torch

from xent.conformance import exact, oracle
from xent.inputs import namespace
from xent.ops.binary import BinaryCrossEntropy, op, partials, value
from xent.ops.blocks import Blocks
from xent.spec import Spec

ARRAYS = [np.asarray, torch.asarray, array_api_strict.asarray]
BLOCKS = [Blocks(None), Blocks(8), Blocks(24, write=True)]
BCE = BinaryCrossEntropy()


def column(values):
    return np.reshape(np.asarray(values, float), (-1, 1, 1))


def judge(logits, target, weight, pos_weight):
    return oracle.binary_cross_entropy_with_logits(
        logits,
        target,
        1 if weight is None else weight,
        pos_weight=1 if pos_weight is None else pos_weight,
        reduction="none",
    )


@pytest.mark.parametrize("weights", [(False, False), (True, False), (False, True), (True, True)])
def test_vjp_and_jvp_are_finite_differences_of_the_oracle(rng, weights):
    given = [column(rng.normal(0, 3, 5)), column(rng.random(5))]
    given += [column(rng.uniform(0.5, 2, 5)) if needed else None for needed in weights]
    upstream = rng.normal(size=(5, 1))
    places = [i for i, a in enumerate(given) if a is not None]
    slopes = {}
    for place in places:

        def moved(values, place=place):
            return judge(*(values if i == place else a for i, a in enumerate(given)))

        slopes[place] = np.asarray(
            exact.differences(moved, given[place], upstream[:, :, None]), float
        )
    tangents = [None if a is None else column(rng.normal(size=5)) for a in given]
    right = math.fsum(float(np.sum(slopes[p] * tangents[p])) for p in places)

    wanted = tuple(a is not None for a in given)
    for array, blocks in itertools.product(ARRAYS, BLOCKS):
        ready, moves = (
            tuple(None if a is None else array(a) for a in arrays) for arrays in (given, tangents)
        )
        xp = namespace(ready[0])
        (loss,), residuals = BCE.forward(xp, ready, blocks)
        expected = np.asarray(judge(*given), float)[:, :, 0]
        np.testing.assert_allclose(np.asarray(loss), expected, rtol=1e-15)
        gradients = BCE.vjp(xp, ready, residuals, (array(upstream),), wanted, blocks)
        for place, gradient in enumerate(gradients):
            assert (gradient is None) == (given[place] is None)
            if gradient is not None:
                close = {"rtol": 1e-13, "atol": 1e-15}
                np.testing.assert_allclose(np.asarray(gradient), slopes[place], **close)
        (dloss,) = BCE.jvp(xp, ready, residuals, moves, blocks)
        got = math.fsum(np.ravel(np.asarray(dloss) * upstream))
        assert got == pytest.approx(right, rel=1e-12, abs=1e-13)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_what_is_wanted_is_given(wanted):
    given = (column([1.0, 2.0]), column([0.0, 1.0]), None, None)
    gradients = BCE.vjp(np, given, (), (np.ones((2, 1)),), (*wanted, False, False), Blocks(8))
    assert tuple(g is not None for g in gradients) == (*wanted, False, False)


def test_a_tangent_of_one_array_alone(rng):
    given = (column(rng.normal(size=3)), column(rng.random(3)), None, None)
    (moved,) = BCE.jvp(np, given, (), (column([1.0, 1.0, 1.0]), None, None, None), Blocks())
    right = 1 / (1 + np.exp(-given[0])) - given[1]
    np.testing.assert_allclose(moved, right[:, :, 0], rtol=1e-13)


@pytest.mark.parametrize("gap", [30.0, 88.0, 700.0])
def test_small_losses_and_gradients_keep_their_digits(gap):
    given = (column([gap, -gap]), column([1.0, 0.0]), None, None)
    ((loss,), _), tail = BCE.forward(np, given, Blocks()), math.exp(-gap)
    np.testing.assert_allclose(loss[:, 0], [math.log1p(tail)] * 2, rtol=5e-16)
    gradients = BCE.vjp(np, given, (), (np.ones((2, 1)),), (True, True, False, False), Blocks())
    sigmoid = tail / (1 + tail)
    np.testing.assert_allclose(gradients[0].ravel(), [-sigmoid, sigmoid], rtol=5e-16)
    np.testing.assert_array_equal(gradients[1].ravel(), [-gap, gap])


def test_the_loss_is_the_output_itself():
    assert op(Spec()) == BCE
    outputs = (np.array([[2.0]]),)
    assert value(outputs, None, Spec()) is outputs[0]
    assert partials(np, outputs, None, Spec())[0].tolist() == [[1.0]]
