"""`xent grade`: what is graded, and how the report is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from xent.cli.parts import FILE, THERE, progress, require, writable

if TYPE_CHECKING:
    from rich.console import Console

    from xent.conformance.report import Report


@click.command(short_help="Tell whether a cross entropy is right.")
@click.argument("target", required=False)
@click.option("--adapter", metavar="NAME", help="How it is called; --list shows them.")
@click.option(
    "--check", "checks", metavar="NAME", multiple=True, help="A check or a family. Again for more."
)
@click.option(
    "--seed", metavar="N", type=click.IntRange(0), help="Of the inputs; else it is drawn."
)
@click.option(
    "--timeout",
    metavar="S",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="Seconds for one check.",
)
@click.option("--strict", is_flag=True, help="Be better than torch, too, for exit status 0.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--html", "page", type=FILE, callback=writable, help="Write one HTML page.")
@click.option("--answers", type=THERE, help="Grade answers to cases.json, of any language.")
@click.option("--list", "listed", is_flag=True, help="Show adapters and checks; grade nothing.")
@click.pass_context
def grade(
    context: click.Context,
    target: str | None,
    adapter: str | None,
    checks: tuple[str, ...],
    seed: int | None,
    timeout: float,
    strict: bool,
    as_json: bool,
    page: Path | None,
    answers: Path | None,
    listed: bool,
) -> None:
    """Tell whether an implementation of cross entropy is right.

    TARGET is module:function or my_loss.py:function, a class, or a pair of functions,
    my_loss.py:forward,backward. It runs in a process of its own: hanging and crashing are findings.
    What is wrong comes with the smallest input that shows it and its likely cause. The exit status
    is 0 where it agrees with torch, 1 where it falls short, 2 where it could not be graded.
    """
    require("grade", rich="rich", mpmath="mpmath")
    if listed:
        click.echo(_listed())
        return
    if (target is None) == (answers is None):
        raise click.UsageError("give either TARGET or --answers FILE")
    if target is not None:
        report = _graded(target, adapter, checks, seed, timeout)
    else:
        report = _judged(answers)
    if page:
        _write_page(report, page)
        if not as_json:
            click.echo(f"Page: {page}")
    if as_json:
        click.echo(report.as_json())
    else:
        _show(report)
    context.exit(report.status(strict))


def _graded(
    target: str,
    adapter: str | None,
    checks: tuple[str, ...],
    seed: int | None,
    timeout: float,
) -> Report:
    from xent.conformance.grading import grade as examine

    with progress("loading") as tick:
        try:
            return examine(
                target,
                adapter=adapter,
                seed=seed,
                checks=checks or None,
                timeout=timeout,
                tick=tick,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from error


def _judged(file: Path | None) -> Report:
    """Answers in a file: for the name of a case, its loss and dlogits."""
    from xent.conformance.cases import judge

    if file is None:
        raise click.UsageError("--answers needs a file")
    try:
        answers = json.loads(file.read_text(encoding="utf-8"))
        return judge(answers, str(file))
    except (ValueError, AttributeError, TypeError) as error:
        shape = '{"value.none.0": {"loss": [...], "dlogits": [[...]]}, ...}'
        raise click.BadParameter(f"{file} is not {shape}: {error}") from error


def _write_page(report: Report, page: Path) -> None:
    from xent.conformance.page import html

    try:
        page.write_text(html(report), encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(page), error.strerror) from error


def _show(report: Report) -> None:
    """A table on a terminal, lines in a file or a pipe."""
    from rich.console import Console

    from xent.conformance.report import text

    console = Console(highlight=False)
    if not console.is_terminal:
        click.echo(text(report), nl=False)
        return
    _show_table(report, console)


def _show_table(report: Report, console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from xent.conformance.report import FAILED, TIERS, scores, summary

    for line in summary(report)[: None if report.trouble else 4]:
        console.print(Text(line))
    if report.trouble:
        return
    for place, cause in enumerate(report.causes):
        if not place:
            console.print("\n[bold]Causes[/bold], the first explains most\n")
        console.print(Text(f"{place + 1}. {cause.text}", "" if place else "bold red"))
        console.print(Text(f"   explains {', '.join(cause.checks)}", "dim"))
    order = sorted(report.of(FAILED), key=lambda r: (TIERS.index(r.tier), r.severity))
    if order:
        console.print("\n[bold]Findings[/bold], for each the smallest input that shows it\n")
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_lines=True)
        table.add_column("check", no_wrap=True)
        table.add_column("what was found", ratio=1)
        from xent.conformance.report import SEVERITIES

        for record in order:
            about = f"{SEVERITIES[record.severity]}\n{record.tier}"
            name = Text(record.name, "red" if record.tier == TIERS[0] else "yellow")
            note = f" ({record.note})" if record.note else ""
            told = Text()
            for label, value in (
                ("input", record.given),
                ("expected", record.expected),
                ("obtained", record.obtained + note),
                ("why", record.why),
                ("hint", record.hint),
            ):
                told.append(f"{label:9}", "dim").append(f"{value}\n")
            table.add_row(name.append(f"\n{about}", "dim"), told)
        console.print(table)
    absent = [record.name for record in report.of("not offered")]
    if absent:
        console.print(Text(f"\nNot offered, and no failure: {', '.join(absent)}", "dim"))
    console.print()
    for line in scores(report):
        console.print(Text(line, "bold"))


def _listed() -> str:
    """Adapters and checks, a line each."""
    from xent.conformance.adapters import ADAPTERS
    from xent.conformance.checks import CHECKS

    adapters = [f"  {a.name:14} {a.about}" for a in ADAPTERS.values()]
    checks = [f"  {c.name:28} {c.tier}: {c.hint}" for c in CHECKS.values()]
    return "\n".join(["Adapters", *adapters, "", f"Checks, {len(checks)}", *checks])
