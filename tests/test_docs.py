"""docs/: the pages are built with every cell executed, and a warning is an error."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

import xent

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)
NOTEBOOKS = [p for p in PAGES if p.read_text(encoding="utf-8").startswith("---")]
MODULES = (
    "xent.nn",
    "xent.manual",
    "xent.info",
    "xent.plots",
    "xent.conformance",
    "xent.parallel",
    "xent.integrations.transformers",
    "xent.integrations.torchmetrics",
)
BUILD = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages."""
    folder = tmp_path_factory.mktemp("docs")
    command = [*BUILD, "-d", str(folder / "trees"), str(DOCS), str(folder / "html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"


@pytest.mark.slow
def test_every_page_is_built(html: Path) -> None:
    for page in PAGES:
        assert (html / page.relative_to(DOCS)).with_suffix(".html").exists(), page


@pytest.mark.slow
def test_the_reference_shows_what_each_module_offers(html: Path) -> None:
    text = (html / "api.html").read_text(encoding="utf-8")
    assert "TypeAliasForwardRef" not in text
    assert 'id="xent.conformance.grade"' in text
    for name in re.findall(r'id="(xent\.[\w.]+)"', text):
        assert not name.endswith((".Any", ".annotations")), name


@pytest.mark.slow
def test_the_pages_need_no_network(html: Path) -> None:
    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*src="(http[^"]+)"', text)
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(http[^"]+)"', text)
        assert not loaded, page


@pytest.mark.slow
def test_the_derivations_hold(html: Path) -> None:
    text = (html / "derivations.html").read_text(encoding="utf-8")
    told = re.findall(r"(?:^|>)(True|False)$", text, re.M)
    checks = (DOCS / "derivations.md").read_text(encoding="utf-8").count("\nprint(")
    assert told == ["True"] * checks


@pytest.mark.slow
def test_formulas_are_drawn_by_the_browser(html: Path) -> None:
    text = (html / "tutorials" / "information.html").read_text(encoding="utf-8")
    assert text.count("<math") >= 10
    assert "$" not in re.sub(r"<(pre|script|style).*?</\1>", "", text, flags=re.S)


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_tutorial_opens_as_a_notebook(page: Path) -> None:
    notebook = jupytext.read(page)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds.count("code") >= 3
    for cell in notebook.cells:
        if cell.cell_type == "code":
            widest = max(map(len, cell.source.splitlines()))
            assert widest <= 88, "a page cuts it"


@pytest.mark.parametrize("module", ["xent", *MODULES])
def test_the_reference_has_every_public_name(module: str) -> None:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    if module != "xent":
        whole = "" if module == "xent.conformance" else "   :members:"
        assert f".. automodule:: {module}\n{whole}" in text
        assert importlib.import_module(module).__doc__
        return
    named = set(re.findall(r"^\.\. auto(?:function|class):: (\w+)$", text, re.M))
    modules = {"info", "manual"}
    assert named == set(xent.__all__) - modules


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"https?://", link):
            assert (page.parent / link).exists(), link


def test_every_page_is_in_the_contents() -> None:
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    trees = "\n".join(re.findall(r"```\{toctree\}(.*?)```", text, re.S)).split()
    pages = {str(p.relative_to(DOCS).with_suffix("")) for p in PAGES} - {"index"}
    assert pages == {name for name in trees if name in pages}
