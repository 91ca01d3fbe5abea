"""An explanation as Markdown with TeX formulas, for notebooks and notes."""

from __future__ import annotations

import re

from xent.explanation.latex import worked
from xent.explanation.record import Explanation, Step, Table


def text(told: Explanation) -> str:
    """Headings, formulas between dollars, tables."""
    parts = [f"## {escaped(told.heading)}"]
    for title, steps in told.parts():
        parts.append(f"### {escaped(title)}")
        for count, step in steps:
            parts += _step(count, step)
    return "\n\n".join(parts) + "\n"


def escaped(said: str) -> str:
    r"""Letters that mean something in Markdown, as themselves.

    >>> escaped("a_b * c | d")
    'a\\_b \\* c \\| d'
    """
    return re.sub(r"([\\`*_\[\]<>$|#~])", r"\\\1", said)


def table(cells: Table) -> str:
    """A table; the targets' cells are bold."""
    lines = [
        "| " + " | ".join(escaped(name) for name in cells.header) + " |",
        "|:--|" + "--:|" * (len(cells.header) - 1),
    ]
    for r, row in enumerate(cells.rows):
        shown = [
            f"**{escaped(cell)}**" if (r, c) in cells.marked else escaped(cell)
            for c, cell in enumerate(row)
        ]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _step(count: int, step: Step) -> list[str]:
    parts = [f"#### {count}. {escaped(step.title)}", f"$$ {step.latex} $$", escaped(step.text)]
    if step.table is not None:
        parts.append(table(step.table))
    if step.worked:
        lines = [f"${worked(line)}$" if "=" in line else escaped(line) for line in step.worked]
        parts.append("  \n".join(lines))
    if step.notes:
        parts.append("\n".join(f"- {escaped(note)}" for note in step.notes))
    return parts
