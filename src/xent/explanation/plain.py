"""An explanation as plain text: what is printed into a file or a pipe."""

from __future__ import annotations

import unicodedata

from xent.explanation.record import Explanation, Step, Table

WIDTH = 88
INDENT = "   "


def text(told: Explanation) -> str:
    """All parts and steps, one under the other."""
    lines = [told.heading, "=" * width(told.heading)]
    for title, steps in told.parts():
        lines += ["", title, "-" * width(title)]
        for number, step in steps:
            lines += ["", *_step(number, step)]
    return "\n".join(lines)


def width(shown: str) -> int:
    """The columns of a terminal that a text takes: a Korean letter takes two.

    >>> width("loss"), width("손실")
    (4, 4)
    """
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in shown)
    return len(shown) + wide


def wrapped(said: str) -> list[str]:
    """Lines of a text that fit."""
    lines: list[str] = []
    for word in said.split(" "):
        if lines and width(f"{lines[-1]} {word}") <= WIDTH - len(INDENT):
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def table_lines(table: Table) -> list[str]:
    """A table: names to the left, numbers to the right, two spaces apart; * marks targets."""
    marked = [
        [row[0], *(c + ("*" if (r, i) in table.marked else " ") for i, c in enumerate(row) if i)]
        if table.marked
        else list(row)
        for r, row in enumerate(table.rows)
    ]
    after = " " if table.marked else ""
    header = [table.header[0], *(name + after for name in table.header[1:])]
    rows = [header, *marked]
    widths = [max(width(row[i]) for row in rows) for i in range(len(header))]
    return ["  ".join(_padded(row, widths)).rstrip() for row in rows]


def _padded(row: list[str], widths: list[int]) -> list[str]:
    room = [" " * (w - width(cell)) for cell, w in zip(row, widths, strict=True)]
    return [row[0] + room[0], *(r + cell for r, cell in zip(room[1:], row[1:], strict=True))]


def _step(number: int, step: Step) -> list[str]:
    lines = [f"{number}. {step.title}", INDENT + step.formula]
    lines += [INDENT + line for line in wrapped(step.text)]
    if step.table is not None:
        lines += ["", *(INDENT + line for line in table_lines(step.table))]
    if step.worked:
        lines += ["", *(INDENT + line for line in step.worked)]
    if step.notes:
        lines.append("")
        for note in step.notes:
            first, *others = wrapped(note)
            lines += [INDENT + first, *(f"{INDENT}  {line}" for line in others)]
    return [line.rstrip() for line in lines]
