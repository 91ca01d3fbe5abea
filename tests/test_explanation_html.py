"""explanation.html: well-formed, needing nothing else, in light and dark."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET

from xent.explanation.html import STYLE, formula, table
from xent.explanation.record import Table

EMPTY = {"meta", "br", "hr", "img", "link"}


class Tags(HTMLParser):
    """All tags, which must be closed in order, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_a_page_is_well_formed_and_has_every_number(lang: str) -> None:
    told = xent.explain(LOGITS, TARGET, label_smoothing=0.1, softcap=30.0, lang=lang)
    tags = Tags(told.html())
    assert {"html", "head", "body", "table", "sub", "sup"} <= set(tags.seen)
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    shown = [row[1:] for step in told.steps if step.table for row in step.table.rows]
    assert [cell.rstrip("*") for cell in tags.cells] == [cell for row in shown for cell in row]
    assert f'<html lang="{lang}">' in told.html()


def test_the_style_is_scoped_and_knows_both_lights() -> None:
    assert "prefers-color-scheme: dark" in STYLE
    assert "http" not in xent.explain(LOGITS, TARGET).html()
    rules = [line for line in STYLE.splitlines() if line.startswith((".", "body"))]
    assert rules
    assert all("xent-explain" in line or line.endswith(",") or "vscode" in line for line in rules)


def test_cells_that_stand_out() -> None:
    shown = table(Table(("a_c", "<b>"), (("x", "nan"), ("y", "1")), frozenset({(1, 1)})))
    assert '<td class="bad">nan</td>' in shown
    assert '<td class="target">1*</td>' in shown
    assert "a<sub>c</sub>" in shown
    assert "&lt;b&gt;" in shown


def test_formulas_have_indices_and_exponents() -> None:
    assert formula("ℝ^(2 × 3)") == "ℝ<sup>2 × 3</sup>"
    assert formula("log p_c") == "<b>log</b> p<sub>c</sub>"
    assert formula("loss_n & u_10") == "<b>loss</b><sub>n</sub> &amp; u<sub>10</sub>"


def test_a_long_batch_is_short_on_the_page(rng: np.random.Generator) -> None:
    told = xent.explain(rng.standard_normal((2000, 100)), rng.integers(0, 100, 2000))
    assert len(told.html()) < 60_000
