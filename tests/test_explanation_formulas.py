"""explanation.formulas: what they depend on, and that TeX can read them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET

CALLS: list[dict[str, Any]] = [
    {},
    {"label_smoothing": 0.1},
    {"weight": [1.0, 2.0, 3.0]},
    {"weight": [1.0, 2.0, 3.0], "label_smoothing": 0.1, "z_loss": 0.1, "softcap": 5.0},
    {"logit_scale": 0.5, "reduction": "sum"},
    {"normalizer": 3.0},
    {"reduction": "none"},
]


@pytest.mark.parametrize("options", CALLS)
@pytest.mark.parametrize("target", [TARGET, np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])])
def test_every_formula_is_read_by_matplotlib(options: dict[str, Any], target: Any) -> None:
    parser = MathTextParser("path")
    for step in xent.explain(LOGITS, target, **options).steps:
        # mathtext has no ε, no \left around [i = j] and no \top under these names
        latex = step.latex.replace(r"\quad", r"\;")
        found = parser.parse(f"${latex}$")
        assert found.width > 10, step.name
        assert step.latex.count("{") == step.latex.count("}")
        assert len(re.findall(r"\\left\b", latex)) == len(re.findall(r"\\right\b", latex))
        assert step.formula


def formula(name: str, **options: Any) -> str:
    return xent.explain(LOGITS, options.pop("target", TARGET), **options)[name].formula


def test_formulas_say_what_is_asked_and_no_more() -> None:
    weight = [1.0, 2.0, 3.0]
    assert formula("measure") == "t_c = [c = y],  m = Σ_c t_c"
    assert formula("measure", target=LOGITS).startswith("t_c = q_c,")
    assert formula("measure", weight=weight, label_smoothing=0.1) == (
        "t_c = w_c ((1 - ε) [c = y] + ε / V),  m = Σ_c t_c"
    )
    assert formula("measure", weight=weight) == "t_c = w_c [c = y],  m = Σ_c t_c"
    assert formula("denominator") == "D = Σ_n w_n"
    assert formula("denominator", target=LOGITS) == "D = N"
    assert formula("denominator", normalizer=2.0) == "D = normalizer"
    assert formula("denominator", reduction="sum") == "D = 1"
    assert formula("loss", reduction="sum") == "L = Σ_n loss_n"
    assert formula("loss", reduction="none") == "L_n = loss_n"
    assert formula("gradient", reduction="sum") == "∂L / ∂x_c = ∂loss / ∂u_c"
    assert formula("gradient", logit_scale=2.0) == "∂L / ∂x_c = (1 / D) s ∂loss / ∂u_c"
    assert formula("row_gradient", z_loss=0.1).endswith(" + 2 ζ w lse p_c")
    assert "ζ" not in formula("row_loss")
