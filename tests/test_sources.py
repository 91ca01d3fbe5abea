"""docs/sources.md is true: its tests exist and execute its numbers, its names are xent's."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest

import xent
import xent.info
import xent.manual
import xent.nn
import xent.plots

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "sources.md"
DOCUMENTS = ("blog post", "notebook", "breakdown", "course notes", "forum thread")
NODE = re.compile(r"`(tests/test_\w+\.py)::(test_\w+)`")
DECIMAL = re.compile(r"\d+\.\d+(?:e-?\d+)?")


class Row(NamedTuple):
    line: int
    heading: str  # of the second level
    cells: dict[str, str]  # by the column's name

    @property
    def nodes(self) -> list[tuple[str, str]]:
        return [node for cell in self.cells.values() for node in NODE.findall(cell)]


def rows() -> list[Row]:
    found, heading, columns = [], "", []
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("## "):
            heading = line[3:]
        cells = [cell.strip() for cell in line[1:-1].split("|")] if line.startswith("|") else []
        if not cells or set(line) <= set("|-"):
            columns = columns if cells else []
        elif columns:
            assert len(cells) == len(columns), f"line {number} has {len(cells)} cells"
            found.append(Row(number, heading, dict(zip(columns, cells, strict=True))))
        else:
            columns = cells
    return found


ROWS = rows()
CLAIMS = [row for row in ROWS if "It has" in row.cells]
ERRORS = [row for row in ROWS if "It gives" in row.cells]


@functools.cache
def definitions(file: str) -> dict[str, ast.stmt]:
    """The functions, classes and constants that a test file defines, by name."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    named: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            named[node.name] = node
        elif isinstance(node, ast.Assign):
            names = (name for target in node.targets for name in ast.walk(target))
            named |= {name.id: node for name in names if isinstance(name, ast.Name)}
    return named


def executed_numbers(file: str, name: str) -> set[float]:
    """The numbers written in a test and in the definitions of its file that it uses."""
    named, waiting, seen, numbers = definitions(file), [name], set(), set()
    while waiting:
        current = waiting.pop()
        if current in seen or current not in named:
            continue
        seen.add(current)
        for node in ast.walk(named[current]):
            if isinstance(node, ast.Name):
                waiting.append(node.id)
            elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
                numbers.add(float(node.value))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                numbers |= {float(number) for number in DECIMAL.findall(node.value)}
    return numbers


def test_the_page_has_its_tables() -> None:
    headings = {row.heading for row in CLAIMS}
    assert len(headings) == 5
    for document in DOCUMENTS:
        assert any(document in heading for heading in headings), document
    assert len(ERRORS) >= 48
    assert len(CLAIMS) + len(ERRORS) == len(ROWS)


def test_every_row_names_tests_that_exist() -> None:
    for row in ROWS:
        assert row.nodes, f"line {row.line} names no test"
        for file, name in row.nodes:
            test = definitions(file).get(name)
            assert isinstance(test, ast.FunctionDef), f"line {row.line}: {file}::{name}"
            marks = " ".join(ast.unparse(mark) for mark in test.decorator_list)
            assert "skip" not in marks, f"line {row.line}: {name} is switched off"
            assert "xfail" not in marks, f"line {row.line}: {name} is switched off"


def test_every_number_of_a_row_is_executed() -> None:
    for row in ROWS:
        text = " ".join(NODE.sub("", cell) for cell in row.cells.values())
        executed = set().union(*(executed_numbers(*node) for node in row.nodes))
        missing = {n for n in DECIMAL.findall(text) if float(n) not in executed}
        assert not missing, f"line {row.line}: {missing} in none of {row.nodes}"


def test_every_test_of_the_documents_is_named() -> None:
    named = {node for row in ROWS for node in row.nodes}
    for path in sorted((ROOT / "tests").glob("test_sources_*.py")):
        file = f"tests/{path.name}"
        tests = {(file, name) for name in definitions(file) if name.startswith("test_")}
        assert tests, file
        assert tests <= named, tests - named


def test_every_error_has_a_number_and_is_referred_to() -> None:
    numbers = [int(row.cells["No."]) for row in ERRORS]
    assert sorted(numbers) == list(range(1, len(ERRORS) + 1))
    referred = {int(n) for row in CLAIMS for n in re.findall(r"\d+", row.cells["Errors"])}
    assert referred == set(numbers)


@pytest.mark.parametrize("row", CLAIMS, ids=lambda row: f"line {row.line}")
def test_every_name_of_xent_exists(row: Row) -> None:
    options = inspect.signature(xent.cross_entropy).parameters
    for code in re.findall(r"`([^`]+)`", row.cells["In xent"]):
        for called in re.findall(r"(?<![\w.])([a-z][\w.]*)\(", code) or [code]:
            if called in options or called.startswith("torch."):
                continue
            found: object = xent
            for part in called.split("."):
                found = getattr(found, part)
