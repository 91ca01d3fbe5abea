"""The page of `xent explore`: one HTML file, made of the modules in this folder.

A browser refuses modules that lie beside a page opened from a file. So they are put into it: each
is a data: address in the page's import map, under the name by which the others import it. Nothing
is compiled or changed but these names. Served over HTTP, the folder works as it is.
"""

from __future__ import annotations

import base64
import json
import re
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
IMPORTED = re.compile(r'(?<= from ")\./(?=[a-z]+\.js";)')  # what "./math.js" begins with
STYLE = '<link rel="stylesheet" href="./style.css" />'
SCRIPT = '<script type="module" src="./app.js"></script>'
STATE = 'data-state=""'
PREFIX = "xent/"


def html(state: str = "") -> str:
    """The page, whole: no file beside it and no network.

    Args:
        state: what the page starts with, as in the part of its address after #; "" is the worked
            example in the language of the browser.
    """
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    page = page.replace(STYLE, f"<style>\n{style}</style>")
    page = page.replace(
        SCRIPT, f'{_import_map()}<script type="module">import "xent/app.js";</script>'
    )
    return page.replace(STATE, f'data-state="{escape(state)}"')


def _import_map() -> str:
    """Every module under its name; the map has no character that HTML reads otherwise."""
    modules = {
        f"{PREFIX}{file.name}": _address(file.read_text(encoding="utf-8"))
        for file in sorted(FOLDER.glob("*.js"))
    }
    return f'<script type="importmap">{json.dumps({"imports": modules})}</script>\n    '


def _address(module: str) -> str:
    named = IMPORTED.sub(PREFIX, module)
    return f"data:text/javascript;base64,{base64.b64encode(named.encode()).decode()}"
