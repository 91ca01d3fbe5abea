"""What `xent evaluate` and `xent compare` share: options, progress, errors, the way out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from xent.evaluation import processes
from xent.evaluation.checks import KINDS
from xent.evaluation.report import Section, plain

MIB = 2**20


class Refused(click.ClickException):
    """Files, options or rows that are wrong."""

    exit_code = 2


class Interrupted(click.ClickException):
    """Ctrl-C, which is no 1: that says that a limit was passed."""

    exit_code = 130


SHARED = (
    click.option("--kind", type=click.Choice(KINDS), default="auto", help="Of the predictions."),
    click.option("--axis", metavar="N", type=int, default=-1, help="The class axis; the last."),
    click.option(
        "--ignore-index",
        metavar="N",
        type=int,
        default=-100,
        help="Target of rows that take no part; -100.",
    ),
    click.option(
        "--base", type=click.Choice(["e", "2"]), default="e", help="Losses in nats or bits."
    ),
    click.option("--group", metavar="FILE", help="Rows of a group vary together: a label each."),
    click.option("--skip-bad", is_flag=True, help="Leave broken rows out, and list them."),
    click.option(
        "--chunk-mb",
        metavar="MB",
        type=click.FloatRange(0, min_open=True),
        default=64.0,
        help="Memory for predictions; 64.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    click.option(
        "--output",
        metavar="FILE",
        type=click.Path(dir_okay=False, writable=True, path_type=Path),
        help="Write what would be printed.",
    ),
    click.option(
        "--fail-above",
        metavar="X",
        type=float,
        help="Exit status 1 where the loss (compare: the mean KL) is more.",
    ),
)


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of both."""
    for option in reversed(SHARED):
        command = option(command)
    return command


@contextmanager
def told() -> Iterator[None]:
    """Errors as messages with exit status 2, an interruption with 130."""
    try:
        yield
    except (ValueError, TypeError, IndexError, OSError, ModuleNotFoundError) as error:
        raise Refused(str(error)) from error
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was written") from None


@contextmanager
def reading(what: str) -> Iterator[Callable[[int, int, int], None]]:
    """A bar with rate and time left where someone watches, and what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Rate

    console = Console(stderr=True)
    off = not console.is_terminal or processes.world()[0] > 0
    text = TextColumn("{task.description}")
    columns = text, BarColumn(), Rate(), TimeRemainingColumn(), TextColumn("left")
    with Progress(*columns, console=console, transient=True, disable=off) as shown:
        bar = shown.add_task(what, total=None)

        def tick(done: int, rows: int, row_bytes: int) -> None:
            shown.update(bar, completed=done * row_bytes, total=rows * row_bytes)

        yield tick


def show(sections: Sequence[Section], text: str, after: str = "") -> None:
    """Print a report: tables with rules on a terminal, plain text anywhere else."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        click.echo(text)
        return
    for section in sections:
        header = bool(section.header)
        table = Table(
            box=box.SIMPLE_HEAD if header else None,
            show_header=header,
            show_edge=False,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for i in range(max((len(row) for row in section.rows), default=0)):
            name = section.header[i] if header else ""
            table.add_column(
                name,
                justify="right" if header and i else "left",
                style="" if header or i else "dim",
                overflow="fold",
            )
        for row in section.rows:
            table.add_row(*row)
        if section.title:
            console.print(f"[bold]{section.title}[/bold]")
        console.print(table)
        console.print()
    if after:
        console.print(after, markup=False, soft_wrap=True)


def replaced(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name and put it in place: whole, or not at all."""
    try:
        handle, name = tempfile.mkstemp(suffix=file.suffix, dir=file.absolute().parent)
        os.close(handle)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    beside = Path(name)
    try:
        write(beside)
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)
        beside.replace(file)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    finally:
        beside.unlink(missing_ok=True)


def deliver(
    sections: Sequence[Section], json: str | None, output: Path | None, after: str = ""
) -> None:
    """Print or write a report: as JSON where there is any, else as tables."""
    if processes.world()[0] > 0:
        return
    parts = [*map(plain, sections), *([after] if after else [])]
    text = "\n\n".join(parts) if json is None else json
    if output is not None:
        replaced(output, lambda file: file.write_text(text + "\n", encoding="utf-8"))
        click.echo(f"Report: {output}", err=True)
    elif json is not None:
        click.echo(text)
    else:
        show(sections, text, after)
