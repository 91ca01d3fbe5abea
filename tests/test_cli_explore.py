"""cli/explore.py: the page it writes, where it opens it, and what it refuses."""

from __future__ import annotations

import re
import sys
import webbrowser
from html import unescape
from pathlib import Path

import pytest

from xent import page

sys.path.insert(0, str(Path(__file__).parent))
from command import call
from page_modules import javascript

FILE = "xent-explore.html"


@pytest.fixture(autouse=True)
def opened(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser is asked to open; none is opened."""
    found: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: found.append(address) or True)
    return found


def state(file: Path) -> str:
    (found,) = re.findall('<body data-state="(.*?)">', file.read_text("utf-8"))
    return unescape(found)


def test_it_writes_the_page_tells_where_and_opens_it(own_folder: Path, opened: list[str]) -> None:
    result = call("explore")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"Page: {FILE}\n", "")
    assert (own_folder / FILE).read_text("utf-8") == page.html()
    assert opened == [(own_folder / FILE).as_uri()]
    assert [file.name for file in own_folder.iterdir()] == [FILE]


def test_it_opens_nothing_where_that_is_asked(own_folder: Path, opened: list[str]) -> None:
    result = call("explore", "--no-open", "--output", "a b.html", "--lang", "ko")
    assert (result.exit_code, result.stdout) == (0, "Page: a b.html\n")
    assert opened == []
    assert state(own_folder / "a b.html") == "language=ko"


def test_without_a_browser_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    told = f"Page: {FILE}\nNo browser was found here: open the page in one.\n"
    result = call("explore")
    assert (result.exit_code, result.stdout) == (0, told)


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        ("2,1,0.1", "1", ([[2, 1, 0.1], [0, 0, 0], [0, 0, 0]], [1, 0, 0], [False, True, True])),
        (
            "2 1 .1 -1e-3; 0.1,2,1.9,1000;",
            "-100, 3",
            (
                [[2, 1, 0.1, -0.001], [0.1, 2, 1.9, 1000], [0, 0, 0, 0]],
                [0, 3, 0],
                [True, False, True],
            ),
        ),
        (
            "1,2,3;4,5,6;7,8,9",
            "0,1,2",
            ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], [0, 1, 2], [False] * 3),
        ),
    ],
)
def test_the_page_reads_the_logits_that_are_given(
    logits: str, target: str, expected: tuple, own_folder: Path, tmp_path: Path
) -> None:
    result = call("explore", "--no-open", "--logits", logits, "--target", target)
    assert result.exit_code == 0, result.stderr
    (found,) = javascript(
        tmp_path, "state.js", "read", "return read(text);", [{"text": state(own_folder / FILE)}]
    )
    assert (found["logits"], found["target"], found["ignored"]) == expected


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--logits", "1,x,2"], "could not convert string to float: 'x'; expected rows like 2,1,0"),
        (["--logits", ""], "'--logits': rows of 0 logits, expected 3 to 6 in every row"),
        (["--logits", "1,2"], "'--logits': rows of 2 logits, expected 3 to 6 in every row"),
        (["--logits", "1,2,3;1,2,3,4"], "rows of 3 and 4 logits, expected 3 to 6 in every row"),
        (["--logits", "1,2,3;" * 3 + "1,2,3"], "'--logits': 4 rows, expected at most 3"),
        (["--logits", "1,2,nan"], "nan is not a logit from -1000 to 1000"),
        (["--logits", "1,2,1001"], "1001.0 is not a logit from -1000 to 1000"),
        (["--target", "1.5"], "'1.5'; expected classes like 1,0"),
        (["--target", "1"], "--logits has 0 rows and --target 1 classes, expected as many"),
        (["--logits", "1,2,3"], "--logits has 1 rows and --target 0 classes, expected as many"),
        (
            ["--logits", "1,2,3", "--target", "3"],
            "--target has class 3, expected 0 to 2 or -100",
        ),
        (["--lang", "fr"], "'fr' is not one of 'en', 'ko'"),
        (["--output", "no/page.html"], "no is not a folder"),
    ],
)
def test_wrong_calls_write_nothing(
    arguments: list[str], told: str, own_folder: Path, opened: list[str]
) -> None:
    result = call("explore", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert (list(own_folder.iterdir()), opened) == ([], [])
