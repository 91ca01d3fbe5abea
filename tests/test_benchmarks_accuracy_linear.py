"""The accuracy of linear heads: xent within its contract, the reference right, and faults found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xent.backends import torch_products
from xent.bench.report import marks


@pytest.fixture
def accuracy(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import accuracy

    return accuracy


@pytest.fixture
def heads(accuracy):
    return accuracy.accuracy_linear


def arguments(seed: int, file: Path) -> list[str]:
    return ["--here", "--quick", "--only", "linear", "--seed", str(seed), "--json", str(file)]


def test_xent_is_within_its_contract(accuracy, heads, seed, tmp_path, capsys):
    status = accuracy.main(arguments(seed, tmp_path / "figures.json"))
    assert status == 0, capsys.readouterr().out
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["passed"]
    assert not record["figures"]
    figures = {(f["format"], f["case"], f["quantity"]): f for f in record["linear"]}
    titles = [case.small().title for case in heads.CASES]
    assert set(figures) == {
        (dtype, title, quantity)
        for dtype in heads.TIMES
        for title in titles
        for quantity in heads.QUANTITIES
    }
    loss = figures["bfloat16", titles[0], "loss"]["errors"]
    assert loss["xent"] < 1e-6 < loss["eager"]
    slope = figures["bfloat16", titles[0], "dlinear_weight"]
    assert 1.4e-3 < slope["rounded"] < 1.9e-3
    assert slope["rounded"] <= slope["errors"]["xent"] <= slope["contract"]
    assert slope["contract"] == 1.05 * slope["rounded"]
    assert "xent NumPy" not in slope["errors"]


def test_products_of_bfloat16_are_within_the_contract(heads, monkeypatch, seed):
    monkeypatch.setattr(torch_products, "multiplies_bfloat16", lambda: True)
    ours = {name: heads.SUBJECTS[name] for name in ("xent", "xent rows")}
    monkeypatch.setattr(heads, "SUBJECTS", ours)
    for case in heads.CASES:
        for figure in heads.measure(case.small(), "bfloat16", np.random.default_rng(seed)):
            assert not any(map(figure.outside, figure.errors)), figure


def test_a_fault_is_found(accuracy, heads, monkeypatch, seed, tmp_path, capsys):
    monkeypatch.setitem(heads.SUBJECTS, "xent", heads.SUBJECTS["eager"])
    monkeypatch.setattr(heads, "CASES", heads.CASES[:1])
    given = [*arguments(seed, tmp_path / "figures.json"), "--format", "bfloat16"]
    assert accuracy.main(given) == 1
    printed = capsys.readouterr().out
    assert not json.loads((tmp_path / "figures.json").read_text())["passed"]
    assert f"outside: bfloat16, {heads.CASES[0].small().title}, loss: xent " in printed
    assert "xent rows" not in printed.partition("outside:")[2].partition("gradients")[0]


def test_the_reference_is_that_of_logits(heads, accuracy, seed, monkeypatch):
    monkeypatch.setattr(heads, "ENTRIES", 5 * 512)  # chunks of rows, the last one uneven
    for case in heads.CASES:
        case = replace(case.small(), rows=33)
        drawn = case.draw(np.random.default_rng(seed), "float32")
        loss, dhidden, dweight = heads.exact(*drawn, case.upstream)
        h, w = (a.double().numpy() for a in drawn[:2])
        right = accuracy.answer(h @ w.T, drawn[2].numpy())
        scale = case.upstream / case.rows
        np.testing.assert_allclose(loss, float(right.loss.mean()), rtol=1e-12)
        assert heads.distance(dhidden, scale * (right.dlogits @ w).astype(float)) < 1e-12
        assert heads.distance(dweight, scale * (right.dlogits.T @ h).astype(float)) < 1e-12


def test_a_result_that_is_no_number_is_outside(heads):
    one = np.ones(2)
    assert heads.distance(torch.tensor([1.0, math.nan]), one) == math.inf
    figure = heads.Figure("float16", "", "dhidden", 1e-3, 0.0, {"eager": 0.0, "xent": math.inf})
    assert figure.outside("xent")
    assert not figure.outside("eager")
    assert figure.cells() == ["dhidden", "1.05e-3", "1.00e-3", "0.00e+00", "inf!"]


def test_float32_is_held_to_eager(heads):
    figure = heads.Figure("float32", "", "dhidden", 1e-8, 0.0, {"eager": 1e-7, "xent": 1.2e-7})
    assert figure.limit == heads.SLACK * 1e-7
    assert figure.outside("xent")
    far = {"eager": 1.0, "xent": 1.0}
    assert replace(figure, errors=far).limit == heads.TIMES["float32"] * 1e-8
    assert replace(figure, errors=far, logits=1e-5).limit == 1e-5
    assert replace(figure, quantity="loss").limit == heads.LOSS


def test_a_page_has_the_largest_error_of_all_kernels(heads, tmp_path):
    def run(instructions: str | None, error: float | str) -> dict:
        line = {
            "format": "float16",
            "case": "N = 2",
            "quantity": "dhidden",
            "rounded": 1e-3,
            "logits": 0.0,
        }
        line |= {"contract": 1.05e-3, "errors": {"eager": 1e-2, "xent": error}}
        versions = {"xent": "0.1.0"}
        return {"instructions": instructions, "versions": versions, "linear": [line]}

    page = tmp_path / "page.md"
    begin, end = marks(heads.MARKS)
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
    record = {"seed": 7, "runs": [run("v3", 1.04e-3), run(None, "inf")]}
    heads.write_page(page, record)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{begin}\n")
    assert text.endswith(f"{end}\nafter\n")
    assert "old" not in text
    assert "kernels: v3, none" in text
    assert "| N = 2 | dhidden | 1.05e-3 | 1.00e-3 | 1.00e-2 | inf! |" in text
    heads.write_page(page, {"seed": 7, "runs": []})
    assert page.read_text(encoding="utf-8") == text


def test_the_page_is_made_of_the_results(heads, tmp_path):
    root = Path(__file__).parents[1]
    results = root / "benchmarks" / "results" / "accuracy_linear.json"
    shown = (root / "docs" / "accuracy.md").read_text(encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(shown, encoding="utf-8")
    heads.write_page(page, json.loads(results.read_text()))
    assert page.read_text(encoding="utf-8") == shown
