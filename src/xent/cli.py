"""The command `xent`: its options, and what it prints.

What a command computes is in a module of its own and is imported when the command runs, so that
`xent --help` answers at once. Results go to stdout, coloured on a terminal unless NO_COLOR is set,
plain in a file or a pipe; progress goes to stderr, only to a terminal. The exit status is 2 where
the command is called wrongly or lacks a library.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xent
from xent.bench.cases import CASES, HEADS, LINEAR, LOGITS, SMALL, SUITES, Case, Head, named
from xent.bench.peers import PEERS

try:
    import click
except ModuleNotFoundError:  # a user who types `xent` gets here first
    print('Error: xent needs click, not installed: pip install "xent[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from rich.console import Console

    from xent.bench.records import Report
    from xent.demo import Comparison

FIGURE_FORMATS = (".pdf", ".png", ".svg")
SECONDS, QUICK_SECONDS = 2.0, 0.1  # of the rounds of one measurement


class MissingLibrary(click.ClickException):
    """A command that an optional library is missing for."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(xent.__version__, message="xent %(version)s")
def main() -> None:
    """Cross entropy, right to the last digit."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Show versions, kernels and threads."""
    from xent.doctor import examine, told

    facts = examine()
    click.echo(json.dumps(facts, indent=2) if as_json else told(facts))


def _figure_file(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """The file, refused before the work where it could not be written after it."""
    if file is None:
        return None
    if file.suffix.lower() not in FIGURE_FORMATS:
        raise click.BadParameter(f"{file} does not end in {', '.join(FIGURE_FORMATS)}")
    return _writable(context, option, file)


def _writable(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    if file is not None and not file.absolute().parent.is_dir():
        raise click.BadParameter(f"{file.parent} is not a folder")
    return file


@main.command()
@click.option(
    "--epochs",
    metavar="N",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="How often every image is seen.",
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(0), help="Of the start and the order of the images."
)
@click.option(
    "--figure",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    callback=_figure_file,
    default="xent-demo.png",
    show_default=True,
    help="The loss curves.",
)
def demo(epochs: int, seed: int | None, figure: Path) -> None:
    """Train a digit classifier three ways and compare.

    By hand in NumPy, in torch, and in torch with xent's cross entropy: from the same start on the
    same batches, so that the three loss curves are one. Without --seed one is drawn and printed.
    """
    _require("demo", rich="rich", torch="torch", sklearn="scikit-learn", matplotlib="matplotlib")
    from rich.console import Console

    comparison = _compare(epochs, secrets.randbits(32) if seed is None else seed)
    show(comparison, Console(highlight=False))
    from xent.demo import draw

    _save("Loss curves", figure, draw, comparison)
    click.echo(f"Once more: xent demo --epochs {epochs} --seed {comparison.seed}")


def show(comparison: Comparison, console: Console) -> None:
    """Print what was trained, the table of the three ways, and how far they differ."""
    from rich import box
    from rich.table import Table

    from xent.demo import SIZES

    style = box.SIMPLE_HEAD if console.is_terminal else None
    ways = Table("way", box=style, show_edge=False, pad_edge=False)
    for column in ("first loss", "last loss", "test accuracy", "seconds"):
        ways.add_column(column, justify="right")
    for way in comparison.trainings:
        first, last = (f"{loss:.6f}" for loss in (way.losses[0], way.losses[-1]))
        ways.add_row(way.way, first, last, f"{way.accuracy:.1%}", f"{way.seconds:.2f}")
    gaps = Table("largest difference between", "and", box=style, show_edge=False, pad_edge=False)
    gaps.add_column("nats", justify="right")
    for (one, other), gap in comparison.differences().items():
        gaps.add_row(one, other, f"{gap:.1e}")

    network = "-".join(map(str, SIZES))
    console.print(f"{network} network, {comparison.rows:,} handwritten digits, float64")
    for table in (ways, gaps):
        console.print()
        console.print(table)
    console.print()


def _compare(epochs: int, seed: int) -> Comparison:
    """Train, with a bar where someone watches."""
    with _progress("loading torch and the digits") as tick:
        from xent.demo import compare

        return compare(epochs, seed, tick)


def _save(what: str, file: Path, write: Callable[[Any, Path], object], found: Any) -> None:
    try:
        write(found, file)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    click.echo(f"{what}: {file}")


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
    from xent.bench.report import BEGIN, END, placed

    if file is not None and placed(file.read_text(encoding="utf-8"), "") is None:
        raise click.BadParameter(f"{file} has no lines {BEGIN} and {END}")
    return file


FILE = click.Path(dir_okay=False, writable=True, path_type=Path)
THERE = click.Path(exists=True, dir_okay=False, path_type=Path)


@main.command()
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
@click.option("--json", "file", type=FILE, callback=_writable, help="Write what was measured.")
@click.option(
    "--from", "report", type=THERE, callback=_report_file, help="Read it; measure nothing."
)
@click.option("--figure", type=FILE, callback=_figure_file, help="Draw the ratios.")
@click.option("--page", type=THERE, callback=_page_file, help="Put the tables into this page.")
@click.pass_context
def bench(
    context: click.Context,
    report: Report | None,
    file: Path | None,
    figure: Path | None,
    page: Path | None,
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

    plot = {"matplotlib": "matplotlib"} if figure else {}
    if report is None:
        _require("bench", rich="rich", torch="torch", **plot)
        report = _benchmark(**asked)
    elif any(map(given, asked)):
        raise click.UsageError("--from measures nothing: no option that says what to measure")
    else:
        _require("bench", rich="rich", **plot)
    from rich.console import Console

    show_report(report, Console(highlight=False))
    if file:
        _save("Measurements", file, _write_json, report)
    if figure:
        from xent.bench.figure import draw

        _save("Picture", figure, draw, report)
    if page:
        _save("Page", page, _write_page, report)
    context.exit(0 if report.passed else 1)


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
    with _progress("looking at the machine") as tick:
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


@contextmanager
def _progress(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar where someone watches, and what moves it: what is done, how many, of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        bar = progress.add_task(first, total=None)

        def tick(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total)

        yield tick


def _require(extra: str, **libraries: str) -> None:
    """Tell which libraries, given as module=name, are missing, before any work is done."""
    missing = [name for module, name in libraries.items() if not importlib.util.find_spec(module)]
    if missing:
        names = ", ".join(missing)
        raise MissingLibrary(
            f'xent {extra} needs {names}, not installed: pip install "xent[{extra}]"'
        )
