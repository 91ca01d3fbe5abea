"""`xent explore`: the page on which a small batch and its cross entropy are moved by hand."""

from __future__ import annotations

import math
import webbrowser
from pathlib import Path

import click

from xent import page
from xent.cli.parts import FILE, save, writable

ROWS = 3
CLASSES = range(3, 7)
LARGEST = 1000  # a logit, as in the page's own fields
IGNORE = -100


def _logits(
    context: click.Context, option: click.Parameter, text: str | None
) -> list[list[float]] | None:
    """Rows of one length, finite and not too large."""
    if text is None:
        return None
    try:
        rows = [
            [float(number) for number in row.replace(",", " ").split()]
            for row in text.strip().strip(";").split(";")
        ]
    except ValueError as error:
        raise click.BadParameter(f"{error}; expected rows like 2,1,0.1; 0.1,2,1.9") from error
    sizes = sorted({len(row) for row in rows})
    if len(rows) > ROWS:
        raise click.BadParameter(f"{len(rows)} rows, expected at most {ROWS}")
    if len(sizes) > 1 or sizes[0] not in CLASSES:
        found = " and ".join(map(str, sizes))
        raise click.BadParameter(
            f"rows of {found} logits, expected {CLASSES[0]} to {CLASSES[-1]} in every row"
        )
    for value in (value for row in rows for value in row):
        if not math.isfinite(value) or abs(value) > LARGEST:
            raise click.BadParameter(f"{value} is not a logit from -{LARGEST} to {LARGEST}")
    return rows


def _target(context: click.Context, option: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{error}; expected classes like 1,0") from error


@click.command()
@click.option(
    "--output",
    type=FILE,
    callback=writable,
    default="xent-explore.html",
    show_default=True,
    help="The page: one file that needs no other and no network.",
)
@click.option("--no-open", is_flag=True, help="Write the page and open no browser.")
@click.option("--lang", type=click.Choice(["en", "ko"]), help="English or Korean.")
@click.option(
    "--logits", callback=_logits, metavar="ROWS", help="Up to three rows, 2,1,0.1; 0.1,2,1.9"
)
@click.option(
    "--target", callback=_target, metavar="CLASSES", help="A class for each row, -100 to ignore it."
)
def explore(
    output: Path,
    no_open: bool,
    lang: str | None,
    logits: list[list[float]] | None,
    target: list[int] | None,
) -> None:
    """Move logits and see softmax, loss and gradient follow.

    Writes an interactive page and opens it in the browser: a batch of three rows with every option
    of the loss and steps down its gradient, the naive formula against the stable one in narrow
    formats, two distributions to drag, and all of it as NumPy or torch code. It starts with the
    worked example of the sources, or with --logits and --target.
    """
    parts = [f"language={lang}"] if lang else []
    parts += _batch(logits, target)
    save(
        "Page",
        output,
        lambda text, file: file.write_text(text, "utf-8"),
        page.html("&".join(parts)),
    )
    if not no_open and not webbrowser.open(output.absolute().as_uri()):
        click.echo("No browser was found here: open the page in one.")


def _batch(logits: list[list[float]] | None, target: list[int] | None) -> list[str]:
    """The given rows in the words of the page's address; rows that are not given are ignored."""
    if logits is None and target is None:
        return []
    if logits is None or target is None or len(logits) != len(target):
        rows, classes = len(logits or []), len(target or [])
        raise click.UsageError(
            f"--logits has {rows} rows and --target {classes} classes, expected as many"
        )
    V = len(logits[0])
    for row in target:
        if row != IGNORE and row not in range(V):
            raise click.UsageError(f"--target has class {row}, expected 0 to {V - 1} or {IGNORE}")
    empty = ROWS - len(logits)
    rows = [*logits, *[[0.0] * V] * empty]
    classes = [max(c, 0) for c in target] + [0] * empty
    ignored = [int(c == IGNORE) for c in target] + [1] * empty
    return [
        "logits=" + ";".join(",".join(map(repr, row)) for row in rows),
        "target=" + ",".join(map(str, classes)),
        "ignored=" + ",".join(map(str, ignored)),
    ]
