"""The command `xent`: its commands, a file each.

What a command computes is in a module of its own and is imported when the command runs, so that
`xent --help` answers at once. Results go to stdout, coloured on a terminal unless NO_COLOR is set,
plain in a file or a pipe; progress goes to stderr, only to a terminal. The exit status is 2 where
the command is called wrongly or lacks a library.
"""

from __future__ import annotations

import sys

import xent

try:
    import click
except ModuleNotFoundError:  # a user who types `xent` gets here first
    print('Error: xent needs click, not installed: pip install "xent[cli]"', file=sys.stderr)
    raise SystemExit(2) from None

from xent.cli.bench import bench
from xent.cli.compare import compare
from xent.cli.demo import demo
from xent.cli.doctor import doctor
from xent.cli.evaluate import evaluate
from xent.cli.explain import explain
from xent.cli.explore import explore
from xent.cli.grade import grade


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(xent.__version__, message="xent %(version)s")
def main() -> None:
    """Cross entropy, right to the last digit."""


for command in (bench, compare, demo, doctor, evaluate, explain, explore, grade):
    main.add_command(command)
