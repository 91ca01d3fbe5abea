"""explanation.markdown: headings, tables whose lines have as many cells, formulas in dollars."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET

from xent.explanation.markdown import escaped, table
from xent.explanation.record import Table


def test_headings_formulas_and_tables(rng: np.random.Generator) -> None:
    told = xent.explain(rng.standard_normal((9, 4)), rng.integers(0, 4, 9))
    text = told._repr_markdown_()
    headings = re.findall(r"^#### \d+\. (.*)$", text, re.MULTILINE)
    assert headings == [step.title for step in told.steps]
    for step in told.steps:
        assert f"$$ {step.latex} $$" in text
    assert text.replace(r"\$", "").count("$") % 2 == 0
    tables = re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    assert len(tables) == sum(step.table is not None for step in told.steps)
    for lines in tables:
        assert len({line.replace(r"\|", "").count("|") for line in lines.strip().split("\n")}) == 1


def test_a_table_marks_targets() -> None:
    shown = table(Table(("row", "a_b"), (("0", "1"),), frozenset({(0, 1)})))
    assert shown == "| row | a\\_b |\n|:--|--:|\n| 0 | **1** |"


def test_letters_of_markdown_are_escaped() -> None:
    assert escaped("[0, 1] *") == r"\[0, 1\] \*"
    assert r"\* marks the target." in xent.explain(LOGITS, TARGET)._repr_markdown_()
