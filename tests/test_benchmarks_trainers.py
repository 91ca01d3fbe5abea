"""The benchmark of patched models, at toy size."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from xent.bench.report import marks

pytest.importorskip("transformers")
FILE = Path(__file__).parents[1] / "benchmarks" / "trainers.py"


@pytest.fixture(scope="module")
def trainers():
    spec = importlib.util.spec_from_file_location("trainers", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["trainers"] = module
    spec.loader.exec_module(module)
    return module


def test_both_ways_have_the_same_loss_and_their_line(trainers):
    case = trainers.QUICK[0]
    runs = [trainers.child(case, patched) for patched in (False, True)]
    assert runs[1]["loss"] == pytest.approx(runs[0]["loss"], rel=1e-6)
    assert all(run["seconds"] > 0 for run in runs)
    found = {way: [run] for way, run in zip(trainers.WAYS, runs, strict=True)}
    runs[0]["bytes"] = 3_000_000
    text = trainers.table([{**trainers.asdict(case), "found": found}], "Here.")
    assert text.startswith("Here.\n\n| parameters |")
    assert "| float32 | 0 | as it is | 3 (3 - 3) |" in text
    assert text.count("\n") == 5


def test_the_page_has_the_marks(trainers):
    page = trainers.PAGE.read_text(encoding="utf-8")
    assert [page.count(mark) for mark in marks(trainers.MARKS)] == [1, 1]
