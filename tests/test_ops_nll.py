"""Negative log likelihood as an op: linear in the log-probabilities, transposed by its vjp."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import torch

from xent.inputs import namespace
from xent.ops.blocks import Blocks
from xent.ops.nll import NegativeLogLikelihood, op, partials, value
from xent.ops.stats import IGNORED, INVALID
from xent.spec import Spec

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
BLOCKS = [Blocks(None), Blocks(1), Blocks(70, write=True)]
NLL = NegativeLogLikelihood()


@LIBRARIES
@pytest.mark.parametrize("weighted", [False, True])
def test_forward_vjp_and_jvp(rng, weighted, array):
    log_probs, tangent = rng.normal(size=(2, 3, 2, 4))
    codes, upstream = rng.integers(0, 4, (3, 2)), rng.normal(size=(3, 2))
    codes[1, 1] = IGNORED
    weight = rng.uniform(0.5, 2, 4) if weighted else np.ones(4)
    picked = np.where(codes < 0, 0.0, -weight[codes])[:, :, None] * (
        np.arange(4) == codes[:, :, None]
    )
    given = (array(log_probs), array(codes), array(weight) if weighted else None)
    xp = namespace(given[0])
    for blocks in BLOCKS:
        (loss,), residuals = NLL.forward(xp, given, blocks)
        np.testing.assert_array_equal(np.asarray(loss), (picked * log_probs).sum(axis=2))
        gradients = NLL.vjp(xp, given, residuals, (array(upstream),), (True, False, False), blocks)
        np.testing.assert_array_equal(np.asarray(gradients[0]), picked * upstream[:, :, None])
        assert gradients[1:] == (None, None)
        (moved,) = NLL.jvp(xp, given, residuals, (array(tangent), None, None), blocks)
        np.testing.assert_array_equal(np.asarray(moved), (picked * tangent).sum(axis=2))


@LIBRARIES
def test_codes_that_are_no_class(array):
    given = (
        array(np.full((3, 1, 2), math.nan)),
        array(np.array([[IGNORED], [INVALID], [0]])),
        None,
    )
    xp = namespace(given[0])
    (loss,), residuals = NLL.forward(xp, given, Blocks())
    np.testing.assert_array_equal(np.asarray(loss), [[0.0], [math.nan], [math.nan]])
    ones = array(np.ones((3, 1)))
    dx = NLL.vjp(xp, given, residuals, (ones,), (True, False, False), Blocks())[0]
    np.testing.assert_array_equal(np.asarray(dx)[:, 0], [[0, 0], [math.nan] * 2, [-1, 0]])


@LIBRARIES
def test_no_classes(array):
    given = (array(np.zeros((2, 1, 0))), array(np.full((2, 1), IGNORED)), None)
    xp = namespace(given[0])
    (loss,), residuals = NLL.forward(xp, given, Blocks())
    np.testing.assert_array_equal(np.asarray(loss), [[0.0], [0.0]])
    dx = NLL.vjp(xp, given, residuals, (loss,), (True, False, False), Blocks())[0]
    assert tuple(dx.shape) == (2, 1, 0)


def test_the_loss_is_the_output_itself():
    assert op(Spec()) == NLL
    outputs = (np.array([[2.0]]),)
    assert value(outputs, None, Spec()) is outputs[0]
    assert partials(np, outputs, None, Spec())[0].tolist() == [[1.0]]
