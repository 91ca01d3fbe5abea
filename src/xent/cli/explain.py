"""`xent explain`: a cross entropy step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from xent.cli.parts import FILE, require, writable
from xent.cli.predictions import replaced, told


@click.command()
@click.option("--logits", metavar="NUMBERS", help="A row, as 2,1,0.1; or rows, split by ;.")
@click.option("--target", metavar="NUMBERS", help="Classes of the rows, as 1,0; or probabilities.")
@click.option("--file", metavar="FILE", help="The logits, in place of --logits.")
@click.option("--targets", metavar="FILE", help="The target, in place of --target.")
@click.option("--weight", metavar="NUMBERS", help="Weight of each class, as 1,2,0.5.")
@click.option(
    "--ignore-index",
    metavar="N",
    type=int,
    default=-100,
    help="Target of rows that take no part; -100.",
)
@click.option(
    "--reduction", type=click.Choice(["mean", "sum", "none"]), default="mean", help="Of the rows."
)
@click.option(
    "--label-smoothing",
    metavar="E",
    type=float,
    default=0.0,
    help="The target becomes (1 - E) target + E / V.",
)
@click.option(
    "--z-loss", metavar="Z", type=float, default=0.0, help="Factor of the squared log-sum-exp."
)
@click.option("--softcap", metavar="K", type=float, help="Logits become K tanh(logits / K).")
@click.option(
    "--logit-scale", metavar="S", type=float, default=1.0, help="Factor of the logits; 1."
)
@click.option("--normalizer", metavar="D", type=float, help="Denominator of the mean.")
@click.option("--axis", metavar="N", type=int, help="The class axis; 1, or 0 for one row.")
@click.option("--rows", metavar="N", type=int, default=6, help="How many rows to show; 6.")
@click.option("--classes", metavar="N", type=int, default=6, help="How many classes to show; 6.")
@click.option("--lang", type=click.Choice(["en", "ko"]), default="en", help="English or Korean.")
@click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON.")
@click.option("--html", type=FILE, callback=writable, help="Write a page.")
def explain(
    logits: str | None,
    target: str | None,
    file: str | None,
    targets: str | None,
    weight: str | None,
    as_json: bool,
    html: Path | None,
    **options: Any,
) -> None:
    """Tell a cross entropy step by step, with all its numbers.

    Forward, backward, and what naive formulas give in half precision. Of a batch the worst rows,
    and why they are the worst. Files are .npy, .npz:KEY, .safetensors:KEY, .csv, .tsv,
    .parquet:COLUMN or .arrow:COLUMN.

    \b
    xent explain --logits "2,1,0.1; 0.1,2,1.9" --target 1,0
    xent explain --file logits.npy --targets labels.npy --html worst.html

    The exit status is 2 where something is wrong.
    """
    require("cli", rich="rich")
    import xent

    given = _one("logits", logits, "file", file), _one("target", target, "targets", targets)
    with told():
        x = _opened(file) if file else _rows("--logits", given[0])
        y = _labels(_opened(targets), x) if targets else _target(given[1], x.shape)
        w = None if weight is None else _rows("--weight", weight).reshape(-1)
        explanation = xent.explain(x, y, w, **options)
    if html is not None:
        replaced(html, lambda path: path.write_text(explanation.html(), encoding="utf-8"))
        click.echo(f"Page: {html}", err=as_json)
    if as_json:
        from xent.explanation.data import as_json as json_of

        click.echo(json_of(explanation))
    elif html is None:
        _show(explanation)


def _one(name: str, value: str | None, other: str, file: str | None) -> str:
    """What one of two options gives."""
    if (value is None) == (file is None):
        which = "one" if value is None else "only one"
        raise click.UsageError(f"give {which} of --{name} and --{other}")
    return value or ""


def _rows(option: str, given: str) -> np.ndarray:
    """Numbers split by commas or spaces, rows by semicolons: (V,), or (N, V) for several."""
    rows = [line.replace(",", " ").split() for line in given.strip().strip(";").split(";")]
    try:
        found = [[float(number) for number in row] for row in rows]
    except ValueError as error:
        raise click.UsageError(f"{option} {given!r}: {error}") from None
    if not any(found):
        raise click.UsageError(f"{option} {given!r}: no numbers")
    if len({len(row) for row in found}) > 1:
        counts = ", ".join(str(len(row)) for row in found)
        raise click.UsageError(
            f"{option} {given!r}: rows of {counts} numbers, expected as many each"
        )
    array = np.array(found)
    return array if len(found) > 1 else array[0]


def _target(given: str, shape: tuple[int, ...]) -> np.ndarray:
    """Class indices where all numbers are written as integers, else probabilities."""
    words = given.replace(",", " ").replace(";", " ").split()
    whole = all(word.lstrip("+-").isdigit() for word in words)
    if not whole or not words:
        return _rows("--target", given)
    found = np.array([int(word) for word in words], dtype=np.int64)
    if len(shape) == 1 and len(found) == 1:
        return found.reshape(())
    return found


def _opened(name: str) -> np.ndarray:
    """The numbers of a file."""
    from xent.evaluation.files import opened
    from xent.evaluation.predictions import numbers_of

    found = opened("explain", name)
    return numbers_of(found.array, True) if found.bfloat16 else found.array


def _labels(target: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """A file's target; class indices where a text file has whole numbers, one for each row."""
    if target.dtype.kind == "f" and target.size == len(logits) < logits.size:
        whole = target.reshape(-1)
        if (whole == np.floor(whole)).all():
            return whole.astype(np.int64)
    return target


def _show(explanation: Any) -> None:
    """Print: in colour on a terminal, plain text anywhere else."""
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.print(explanation)
    else:
        click.echo(str(explanation))
