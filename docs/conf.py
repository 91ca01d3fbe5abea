"""How Sphinx builds these pages: `./dev docs`."""

import re
import sys
from pathlib import Path

import xent

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "xent"
author = "the xent developers"
project_copyright = author
release = version = xent.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings quote code as Markdown does
nitpicky = False

html_theme = "furo"
html_title = "xent"
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_type_aliases = {"Array": "Array"}
napoleon_use_rtype = False

myst_enable_extensions = ["amsmath", "dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_execution_show_tb = True
nb_merge_streams = True


def _named(app, what, name, thing, options, signature, returned):
    """Types that have a name here, by it: in a union Sphinx writes how it holds them."""
    return tuple(
        text and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
        for text in (signature, returned)
    )


def setup(app):
    app.connect("autodoc-process-signature", _named)
