"""evaluation.single: the record of an evaluation, in nats and in bits."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest

import xent

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn


def test_bits_are_nats_divided_by_log_2(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 300, 6)
    nats, bits = (xent.evaluate(logits, target, base=base) for base in (None, 2))
    assert (nats.unit, bits.unit) == ("nats", "bits")
    for name in ("loss", "standard_error", "entropy", "baseline"):
        assert getattr(bits, name) == pytest.approx(getattr(nats, name) / math.log(2)), name
    assert bits.worst[0]["loss"] == pytest.approx(nats.worst[0]["loss"] / math.log(2))
    for name in ("perplexity", "log_perplexity", "bits", "skill", "brier", "ece"):
        assert getattr(bits, name) == getattr(nats, name), name
    assert nats.perplexity == pytest.approx(math.exp(nats.loss))


def test_perplexity_that_is_too_large_for_a_double_has_a_logarithm() -> None:
    told = xent.evaluate(np.array([[0.0, 2000.0]]), np.array([0]))
    assert (told.perplexity, told.log_perplexity) == (math.inf, 2000)


def test_the_record_is_frozen(rng: np.random.Generator) -> None:
    told = xent.evaluate(*drawn(rng, 10, 3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.loss = 0.0  # type: ignore[misc]
    assert set(told.as_dict()) == {f.name for f in dataclasses.fields(told)}
