"""conformance/cases: the file is what the oracle says now, fits its schema, and judges answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from xent.conformance import cases
from xent.conformance.report import FAILED, NOT_OFFERED, PASSED


def test_the_file_is_what_the_oracle_says(tmp_path: Path) -> None:
    cases.write(tmp_path / "cases.json")
    assert (tmp_path / "cases.json").read_text() == cases.FILE.read_text()


def fits(value: object, schema: dict, root: dict) -> bool:
    """As much of JSON Schema as the schema uses."""
    if "$ref" in schema:
        found = root["$defs"][schema["$ref"].rpartition("/")[2]]
        return fits(value, found, root)
    if "anyOf" in schema:
        return any(fits(value, part, root) for part in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = {"string": str, "array": list, "object": dict, "integer": int, "null": type(None)}
    if schema["type"] == "number":
        return isinstance(value, (int, float)) and schema["minimum"] <= value <= schema["maximum"]
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if isinstance(value, str):
        return re.search(schema.get("pattern", ""), value) is not None
    if isinstance(value, list):
        return all(fits(part, schema["items"], root) for part in value)
    if isinstance(value, dict):
        assert set(schema["required"]) == set(value)
        return all(fits(part, schema["properties"][name], root) for name, part in value.items())
    return True


def test_the_file_fits_its_schema() -> None:
    schema = json.loads(cases.FILE.with_name("cases.schema.json").read_text())
    document = json.loads(cases.FILE.read_text())
    assert fits(document, schema, schema)
    assert not fits({**document, "version": 2}, schema, schema)
    names = [entry["name"] for entry in document["cases"]]
    assert len(set(names)) == len(names) >= 100


def answers() -> dict[str, dict[str, object]]:
    """torch's, as another language would write them."""
    found = {}
    for entry in cases.read():
        case = cases.case_of(entry)
        logits = torch.tensor(case.logits, requires_grad=True)
        weight = None if case.weight is None else torch.tensor(case.weight)
        options = {"reduction": case.reduction, "label_smoothing": case.label_smoothing}
        loss = (
            torch.nn.functional.cross_entropy(
                logits, torch.tensor(case.target), weight, ignore_index=case.ignore_index, **options
            )
            if not case.soft
            else torch.nn.functional.cross_entropy(
                logits, torch.tensor(case.target), weight, **options
            )
        )
        up = torch.tensor(case.upstream, dtype=torch.float64).expand(loss.shape)
        (gradient,) = torch.autograd.grad(loss, logits, up)
        found[entry["name"]] = {
            "loss": cases.texts(loss.detach().numpy()),
            "dlogits": cases.texts(gradient.numpy()),
        }
    return found


def test_answers_are_judged() -> None:
    report = cases.judge(answers(), "torch")
    assert {r.name for r in report.of(FAILED)} == {f"stable.tiny_{gap}" for gap in (20, 40, 300)}
    assert len(report.of(PASSED)) > 100


def test_a_wrong_answer_is_named() -> None:
    given = answers()
    entry = next(e for e in cases.read() if e["name"] == "weight.mean.2")
    rows = len(entry["target"])
    weights = sum(float(entry["weight"][y]) for y in entry["target"])
    wrong = float(str(given["weight.mean.2"]["loss"])) * weights / rows
    report = cases.judge({"weight.mean.2": {"loss": wrong}}, "mine")
    assert [r.name for r in report.of(FAILED)] == ["weight.mean.2"]
    assert "divided" in report.causes[0].name
    assert len(report.of(NOT_OFFERED)) == len(cases.read()) - 1


def test_numbers_are_read_as_they_are_written(rng: np.random.Generator) -> None:
    values = rng.standard_normal((3, 2)) * 10.0 ** rng.integers(-300, 300, (3, 2))
    np.testing.assert_array_equal(cases.numbers(cases.texts(values)), values)
    np.testing.assert_array_equal(cases.numbers(cases.texts([np.inf, np.nan])), [np.inf, np.nan])
    assert cases.texts(2.0) == "2"
    with pytest.raises(ValueError, match="could not convert"):
        cases.numbers("x")
