"""evaluation.report: plain tables, llama.cpp's table, and JSON without what JSON has not."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np

import xent
from xent.evaluation.report import Section, as_json, evaluation_sections, llama_table, plain

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn


def test_a_plain_table_has_its_numbers_on_the_right() -> None:
    table = Section("Title", ("name", "n"), [("a", "1"), ("long name", "200")])
    assert plain(table) == "Title\nname         n\na            1\nlong name  200"
    assert plain(Section("", (), [("a", "b"), ("ccc", "d")])) == "a    b\nccc  d"


def test_the_report_tells_every_number(rng: np.random.Generator) -> None:
    told = xent.evaluate(*drawn(rng, 200, 5))
    text = str(told)
    for name in ("loss", "standard_error", "bits", "perplexity", "baseline", "brier", "entropy"):
        assert f"{getattr(told, name):.6g}" in text, name
    titles = [section.title for section in evaluation_sections(told, True)]
    assert titles[1:] == [
        "Loss",
        "Likeliest classes and confidence",
        "Calibration",
        "Worst rows",
        "Classes",
    ]


def test_the_table_that_llama_cpp_prints(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 200, 5)
    told = xent.compare(logits, logits * np.float32(1.1), target)
    lines = llama_table(told).splitlines()
    assert f"Mean    KLD                   : {told.kl.mean:10.6f} ± {told.kl.error:10.6f}" in lines
    assert f"Median  KLD                   : {told.kl_at[50]:10.6f}" in lines
    assert f" 99.9%  KLD                   : {told.kl_at[99.9]:10.6f}" in lines
    assert f"Same top p                    : {100:10.3f} ± {0:10.3f} %" in lines
    assert [line for line in lines if line.startswith("=")] == [
        "====== Perplexity statistics ======",
        "====== KL divergence statistics ======",
        "====== Token probability statistics ======",
    ]


def test_json_has_null_for_what_is_not_finite() -> None:
    told = json.loads(as_json(xent.evaluate(np.array([[0.0, -math.inf]]), np.array([1]))))
    assert (told["loss"], told["infinite"], told["rows"]) == (None, 1, 1)
