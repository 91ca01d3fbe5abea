"""explanation.told: which rows and classes are shown, and their numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET, shown


def test_all_rows_are_shown_where_they_are_few() -> None:
    _, told = shown(LOGITS, [1, -100])
    assert told.index.tolist() == [0, 1]
    assert told.row.tolist() == [0]
    assert told.gradient.shape == (2, 3)


def test_the_worst_rows_are_shown_and_broken_ones_first(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((40, 5)), rng.integers(0, 5, 40)
    logits[7, 0], logits[9, target[9]] = np.nan, -np.inf
    target[11] = -100
    logits[11] = np.inf
    losses = np.asarray(xent.cross_entropy(logits, target, reduction="none"))
    _, told = shown(logits, target, rows=5)
    finite = np.argsort(-np.where(np.isfinite(losses), losses, -1.0))
    assert told.index.tolist() == [7, 9, *finite[:3]]
    assert told.example == 2
    np.testing.assert_allclose(told.loss[2:], losses[finite[:3]], rtol=1e-14)


def test_no_more_rows_than_take_part(rng: np.random.Generator) -> None:
    target = np.full(20, -100)
    target[3] = 1
    _, told = shown(rng.standard_normal((20, 3)), target, rows=5)
    assert told.index.tolist() == [3]


def test_targets_and_the_likeliest_classes_are_shown() -> None:
    logits = np.zeros((2, 30))
    logits[0, [20, 25]] = 5.0, 4.0
    logits[1, [10, 15]] = 5.0, 4.0
    _, told = shown(logits, [3, 28], classes=6)
    assert told.columns.tolist() == [3, 10, 15, 20, 25, 28]
    _, told = shown(logits, [3, 28], classes=1)
    assert told.columns.tolist() == [3]
    _, told = shown(np.full((1, 30), np.nan), [28], classes=3)
    assert len(told.columns) == 3
    assert 28 in told.columns


def test_the_target_measure_has_smoothing_and_weights_in_it() -> None:
    weight = np.array([1.0, 2.0, 4.0])
    _, told = shown(LOGITS, TARGET, weight, label_smoothing=0.3)
    np.testing.assert_allclose(told.t, weight * [[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]], rtol=1e-15)
    q = np.array([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    _, told = shown(LOGITS, q, weight)
    np.testing.assert_allclose(told.t, weight * q, rtol=1e-15)
    np.testing.assert_allclose(told.mass, [1.5, 3.6], rtol=1e-15)


def test_a_confident_row_keeps_its_digits() -> None:
    _, told = shown([[20.0, 0.0]], [0])
    np.testing.assert_allclose(told.loss, np.log1p(np.exp(-20.0)), rtol=1e-15)
    np.testing.assert_allclose(told.log_p[0, 0], -np.log1p(np.exp(-20.0)), rtol=1e-15)
    np.testing.assert_allclose(told.gradient[0, 0], np.expm1(-told.loss[0]), rtol=1e-15)
