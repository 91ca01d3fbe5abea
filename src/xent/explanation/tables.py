"""Tables of the numbers of rows: a line for each row, a column for each class that is shown."""

from __future__ import annotations

from xent.explanation.batch import Array, Batch
from xent.explanation.digits import cells
from xent.explanation.record import Table
from xent.explanation.told import Told
from xent.explanation.words import Words


def by_class(
    batch: Batch,
    told: Told,
    words: Words,
    values: Array,
    more: dict[str, Array] | None = None,
    own: bool = False,
) -> Table:
    """(R, V) values of the rows that take part, and further columns (R,)."""
    more = more or {}
    lines = []
    for r, row in enumerate(told.row):
        line = cells(values[r, told.columns], own)
        lines.append((batch.label(int(row)), *line, *cells([m[r] for m in more.values()])))
    return Table((*header(batch, told, words), *more), tuple(lines), marks(told))


def header(batch: Batch, told: Told, words: Words) -> tuple[str, ...]:
    """The names of the rows' column and of the classes': numbers alone where there are many."""
    if len(told.columns) < batch.classes:
        return (words("row.class"), *(str(int(c)) for c in told.columns))
    return (words("row"), *(words("class", c=int(c)) for c in told.columns))


def marks(told: Told) -> frozenset[tuple[int, int]]:
    """The cells of the targets."""
    if told.codes is None:
        return frozenset()
    place = {int(c): i + 1 for i, c in enumerate(told.columns)}
    return frozenset((r, place[int(c)]) for r, c in enumerate(told.codes) if int(c) in place)


def left_out(batch: Batch, told: Told, words: Words) -> tuple[str, ...]:
    """What of the batch is not shown."""
    found = [words("starred")] if told.codes is not None and len(told.row) else []
    if len(told.index) < batch.count:
        found.append(words("shown.rows", shown=len(told.index), rows=f"{batch.count:,}"))
    if len(told.columns) < batch.classes:
        shown = len(told.columns)
        found.append(words("shown.classes", shown=shown, classes=f"{batch.classes:,}"))
    return tuple(found)
