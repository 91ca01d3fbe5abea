"""`xent bench`: what is measured, and how it is shown."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xent.bench.cases import CASES, HEADS, LINEAR, LOGITS, SMALL, SUITES, Case, Head, named
from xent.bench.peers import PEERS
from xent.cli.parts import FILE, THERE, figure_file, progress, require, save, writable

if TYPE_CHECKING:
    from rich.console import Console

    from xent.bench.records import Report

SECONDS, QUICK_SECONDS = 2.0, 0.1  # of the rounds of one measurement


class CaseName(click.ParamType):
    """A shape and a dtype."""

    name = "case"

    def convert(self, value: object, param: object, ctx: object) -> Case | Head:
        """The case; a usage error where the name is none."""
        case = named(str(value))
        if case is None:
            raise click.BadParameter(f"{value} is not a shape and a dtype, as 128x1000-float32")
        return case


def _report_file(context: click.Context, option: click.Parameter, file: Path | None) -> Any:
    """The Report in a file that --json wrote."""
    from xent.bench.records import VERSION, read

    if file is None:
        return None
    report = read(file.read_text(encoding="utf-8"))
    if report is None:
        raise click.BadParameter(f"{file} is not of xent bench --json, version {VERSION}")
    return report


def _page_file(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """The page, refused where it has no place for the tables."""
    from xent.bench.report import marks, placed

    if file is not None and placed(file.read_text(encoding="utf-8"), "") is None:
        raise click.BadParameter(f"{file} has no lines {' and '.join(marks())}")
    return file


@click.command()
@click.argument("suite", type=click.Choice(SUITES), default=LOGITS)
@click.option(
    "--case",
    "cases",
    metavar="NAME",
    type=CaseName(),
    multiple=True,
    help="As 128x1000-float32, class axis 1; 64x8x1000-float32-head is N, D, V. Again for more.",
)
@click.option(
    "--peer",
    "peers",
    metavar="NAME",
    type=click.Choice(list(PEERS)),
    multiple=True,
    help=f"One of {', '.join(PEERS)}. Again for more.",
)
@click.option("--quick", is_flag=True, help="Small cases, briefly, peers that compile nothing.")
@click.option(
    "--threads",
    metavar="N",
    type=click.IntRange(1),
    multiple=True,
    help="All cores where it is not given. Again for more.",
)
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0),
    help="Of one measurement; 2, or 0.1 if --quick.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), help="Of the logits.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    help="cuda: rows and linear heads on a GPU; of the options --quick, --seconds, --json serve.",
)
@click.option("--json", "file", type=FILE, callback=writable, help="Write what was measured.")
@click.option(
    "--from", "report", type=THERE, callback=_report_file, help="Read it; measure nothing."
)
@click.option("--figure", type=FILE, callback=figure_file, help="Draw the ratios.")
@click.option("--page", type=THERE, callback=_page_file, help="Put the tables into this page.")
@click.pass_context
def bench(
    context: click.Context,
    report: Report | None,
    file: Path | None,
    figure: Path | None,
    page: Path | None,
    device: str,
    **asked: Any,
) -> None:
    """Time xent beside torch, NumPy, SciPy and optax.

    The suite is losses of logits, or those of a linear head. Each peer has a process of its own,
    in which xent, the peer and the bandwidth floor take turns. A result that is wrong is not timed,
    and the exit status is 1. Without options every case is measured beside every peer that is
    installed, which takes a while.
    """

    def given(option: str) -> bool:
        return context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE

    if device == "cuda":
        others = [n for n in (*asked, "figure", "page", "report") if n not in ("quick", "seconds")]
        if any(map(given, others)):
            raise click.UsageError("--device cuda takes --quick, --seconds and --json alone")
        require("bench", torch="torch", triton="triton")
        context.exit(_on_gpu(file, asked["quick"], asked["seconds"]))
    plot = {"matplotlib": "matplotlib"} if figure else {}
    if report is None:
        require("bench", rich="rich", torch="torch", **plot)
        report = _benchmark(**asked)
    elif any(map(given, asked)):
        raise click.UsageError("--from measures nothing: no option that says what to measure")
    else:
        require("bench", rich="rich", **plot)
    from rich.console import Console

    show_report(report, Console(highlight=False))
    if file:
        save("Measurements", file, _write_json, report)
    if figure:
        from xent.bench.figure import draw

        save("Picture", figure, draw, report)
    if page:
        save("Page", page, _write_page, report)
    context.exit(0 if report.passed else 1)


def _on_gpu(file: Path | None, quick: bool, seconds: float | None) -> int:
    """The benchmark of GPUs, which is also a script of its own."""
    from xent.bench import gpu

    arguments = ["--quick"] * quick
    arguments += [] if file is None else ["--json", str(file)]
    arguments += [] if seconds is None else ["--seconds", str(seconds)]
    return gpu.main(arguments)


def _write_json(report: Report, file: Path) -> None:
    file.write_text(report.as_json(), encoding="utf-8")


def _write_page(report: Report, file: Path) -> None:
    from xent.bench.report import markdown, placed

    text = placed(file.read_text(encoding="utf-8"), markdown(report))
    if text is not None:
        file.write_text(text, encoding="utf-8")


def _benchmark(
    suite: str,
    cases: tuple[Case | Head, ...],
    peers: tuple[str, ...],
    quick: bool,
    threads: tuple[int, ...],
    seconds: float | None,
    seed: int | None,
) -> Report:
    """Measure what was asked for, with a bar where someone watches."""
    with progress("looking at the machine") as tick:
        import torch

        from xent.bench.runner import benchmark

        of_suite = HEADS if suite == LINEAR else CASES
        return benchmark(
            cases or [case for case in of_suite if not quick or case.bytes <= SMALL],
            peers or [name for name, peer in PEERS.items() if not quick or not peer.compiles],
            threads or [torch.get_num_threads()],
            (QUICK_SECONDS if quick else SECONDS) if seconds is None else seconds,
            secrets.randbits(32) if seed is None else seed,
            tick,
        )


def show_report(report: Report, console: Console) -> None:
    """Print the machine, the tables, and what is missing in them."""
    from rich import box
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from xent.bench.report import about, disturbed, slower, tables, troubles

    style = box.SIMPLE_HEAD if console.is_terminal else None
    facts = about(report)
    width = max(len(name) for name, _ in facts)
    for name, text in facts:
        console.print(f"{name:{width}}  {text}", soft_wrap=True)
    for table in tables(report):
        drawn = Table(box=style, show_edge=False, pad_edge=False)
        for name in table.header:
            drawn.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
        for row in table.rows:
            drawn.add_row(
                *(
                    Text(cell.text, "red" if cell.slower else "").append(
                        f"\n{cell.detail}" if cell.detail else "", "dim"
                    )
                    for cell in row
                )
            )
        lines = "\n".join(filter(None, [f"[bold]{table.title}[/bold]", table.about]))
        console.print(f"\n{lines}\n", soft_wrap=True)
        # A figure that a narrow terminal wraps can be read; one that is cut off is wrong.
        wide = console.options.update(width=10_000)
        console.width = max(console.width, Measurement.get(console, wide, drawn).maximum)
        console.print(drawn)
    for title, lines in (
        ("Slower than a peer", slower(report)),
        ("Disturbed", disturbed(report)),
        ("Not measured", troubles(report)),
    ):
        if lines:
            text = "\n".join(lines)
            console.print(f"\n[bold]{title}[/bold]\n{text}", soft_wrap=True)
    console.print()
