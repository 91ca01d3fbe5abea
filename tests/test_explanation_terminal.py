"""explanation.terminal: what rich prints, with colour on a terminal alone."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

import xent

sys.path.insert(0, str(Path(__file__).parent))
from command import COLOUR
from explained import LOGITS, TARGET

GOLDEN = """\
7. Probabilities
   p_c = softmax(u)_c = exp(u_c) / Σ_k exp(u_k) = e_c / S
   Softmax: every row sums to 1.

   row  class 0   class 1   class 2
  ───────────────────────────────────
   0     0.6590    0.2424*   0.0986
   1     0.0728*   0.4868    0.4404
"""


def printed(told: object, **options: object) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False, **options)  # pyright: ignore
    console.print(told)
    return console.file.getvalue()  # pyright: ignore


def squeezed(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip(" ─")]


def test_all_that_plain_text_has_is_printed() -> None:
    told = xent.explain(LOGITS, TARGET)
    text = printed(told, force_terminal=False)
    assert not COLOUR.search(text)
    for number, step in enumerate(told.steps, start=1):
        assert f"{number}. {step.title}" in text
        assert all(line in text for line in step.worked)
    assert squeezed(GOLDEN) == squeezed(text[text.index("7. Prob") : text.index("8. Target")])


def test_numbers_that_are_none_are_red_and_targets_stand_out() -> None:
    text = printed(xent.explain(LOGITS, TARGET), force_terminal=True, color_system="standard")
    assert COLOUR.search(text)
    assert "\x1b[31m" in text[text.index("Numerics") :]
    assert re.search(r"\x1b\[1;33m *0\.2424\*", text)


def test_lines_are_as_wide_as_the_terminal(rng: np.random.Generator) -> None:
    told = xent.explain(rng.standard_normal((30, 4)), rng.integers(0, 4, 30), lang="ko")
    from rich.cells import cell_len

    assert max(cell_len(line) for line in printed(told, force_terminal=False).splitlines()) <= 80
