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

    def at(scale: float) -> tuple[float, float, float]:
        tried.append(scale)
        return scale - best * math.log(scale), scale - best, best

    for guess in (1.0, 1.01 * best):
        tried.clear()
        found = best_scale(at, guess)
        assert found is not None
        assert found == pytest.approx((best, best - best * math.log(best)), rel=1e-6)
        assert len(tried) < (20 if guess == 1 else 5)


def test_a_loss_that_falls_for_ever_has_no_least() -> None:
    for step in (0.1, 1.0, 20.0):
        falls = step * math.exp(-1 / step)
        assert best_scale(lambda scale, f=falls: (-f * scale, -f * scale, f * scale / 9)) is None

    def tail(scale: float) -> tuple[float, float, float]:
        loss = math.exp(-30 * scale)
        return loss, -30 * scale * loss, (30 * scale) ** 2 * loss

    assert best_scale(tail) is None
    assert best_scale(lambda scale: (scale, 1.0, 0.0)) is None
