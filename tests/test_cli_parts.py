"""cli/parts.py: what the commands share."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
import pytest

from xent.cli.parts import MissingLibrary, progress, require, save, writable

sys.path.insert(0, str(Path(__file__).parent))
from command import Terminal

pytestmark = pytest.mark.usefixtures("own_folder")


def test_what_is_missing_is_told_together() -> None:
    require("demo", json="json")
    with pytest.raises(
        MissingLibrary, match=r"xent demo needs c, b, not installed: pip install"
    ) as told:
        require("demo", json="json", no_such_c="c", no_such_b="b")
    assert told.value.exit_code == 2


def test_a_file_is_refused_where_its_folder_is_missing(own_folder: Path) -> None:
    option = click.Option(["--json"])
    context = click.Context(click.Command("xent"))
    assert writable(context, option, None) is None
    assert writable(context, option, Path("found.json")) == Path("found.json")
    with pytest.raises(click.BadParameter, match="no is not a folder"):
        writable(context, option, Path("no/found.json"))


def test_what_is_saved_is_told(own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save("Words", Path("words.txt"), lambda found, file: file.write_text(found), "some")
    assert (own_folder / "words.txt").read_text() == "some"
    assert capsys.readouterr().out == "Words: words.txt\n"
    with pytest.raises(click.FileError):
        save("Words", Path("no/words.txt"), lambda found, file: file.write_text(found), "some")


def test_progress_is_for_those_who_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress("starting") as tick:
            tick("half way", 1, 2)
        assert ("starting" in stream.getvalue()) == stream.isatty()
