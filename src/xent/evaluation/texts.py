"""Numbers in .csv and .tsv text: read some lines at a time, a first line of names is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np

from xent.evaluation import checks

LINES = 4096  # parsed at a time


def read(
    function: str, name: str, file: BinaryIO, separator: bytes, key: str | None = None
) -> tuple[type, Iterator[np.ndarray], int | None]:
    """The dtype, the pieces and the width of a text of numbers: None for a single column.

    A key names one column of a text whose first line has names. Empty lines are left out; rows are
    counted from 0, the first line after the names.
    """
    lines = (line.strip() for line in file)
    lines = (line for line in lines if line)
    first = next(lines, None)
    if first is None:
        return checks.unreadable(function, name, "no lines", "a row of numbers on each line")
    cells = first.removeprefix(b"\xef\xbb\xbf").split(separator)
    names = None if all(map(_is_number, cells)) else [c.decode().strip().strip('"') for c in cells]
    column = _column(function, name, names, key)
    width = 1 if column is not None else len(cells)
    start = [separator.join(cells)] if names is None else []

    def pieces() -> Iterator[np.ndarray]:
        rest, row = chain(start, lines), 0
        while block := list(islice(rest, LINES)):
            yield _parsed(function, name, block, separator, len(cells), column, row)
            row += len(block)

    # What a double holds is what the text says, to its last digit; so are class numbers.
    return np.float64, pieces(), None if width == 1 else width


def _column(function: str, name: str, names: list[str] | None, key: str | None) -> int | None:
    if key is None:
        return None
    if names is None or key not in names:
        expected = f"one of {', '.join(names)}" if names else "a first line of names"
        return checks.unreadable(function, name, f"no column {key!r}", expected)
    return names.index(key)


def _is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parsed(
    function: str,
    name: str,
    block: list[bytes],
    separator: bytes,
    width: int,
    column: int | None,
    row: int,
) -> Any:
    flat = separator.join(block).split(separator)
    if len(flat) == len(block) * width:
        try:
            table = np.array(flat, dtype=np.float64).reshape(len(block), width)
        except ValueError:
            table = None
        if table is not None and all(line.count(separator) == width - 1 for line in block):
            wanted = table[:, column] if column is not None else table
            return wanted[:, 0] if column is None and width == 1 else wanted
    return _wrong(function, name, block, separator, width, row)


def _wrong(
    function: str, name: str, block: list[bytes], separator: bytes, width: int, row: int
) -> None:
    """Raise for the first line that is not numbers, or not as many as the first line has."""
    for i, line in enumerate(block):
        cells = line.split(separator)
        if len(cells) != width:
            bad = checks.Bad(
                row + i, -1, name, f"{len(cells)} columns", f"{width}, as the first row"
            )
            return checks.broken(function, bad)
        for j, cell in enumerate(cells):
            if not _is_number(cell):
                has = f"value {cell.decode(errors='replace')!r}"
                return checks.broken(function, checks.Bad(row + i, j, name, has, "a number"))
    return None
