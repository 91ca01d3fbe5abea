"""What the breakdown of torch's function computes, where it is right (docs/sources.md).

Its numbers are printed to four digits, and so are the logits they come from: a number is checked
to within what rounding the logits and rounding the number can move it.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import xent
import xent.nn

HALF_DIGIT = 5e-5
LOGITS = np.array(
    [
        [1.3877, -1.2656, -0.9112],
        [0.6011, 0.0092, -0.0982],
        [-0.0674, -0.2059, 0.3410],
        [1.3918, 0.2355, 0.4159],
        [-0.6652, -1.6354, -0.9315],
    ]
)
TARGET = np.array([2, 0, 1, 0, 1])
EXP = [
    [4.0058, 0.2821, 0.4020],
    [1.8241, 1.0093, 0.9065],
    [0.9349, 0.8139, 1.4064],
    [4.0222, 1.2656, 1.5157],
    [0.5142, 0.1949, 0.3940],
]
SUMS = [4.6899, 3.7398, 3.1551, 6.8035, 1.1030]
SOFTMAX = [
    [0.8541, 0.0601, 0.0857],
    [0.4877, 0.2699, 0.2424],
    [0.2963, 0.2580, 0.4457],
    [0.5912, 0.1860, 0.2228],
    [0.4662, 0.1767, 0.3572],
]
PICKED = [0.0857, 0.4877, 0.2580, 0.5912, 0.1767]
NLL = [2.4566, 0.7180, 1.3550, 0.5256, 1.7335]
LOSS = 1.3577

SECOND = np.array([[-0.6471, 1.2743, 1.5036], [-0.6790, 0.3743, -0.1474]])
SECOND_EXP = [[0.5236, 3.5764, 4.4981], [0.5071, 1.4539, 0.8630]]
SECOND_SUMS = [8.5980, 2.8240]
SECOND_SOFTMAX = [[0.0609, 0.4160, 0.5232], [0.1796, 0.5148, 0.3056]]
SECOND_LOG_SOFTMAX = [[-2.7986, -0.8772, -0.6479], [-1.7172, -0.6639, -1.1855]]


def assert_printed(number: object, printed: object, slope: object = 1.0) -> None:
    """`slope` is how far the number moves, at most, when the logits move by 1."""
    error = np.abs(np.asarray(number) - np.asarray(printed))
    assert np.all(error <= HALF_DIGIT * (1 + np.asarray(slope)))


@pytest.mark.parametrize(
    ("logits", "exp", "sums"), [(LOGITS, EXP, SUMS), (SECOND, SECOND_EXP, SECOND_SUMS)]
)
def test_exponentials_and_their_sums(logits: np.ndarray, exp: list, sums: list) -> None:
    """exp(x) is exp(x - lse) times exp(lse): softmax times the sum that logsumexp is the log of."""
    total = np.exp(np.asarray(xent.logsumexp(logits, axis=1)))
    assert_printed(total, sums, slope=sums)
    assert_printed(np.asarray(xent.softmax(logits)) * total[:, None], exp, slope=exp)


@pytest.mark.parametrize(("logits", "printed"), [(LOGITS, SOFTMAX), (SECOND, SECOND_SOFTMAX)])
def test_softmax_of_the_printed_batches(logits: np.ndarray, printed: list) -> None:
    assert_printed(xent.softmax(logits), printed, slope=0.5)


def test_log_softmax_of_the_second_batch() -> None:
    assert_printed(xent.log_softmax(SECOND), SECOND_LOG_SOFTMAX, slope=2)
    assert_printed(np.log(np.asarray(xent.softmax(SECOND))), SECOND_LOG_SOFTMAX, slope=2)


def test_probabilities_and_losses_of_the_targets() -> None:
    log_probs = -np.asarray(xent.cross_entropy(LOGITS, TARGET, reduction="none"))
    assert_printed(np.exp(log_probs), PICKED, slope=0.5)
    assert_printed(-log_probs, NLL, slope=2)


def test_loss_of_the_batch_four_ways() -> None:
    """log of softmax, log-softmax and a pick, nll of log-softmax, cross entropy: 1.3577."""
    rows = np.arange(5)
    probabilities = np.asarray(xent.softmax(LOGITS))
    log_probs = xent.log_softmax(LOGITS)
    ways = [
        -np.log(probabilities[rows, TARGET]).mean(),
        -np.asarray(log_probs)[rows, TARGET].mean(),
        float(xent.nll_loss(log_probs, TARGET)),
        float(xent.cross_entropy(LOGITS, TARGET)),
    ]
    for loss in ways:
        assert_printed(loss, LOSS, slope=2)
        assert loss == pytest.approx(ways[0], rel=1e-14)


def test_loss_of_the_batch_is_torch_s() -> None:
    logits, target = torch.tensor(LOGITS), torch.tensor(TARGET)
    theirs = torch.nn.functional.cross_entropy(logits, target)
    torch.testing.assert_close(xent.cross_entropy(logits, target), theirs)
    with pytest.warns(UserWarning, match="Implicit dimension"):
        log_probs = torch.nn.LogSoftmax()(logits)
    torch.testing.assert_close(xent.nn.LogSoftmax(dim=-1)(logits), log_probs)


def test_two_classes_are_logistic_regression(rng: np.random.Generator) -> None:
    """Softmax of [0, z] is the sigmoid of z, and cross entropy the loss of logistic regression."""
    z, y = rng.normal(size=20), rng.integers(0, 2, 20)
    sigmoid = np.exp(z) / (1 + np.exp(z))
    written = -(y * np.log(sigmoid) + (1 - y) * np.log(1 - sigmoid))
    logits = np.stack([np.zeros(20), z], axis=1)
    np.testing.assert_allclose(np.asarray(xent.softmax(logits))[:, 1], sigmoid, rtol=1e-14)
    multi = xent.cross_entropy(logits, y, reduction="none")
    binary = xent.binary_cross_entropy_with_logits(z, y.astype(np.float64), reduction="none")
    np.testing.assert_allclose(multi, written, rtol=1e-12)
    np.testing.assert_allclose(binary, written, rtol=1e-12)


def test_log_of_a_quotient_is_the_difference(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4, 6))
    difference = logits - np.asarray(xent.logsumexp(logits, axis=1))[:, None]
    np.testing.assert_allclose(xent.log_softmax(logits), difference, rtol=1e-12)


def test_picking_the_target_is_the_sum_over_a_one_hot_target(rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    written = -math.fsum((np.eye(4)[target] * np.log(p)).ravel()) / 6
    assert float(xent.cross_entropy(logits, np.eye(4)[target])) == pytest.approx(written, rel=1e-13)
    assert float(xent.cross_entropy(logits, target)) == pytest.approx(written, rel=1e-13)
