"""How tests call the command `xent`, and what they look for in what it prints."""

from __future__ import annotations

import io
import re
import sys

import pytest
from click.testing import CliRunner, Result

from xent import cli

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m")  # a foreground colour


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, prog_name="xent")


class Terminal(io.StringIO):
    """A stream that is written to as a terminal is."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, str]:
    """What a command writes to a terminal's stdout and stderr."""
    stdout, stderr = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    assert cli.main(arguments, standalone_mode=False) is None
    return stdout.getvalue(), stderr.getvalue()


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())
