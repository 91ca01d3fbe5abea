"""`xent demo`: three ways to train a classifier, side by side."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xent.cli.parts import figure_file, progress, require, save

if TYPE_CHECKING:
    from rich.console import Console

    from xent.demo import Comparison


@click.command()
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
    callback=figure_file,
    default="xent-demo.png",
    show_default=True,
    help="The loss curves.",
)
def demo(epochs: int, seed: int | None, figure: Path) -> None:
    """Train a digit classifier three ways and compare.

    By hand in NumPy, in torch, and in torch with xent's cross entropy: from the same start on the
    same batches, so that the three loss curves are one. Without --seed one is drawn and printed.
    """
    require("demo", rich="rich", torch="torch", sklearn="scikit-learn", matplotlib="matplotlib")
    from rich.console import Console

    comparison = _compare(epochs, secrets.randbits(32) if seed is None else seed)
    show(comparison, Console(highlight=False))
    from xent.demo import draw

    save("Loss curves", figure, draw, comparison)
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
    with progress("loading torch and the digits") as tick:
        from xent.demo import compare

        return compare(epochs, seed, tick)
