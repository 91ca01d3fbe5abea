"""explanation.tables: rows and classes by name, targets marked, what is left out told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET, shown

from xent.explanation.tables import by_class, header, left_out
from xent.explanation.words import Words

WORDS = Words("en")


def test_a_line_for_each_row_and_a_column_for_each_class() -> None:
    batch, told = shown(LOGITS, TARGET)
    table = by_class(batch, told, WORDS, told.x, {"max": told.top}, own=True)
    assert table.header == ("row", "class 0", "class 1", "class 2", "max")
    assert table.rows == (("0", "2", "1", "0.1", "2"), ("1", "0.1", "2", "1.9", "2"))
    assert table.marked == {(0, 2), (1, 1)}


def test_what_is_left_out_is_told() -> None:
    batch, told = shown(LOGITS, TARGET)
    assert left_out(batch, told, WORDS) == ("* marks the target.",)
    rng = np.random.default_rng(0)
    batch, told = shown(rng.random((50, 40)), rng.random((50, 40)), rows=2, classes=3)
    assert left_out(batch, told, WORDS) == (
        "Rows shown: the 2 of the largest loss, of 50.",
        "Classes shown: 3 of 40, the targets and the likeliest.",
    )
    assert header(batch, told, WORDS) == ("row / class", *(str(c) for c in told.columns))
