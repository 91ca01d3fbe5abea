r"""An explanation as LaTeX mathematics, of what KaTeX and MathJax both know."""

from __future__ import annotations

import re

from xent.explanation.record import Explanation, Step, Table

ESCAPED = {
    "\\": r"\textbackslash ",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde ",
    "^": r"\textasciicircum ",
}
SIGNS = {
    "×": r"\times ",
    "∂": r"\partial ",
    "²": "^2",
    "Σ": r"\sum ",
    "∞": r"\infty ",
    "...": r"\dots ",
}
WORDS = re.compile(r"(?<![\\A-Za-z])(loss|lse|log|exp|inf|nan)(?![A-Za-z])")
KNOWN = {"log": r"\log ", "exp": r"\exp ", "inf": r"\infty ", "nan": r"\mathrm{nan}"}


def text(told: Explanation) -> str:
    """Everything as one displayed array of one column."""
    lines = [rf"\textbf{{{escaped(told.heading)}}}"]
    for title, steps in told.parts():
        lines += ["", rf"\textbf{{{escaped(title)}}}"]
        for number, step in steps:
            lines += _step(number, step)
    body = " \\\\[8pt]\n".join(lines)
    return f"$$\n\\begin{{array}}{{l}}\n{body}\n\\end{{array}}\n$$"


def escaped(said: str) -> str:
    r"""A text for \text{...}.

    >>> escaped("100 % of w_c")
    '100 \\% of w\\_c'
    """
    return "".join(ESCAPED.get(letter, letter) for letter in said)


def number(cell: str) -> str:
    r"""A cell or a number of a table as mathematics.

    >>> number("3.72e-44"), number("-inf"), number("0.5000"), number("16 %")
    ('3.72 \\times 10^{-44}', '-\\infty ', '0.5000', '\\text{16 \\%}')
    """
    if re.fullmatch(r"-?(inf|nan|\d+(\.\d+)?(e[+-]\d+)?)", cell):
        return worked(cell)
    return rf"\text{{{escaped(cell)}}}" if cell else ""


def worked(line: str) -> str:
    r"""A formula with numbers in it as mathematics.

    >>> worked("lse = 2 + log 1.5174 = 2.4170")
    '\\mathrm{lse} = 2 + \\log  1.5174 = 2.4170'
    """
    label, line = _label(line)
    line = re.sub(r"(\d)e([+-])0*(\d+)", _power, line)
    for sign, tex in SIGNS.items():
        line = line.replace(sign, tex)
    line = re.sub(r"_(\w+)", r"_{\1}", line)
    line = WORDS.sub(lambda found: KNOWN.get(found[1], rf"\mathrm{{{found[1]}}}"), line)
    return (rf"\text{{{escaped(label)}}}\quad " if label else "") + line


def _name(header: str) -> str:
    """The name of a column, which may be a formula."""
    return worked(header) if set(header) & {*SIGNS, "_"} else rf"\text{{{escaped(header)}}}"


def _power(found: re.Match[str]) -> str:
    sign = "-" if found[2] == "-" else ""
    return rf"{found[1]} \times 10^{{{sign}{found[3]}}}"


def _label(line: str) -> tuple[str, str]:
    found = re.match(r"\[(.+?)\] ", line)
    return (found[0].strip(), line[found.end() :]) if found else ("", line)


def _step(number_of: int, step: Step) -> list[str]:
    lines = ["", rf"\textbf{{{number_of}. {escaped(step.title)}}}"]
    lines.append(rf"\quad \displaystyle {step.latex}")
    if step.table is not None:
        lines.append(rf"\quad {table(step.table)}")
    lines += [rf"\quad {_worked(line)}" for line in step.worked]
    lines += [rf"\quad \text{{{escaped(note)}}}" for note in step.notes]
    return lines


def _worked(line: str) -> str:
    """Mathematics, or the words that stand in its place."""
    return worked(line) if "=" in line else rf"\text{{{escaped(line)}}}"


def table(cells: Table) -> str:
    """A table as an array; the targets' cells are boxed."""
    names = " & ".join(_name(name) for name in cells.header)
    lines = []
    for r, row in enumerate(cells.rows):
        shown = [number(cell) for cell in row]
        for c in range(len(row)):
            if (r, c) in cells.marked:
                shown[c] = rf"\boxed{{{shown[c]}}}"
        lines.append(" & ".join(shown))
    columns = "l|" + "r" * (len(cells.header) - 1)
    body = r" \\ ".join([names + r" \\ \hline " + lines[0], *lines[1:]]) if lines else names
    return rf"\begin{{array}}{{{columns}}} {body} \end{{array}}"
