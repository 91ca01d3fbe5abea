"""cli.py: what the command prints and where, its exit status, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from xent import cli, demo, doctor

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m")  # a foreground colour
MISSING = 'Error: xent demo needs {}, not installed: pip install "xent[demo]"\n'


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write into, and no wish of the environment's about colour or width."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return tmp_path


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, prog_name="xent")


class Terminal(io.StringIO):
    """A stream that is written to as a terminal is."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, str]:
    """What a command writes to a terminal's stdout and stderr."""
    stdout, stderr = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    assert cli.main(arguments, standalone_mode=False) is None
    return stdout.getvalue(), stderr.getvalue()


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def test_the_installed_command_is_this_one() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="xent")
    assert command.load() is cli.main


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
        cli.show(demo.Comparison(0, 1, 1438, trainings), console)
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


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_without_click_the_command_tells_what_to_install() -> None:
    done = python("import sys; sys.modules['click'] = None; from xent.cli import main; main()")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'Error: xent needs click, not installed: pip install "xent[cli]"\n'


def test_help_imports_none_of_the_heavy_libraries() -> None:
    done = python(
        "import sys; from xent.cli import main; main(['--help'], 'xent', standalone_mode=False);"
        "heavy = {'torch', 'scipy', 'sklearn', 'matplotlib', 'rich'};"
        "sys.exit(str(heavy & set(sys.modules) or ''))"
    )
    assert done.stdout == call("--help").stdout
    assert done.stderr.strip() == ""


def test_help_lists_the_commands_that_exist() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: xent [OPTIONS] COMMAND [ARGS]...\n\n  Cross entropy")
    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert (
        [line.split()[0] for line in listed]
        == sorted(cli.main.commands)
        == [
            "bench",
            "demo",
            "doctor",
        ]
    )
    assert call("-h").stdout == result.stdout


@pytest.mark.parametrize("command", [["-h"], ["bench", "-h"], ["demo", "-h"], ["doctor", "-h"]])
def test_help_is_narrow_and_wraps_no_default(command: list[str]) -> None:
    result = call(*command)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "xent-demo.png" in result.stdout or command != ["demo", "-h"]


def test_version() -> None:
    result = call("--version")
    assert (result.exit_code, result.stdout) == (0, f"xent {metadata.version('xent')}\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    result = call("dmeo")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: No such command 'dmeo'." in result.stderr


def test_doctor_prints_its_facts_to_read_and_as_json() -> None:
    facts = doctor.examine()
    to_read, as_json = call("doctor"), call("doctor", "--json")
    assert (to_read.exit_code, to_read.stdout) == (0, doctor.told(facts) + "\n")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (0, facts)
    assert to_read.stderr == as_json.stderr == ""
