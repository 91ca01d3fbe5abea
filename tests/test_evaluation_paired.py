"""evaluation.paired: percentiles, bits, and losses that are infinite."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

import xent
from xent.evaluation.paired import _percentiles

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn, softmax


def test_percentiles_are_numpys(rng: np.random.Generator) -> None:
    values = rng.standard_normal(101)
    for q, value in _percentiles(values, (0, 0.1, 33.3, 50, 99, 100)).items():
        assert value == pytest.approx(np.percentile(values, q), abs=1e-14)
    assert _percentiles(np.array([1.0, math.inf]), (0, 50, 100)) == {
        0: 1,
        50: math.inf,
        100: math.inf,
    }


def test_bits(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 200, 5)
    new = logits * np.float32(1.3)
    nats, bits = (xent.compare(logits, new, target, unit_base=base) for base in (None, 2))
    for name in ("base_loss", "new_loss", "difference", "kl"):
        assert getattr(bits, name).mean == pytest.approx(getattr(nats, name).mean / math.log(2))
    assert bits.kl_at[50] == pytest.approx(nats.kl_at[50] / math.log(2))
    assert bits.ratio == nats.ratio


def test_two_kinds_can_be_compared(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 200, 5, "float64")
    told = xent.compare(logits, softmax(logits), target)
    assert told.kinds == ("logits", "probabilities")
    assert told.kl.mean == pytest.approx(0, abs=1e-14)


def test_a_target_that_lost_its_probability(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 20, 5)
    new = logits.copy()
    new[3, target[3]] = -np.inf
    told = xent.compare(logits, new, target)
    assert (told.kl.mean, told.kl_at[100], told.new_loss.mean) == (math.inf,) * 3
    assert math.isfinite(told.kl_at[50])
    assert told.change_at[0] == pytest.approx(-softmax(logits)[3, target[3]])
    assert "inf" in str(told)
