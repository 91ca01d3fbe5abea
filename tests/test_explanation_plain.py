"""explanation.plain: text for a file or a pipe, its columns in line in both languages."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET

from xent.explanation.plain import WIDTH, table_lines, width, wrapped
from xent.explanation.record import Table

GOLDEN = """\
5. Log-sum-exp
   lse = log Σ_c exp(u_c) = max_c u_c + log S
   The logarithm of the normalizing sum; the maximum is put back.

   [0] lse = 2 + log 1.5174 = 2.4170
   [1] lse = 2 + log 2.0544 = 2.7200

6. Log-probabilities
   log p_c = z_c - log S = u_c - lse
   A difference of two numbers that are known, and no logarithm of a probability, which
   may have become 0.

   row  class 0   class 1   class 2
   0    -0.4170   -1.4170*  -2.3170
   1    -2.6200*  -0.7200   -0.8200

7. Probabilities
"""


def test_steps_in_plain_text() -> None:
    text = str(xent.explain(LOGITS, TARGET))
    assert text.startswith("Cross entropy: 2.0185 nats\n==========================\n\nForward\n---")
    assert GOLDEN in text
    assert "\x1b" not in text
    assert not re.search("[─-╿]", text)  # no lines of boxes
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_sentences_fit_and_columns_are_in_line(lang: str, rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((40, 3)), rng.integers(0, 3, 40)
    told = xent.explain(logits, target, lang=lang)
    for step in told.steps:
        assert all(width(line) <= WIDTH for line in wrapped(step.text))
        assert step.table is not None or step.worked or step.name == "loss"
        if step.table is not None:
            lines = table_lines(step.table)
            assert len(lines) == 1 + len(step.table.rows)
            ends = {width(line) for line in lines if not step.table.marked}
            assert len(ends) <= 1


def test_a_table_of_letters_of_two_widths() -> None:
    table = Table(("행", "손실"), (("0", "1.25"), ("손실", "10")), frozenset({(1, 1)}))
    assert table_lines(table) == ["행    손실", "0     1.25", "손실    10*"]
