"""explanation.latex: balanced, escaped, and every line of numbers readable as mathematics."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from matplotlib.mathtext import MathTextParser

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET, calls

from xent.explanation.latex import escaped, number, table, worked
from xent.explanation.record import Table


def balanced(text: str) -> bool:
    """Whether braces and environments close in order."""
    depth, plain = 0, re.sub(r"\\[{}\\]", "", text)
    for letter in plain:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if depth < 0:
            return False
    begun, ended = (re.findall(rf"\\{kind}{{(\w+)}}", text) for kind in ("begin", "end"))
    return depth == 0 and sorted(begun) == sorted(ended)


@settings(max_examples=20)
@given(calls())
def test_everything_is_balanced(call: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    logits, target, options = call
    for lang in ("en", "ko"):
        text = xent.explain(logits, target, lang=lang, rows=3, **options)._repr_latex_()
        assert text.startswith("$$\n")
        assert text.endswith("\n$$")
        assert "$" not in text[2:-2]
        assert balanced(text)
        bare = re.sub(r"\\text(bf)?{[^{}]*}", "", text)
        assert not re.search(r"(?<!\\)[%#]", bare)
        assert bare.isascii(), set(re.findall(r"[^\x00-\x7f]", bare))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_written_out_numbers_are_read_by_matplotlib(reduction: str) -> None:
    parser = MathTextParser("path")
    told = xent.explain(
        LOGITS, TARGET, label_smoothing=0.1, z_loss=1e-5, reduction=reduction, softcap=1.0
    )
    for step in told.steps:
        for line in step.worked:
            if "=" in line:
                latex = worked(line).replace(r"\quad", r"\;")
                assert parser.parse(f"${latex}$").width > 10


def test_numbers_and_texts() -> None:
    assert number("2.061e-09") == r"2.061 \times 10^{-9}"
    assert number("") == ""
    assert number("> 99.9 %") == r"\text{> 99.9 \%}"
    assert escaped(r"a_b^2 {50 %} \ ~ $ # &") == (
        r"a\_b\textasciicircum 2 \{50 \%\} \textbackslash  \textasciitilde  \$ \# \&"
    )
    assert worked("∂loss / ∂u_12 = 3 × 0.5") == (
        r"\partial \mathrm{loss} / \partial u_{12} = 3 \times  0.5"
    )


def test_the_cell_of_a_target_is_boxed() -> None:
    shown = table(Table(("row", "p_1"), (("0", "0.5"), ("1", "inf")), frozenset({(0, 1)})))
    assert shown == (
        r"\begin{array}{l|r} \text{row} & p_{1} \\ \hline 0 & \boxed{0.5} \\ 1 & \infty  "
        r"\end{array}"
    )
