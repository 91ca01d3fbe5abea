"""evaluation.measures: the worst rows, the classes, and the bins of losses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import xent
from xent.evaluation.measures import LOSS_BINS, loss_bin

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn


def test_the_worst_rows_are_those_of_largest_loss(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 70_000, 3, "float64")
    loss = xent.cross_entropy(logits, target, reduction="none")
    order = np.argsort(-loss, kind="stable")[:25]
    told = xent.evaluate(logits, target, worst=25).worst
    assert [row["row"] for row in told] == order.tolist()
    assert [row["loss"] for row in told] == pytest.approx(loss[order])
    assert [row["target"] for row in told] == target[order].tolist()
    assert [row["predicted"] for row in told] == logits[order].argmax(axis=1).tolist()


def test_equal_losses_are_listed_from_the_first_row() -> None:
    told = xent.evaluate(np.zeros((50, 4)), np.zeros(50, int), worst=3).worst
    assert [row["row"] for row in told] == [0, 1, 2]


def test_each_class_has_its_numbers(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 900, 6, "float64")
    target[target == 2] = 3
    loss = xent.cross_entropy(logits, target, reduction="none")
    k = logits.argmax(axis=1)
    for row in xent.evaluate(logits, target).per_class:
        of = target == row["class"]
        assert (row["rows"], row["predicted"]) == (of.sum(), (k == row["class"]).sum())
        if of.any():
            assert row["loss"] == pytest.approx(loss[of].mean(), rel=1e-12)
            assert row["accuracy"] == pytest.approx((k[of] == target[of]).mean())


def test_losses_are_counted_in_tenths_of_decades() -> None:
    loss = np.array([0.0, 1e-9, 1.05e-8, 0.11, 1.01, 999.0, 1001.0, np.inf])
    assert loss_bin(loss).tolist() == [0, 0, 1, 71, 81, 110, LOSS_BINS - 1, LOSS_BINS - 1]
