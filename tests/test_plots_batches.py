"""plots.batches: the map is the gradient, the diagram is the evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from scipy import special

import xent
from xent import plots


def shown(ax) -> np.ndarray:
    (image,) = (child for child in ax.get_children() if isinstance(child, AxesImage))
    return np.asarray(image.get_array())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_map_is_torchs_gradient(smoothing: float, rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    target[2] = -100
    before = logits.copy()
    ax = plots.gradient_map(logits, target, Figure().add_subplot(), label_smoothing=smoothing)
    given = torch.tensor(logits, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(given, torch.tensor(target), label_smoothing=smoothing)
    loss.backward()
    assert given.grad is not None
    np.testing.assert_allclose(shown(ax), given.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(logits, before)
    assert f"{loss.item():.4f} nats" in ax.get_title()
    (dots,) = ax.collections
    kept = [row for row in range(6) if row != 2]
    np.testing.assert_array_equal(dots.get_offsets(), [[target[row], row] for row in kept])
    bar = ax.figure.axes[1]
    assert bar.get_ylabel() == "dloss/dlogit (nats per unit of logit)"
    lowest, highest = shown(ax).min(), shown(ax).max()
    np.testing.assert_allclose(bar.get_ylim(), np.array([-1, 1]) * max(-lowest, highest))


def test_probabilities_and_one_row(rng: np.random.Generator) -> None:
    logits, p = rng.standard_normal(5), rng.dirichlet(np.ones(5))
    ax = plots.gradient_map(logits, p, Figure().add_subplot())
    np.testing.assert_allclose(shown(ax), [special.softmax(logits) - p], rtol=1e-9, atol=1e-12)
    assert not ax.collections


def test_each_row_has_its_own_gradient_without_a_reduction(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((3, 4)), np.array([0, 3, 1])
    ax = plots.gradient_map(logits, target, Figure().add_subplot(), reduction="none")
    expected = special.softmax(logits, axis=1) - np.eye(4)[target]
    np.testing.assert_allclose(shown(ax), expected, rtol=1e-9, atol=1e-12)


def test_a_batch_without_a_kept_row_can_be_drawn() -> None:
    ax = plots.gradient_map(np.zeros((2, 3)), [-100, -100], Figure().add_subplot(), reduction="sum")
    assert not shown(ax).any()


def test_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, V\) or \(V,\)"):
        plots.gradient_map(np.zeros((2, 3, 4)), np.zeros((2, 4), int), Figure().add_subplot())


@pytest.mark.parametrize("classes", [3, 100])
def test_the_diagram_is_the_evaluation(classes: int, rng: np.random.Generator) -> None:
    logits = rng.standard_normal((600, classes))
    told = xent.evaluate(logits, rng.integers(0, classes, 600))
    ax = plots.reliability(told, Figure().add_subplot())
    filled = [b for b in told.bins if b.share]
    assert [bar.get_height() for bar in ax.patches] == [b.accuracy for b in filled]
    dots = next(line for line in ax.get_lines() if line.get_marker() == "o")
    assert list(dots.get_xdata()) == [b.confidence for b in filled]
    assert f"ECE {100 * told.ece:.2f} %" in ax.get_title()
