"""cli.predictions: files that are replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from xent.cli.predictions import replaced


def test_an_interrupted_write_leaves_what_was_there(own_folder: Path) -> None:
    file = own_folder / "x.txt"
    file.write_text("old")

    def interrupted(beside: Path) -> None:
        beside.write_text("half of the n")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replaced(file, interrupted)
    assert [(f.name, f.read_text()) for f in own_folder.iterdir()] == [("x.txt", "old")]
    replaced(file, lambda beside: beside.write_text("new"))
    assert [(f.name, f.read_text()) for f in own_folder.iterdir()] == [("x.txt", "new")]


def test_a_folder_that_is_not_there_is_told(own_folder: Path) -> None:
    with pytest.raises(click.FileError):
        replaced(own_folder / "no" / "x.txt", lambda beside: None)
