"""What the commands share: files to write, progress, and what is told of a missing library."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

FIGURE_FORMATS = (".pdf", ".png", ".svg")
FILE = click.Path(dir_okay=False, writable=True, path_type=Path)
THERE = click.Path(exists=True, dir_okay=False, path_type=Path)


class MissingLibrary(click.ClickException):
    """A command that an optional library is missing for."""

    exit_code = 2


def figure_file(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    """The file, refused before the work where it could not be written after it."""
    if file is None:
        return None
    if file.suffix.lower() not in FIGURE_FORMATS:
        raise click.BadParameter(f"{file} does not end in {', '.join(FIGURE_FORMATS)}")
    return writable(context, option, file)


def writable(context: click.Context, option: click.Parameter, file: Path | None) -> Path | None:
    if file is not None and not file.absolute().parent.is_dir():
        raise click.BadParameter(f"{file.parent} is not a folder")
    return file


def save(what: str, file: Path, write: Callable[[Any, Path], object], found: Any) -> None:
    try:
        write(found, file)
    except OSError as error:
        raise click.FileError(str(file), error.strerror) from error
    click.echo(f"{what}: {file}")


@contextmanager
def progress(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar where someone watches, and what moves it: what is done, how many, of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    off = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=off) as shown:
        bar = shown.add_task(first, total=None)

        def tick(what: str, done: int, total: int) -> None:
            shown.update(bar, description=what, completed=done, total=total)

        yield tick


def require(extra: str, **libraries: str) -> None:
    """Tell which libraries, given as module=name, are missing, before any work is done."""
    missing = [name for module, name in libraries.items() if not importlib.util.find_spec(module)]
    if missing:
        names = ", ".join(missing)
        raise MissingLibrary(
            f'xent {extra} needs {names}, not installed: pip install "xent[{extra}]"'
        )
