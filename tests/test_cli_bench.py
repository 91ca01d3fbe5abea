"""`xent bench`: what it prints and writes, its exit status, and what it refuses."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from rich.console import Console

from xent import cli
from xent.bench import report as words
from xent.bench import runner
from xent.bench.cases import CASES, SMALL, Case
from xent.bench.peers import PEERS
from xent.bench.records import read
from xent.cli.bench import show_report

sys.path.insert(0, str(Path(__file__).parent))
import bench_report
import command

pytestmark = pytest.mark.usefixtures("own_folder")

MARKS = "\n".join(words.marks())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the benchmark is asked for, in place of a run."""
    calls: list[Any] = []

    def benchmark(*arguments: Any) -> Any:
        calls.append(arguments)
        return bench_report.report()

    monkeypatch.setattr(runner, "benchmark", benchmark)
    return calls


def call(*arguments: str) -> Result:
    return command.call("bench", *arguments)


def test_a_toy_run_prints_and_writes_all(own_folder: Path) -> None:
    """The whole way, with a real process for each peer."""
    page = own_folder / "page.md"
    page.write_text(f"# Page\n\n{MARKS}\n", encoding="utf-8")
    files = ["--json", "found.json", "--figure", "ratios.svg", "--page", "page.md"]
    what = ["--case", "6x11-float32", "--peer", "torch", "--peer", "scipy", "--threads", "1"]
    result = call(*what, "--seconds", "0", "--seed", "7", *files)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    report = read((own_folder / "found.json").read_text())
    assert report is not None
    assert report.passed
    assert {(m.peer, m.case) for m in report.measurements} == {
        ("torch", "6x11-float32"),
        ("scipy", "6x11-float32"),
    }
    assert report.settings == {"threads": [1], "seconds": 0.0, "seed": 7}
    assert words.markdown(report) in page.read_text(encoding="utf-8")
    assert "<svg" in (own_folder / "ratios.svg").read_text()
    assert "\x1b" not in result.stdout
    assert "Forward, 1 thread\n" in result.stdout
    told = ["Measurements: found.json", "Picture: ratios.svg", "Page: page.md"]
    assert result.stdout.splitlines()[-3:] == told

    page.write_text(MARKS, encoding="utf-8")
    again = call("--from", "found.json", "--page", "page.md")
    assert again.exit_code == 0
    assert words.markdown(report) in page.read_text(encoding="utf-8")
    tables = result.stdout.partition("Measurements: ")[0]
    assert again.stdout == f"{tables}Page: page.md\n"


def test_without_options_everything_is_measured(asked: list[Any]) -> None:
    call()
    ((cases, peers, threads, seconds, seed, _),) = asked
    assert tuple(cases) == CASES
    assert list(peers) == list(PEERS)
    assert threads == [torch.get_num_threads()]
    assert seconds == 2.0
    call()
    assert asked[1][4] != seed


def test_a_quick_run_is_of_little(asked: list[Any]) -> None:
    call("--quick")
    ((cases, peers, _, seconds, _, _),) = asked
    assert cases == [case for case in CASES if case.bytes <= SMALL]
    assert not any(PEERS[peer].compiles for peer in peers)
    assert seconds == 0.1


def test_what_is_asked_for_is_measured(asked: list[Any]) -> None:
    options = "--quick --case 9x5-float16 --case 3x4x5-float64 --peer optax --peer torch"
    call(*options.split(), "--threads", "2", "--threads", "1", "--seconds", "0.5", "--seed", "3")
    assert [arguments[:5] for arguments in asked] == [
        (
            (Case((9, 5), "float16"), Case((3, 4, 5), "float64")),
            ("optax", "torch"),
            (2, 1),
            0.5,
            3,
        )
    ]


def test_what_failed_is_told_and_is_exit_status_1(asked: list[Any]) -> None:
    result = call("--json", "found.json")
    assert result.exit_code == 1
    for line in words.troubles(bench_report.report()):
        assert f"\n{line}\n" in result.stdout
    assert Path("found.json").exists()
    assert call("--from", "found.json").exit_code == 1


def test_the_tables_are_not_cut_off(asked: list[Any]) -> None:
    stdout = call().stdout
    assert "…" not in stdout
    for table in words.tables(bench_report.report()):
        assert table.title in stdout
        after = stdout.partition(f"\n{table.title}\n")[2].splitlines()
        header = next(line for line in after if line.startswith("case "))
        assert re.split(r" {2,}", header.strip()) == list(table.header)


def test_on_a_terminal_what_is_slower_is_red() -> None:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    show_report(bench_report.report(), console)
    printed = console.file.getvalue()
    assert re.search(r"\x1b\[31m *0\.50", printed)
    assert not re.search(r"\x1b\[31m *8\.00", printed)
    assert "────" in printed


def test_progress_is_shown_on_a_terminal_only(asked: list[Any], monkeypatch) -> None:
    assert call().stderr == ""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm-256color")
    with pytest.raises(SystemExit):
        cli.main(["bench"])
    assert "looking at the machine" in stderr.getvalue()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--case", "8x10"], "'--case': 8x10 is not a shape and a dtype, as 128x1000-float32\n"),
        (["--peer", "tensorflow"], "'--peer': 'tensorflow' is not one of 'torch', "),
        (["--threads", "0"], "'--threads': 0 is not in the range x>=1"),
        (["--seconds", "-1"], "'--seconds': -1.0 is not in the range x>=0"),
        (["--figure", "ratios.txt"], "'--figure': ratios.txt does not end in .pdf, .png, .svg\n"),
        (["--json", "no/found.json"], "'--json': no is not a folder\n"),
        (["--page", "no.md"], "'--page': File 'no.md' does not exist."),
        (["--page", "plain.md"], "'--page': plain.md has no lines <!-- begin: xent bench --> and "),
        (["--from", "plain.md"], "'--from': plain.md is not of xent bench --json, version 1\n"),
        (["--from", "old.json"], "'--from': old.json is not of xent bench --json, version 1\n"),
        (["--from", "found.json", "--quick"], "--from measures nothing: "),
        (["--from", "found.json", "--seed", "0"], "--from measures nothing: "),
    ],
)
def test_wrong_calls_end_before_any_work(
    arguments: list[str], text: str, own_folder: Path, asked: list[Any]
) -> None:
    (own_folder / "plain.md").write_text("no markers\n")
    (own_folder / "old.json").write_text('{"version": 0}')
    (own_folder / "found.json").write_text(bench_report.report().as_json())
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert text in result.stderr.partition("\n\nError: ")[2]
    assert asked == []


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = call("--figure", "ratios.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        'Error: xent bench needs matplotlib, not installed: pip install "xent[bench]"\n'
    )
    assert asked == []


def test_help_names_every_peer() -> None:
    told = " ".join(call("--help").stdout.split())
    assert ", ".join(PEERS) in told


def test_a_gpu_that_is_not_there_is_told(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = command.call("bench", "--device", "cuda", "--quick")
    assert told.exit_code == 2
    assert "torch sees no CUDA device" in told.stderr


def test_what_a_gpu_is_not_asked_is_refused() -> None:
    told = command.call("bench", "linear", "--device", "cuda")
    assert told.exit_code == 2
    assert "--device cuda takes --quick, --seconds and --json alone" in told.stderr


def test_a_gpu_is_asked_what_was_given(monkeypatch, tmp_path: Path) -> None:
    from xent.bench import gpu

    asked = []
    monkeypatch.setattr(gpu, "main", lambda arguments: asked.append(arguments) or 0)
    file = tmp_path / "gpu.json"
    given = ["--quick", "--seconds", "0.5", "--json", str(file)]
    assert command.call("bench", "--device", "cuda", *given).exit_code == 0
    assert asked == [["--quick", "--json", str(file), "--seconds", "0.5"]]
