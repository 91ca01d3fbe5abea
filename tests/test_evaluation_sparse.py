"""evaluation.sparse: top-k log-probabilities beside the whole rows that they stand for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xent

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn, softmax

CLASSES, K = 30, 6


@pytest.fixture
def case(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    logits, target = drawn(rng, 400, CLASSES, "float64", right=0.4)
    target[::11] = -100
    p = softmax(logits)
    indices = np.argsort(-p, axis=1)[:, :K]
    values = np.log(np.take_along_axis(p, indices, 1))
    whole = np.repeat((1 - np.exp(values).sum(1, keepdims=True)) / (CLASSES - K), CLASSES, 1)
    np.put_along_axis(whole, indices, np.exp(values), 1)
    return values, indices, whole, target


def test_the_rest_is_shared_by_the_other_classes(case: tuple[np.ndarray, ...]) -> None:
    values, indices, whole, target = case
    told = xent.evaluate(values, target, kind="top-k", indices=indices, classes=CLASSES)
    full = xent.evaluate(whole, target, kind="probabilities")
    for name in ("loss", "accuracy", "top_accuracy", "brier", "entropy", "ece", "baseline"):
        assert getattr(told, name) == pytest.approx(getattr(full, name), rel=1e-9), name
    assert (told.kind, told.classes, told.ignored) == ("top-k", CLASSES, full.ignored)
    assert told.temperature is None
    assert [w["row"] for w in told.worst] == [w["row"] for w in full.worst]


def test_one_npz_holds_both(case: tuple[np.ndarray, ...], own_folder: Path) -> None:
    values, indices, _, target = case
    np.savez("top.npz", values=values, indices=indices)
    one = xent.evaluate("top.npz", target, classes=CLASSES)
    two = xent.evaluate(values, target, kind="top-k", indices=indices, classes=CLASSES)
    assert (one.kind_detected, one.loss) == (True, two.loss)


@pytest.mark.parametrize("wrong", ["twice", "outside", "sum"])
def test_a_row_that_is_no_distribution_is_named(wrong: str, case: tuple[np.ndarray, ...]) -> None:
    values, indices, _, target = case
    if wrong == "sum":
        values[5, 0] = 0.1
    else:
        indices[5, 0] = {"twice": indices[5, 1], "outside": CLASSES}[wrong]
    given: dict[str, Any] = {"kind": "top-k", "indices": indices, "classes": CLASSES}
    with pytest.raises(ValueError, match=r"array has no distribution at row 5, expected different"):
        xent.evaluate(values, target, **given)
    assert xent.evaluate(values, target, skip_bad=True, **given).skipped == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"classes": CLASSES},
            "indices has value None, expected the classes of the values, (N, k)",
        ),
        ({"indices": np.zeros((400, K), int)}, "classes has value None, expected 6 or more, V of"),
        ({"indices": np.zeros((400, 2), int), "classes": 9}, "shape (400, 2), expected (400, 6)"),
        (
            {"indices": np.zeros((400, K), int), "classes": 9, "label_smoothing": 0.1},
            "label_smoothing has value 0.1, expected 0 for top-k",
        ),
    ],
)
def test_what_is_missing_is_told(
    options: dict[str, Any], told: str, case: tuple[np.ndarray, ...]
) -> None:
    values, _, _, target = case
    with pytest.raises(ValueError, match="evaluate: ") as error:
        xent.evaluate(values, target, kind="top-k", **options)
    assert told in str(error.value)
