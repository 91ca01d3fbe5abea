"""What the forum thread computes and claims, where it is right (docs/sources.md)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

import xent
import xent.nn
from xent import manual


def test_loss_of_a_one_hot_target(rng: np.random.Generator) -> None:
    """-one_hot (logits - lse), summed over the classes, averaged over the rows."""
    logits, target = rng.normal(size=(3, 10)), rng.integers(0, 10, 3)
    lse = np.log(np.exp(logits).sum(axis=1, keepdims=True))
    written = math.fsum((-np.eye(10)[target] * (logits - lse)).ravel()) / 3
    one_hot = xent.cross_entropy(logits, np.eye(10)[target])
    assert float(one_hot) == pytest.approx(written, rel=1e-13)
    assert float(xent.cross_entropy(logits, target)) == pytest.approx(written, rel=1e-13)


def test_backward_by_autograd_and_by_hand_agree(rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(3, 10)), rng.integers(0, 10, 3)
    tensor = torch.tensor(logits, requires_grad=True)
    torch.nn.functional.cross_entropy(tensor, torch.tensor(target)).backward()
    assert tensor.grad is not None
    layer = manual.CrossEntropyLoss()
    layer.forward(logits, target)
    np.testing.assert_allclose(layer.backward(), tensor.grad, rtol=1e-12)


def test_gradient_of_the_answers(rng: np.random.Generator) -> None:
    """softmax / N off the target and (softmax - 1) / N on it, in one line (softmax - one_hot) / N.

    The answers' longer formula is the same: softmax (1 - one_hot) + (softmax - 1) one_hot, over N.
    """
    logits, target = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    p, one_hot = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), np.eye(4)[target]
    _, vjp = xent.cross_entropy_vjp(logits, target)
    np.testing.assert_allclose(vjp(1.0), (p - one_hot) / 6, rtol=1e-12)
    longer = p / 6 * (1 - one_hot) + (p - 1) * one_hot / 6
    np.testing.assert_allclose(vjp(1.0), longer, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient_is_scaled_for_the_reduction(reduction: str, rng: np.random.Generator) -> None:
    """Mean, sum and weighted mean differ in the scale of (softmax - one_hot) alone."""
    logits, target = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    weight = rng.uniform(0.5, 2, 4)
    p, one_hot = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), np.eye(4)[target]
    loss, vjp = xent.cross_entropy_vjp(logits, target, weight, reduction=reduction)
    denominator = weight[target].sum() if reduction == "mean" else 1.0
    scaled = weight[target][:, None] * (p - one_hot) / denominator
    upstream = np.ones_like(loss) if reduction == "none" else 1.0
    np.testing.assert_allclose(vjp(upstream), scaled, rtol=1e-12)


def test_a_hundred_steps_of_adam(rng: np.random.Generator) -> None:
    """3 rows of 10 classes, learning rate 0.5: torch's loss and xent's fall together."""
    start, target = torch.tensor(rng.normal(size=(3, 10))), torch.tensor(rng.integers(0, 10, 3))

    def train(criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> tuple:
        logits = torch.nn.Parameter(start.clone())
        adam = torch.optim.Adam([logits], lr=0.5)
        losses = []
        for _ in range(100):
            adam.zero_grad()
            loss = criterion(logits, target)
            loss.backward()
            adam.step()
            losses.append(loss.item())
        return losses, logits.detach()

    theirs, their_logits = train(torch.nn.CrossEntropyLoss())
    ours, our_logits = train(xent.nn.CrossEntropyLoss())
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)
    torch.testing.assert_close(our_logits, their_logits)
    assert ours[-1] < 0.02 * ours[0]


def test_squared_error_and_its_gradient(rng: np.random.Generator) -> None:
    """The thread's aside, one column: the mean of squares, and -2 (labels - prediction) / N."""
    labels, prediction = rng.normal(size=6), rng.normal(size=6)
    tensor = torch.tensor(prediction, requires_grad=True)
    loss = ((torch.tensor(labels) - tensor) ** 2).mean()
    loss.backward()
    written = -2 * (labels - prediction) / 6
    assert tensor.grad is not None
    np.testing.assert_allclose(tensor.grad, written, rtol=1e-14)


def test_squared_error_on_probabilities_vanishes_where_cross_entropy_does_not() -> None:
    """Why a classifier's loss is not squared error: a confident mistake must still have a slope."""
    logits = torch.tensor([[20.0, 0.0]], dtype=torch.float64, requires_grad=True)
    wrong = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    (squared,) = torch.autograd.grad(((wrong - logits.softmax(1)) ** 2).mean(), logits)
    assert squared.abs().max() < 1e-8
    (slope,) = torch.autograd.grad(xent.cross_entropy(logits, wrong), logits)
    np.testing.assert_allclose(slope, [[1, -1]], atol=1e-8)
