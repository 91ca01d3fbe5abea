"""`xent evaluate`: what is told of saved predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xent.cli.parts import FILE, figure_file, require, writable
from xent.cli.predictions import deliver, reading, replaced, shared, told
from xent.evaluation import processes


@click.command()
@click.argument("predictions")
@click.argument("targets")
@shared
@click.option("--class-weight", metavar="FILE", help="Weight of each class in the loss.")
@click.option("--row-weight", metavar="FILE", help="Weight of each row in every mean.")
@click.option(
    "--label-smoothing",
    metavar="E",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="The target becomes (1 - E) target + E / V.",
)
@click.option("--indices", metavar="FILE", help="Classes of top-k log-probabilities.")
@click.option(
    "--classes", metavar="V", type=click.IntRange(1), help="How many there are, for top-k."
)
@click.option(
    "--bootstrap",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    help="The error from N draws of the rows or groups.",
)
@click.option("--seed", metavar="N", type=click.IntRange(0), default=0, help="Of these draws; 0.")
@click.option(
    "--top", metavar="K", type=click.IntRange(1), default=5, help="Of the top-k accuracy; 5."
)
@click.option(
    "--bins", metavar="N", type=click.IntRange(1), default=15, help="Of the confidence; 15."
)
@click.option("--worst", metavar="N", type=click.IntRange(0), default=10, help="Rows to list; 10.")
@click.option("--per-class", is_flag=True, help="Tell of each class, however many there are.")
@click.option(
    "--temperature",
    type=click.Choice(["sample", "all", "none"]),
    default="sample",
    help="Of up to 2^14 rows evenly spaced, or of all in some five more passes.",
)
@click.option("--plot", type=FILE, callback=figure_file, help="Draw calibration and losses.")
@click.pass_context
def evaluate(
    context: click.Context,
    predictions: str,
    targets: str,
    as_json: bool,
    output: Path | None,
    fail_above: float | None,
    plot: Path | None,
    per_class: bool,
    base: str,
    class_weight: str | None,
    **asked: Any,
) -> None:
    """Tell how good saved PREDICTIONS of the TARGETS are.

    Loss with its standard error, perplexity, accuracy, calibration, the worst rows. Files are .npy,
    .npz:KEY, .safetensors:KEY, .csv, .tsv, .parquet:COLUMN or .arrow:COLUMN, and - is .csv on
    stdin. They are read a piece at a time, and may be larger than memory.

    The exit status is 1 where the loss is above --fail-above, 2 where a file or a row is wrong.
    """
    library = {"matplotlib": "matplotlib"} if plot else {}
    require("evaluate", rich="rich", **library)
    writable(context, context.command.params[0], output)
    import xent
    from xent.evaluation.report import MOST_CLASSES, evaluation_sections
    from xent.evaluation.report import as_json as json_of

    with told(), reading("reading predictions") as tick:
        found = xent.evaluate(
            predictions,
            targets,
            weight=class_weight,
            base=2 if base == "2" else None,
            tick=tick,
            **asked,
        )
    few = len(found.per_class) <= MOST_CLASSES
    sections = evaluation_sections(found, per_class or few)
    deliver(sections, json_of(found) if as_json else None, output)
    if plot and processes.world()[0] == 0:
        from xent.evaluation.figure import draw

        replaced(plot, lambda file: draw(found, file))
        click.echo(f"Picture: {plot}", err=True)
    if fail_above is not None and not found.loss <= fail_above:
        context.exit(1)
