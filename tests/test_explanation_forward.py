"""explanation.forward: the steps there are, and the numbers that are written out."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET, calls

from xent.explanation.digits import computed

NAMES = ["input", "shift", "exponentials", "sum", "lse", "log_probabilities", "probabilities"]
NAMES += ["measure", "row_loss", "denominator", "loss", "row_gradient", "gradient", "jacobian"]
NAMES += ["shift_is_safe", "naive"]


def test_the_steps_in_order() -> None:
    assert [step.name for step in xent.explain(LOGITS, TARGET).steps] == NAMES
    capped = [step.name for step in xent.explain(LOGITS, TARGET, softcap=5.0).steps]
    assert capped == ["input", "transform", *NAMES[1:]]


def test_nothing_but_the_end_is_told_where_all_rows_are_ignored() -> None:
    told = xent.explain(LOGITS, [-100, -100])
    names = [step.name for step in told.steps]
    assert names == ["input", "row_loss", "denominator", "loss", "gradient"]
    assert told["denominator"].text.endswith("No row has any weight: 0 / 0 is NaN, as in torch.")
    assert told["loss"].worked == ("L = (0 + 0) / 0 = nan",)
    assert str(told)


@settings(max_examples=40)
@given(calls())
def test_what_is_written_out_adds_up(
    call: tuple[np.ndarray, np.ndarray, dict[str, Any]],
) -> None:
    logits, target, options = call
    told = xent.explain(logits, target, rows=9, classes=20, **options)
    lines = [*told["sum"].worked, *told["row_loss"].worked, *told["loss"].worked]
    for line in lines:
        left, equals, right = re.sub(r"^\[.*?\] ", "", line).partition(" = ")[2].rpartition(" = ")
        if equals:
            value = eval(left.replace("×", "*").replace("²", "**2"))  # only digits and signs
            assert value == pytest.approx(float(right), rel=5e-3, abs=2e-3), line


def test_terms_of_classes_that_are_not_shown_are_one(rng: np.random.Generator) -> None:
    logits = rng.standard_normal((1, 100))
    told = xent.explain(logits, [3], label_smoothing=0.5, classes=4)
    line = told["row_loss"].worked[0]
    left, _, right = line.removeprefix("loss = ").rpartition(" = ")
    assert left.count("×") == 4
    assert len(left.split(" + ")) == 5
    assert eval(left.replace("×", "*")) == pytest.approx(float(right), rel=2e-2)
    assert told["sum"].notes == ("The last term is the sum over 96 classes that are not shown.",)


def test_a_long_sum_is_cut(rng: np.random.Generator) -> None:
    told = xent.explain(rng.standard_normal((30, 3)), rng.integers(0, 3, 30))
    assert told["denominator"].worked == ("D = 1 + 1 + 1 + 1 + ... = 30",)
    total = float(told["loss"].values["sum"])
    assert told["loss"].worked == (f"L = {computed(total)} / 30 = {computed(float(told.loss))}",)


def test_an_infinite_loss_of_probabilities_is_written_out() -> None:
    told = xent.explain([[0.0, -np.inf, 1.0]], [[0.5, 0.5, 0.0]])
    assert told["row_loss"].worked[0].endswith("= inf")
    told = xent.explain([[0.0, -np.inf, 1.0]], [[0.5, 0.0, 0.5]])
    assert np.isfinite(told.loss)
    assert "inf" not in told["row_loss"].worked[0]


def test_texts_tell_the_options() -> None:
    told = xent.explain(
        LOGITS, TARGET, [1.0, 1.0, 2.0], label_smoothing=0.3, z_loss=0.01, softcap=30.0
    )
    assert "ε = 0.3 gives every class 0.1000" in told["measure"].text
    assert "Class weights w" in told["measure"].text
    assert "ζ = 0.01" in told["row_loss"].text
    assert "between -30 and 30" in told["transform"].text
    scaled = xent.explain(LOGITS, TARGET, logit_scale=0.5)
    assert "(a temperature of 2)" in scaled["transform"].text
    assert "ignore_index -1." in xent.explain(LOGITS, [1, -1], ignore_index=-1)["denominator"].text
    assert xent.explain(LOGITS, [1, -1], ignore_index=-1)["denominator"].notes == (
        "Ignored rows: 1 of 2.",
    )
