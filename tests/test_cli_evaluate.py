"""cli.evaluate: the command, its exit status, its picture, and what it prints where."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

import xent
from xent.evaluation import single

sys.path.insert(0, str(Path(__file__).parent))
from command import COLOUR, call, on_a_terminal
from prediction_files import drawn, saved


@pytest.fixture(autouse=True)
def files(own_folder: Path, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    logits, target = drawn(rng, 400, 6)
    bad = logits.copy()
    bad[9, 1] = np.nan
    saved(own_folder, x=logits, t=target, bad=bad, w=np.arange(1, 7), r=np.ones(400))
    return logits, target


def test_it_prints_what_the_function_tells(files: tuple[np.ndarray, np.ndarray]) -> None:
    result = call("evaluate", "x.npy", "t.npy")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{xent.evaluate('x.npy', 't.npy')}\n"
    told = json.loads(call("evaluate", "x.npy", "t.npy", "--json").stdout)
    assert told["loss"] == xent.evaluate(*files).loss
    options = "--class-weight", "w.npy", "--row-weight", "r.npy", "--label-smoothing", "0.1"
    told = json.loads(call("evaluate", "x.npy", "t.npy", "--json", "--base", "2", *options).stdout)
    same = xent.evaluate(
        *files, weight=np.arange(1, 7), row_weight=np.ones(400), label_smoothing=0.1, base=2
    )
    assert (told["loss"], told["unit"]) == (same.loss, "bits")


def test_the_exit_status_is_1_above_a_loss(files: tuple[np.ndarray, np.ndarray]) -> None:
    loss = xent.evaluate(*files).loss
    for limit, code in ((loss + 0.01, 0), (loss - 0.01, 1)):
        assert call("evaluate", "x.npy", "t.npy", "--fail-above", str(limit)).exit_code == code


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("bad.npy", "t.npy"),
            "Error: evaluate: bad.npy has value nan at row 9, class 1, expected",
        ),
        (("no.npy", "t.npy"), "Error: evaluate: no.npy has no file of its name"),
        (("x.npy", "t.npy", "--plot", "x.txt"), "x.txt does not end in .pdf, .png, .svg"),
        (("x.npy", "t.npy", "--output", "no/x.txt"), "no is not a folder"),
        (("x.npy",), "Missing argument 'TARGETS'"),
    ],
)
def test_the_exit_status_is_2_where_something_is_wrong(
    arguments: tuple[str, ...], told: str
) -> None:
    result = call("evaluate", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_broken_rows_are_left_out_and_listed() -> None:
    result = call("evaluate", "bad.npy", "t.npy", "--skip-bad")
    assert result.exit_code == 0
    assert result.stdout.rstrip().endswith(
        "Broken rows, left out\nbad.npy has value nan at row 9, class 1, expected a number"
    )


def test_report_and_picture_are_written_whole(own_folder: Path) -> None:
    (own_folder / "told.json").write_text("old")
    before = {file.name for file in own_folder.iterdir()}
    wanted = "--plot", "x.png", "--json", "--output", "told.json"
    result = call("evaluate", "x.npy", "t.npy", *wanted)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "Report: told.json\nPicture: x.png\n"
    assert json.loads((own_folder / "told.json").read_text(encoding="utf-8"))["rows"] == 400
    assert image.imread("x.png").std() > 0
    assert {file.name for file in own_folder.iterdir()} - before == {"x.png"}


def test_a_terminal_gets_tables_and_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xent.evaluation.passes.block_rows", lambda classes: 8)
    block = single.block
    monkeypatch.setattr(single, "block", lambda *given: (time.sleep(0.01), block(*given))[1])
    with monkeypatch.context() as patched:
        stdout, stderr = on_a_terminal(patched, "evaluate", "x.npy", "t.npy")
    assert "──" in stdout
    assert "mean loss" in stdout
    line = r"reading predictions [━╸╺]+ [0-9.]+ k?B/s \d:\d\d:\d\d left"
    assert re.search(line, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stderr))
    assert not COLOUR.search(call("evaluate", "x.npy", "t.npy").stdout)


INTERRUPTED = """
import signal, sys, time
from xent import cli
from xent.evaluation import single

def slow(*_):
    print("begun", flush=True)
    time.sleep(2)

single.block = slow
signal.signal(signal.SIGINT, signal.default_int_handler)  # one in the background ignores it
cli.main(["evaluate", "x.npy", "t.npy", "--plot", "x.png", "--output", "told.txt"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send")
def test_an_interrupted_command_leaves_nothing_behind(own_folder: Path) -> None:
    (own_folder / "told.txt").write_text("old")
    before = sorted(file.name for file in own_folder.iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "begun\n"
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert stderr == "Error: interrupted: nothing was written\n"
    assert sorted(file.name for file in own_folder.iterdir()) == before
    assert (own_folder / "told.txt").read_text() == "old"
