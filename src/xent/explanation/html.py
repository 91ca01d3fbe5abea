"""An explanation as HTML that needs nothing else: no script, no font, no picture.

The style is scoped to the fragment's own class, so that a notebook's is left alone. Formulas are
text with subscripts.
"""

from __future__ import annotations

import re
from html import escape

from xent.explanation.record import Explanation, Step, Table

NAMES = re.compile(
    r"(?<![A-Za-z<])(diag|exp|log|loss|lse|max|normalizer|share|softmax|tanh)(?![A-Za-z])"
)

STYLE = """
.xent-explain { --line: #8885; --soft: #8881; --formula: #0b57a4; --target: #a14a00;
  --bad: #c0392b; font: 15px/1.5 system-ui, sans-serif; max-width: 56rem; }
@media (prefers-color-scheme: dark) {
  .xent-explain { --formula: #8cc4ff; --target: #ffb26b; --bad: #ff8a7a; } }
body[data-jp-theme-light="false"] .xent-explain,
.vscode-dark .xent-explain { --formula: #8cc4ff; --target: #ffb26b; --bad: #ff8a7a; }
body[data-jp-theme-light="true"] .xent-explain,
.vscode-light .xent-explain { --formula: #0b57a4; --target: #a14a00; --bad: #c0392b; }
.xent-explain h2 { font-size: 1.35rem; margin: 0.5rem 0; }
.xent-explain h3 { font-size: 1.1rem; margin: 1.6rem 0 0.4rem; padding-bottom: 0.2rem;
  border-bottom: 1px solid var(--line); }
.xent-explain h4 { font-size: 1rem; margin: 1.1rem 0 0.2rem; }
.xent-explain p { margin: 0.2rem 0; }
.xent-explain .formula { font: italic 1.08em/1.7 "STIX Two Math", "Cambria Math", Georgia, serif;
  color: var(--formula); overflow-x: auto; }
.xent-explain .formula b, .xent-explain pre b, .xent-explain th b { font-style: normal;
  font-weight: inherit; }
.xent-explain sub, .xent-explain sup { font-size: 0.75em; line-height: 0; }
.xent-explain .wide { overflow-x: auto; margin: 0.4rem 0; }
.xent-explain table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0; }
.xent-explain th, .xent-explain td { text-align: right; padding: 0.15rem 0.7rem;
  border: 0; border-bottom: 1px solid var(--line); background: none; white-space: nowrap; }
.xent-explain th { font-weight: 600; }
.xent-explain th:first-child { text-align: left; }
.xent-explain .target { color: var(--target); font-weight: 700; }
.xent-explain .bad { color: var(--bad); font-weight: 600; }
.xent-explain pre { font: 0.88em/1.6 ui-monospace, monospace; background: var(--soft);
  padding: 0.4rem 0.7rem; margin: 0.4rem 0; border-radius: 0.3rem; overflow-x: auto; }
.xent-explain ul { margin: 0.3rem 0; padding-left: 1.2rem; }
.xent-explain li { opacity: 0.85; }
"""


def page(told: Explanation) -> str:
    """A whole page."""
    title = escape(told.heading)
    style = ":root { color-scheme: light dark; } body { margin: 2rem auto; padding: 0 1rem; "
    style += "max-width: 56rem; }"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    top = f'<!doctype html>\n<html lang="{told.lang}"><head>{head}{view}</head>'
    return f"{top}\n<body>\n{fragment(told)}\n</body></html>\n"


def fragment(told: Explanation) -> str:
    """What a notebook shows."""
    parts = [f"<h2>{escape(told.heading)}</h2>"]
    for title, steps in told.parts():
        parts.append(f"<h3>{escape(title)}</h3>")
        parts += [_step(number, step) for number, step in steps]
    body = "\n".join(parts)
    return f'<div class="xent-explain" lang="{told.lang}"><style>{STYLE}</style>\n{body}\n</div>'


def formula(plain: str) -> str:
    """A formula with indices below, exponents above and names upright.

    >>> formula("z_c < Σ_k e_k^2")
    'z<sub>c</sub> &lt; Σ<sub>k</sub> e<sub>k</sub><sup>2</sup>'
    """
    lowered = re.sub(r"_([A-Za-z]|\d+)", r"<sub>\1</sub>", escape(plain))
    raised = re.sub(r"\^(?:\(([^)]*)\)|(\d+))", r"<sup>\1\2</sup>", lowered)
    return NAMES.sub(r"<b>\1</b>", raised)


def table(cells: Table) -> str:
    """A table; the targets' cells and those that are no finite number stand out."""
    head = "".join(f'<th scope="col">{formula(name)}</th>' for name in cells.header)
    lines = []
    for r, (first, *others) in enumerate(cells.rows):
        line = f'<th scope="row">{formula(first)}</th>'
        line += "".join(_cell(cell, (r, c) in cells.marked) for c, cell in enumerate(others, 1))
        lines.append(f"<tr>{line}</tr>")
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
        "</div>"
    )


def _cell(cell: str, marked: bool) -> str:
    kinds = ["target"] if marked else []
    kinds += ["bad"] if cell in ("nan", "inf", "-inf") else []
    kind = f' class="{" ".join(kinds)}"' if kinds else ""
    return f"<td{kind}>{escape(cell)}{'*' if marked else ''}</td>"


def _step(number: int, step: Step) -> str:
    parts = [
        f"<h4>{number}. {escape(step.title)}</h4>",
        f'<p class="formula">{formula(step.formula)}</p>',
        f"<p>{escape(step.text)}</p>",
    ]
    if step.table is not None:
        parts.append(table(step.table))
    if step.worked:
        lines = "\n".join(formula(line) for line in step.worked)
        parts.append(f"<pre>{lines}</pre>")
    if step.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in step.notes)
        parts.append(f"<ul>{notes}</ul>")
    return "\n".join(parts)
