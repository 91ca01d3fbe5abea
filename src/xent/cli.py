"""The command `xent`: its options, and what it prints.

What a command computes is in a module of its own and is imported when the command runs, so that
`xent --help` needs click alone. Results go to stdout: coloured on a terminal unless NO_COLOR is
set, plain in a file or a pipe. Progress goes to stderr and only to a terminal. The exit status is
2 where the command was called wrongly or lacks a library.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xent

try:
    import click
except ModuleNotFoundError:  # here, because `xent` is the first thing that a user calls
    print('xent: click is not installed: pip install "xent[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

if TYPE_CHECKING:
    from rich.console import Console

    from xent.demo import Comparison


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(xent.__version__, message="xent %(version)s")
def main() -> None:
    """Cross entropy, right to the last digit."""


@main.command()
@click.option("--epochs", type=click.IntRange(1), default=10, show_default=True)
@click.option("--seed", type=click.IntRange(0), help="Of the start and the order; drawn if absent.")
@click.option(
    "--figure",
    "file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    default="xent-demo.png",
    show_default=True,
    help="Where to draw the loss curves.",
)
def demo(epochs: int, seed: int | None, file: Path) -> None:
    """Train a digit classifier three ways and compare.

    By hand in NumPy, in torch, and in torch with xent's cross entropy: from the same start, on the
    same batches, the three loss curves are one.
    """
    _require("demo", rich="rich", torch="torch", matplotlib="matplotlib", sklearn="scikit-learn")
    from rich.console import Console

    if seed is None:
        seed = secrets.randbits(32)
    _check_figure(file)
    comparison = _train(epochs, seed)
    show(comparison, Console(highlight=False))
    from xent.demo import draw

    try:
        draw(comparison, file)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    click.echo(f"Figure: {file}")
    click.echo(f"Again: xent demo --epochs {epochs} --seed {seed}")


def _train(epochs: int, seed: int) -> Comparison:
    """The comparison, with a bar for each way where someone watches."""
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


def show(comparison: Comparison, console: Console) -> None:
    """Print what was trained, the table of the three ways, and how far they differ."""
    from rich import box
    from rich.table import Table
