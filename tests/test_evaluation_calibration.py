"""evaluation.calibration: bins, their errors, and where a convex loss is least."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xent.evaluation.calibration import best_scale, bins_of, errors


def test_bins_and_their_errors() -> None:
    sums = np.array([[2.0, 0.0, 6.0], [0.4, 0.0, 5.4], [1.0, 0.0, 3.0]])
    bins = bins_of(sums)
    assert [(b.lower, b.upper) for b in bins] == [(0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)]
    assert [b.share for b in bins] == [0.25, 0, 0.75]
    assert (bins[0].confidence, bins[0].accuracy) == (0.2, 0.5)
    assert math.isnan(bins[1].accuracy)
    ece, mce = errors(bins)
    assert ece == pytest.approx(0.25 * 0.3 + 0.75 * 0.4)
    assert mce == pytest.approx(0.4)


@pytest.mark.parametrize("best", [0.003, 0.1, 0.9, 1.0, 1.1, 7.0, 800.0])
def test_the_least_of_a_convex_function(best: float) -> None:
    tried = []

    def at(scale: float) -> tuple[float, float]:
        tried.append(scale)
        return scale - best * math.log(scale), 1 - best / scale

    assert best_scale(at) == pytest.approx(best, rel=1e-6)
    assert len(tried) < 45


def test_a_loss_that_falls_for_ever_has_no_least() -> None:
    assert best_scale(lambda scale: (math.exp(-scale), -1.0)) is None
    assert best_scale(lambda scale: (scale, 1.0)) is None
