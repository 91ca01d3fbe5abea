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
from pathlib import Path
from typing import TYPE_CHECKING

import xent

try:
    import click
except ModuleNotFoundError:  # a user who types `xent` gets here first
    print('Error: xent needs click, not installed: pip install "xent[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from rich.console import Console

    from xent.demo import Comparison

FIGURE_FORMATS = (".pdf", ".png", ".svg")


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


def _figure_file(context: click.Context, option: click.Parameter, file: Path) -> Path:
    """The file, refused before the work where it could not be written after it."""
    if file.suffix.lower() not in FIGURE_FORMATS:
        raise click.BadParameter(f"{file} does not end in {', '.join(FIGURE_FORMATS)}")
    if not file.absolute().parent.is_dir():
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
    _draw(comparison, figure)
    click.echo(f"Loss curves: {figure}")
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
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as progress:
        bar = progress.add_task("loading torch and the digits", total=None)

        def tick(way: str, done: int, steps: int) -> None:
            progress.update(bar, description=way, completed=done, total=steps)

        from xent.demo import compare

        return compare(epochs, seed, tick)


def _draw(comparison: Comparison, file: Path) -> None:
    from xent.demo import draw

    try:
        draw(comparison, file)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error


def _require(extra: str, **libraries: str) -> None:
    """Tell which libraries, given as module=name, are missing, before any work is done."""
    missing = [name for module, name in libraries.items() if not importlib.util.find_spec(module)]
    if missing:
        names = ", ".join(missing)
        raise MissingLibrary(
            f'xent {extra} needs {names}, not installed: pip install "xent[{extra}]"'
        )
