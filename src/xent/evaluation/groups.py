"""Groups within which rows vary together: a label for each row, which may be a number or a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xent.evaluation import checks, files
from xent.evaluation.predictions import Predictions, column

TEXTS = {".csv": b",", ".tsv": b"\t"}
TABLES = (".parquet", ".arrow")


class Groups(NamedTuple):
    """The number of each row's group, in the order of the labels, and how many groups there are."""

    of: np.ndarray  # (N,) int64
    size: int


def groups(function: str, given: Any, like: Predictions) -> Groups | None:
    """The groups of an array, or of a file of labels; None for None.

    A label of a .csv or .tsv is what stands between two separators; where there is a line more than
    there are rows, the first has names.
    """
    if given is None:
        return None
    found = _texts(function, given, like)
    if found is None:
        numbers = column(function, given, like, "biufUS", 0)
        labels, of = np.unique(numbers.flat, return_inverse=True)
        return Groups(of.reshape(-1), len(labels))
    seen: dict[Any, int] = {}
    of = np.fromiter((seen.setdefault(label, len(seen)) for label in found), np.int64)
    checks.same_rows(function, str(given), of.shape, like.name, like.lead)
    order = np.empty(len(seen), np.int64)
    order[sorted(range(len(seen)), key=_by(list(seen)))] = np.arange(len(seen))
    return Groups(order[of], len(seen))


def _by(labels: list[Any]) -> Any:
    """What to order labels by: as numbers where all are numbers."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return labels.__getitem__
    return numbers.__getitem__


def _texts(function: str, given: Any, like: Predictions) -> Iterator[Any] | None:
    """The labels of a text or of a table's column of texts; None for every other kind of file."""
    if not isinstance(given, (str, Path)) or str(given) == "-":
        return None
    path, key = files.split(str(given))
    suffix = path.suffix.lower()
    if suffix not in (*TEXTS, *TABLES) or not path.is_file():
        return None
    if suffix in TABLES:
        from xent.evaluation import tables

        return tables.labels(function, path, key)
    return _lines(function, path, key, TEXTS[suffix], like.count)


def _lines(
    function: str, path: Path, key: str | None, separator: bytes, rows: int
) -> Iterator[bytes]:
    with path.open("rb") as file:
        count = sum(1 for line in file if line.strip())
        file.seek(0)
        lines = (line.strip().removeprefix(b"\xef\xbb\xbf") for line in file if line.strip())
        at = 0
        if key is not None or count == rows + 1:
            names = [cell.decode().strip('"') for cell in next(lines, b"").split(separator)]
            if key is not None and key not in names:
                has, expected = f"no column {key!r}", f"one of {', '.join(names)}"
                checks.unreadable(function, str(path), has, expected)
            at = names.index(key) if key is not None else 0
        for row, line in enumerate(lines):
            cells = line.split(separator)
            if len(cells) <= at or (key is None and len(cells) > 1):
                has, expected = f"{len(cells)} columns", "one, or the name of one after a colon"
                checks.broken(function, checks.Bad(row, -1, str(path), has, expected))
            yield cells[at]
