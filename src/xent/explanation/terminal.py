"""An explanation for rich: titles, formulas and tables that a terminal can colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from xent.explanation.record import Explanation, Step
from xent.explanation.record import Table as Cells

INDENT = 3
CROWDED = 7  # columns


def blocks(told: Explanation) -> Iterator[Any]:
    """What rich prints, one under the other."""
    from rich.rule import Rule
    from rich.text import Text

    yield Text(told.heading, style="bold")
    for title, steps in told.parts():
        yield Text()
        yield Rule(Text(title, style="bold"), align="left", style="dim")
        for number, step in steps:
            yield Text()
            yield from _step(number, step)


def _step(number: int, step: Step) -> Iterator[Any]:
    from rich.padding import Padding
    from rich.text import Text

    def inside(shown: Any) -> Padding:
        return Padding(shown, (0, 0, 0, INDENT))

    yield Text(f"{number}. {step.title}", style="bold")
    yield inside(Text(step.formula, style="cyan"))
    yield inside(Text(step.text))
    if step.table is not None:
        yield Text()
        yield inside(_table(step.table))
    if step.worked:
        yield Text()
        yield from (inside(Text(line, style="green")) for line in step.worked)
    if step.notes:
        yield Text()
        style = "" if step.name == "worst" else "dim"
        yield from (inside(Text(note, style=style)) for note in step.notes)


def _table(cells: Cells) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    crowded = cells.marked and len(cells.header) >= CROWDED  # a mark is room enough
    room = 0 if crowded else 1
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, room, 0, 0))
    for i, name in enumerate(cells.header):
        shown = Text(f"{name} " if cells.marked and i else name)
        table.add_column(shown, justify="right" if i else "left", overflow="fold")
    for r, row in enumerate(cells.rows):
        line = []
        for c, cell in enumerate(row):
            marked = (r, c) in cells.marked
            after = ("*" if marked else " ") if cells.marked and c else ""
            line.append(Text(cell + after, style=_style(cell, marked)))
        table.add_row(*line)
    return table


def _style(cell: str, marked: bool) -> str:
    if cell in ("nan", "inf", "-inf"):
        return "red"
    return "bold yellow" if marked else ""
