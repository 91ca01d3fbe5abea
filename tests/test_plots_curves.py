"""plots.curves: every curve is checked against a formula computed here."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import special, stats

from xent import plots


@pytest.fixture
def ax() -> Axes:
    return Figure(layout="constrained").add_subplot()


def test_information_draws_minus_log_p_in_nats_and_bits(ax: Axes) -> None:
    plots.information(ax)
    p, nats = ax.get_lines()[0].get_data()
    np.testing.assert_array_equal(p, np.linspace(0.01, 1, 100))
    np.testing.assert_allclose(nats, -np.log(p), rtol=1e-15)
    coin = ax.get_lines()[1].get_data()
    np.testing.assert_allclose(coin, [[0.5], [np.log(2)]], rtol=1e-15)
    (bits,) = ax.child_axes
    ax.figure.draw_without_rendering()
    np.testing.assert_allclose(bits.get_ylim(), np.divide(ax.get_ylim(), np.log(2)), rtol=1e-12)
    assert bits.get_ylabel() == "information (bits)"


@pytest.mark.parametrize("std", [0.1, 1.0, 2.5])
def test_normal_entropy_draws_the_density_and_the_samples(ax: Axes, std: float, seed: int) -> None:
    plots.normal_entropy(std, ax, mean=3.0, samples=2000, rng=seed)
    x, density = ax.get_lines()[0].get_data()
    np.testing.assert_allclose(density, stats.norm(3.0, std).pdf(x), rtol=1e-12)
    drawn = np.random.default_rng(seed).normal(3.0, std, 2000)
    heights, edges = np.histogram(drawn, bins=100, density=True)
    bars = ax.patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], heights, rtol=1e-12)
    np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1], rtol=1e-12, atol=1e-12)
    exact = f"{stats.norm(3.0, std).entropy():.4f} nats"
    assert ax.get_title() == f"N(3, {std:g}²): entropy {exact}\ntrapezoid rule: {exact}"


def test_normal_entropy_names_a_bad_std(ax: Axes) -> None:
    with pytest.raises(ValueError, match="std"):
        plots.normal_entropy(0.0, ax)


def test_two_normals_share_their_axes(seed: int) -> None:
    left, right = Figure().subplots(1, 2, sharex=True, sharey=True)
    plots.normal_entropy(1.0, left, rng=seed)
    plots.normal_entropy(2.5, right, rng=seed)
    assert left.get_ylim()[1] > stats.norm.pdf(0), "the higher density is cut off"


@pytest.mark.parametrize("vary", [0, 1, 2])
@pytest.mark.parametrize("target", [0, 2])
def test_loss_curve_draws_the_loss_and_its_slope(ax: Axes, target: int, vary: int) -> None:
    row = [1.0, -0.5, 2.0]
    plots.loss_curve(row, target, ax, vary=vary)
    lines = {str(line.get_label()): line.get_data() for line in ax.get_lines()}
    z, loss = lines["loss (nats)"]
    _, slope = lines[f"dloss/dlogit {vary} (nats per unit)"]
    rows = np.tile(row, (len(z), 1))
    rows[:, vary] = z
    np.testing.assert_allclose(z, row[vary] + np.linspace(-8, 8, 161), rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(loss, -special.log_softmax(rows, axis=1)[:, target], rtol=1e-9)
    expected = special.softmax(rows, axis=1)[:, vary] - (vary == target)
    np.testing.assert_allclose(slope, expected, rtol=1e-9)
    assert row == [1.0, -0.5, 2.0]


def test_loss_curve_marks_the_row_as_given(ax: Axes) -> None:
    plots.loss_curve([0.0, 0.0], 0, ax)
    dots = [line.get_data() for line in ax.get_lines() if line.get_marker() == "o"]
    np.testing.assert_allclose(dots, [[[0.0], [np.log(2)]], [[0.0], [-0.5]]], rtol=1e-15)


def test_loss_curve_refuses_a_target_that_is_no_class(ax: Axes) -> None:
    with pytest.raises(IndexError, match="target"):
        plots.loss_curve([0.0, 0.0], 2, ax)


def test_training_curves_draw_the_losses_as_given(ax: Axes) -> None:
    losses = {str(k): np.linspace(2, 1, k).tolist() for k in range(1, 8)}
    plots.training_curves(losses, ax)
    assert {str(line.get_label()): list(line.get_ydata()) for line in ax.get_lines()} == losses
    assert [list(line.get_xdata()) for line in ax.get_lines()] == [
        list(range(k)) for k in range(1, 8)
    ]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(losses)


def test_equal_trainings_can_be_told_apart(ax: Axes) -> None:
    plots.training_curves({name: [2.0, 1.0] for name in ("torch", "xent", "by hand")}, ax)
    lines = ax.get_lines()
    assert len({line.get_color() for line in lines}) == 3
    assert len({line.get_linestyle() for line in lines}) == 3
    widths = [line.get_linewidth() for line in lines]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 3
