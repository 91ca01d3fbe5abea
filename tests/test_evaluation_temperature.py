"""evaluation.temperature: the least loss, of a sample and of all rows, beside a fit by torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import xent

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn, softmax


@pytest.mark.parametrize("way", ["sample", "all"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_temperature_is_the_one_torch_finds(
    way: str, smoothing: float, weighted: bool, rng: np.random.Generator
) -> None:
    logits, target = drawn(rng, 600, 8, "float64", right=0.7)
    target[::9] = -100
    weight = rng.random(8) + 0.5 if weighted else None
    told = xent.evaluate(
        logits, target, weight=weight, label_smoothing=smoothing, temperature=way
    ).temperature
    assert told is not None
    assert told.temperature is not None
    x, t = torch.from_numpy(logits), torch.from_numpy(target)
    w = None if weight is None else torch.from_numpy(weight)

    def loss(scale: float) -> float:
        return float(torch.nn.functional.cross_entropy(x * scale, t, w, label_smoothing=smoothing))

    scale = 1 / told.temperature
    assert told.rows == np.count_nonzero(target >= 0)
    assert told.before == pytest.approx(loss(1), rel=1e-12)
    assert told.after == pytest.approx(loss(scale), rel=1e-12)
    assert loss(scale) < min(loss(scale * 1.001), loss(scale / 1.001))


def test_a_sample_of_a_large_file_is_close_to_all(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 60_000, 12, right=0.7)
    sample = xent.evaluate(logits, target).temperature
    whole = xent.evaluate(logits, target, temperature="all").temperature
    assert sample is not None
    assert whole is not None
    assert (sample.rows, whole.rows) == (2**14, 60_000)
    assert sample.temperature == pytest.approx(whole.temperature, rel=0.05)
    assert xent.evaluate(logits, target, temperature="none").temperature is None


def test_probabilities_have_a_temperature_too(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 500, 5, "float64", right=0.7)
    of = [xent.evaluate(x, target).temperature for x in (logits, softmax(logits))]
    assert of[0] is not None
    assert of[1] is not None
    assert of[0].temperature == pytest.approx(of[1].temperature, rel=1e-6)


def test_predictions_that_are_all_right_have_none(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 50, 5, right=1.0)
    told = xent.evaluate(logits, target)
    assert told.temperature is not None
    assert told.temperature.temperature is None
    assert "none: the loss has no minimum" in str(told)
