"""evaluation.uncertainty: standard errors by their definitions, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xent
from xent.evaluation import uncertainty


def test_of_equal_rows_it_is_the_textbooks(rng: np.random.Generator) -> None:
    loss = rng.exponential(size=500)
    found = uncertainty.of_rows(500, 500, loss.sum(), (500, loss.sum(), (loss**2).sum()))
    assert found == pytest.approx(loss.std(ddof=1) / math.sqrt(500), rel=1e-9)
    each = uncertainty.of_groups(np.ones(500), loss)
    assert each == pytest.approx(found, rel=1e-9)
    assert math.isnan(uncertainty.of_rows(1, 1, 1, (1, 1, 1)))
    assert math.isnan(uncertainty.of_groups(np.array([3.0, 0.0]), np.array([1.0, 0.0])))


def test_rows_of_a_group_count_once(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((200, 5)), rng.integers(0, 5, 200)
    alone = xent.evaluate(logits, target, temperature="none")
    four = np.repeat(logits, 4, axis=0), np.repeat(target, 4)
    group = np.repeat(np.arange(200), 4) * 10
    told = xent.evaluate(*four, group=group, temperature="none")
    assert told.standard_error == pytest.approx(alone.standard_error, rel=1e-9)
    assert (told.error_of, alone.error_of) == ("groups", "rows")
    assert xent.evaluate(*four).standard_error < 0.6 * alone.standard_error
    new = logits + 0.1 * rng.standard_normal(logits.shape)
    pairs = xent.compare(logits, new, target)
    grouped = xent.compare(four[0], np.repeat(new, 4, axis=0), four[1], group=group)
    assert grouped.difference.error == pytest.approx(pairs.difference.error, rel=1e-9)


@pytest.mark.parametrize("group", [None, np.arange(400) // 2])
def test_the_bootstrap_agrees_and_repeats(
    group: np.ndarray | None, rng: np.random.Generator
) -> None:
    logits, target = rng.standard_normal((400, 5)), rng.integers(0, 5, 400)
    plain = xent.evaluate(logits, target, group=group)
    told = [xent.evaluate(logits, target, group=group, bootstrap=2000, seed=s) for s in (1, 1, 2)]
    assert told[0].interval == told[1].interval != told[2].interval
    assert told[0].error_of == f"bootstrap of {plain.error_of}"
    assert told[0].standard_error == pytest.approx(plain.standard_error, rel=0.12)
    assert told[0].interval == pytest.approx(plain.interval, abs=0.3 * plain.standard_error)


def test_weighted_rows(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((300, 5)), rng.integers(0, 5, 300)
    weight = rng.integers(0, 3, 300)
    loss = xent.cross_entropy(logits, target, reduction="none")
    told = xent.evaluate(logits, target, row_weight=weight)
    mean = np.average(loss, weights=weight)
    assert told.loss == pytest.approx(mean, rel=1e-12)
    error = math.sqrt((weight**2 * (loss - mean) ** 2).sum() * 300 / 299) / weight.sum()
    assert told.standard_error == pytest.approx(error, rel=1e-9)
