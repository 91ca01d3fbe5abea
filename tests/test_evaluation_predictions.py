"""evaluation.predictions: class axes, kinds, targets, and rows that are no prediction."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import xent
from xent.evaluation.predictions import column, numbers_of, predictions

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn, softmax


@pytest.mark.parametrize("shape", [(6, 5), (4, 5, 3), (2, 3, 5, 4), (1, 5, 7)], ids=str)
def test_rows_of_any_class_axis(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    array = rng.standard_normal(shape)
    for axis in (1, -1, len(shape) - 1):
        found = predictions("evaluate", array, axis, "logits")
        rows = np.moveaxis(array, axis, -1).reshape(-1, shape[axis])
        assert (found.count, found.classes) == rows.shape
        for start in range(found.count):
            for stop in range(start + 1, found.count + 1):
                assert np.array_equal(found.raw(start, stop), rows[start:stop])
        some = rng.integers(0, found.count, 5)
        assert np.array_equal(found.take(some), rows[some])


def test_an_image_is_evaluated_as_torch_does(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((3, 5, 8, 6)), rng.integers(0, 5, (3, 8, 6))
    told = xent.evaluate(logits, target, axis=1, chunk_mb=0.001)
    assert told.rows == 3 * 8 * 6
    assert told.loss == pytest.approx(float(xent.cross_entropy(logits, target)), rel=1e-12)


def test_half_precision_is_widened_exactly() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = np.isfinite(every)
    assert np.array_equal(
        numbers_of(every[finite]).view(np.uint32), every[finite].astype(np.float32).view(np.uint32)
    )
    assert np.array_equal(numbers_of(every), every.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("broken", [0, 100, 399])
def test_the_kind_is_told_from_most_rows(broken: int, rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 400, 6)
    p = softmax(logits)
    p[broken] *= 1.5
    for kind, array in (("probabilities", p), ("log-probabilities", np.log(p))):
        assert predictions("evaluate", array, -1, "auto").kind == kind
        text = rf"array has probabilities that sum to 1\.5\d* at row {broken}, expected 1 within 0"
        with pytest.raises(ValueError, match=text):
            xent.evaluate(array, target)
        told = xent.evaluate(array, target, skip_bad=True)
        assert (told.skipped, len(told.bad), told.rows) == (1, 1, 400)


@pytest.mark.parametrize(
    ("value", "kind", "told"),
    [
        (np.nan, "logits", "array has value nan at row 3, class 2, expected a number"),
        (np.inf, "logits", "array has value inf at row 3, class 2, expected a number"),
        (-0.25, "probabilities", "array has value -0.25 at row 3, class 2, expected a probability"),
        (0.9999, "probabilities", "array has probabilities that sum to"),
    ],
)
def test_a_broken_row_is_named(
    value: float, kind: str, told: str, rng: np.random.Generator
) -> None:
    logits, target = drawn(rng, 30, 4)
    array = softmax(logits) if kind == "probabilities" else logits
    array[3, 2] = value
    for use in (
        lambda **o: xent.evaluate(array, target, kind=kind, **o),
        lambda **o: xent.compare(array, array, target, kind=kind, **o),
    ):
        with pytest.raises(ValueError, match="at row 3") as error:
            use()
        assert told in str(error.value)
        left = use(skip_bad=True)
        assert (left.skipped, left.bad[0].startswith(told)) == (1, True)
    kept = np.arange(30) != 3
    alone = xent.evaluate(array[kept], target[kept], kind=kind)
    skipped = xent.evaluate(array, target, kind=kind, skip_bad=True)
    assert (alone.loss, alone.accuracy, alone.entropy) == pytest.approx(
        (skipped.loss, skipped.accuracy, skipped.entropy), rel=1e-12
    )


def test_a_row_that_is_ignored_may_be_broken(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 30, 4)
    target[3] = -100
    clean = xent.evaluate(logits, target)
    logits[3] = np.nan
    assert xent.evaluate(logits, target).loss == clean.loss
    logits[4] = -np.inf
    with pytest.raises(ValueError, match=r"no value but -inf at row 4, expected a finite logit"):
        xent.evaluate(logits, target)


@pytest.mark.parametrize("value", [4, -1, 2**40, -(2**40)])
def test_a_target_that_is_no_class_is_named(value: int, rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 30, 4)
    target[11] = value
    for use in (
        lambda: xent.evaluate(logits, target),
        lambda: xent.compare(logits, logits, target),
    ):
        with pytest.raises(IndexError) as error:
            use()
        expected = f"array has target {value} at row 11, expected a class in [0, 4) or ignore_index"
        assert expected in str(error.value)
    wide = target.astype(np.float64)
    wide[11] = 1.5
    with pytest.raises(IndexError, match=r"target 1\.5 at row 11"):
        xent.evaluate(logits, wide)


def test_columns_have_a_number_for_each_row(rng: np.random.Generator) -> None:
    found = predictions("evaluate", rng.standard_normal((6, 4)), -1, "auto")
    assert column("evaluate", np.arange(6)[:, None], found, "i", 0).flat.tolist() == [*range(6)]
    with pytest.raises(
        ValueError, match=r"array has shape \(5,\), expected \(6,\), a row for each"
    ):
        column("evaluate", np.arange(5), found, "i", 0)
