"""plots.distributions: bars against SciPy's softmax and entropies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import special, stats

from xent import plots


def heights(ax) -> np.ndarray:
    return np.array([bar.get_height() for bar in ax.patches])


def test_temperatures_draw_softmax(rng: np.random.Generator) -> None:
    row, values = rng.standard_normal(4) * 3, [0.25, 1.0, 8.0]
    ax = plots.temperatures(row.tolist(), values, Figure().add_subplot())
    expected = np.concatenate([special.softmax(row / t) for t in values])
    np.testing.assert_allclose(heights(ax), expected, rtol=1e-12)
    looks = {(bar.get_hatch(), bar.get_edgecolor()) for bar in ax.patches}
    assert len(looks) == len(values), "bars that look the same"


def test_bars_of_a_class_stand_apart() -> None:
    ax = plots.temperatures([1.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0], Figure().add_subplot())
    edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches)
    for (_, end), (start, _) in itertools.pairwise(edges):
        assert start >= end - 1e-12


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_bad_temperature_is_named(value: float) -> None:
    with pytest.raises(ValueError, match="expected positive temperatures"):
        plots.temperatures([1.0, 0.0], [1.0, value], Figure().add_subplot())


@pytest.mark.parametrize(("base", "unit"), [(None, "nats"), (2, "bits"), (10, "hartleys")])
def test_the_bar_is_entropy_and_divergence(
    base: float | None, unit: str, rng: np.random.Generator
) -> None:
    p, q = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    ax = plots.entropy_bar(p, q, Figure().add_subplot(), base=base)
    first, second = ax.patches
    assert first.get_width() == pytest.approx(stats.entropy(p, base=base), rel=1e-9)
    assert second.get_width() == pytest.approx(stats.entropy(p, q, base=base), rel=1e-9)
    assert second.get_x() == first.get_width()
    assert unit in ax.get_xlabel()
    assert ax.get_xlim()[1] > first.get_width() + second.get_width()


def test_an_infinite_divergence_is_an_arrow() -> None:
    ax = plots.entropy_bar([0.5, 0.5], [1.0, 0.0], Figure().add_subplot())
    assert [text.get_text() for text in ax.texts] == ["→ ∞"]
    assert "+ inf = inf nats" in ax.get_title()


def test_two_certain_distributions_cost_nothing() -> None:
    ax = plots.entropy_bar([1.0, 0.0], [1.0, 0.0], Figure().add_subplot())
    assert [bar.get_width() for bar in ax.patches] == [0, 0]
    assert ax.get_xlim() == (0, 1)


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(ValueError, match="p"):
        plots.entropy_bar([0.5, 0.6], [0.5, 0.5], Figure().add_subplot())
