"""`xent demo`: what it prints and where, its exit status, and what it refuses."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from xent import demo
from xent.cli.demo import show

sys.path.insert(0, str(Path(__file__).parent))
from command import COLOUR, call, cells, on_a_terminal

pytestmark = pytest.mark.usefixtures("own_folder")

MISSING = 'Error: xent demo needs {}, not installed: pip install "xent[demo]"\n'


def test_demo_prints_the_comparison_plainly_into_a_pipe(seed: int, own_folder: Path) -> None:
    result = call("demo", "--epochs", "1", "--seed", str(seed))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80

    expected = demo.compare(1, seed)
    assert lines[0] == "64-64-10 network, 1,438 handwritten digits, float64"
    header = ["way", "first loss", "last loss", "test accuracy", "seconds"]
    assert (lines[1], cells(lines[2])) == ("", header)
    for line, training in zip(lines[3:6], expected.trainings, strict=True):
        way, first, last, accuracy, seconds = cells(line)
        assert way == training.way
        assert float(first) == pytest.approx(training.losses[0], abs=5.1e-7)
        assert float(last) == pytest.approx(training.losses[-1], abs=5.1e-7)
        assert accuracy == f"{training.accuracy:.1%}"
        assert re.fullmatch(r"\d+\.\d\d", seconds)
    assert len({len(line) for line in lines[2:6]}) == 1, "right-aligned columns end together"

    assert (lines[6], cells(lines[7])) == ("", ["largest difference between", "and", "nats"])
    for line, ((one, other), gap) in zip(lines[8:11], expected.differences().items(), strict=True):
        assert cells(line) == [one, other, f"{gap:.1e}"]
    assert lines[11:] == [
        "",
        "Loss curves: xent-demo.png",
        f"Once more: xent demo --epochs 1 --seed {seed}",
    ]
    assert (own_folder / "xent-demo.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_demo_draws_another_seed_each_time_and_tells_it(own_folder: Path) -> None:
    def losses_and_seed(*options: str) -> tuple[list[list[str]], str]:
        lines = call("demo", "--epochs", "1", *options).stdout.splitlines()
        return [cells(line)[:3] for line in lines[3:6]], lines[-1].rpartition(" ")[2]

    one, other = losses_and_seed(), losses_and_seed()
    assert one[1] != other[1]
    assert one[0] != other[0]
    assert losses_and_seed("--seed", one[1]) == one


def test_demo_writes_over_its_own_figure_and_no_other_file(own_folder: Path) -> None:
    (own_folder / "curves.svg").write_text("an older one")
    result = call("demo", "--epochs", "1", "--figure", "curves.svg")
    assert result.exit_code == 0
    assert "Loss curves: curves.svg\n" in result.stdout
    assert [file.name for file in own_folder.iterdir()] == ["curves.svg"]
    assert "<svg" in (own_folder / "curves.svg").read_text()


def test_demo_on_a_terminal_shows_progress_and_then_removes_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdout, stderr = on_a_terminal(monkeypatch, "demo", "--epochs", "1", "--seed", str(seed))
    assert "loading torch and the digits" in stderr
    assert demo.TORCH_XENT in stderr
    assert COLOUR.search(stderr)
    assert stderr.endswith("\x1b[1A\x1b[2K"), "the bar's line is left in place"
    assert "\x1b[1mway" in stdout
    assert "────" in stdout
    assert demo.TORCH_XENT in stdout


def test_demo_uses_no_colour_where_none_is_wanted(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stdout, stderr = on_a_terminal(monkeypatch, "demo", "--epochs", "1", "--seed", str(seed))
    assert not COLOUR.search(stdout + stderr)
    assert demo.TORCH_XENT in stderr


def test_the_tables_fit_into_80_columns() -> None:
    ways = (demo.BY_HAND, demo.TORCH, demo.TORCH_XENT)
    losses = (12.345678, 0.123456)
    trainings = tuple(demo.Training(way, losses, 1.0, 1234.5) for way in ways)
    for terminal in (False, True):
        console = Console(file=io.StringIO(), width=80, force_terminal=terminal, no_color=True)
        show(demo.Comparison(0, 1, 1438, trainings), console)
        printed = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())
        for way in ways:
            (line,) = (line for line in printed.splitlines() if re.search(f"^{way} .*1234", line))
            assert cells(line) == [way, "12.345678", "0.123456", "100.0%", "1234.50"]


def test_a_figure_that_cannot_be_written_costs_no_numbers(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "draw", full_disk)
    result = call("demo", "--epochs", "1", "--seed", str(seed))
    assert result.exit_code == 1
    assert result.stderr == "Error: Could not open file 'xent-demo.png': No space left on device\n"
    assert demo.TORCH_XENT in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--epochs", "0"], "'--epochs': 0 is not in the range x>=1"),
        (["--epochs", "few"], "'--epochs': 'few' is not a valid integer"),
        (["--seed", "-1"], "'--seed': -1 is not in the range x>=0"),
        (["--figure", "notes.txt"], "'--figure': notes.txt does not end in .pdf, .png, .svg\n"),
        (["--figure", "curves"], "'--figure': curves does not end in .pdf, .png, .svg\n"),
        (["--figure", "no/curves.png"], "'--figure': no is not a folder\n"),
        (["--figure", "folder.png"], "'--figure': File 'folder.png' is a directory"),
        (["--epoch"], "--epoch"),
        (["now"], "unexpected extra argument (now)"),
    ],
)
def test_wrong_calls_end_before_any_work(
    arguments: list[str], text: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "compare", None)
    (own_folder / "folder.png").mkdir()
    result = call("demo", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Usage: xent demo [OPTIONS]\n")
    assert text in result.stderr.partition("\n\nError: ")[2]
    assert [file.name for file in own_folder.iterdir()] == ["folder.png"]


@pytest.mark.parametrize(
    ("modules", "names"),
    [
        (["matplotlib"], "matplotlib"),
        (["sklearn"], "scikit-learn"),
        (["torch", "rich"], "rich, torch"),
    ],
)
def test_demo_tells_which_libraries_are_missing(
    modules: list[str], names: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    result = call("demo")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == MISSING.format(names)
    assert list(own_folder.iterdir()) == []
