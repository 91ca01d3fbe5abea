"""cli/grade: what is printed on a terminal and in a pipe, files, errors and exit status."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from xent import cli

sys.path.insert(0, str(Path(__file__).parent))
from command import COLOUR, Terminal, call

MINE = """
import torch

def wrong(logits, target, reduction="mean"):
    rows = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return {"none": rows, "sum": rows.sum(), "mean": rows.sum()}[reduction]
"""
VALUE = ("--check", "value.mean", "--check", "value.sum", "--check", "value.weight_mean")


@pytest.fixture(autouse=True)
def mine(own_folder: Path) -> None:
    Path("mine.py").write_text(MINE)


def test_a_pipe_gets_plain_lines() -> None:
    result = call("grade", "mine.py:wrong", *VALUE, "--seed", "3")
    assert result.exit_code == 1
    assert not COLOUR.search(result.stdout)
    for line in (
        "graded   mine.py:wrong",
        "adapter  torch: it runs on torch arrays; takes reduction",
        "seed     3",
        "agrees with torch  1 of 2",
        "you returned the sum where the mean was asked for\n  explains value.mean",
        "value.mean (wrong, agrees with torch)\n  input     logits [[",
        "  value.weight_mean: no weight",
    ):
        assert line in result.stdout


def test_a_terminal_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    arguments = ["grade", "mine.py:wrong", *VALUE]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    told = stdout.getvalue()
    assert ended.value.code == 1
    assert COLOUR.search(told)
    plain = COLOUR.sub("", told)
    assert "1. you returned the sum where the mean was asked for" in plain
    assert "check" in plain
    assert "what was found" in plain
    assert plain.rstrip().endswith("not offered        1") or "agrees with torch" in plain


def test_json_and_a_page() -> None:
    result = call("grade", "mine.py:wrong", *VALUE, "--json", "--html", "page.html")
    made = json.loads(result.stdout)
    assert result.exit_code == made["status"] == 1
    assert made["causes"][0]["name"] == "sum_for_mean"
    assert "sum_for_mean" not in Path("page.html").read_text()
    assert "you returned the sum" in Path("page.html").read_text()


def test_exit_status() -> None:
    target = "torch.nn.functional:cross_entropy"
    tiny = ("--check", "value.mean", "--check", "accuracy.tiny_loss")
    assert call("grade", target, *tiny).exit_code == 0
    assert call("grade", target, *tiny, "--strict").exit_code == 1
    result = call("grade", "mine.py:absent")
    assert result.exit_code == 2
    assert "It could not be graded: grade: target has no absent in mine.py" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give either TARGET or --answers FILE"),
        (("mine.py:wrong", "--check", "valu"), "checks has value 'valu', expected a check"),
        (("mine.py:wrong", "--adapter", "tf"), "adapter has value 'tf', expected one of ['torch'"),
        (("mine.py:wrong", "--html", "no/page.html"), "no is not a folder"),
        (("mine.py:wrong", "--timeout", "0"), "0"),
        (("--answers", "mine.py"), "mine.py is not"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], told: str) -> None:
    result = call("grade", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not result.stdout


def test_answers_of_another_language() -> None:
    from xent.conformance.cases import read

    given = {e["name"]: {"loss": e["loss"], "dlogits": e["dlogits"]} for e in read()}
    Path("answers.json").write_text(json.dumps(given))
    result = call("grade", "--answers", "answers.json")
    assert result.exit_code == 0
    assert f"agrees with torch  {len(given)} of {len(given)}" in result.stdout


def test_the_list() -> None:
    told = call("grade", "--list").stdout
    assert "  numpy-pair     forward, backward: two functions" in told
    assert "  value.mean " in told
