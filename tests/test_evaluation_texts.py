"""evaluation.texts: names on the first line, one column of many, and lines that are wrong."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from xent.evaluation import texts


def read(text: str, key: str | None = None, separator: bytes = b",") -> Any:
    dtype, pieces, width = texts.read(
        "evaluate", "x.csv", io.BytesIO(text.encode()), separator, key
    )
    assert dtype is np.float64
    return np.concatenate(list(pieces)), width


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("names", ["", '"one",two'])
def test_lines_are_rows(end: str, names: str, rng: np.random.Generator) -> None:
    table = rng.standard_normal((5000, 2))
    lines = [",".join(map(repr, row)) for row in table.tolist()]
    found, width = read(end.join(([names] if names else []) + lines) + end)
    assert width == 2
    assert np.array_equal(found, table), "repr is exact"


def test_one_column_is_a_number_for_each_row() -> None:
    found, width = read("3\n\n1\n2\n")
    assert (found.tolist(), width) == ([3, 1, 2], None)
    found, width = read("a\tb\n1\t2\n3\t4\n", "b", b"\t")
    assert (found.tolist(), width) == ([2, 4], None)


@pytest.mark.parametrize(
    ("text", "key", "told"),
    [
        ("1,2\n3,x\n", None, "x.csv has value 'x' at row 1, class 1, expected a number"),
        ("1,2\n3\n", None, "x.csv has 1 columns at row 1, expected 2, as the first row"),
        ("1,2\n3,4,5\n6\n", None, "x.csv has 3 columns at row 1, expected 2, as the first row"),
        ("", None, "x.csv has no lines, expected a row of numbers on each line"),
        ("a,b\n1,2\n", "c", "x.csv has no column 'c', expected one of a, b"),
        ("1,2\n", "c", "x.csv has no column 'c', expected a first line of names"),
    ],
)
def test_wrong_text_is_told(text: str, key: str | None, told: str) -> None:
    with pytest.raises(ValueError, match="evaluate") as error:
        read(text, key)
    assert str(error.value) == f"evaluate: {told}"


def test_a_wrong_line_is_counted_from_the_start_of_the_file() -> None:
    lines = ["1,2"] * 9000 + ["1,?"]
    with pytest.raises(ValueError, match=r"value '\?' at row 9000, class 1"):
        read("\n".join(lines))
