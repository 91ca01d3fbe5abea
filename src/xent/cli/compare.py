"""`xent compare`: what is told of two sets of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xent.cli.parts import require, writable
from xent.cli.predictions import deliver, reading, shared, told


@click.command()
@click.argument("base_predictions", metavar="BASE")
@click.argument("new_predictions", metavar="NEW")
@click.argument("targets")
@shared
@click.pass_context
def compare(
    context: click.Context,
    base_predictions: str,
    new_predictions: str,
    targets: str,
    as_json: bool,
    output: Path | None,
    fail_above: float | None,
    base: str,
    **asked: Any,
) -> None:
    """Tell how far NEW predictions are from BASE ones of the same TARGETS.

    KL divergence, change of the target's probability, how often the likeliest class is the same,
    and the difference of the losses row by row, with the table that llama.cpp prints. Files are as
    for evaluate.

    The exit status is 1 where the mean KL divergence is above --fail-above, 2 where a file or a row
    is wrong.
    """
    require("evaluate", rich="rich")
    writable(context, context.command.params[0], output)
    import xent
    from xent.evaluation.report import as_json as json_of
    from xent.evaluation.report import comparison_sections, llama_table

    with told(), reading("reading both predictions") as tick:
        found = xent.compare(
            base_predictions,
            new_predictions,
            targets,
            unit_base=2 if base == "2" else None,
            tick=tick,
            **asked,
        )
    json = json_of(found) if as_json else None
    deliver(comparison_sections(found), json, output, llama_table(found))
    if fail_above is not None and not found.kl.mean <= fail_above:
        context.exit(1)
