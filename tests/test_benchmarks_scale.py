"""The cost model of docs/scale.md: what it counts is what a call does."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
scale = importlib.util.module_from_spec(spec)
sys.modules["scale"] = scale
spec.loader.exec_module(scale)


def test_the_page_shows_the_results():
    results = json.loads(scale.RESULTS.read_text(encoding="utf-8"))
    assert scale.report(results) in scale.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("size", scale.SIZES)
def test_the_bytes_of_the_model_were_measured(size):
    results = json.loads(scale.RESULTS.read_text(encoding="utf-8"))
    n, v, d = results["case"].values()
    job = scale.Job(n, v, d, split=size, item=4)
    model = [scale.told(job), scale.by_hidden(job)] if size > 1 else []
    assert results[str(size)]["collectives"] == model
    assert scale.head_cost(job, scale.H100)["collectives"] == len(model)


def test_classes_split_divide_the_work_and_not_the_rows():
    one = scale.Job(8192, 128_256, 4096, split=2)
    two = replace(one, split=4)
    costs = [scale.head_cost(job, scale.H100) for job in (one, two)]
    assert costs[0]["flops"] == 2 * costs[1]["flops"]
    assert costs[0]["told"] == costs[1]["told"] == 8 * (2 + 3 * 8192)
    assert costs[0]["added"] == 4 * 8192 * 4096
    # one process makes three products, for it needs nobody else's numbers
    alone = scale.head_cost(replace(one, split=1), scale.H100)
    assert alone["flops"] == 2 * costs[0]["flops"] * 3 / 4
    assert alone["exchange"] == 0


def test_a_ring_takes_what_a_ring_takes():
    link = scale.Link(1.0, 8.0)
    assert scale.gather(4, 16, link) == 3 * (1 + 2)
    assert scale.reduce(4, 32, link) == 6 * (1 + 1)
