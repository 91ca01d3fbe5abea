"""`xent doctor`: what there is on this machine."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Show versions, kernels and threads."""
    from xent.doctor import examine, told

    facts = examine()
    click.echo(json.dumps(facts, indent=2) if as_json else told(facts))
