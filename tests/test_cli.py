"""cli: the commands there are, their help, and what it is like without them."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from xent import cli

sys.path.insert(0, str(Path(__file__).parent))
from command import call

pytestmark = pytest.mark.usefixtures("own_folder")


def test_the_installed_command_is_this_one() -> None:
    (command,) = metadata.entry_points(group="console_scripts", name="xent")
    assert command.load() is cli.main


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_without_click_the_command_tells_what_to_install() -> None:
    done = python("import sys; sys.modules['click'] = None; from xent.cli import main; main()")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'Error: xent needs click, not installed: pip install "xent[cli]"\n'


def test_help_imports_none_of_the_heavy_libraries() -> None:
    done = python(
        "import sys; from xent.cli import main; main(['--help'], 'xent', standalone_mode=False);"
        "heavy = {'torch', 'scipy', 'sklearn', 'matplotlib', 'rich'};"
        "sys.exit(str(heavy & set(sys.modules) or ''))"
    )
    assert done.stdout == call("--help").stdout
    assert done.stderr.strip() == ""


def test_help_lists_the_commands_that_exist() -> None:
    result = call("--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: xent [OPTIONS] COMMAND [ARGS]...\n\n  Cross entropy")
    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert (
        [line.split()[0] for line in listed]
        == sorted(cli.main.commands)
        == [
            "bench",
            "compare",
            "demo",
            "doctor",
            "evaluate",
            "explain",
            "explore",
            "grade",
        ]
    )
    assert call("-h").stdout == result.stdout


@pytest.mark.parametrize("command", [["-h"], *([name, "-h"] for name in sorted(cli.main.commands))])
def test_help_is_narrow_and_wraps_no_default(command: list[str]) -> None:
    result = call(*command)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "xent-demo.png" in result.stdout or command != ["demo", "-h"]


def test_version() -> None:
    result = call("--version")
    assert (result.exit_code, result.stdout) == (0, f"xent {metadata.version('xent')}\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    result = call("dmeo")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error: No such command 'dmeo'." in result.stderr
