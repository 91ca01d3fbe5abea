"""explanation.data: the steps as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET

from xent.explanation.data import as_json


def test_json_has_every_number() -> None:
    told = xent.explain(LOGITS, TARGET)
    read = json.loads(as_json(told))
    assert (read["loss"], read["unit"], read["lang"]) == (float(told.loss), "nats", "en")
    assert [step["name"] for step in read["steps"]] == [step.name for step in told.steps]
    by_name = {step["name"]: step for step in read["steps"]}
    np.testing.assert_array_equal(
        by_name["gradient"]["values"]["gradient"], told["gradient"].values["gradient"]
    )
    assert by_name["denominator"]["worked"] == ["D = 1 + 1 = 2"]
    assert by_name["lse"]["formula"] == told["lse"].formula


def test_numbers_that_are_not_finite_are_texts() -> None:
    told = xent.explain([[0.0, -np.inf]], [1])
    read = json.loads(as_json(told))
    assert read["loss"] == "inf"
    inputs = next(step for step in read["steps"] if step["name"] == "input")
    assert inputs["values"]["logits"] == [[0.0, "-inf"]]
    naive = next(step for step in read["steps"] if step["name"] == "naive")
    assert "inf" in naive["values"]["losses"][1][0]
