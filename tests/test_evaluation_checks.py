"""evaluation.checks: the full texts of what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xent
from xent.evaluation import checks

LOGITS, TARGET = np.zeros((4, 3)), np.zeros(4, int)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"kind": "scores"},
            "kind has value 'scores', expected one of auto, logits, probabilities",
        ),
        ({"base": 10}, "base has value 10, expected None or 2"),
        ({"label_smoothing": 2}, "label_smoothing has value 2, expected a number in [0, 1]"),
        ({"temperature": "hot"}, "temperature has value 'hot', expected sample, all or none"),
        ({"bins": 0}, "bins has value 0, expected 1 or more"),
        ({"top": 0}, "top has value 0, expected 1 or more"),
        ({"worst": -1}, "worst has value -1, expected 0 or more"),
        ({"bootstrap": 1}, "bootstrap has value 1, expected 0, or 2 or more"),
        ({"chunk_mb": 0}, "chunk_mb has value 0, expected a number above 0"),
        ({"axis": 2}, "axis has value 2, expected an axis of array, of shape (4, 3)"),
        ({"weight": np.ones(4)}, "array has shape (4,), expected (3,), one per class"),
        ({"weight": np.array([1, -1, 0])}, "array has value -1, expected weights >= 0"),
        (
            {"row_weight": np.ones(3)},
            "array has shape (3,), expected (4,), a row for each of array",
        ),
        ({"ignore_index": 0}, "array has 4 ignored and 0 broken rows and no other, expected a row"),
    ],
)
def test_options_are_checked(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="evaluate: ") as error:
        xent.evaluate(LOGITS, TARGET, **options)
    assert str(error.value).startswith(f"evaluate: {told}")


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ((np.zeros(3), TARGET), "array has shape (3,), expected rows and classes, (N, V)"),
        ((np.zeros((0, 3)), TARGET), "array has shape (0, 3), expected at least one row and one"),
        ((LOGITS.astype(complex), TARGET), "an array has dtype complex128, expected numbers"),
        (
            (LOGITS, np.zeros(5, int)),
            "array has shape (5,), expected (4,), a row for each of array",
        ),
    ],
)
def test_arrays_are_checked(arrays: tuple[Any, ...], told: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        xent.evaluate(*arrays)
    assert str(error.value).startswith(f"evaluate: {told}")


def test_a_comparison_is_checked() -> None:
    with pytest.raises(
        ValueError, match=r"array has shape \(4, 2\), expected \(4, 3\), that of arr"
    ):
        xent.compare(LOGITS, LOGITS[:, :2], TARGET)
    with pytest.raises(
        ValueError, match=r"kind has value 'top-k', expected one with all classes: the"
    ):
        xent.compare(LOGITS, LOGITS, TARGET, kind="top-k")


def test_a_broken_row_says_where() -> None:
    row = checks.Bad(17, 3, "x.npy", "value nan", "a number")
    assert str(row) == "x.npy has value nan at row 17, class 3, expected a number"
    with pytest.raises(ValueError, match=r"compare: x\.npy has value nan at row 17, class 3"):
        checks.broken("compare", row)
    with pytest.raises(IndexError):
        checks.broken("compare", row._replace(expected="a class in [0, 3)"))
