"""page: the one file that it makes, its texts, and that its modules fit together."""

from __future__ import annotations

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from xent import page

sys.path.insert(0, str(Path(__file__).parent))
from page_modules import javascript

MODULES = {file.name: file.read_text("utf-8") for file in sorted(page.FOLDER.glob("*.js"))}
IMPORT = re.compile(r'^import .*? from "(.*?)";', re.MULTILINE | re.DOTALL)
HANGUL = re.compile("[가-힣]")


class Elements(HTMLParser):
    """Tags with their attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_one_file_holds_every_module_and_asks_for_no_other() -> None:
    text = page.html()
    elements = Elements(text)
    (map_,) = (json.loads(t) for t in elements.texts if t.startswith('{"imports"'))
    assert sorted(map_["imports"]) == [f"xent/{name}" for name in MODULES]
    for name, source in MODULES.items():
        kind, _, data = map_["imports"][f"xent/{name}"].partition(",")
        assert kind == "data:text/javascript;base64"
        inside = base64.b64decode(data).decode()
        assert inside.replace(' from "xent/', ' from "./') == source
        assert all(wanted in map_["imports"] for wanted in IMPORT.findall(inside))
    assert not [tag for tag, _ in elements.found if tag in ("iframe", "img", "object", "embed")]
    asked = [a.get("src") or a.get("href") for _, a in elements.found]
    assert [address for address in asked if address] == ["data:,"]
    assert (page.FOLDER / "style.css").read_text("utf-8") in text
    assert text.count("<script") == 2


def test_nothing_in_the_page_comes_from_elsewhere() -> None:
    for file in page.FOLDER.iterdir():
        if file.suffix in (".js", ".css", ".html"):
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|\beval\b", text), (
                file
            )


def test_the_state_is_kept_as_text() -> None:
    for state in ("language=ko", '"><script>alert(1)</script>', "a&b", "'"):
        elements = Elements(page.html(state))
        (body,) = (a for tag, a in elements.found if tag == "body")
        assert body == {"data-state": state}
        assert sum(tag == "script" for tag, _ in elements.found) == 2


def test_the_folder_works_as_it_is_over_http() -> None:
    text = (page.FOLDER / "index.html").read_text("utf-8")
    assert text.count(page.STYLE) == text.count(page.SCRIPT) == text.count(page.STATE) == 1
    for source in MODULES.values():
        assert all((page.FOLDER / wanted).is_file() for wanted in IMPORT.findall(source))


def imports() -> list[tuple[str, str, str]]:
    """(module, where from, name) of every import."""
    found = []
    pattern = re.compile(r'^import (.*?) from "\./(.*?)";', re.MULTILINE | re.DOTALL)
    for module, source in MODULES.items():
        for names, origin in pattern.findall(source):
            if names.startswith("{"):
                found += [(module, origin, n.strip()) for n in names.strip("{ }\n").split(",")]
    return [(module, origin, name) for module, origin, name in found if name]


def test_every_import_is_exported_and_used() -> None:
    assert len(imports()) > 50
    for module, origin, name in imports():
        exported = rf"^export (async )?(const|function) {name}\b"
        assert re.search(exported, MODULES[origin], re.MULTILINE), (module, origin, name)
        assert len(re.findall(rf"\b{name}\b", MODULES[module])) > 1, (module, name)


@pytest.mark.parametrize("name", [*MODULES, "style.css", "index.html"])
def test_a_file_holds_one_idea_and_says_which(name: str) -> None:
    lines = (page.FOLDER / name).read_text("utf-8").splitlines()
    assert max(map(len, lines)) <= 100
    if name.endswith(".js"):
        assert len(lines) <= 400
        assert lines[0].startswith("// ")


def texts(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    ((english, korean),) = javascript(
        folder,
        "ko.js",
        "default as ko",
        "return [en, ko];",
        [{"n": 0}],
        'import en from "./en.js";',
    )
    return english, korean


def test_both_languages_have_every_text(tmp_path: Path) -> None:
    english, korean = texts(tmp_path)
    assert list(english) == list(korean)
    for key, text in english.items():
        assert text.strip() == text != "", key
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", korean[key])), key
        assert not HANGUL.search(text), key
    symbols = {"stackTold", "sharesTold", "nats"}  # which have no words
    assert {key for key, text in korean.items() if not HANGUL.search(text)} == symbols


def test_every_text_is_asked_for_and_every_one_that_is_asked_for_is_there(tmp_path: Path) -> None:
    english, _ = texts(tmp_path)
    code = "".join(text for name, text in MODULES.items() if name not in ("en.js", "ko.js"))
    asked = set(re.findall(r'\bt\("(\w+)"', code))
    assert asked <= set(english)
    made = {"pOf", "qOf"}  # of the distribution's name
    assert {key for key in english if f'"{key}"' not in code} == made
