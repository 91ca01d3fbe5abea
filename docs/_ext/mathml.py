"""Formulas as MathML, which browsers draw by themselves: no script, no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx

APPLIED = re.compile(r'(<mo>&ApplyFunction;</mo>)(?!\s*<mo stretchy="false">\()')


def mathml(formula: str, block: bool) -> str:
    """MathML of a formula in TeX, with TeX's thin space after log and its like."""
    text = str(tex2mathml(formula, as_block=block))
    return APPLIED.sub(r'\1<mspace width="0.17em"/>', text)


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), block=False))
    raise nodes.SkipNode


def display(self: Any, node: nodes.math_block) -> None:
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(mathml(node.astext(), block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
