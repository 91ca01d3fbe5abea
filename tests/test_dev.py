"""The project's own commands: ./dev and .ci/run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from xent.kernels import library

ROOT = Path(__file__).parents[1]


@pytest.fixture
def dev(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("dev", str(ROOT / "dev"))
    module = module_from_spec(spec_from_loader("dev", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def fresh(dev, monkeypatch, tmp_path):
    """The script in a folder without .venv, with its commands recorded and not run."""
    for name in dev.INSTALLED_FROM:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path)
    monkeypatch.setattr(dev, "STAMP", tmp_path / "installed")
    commands = []
    monkeypatch.setattr(dev.venv, "create", lambda folder, **options: commands.append("venv"))
    monkeypatch.setattr(dev.subprocess, "run", lambda command, check: commands.append(command))
    return dev, commands


def test_help_lists_every_task(dev, capsys):
    assert dev.main(["help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {task} " in told for task in dev.TASKS)


def test_an_unknown_task_is_an_error_that_lists_the_known(dev, capsys):
    assert dev.main(["demonstrate"]) == 2
    told = capsys.readouterr().out
    assert told.startswith("dev: no task 'demonstrate'\nusage: ./dev TASK [ARGUMENT ...]\n  demo ")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "src/xent/kernels/cpu.cpp"])
def test_it_installs_once_and_again_when_a_file_changes(fresh, name):
    dev, commands = fresh
    dev.install()
    assert commands[0] == "venv"
    assert commands[1][-4:-1] == ["-c", str(dev.ROOT / "constraints.txt"), "-e"]
    assert commands[2][-1] == dev.TELL
    dev.install()
    assert len(commands) == 3
    (dev.ROOT / name).write_text("changed")
    dev.install()
    assert len(commands) == 6


@pytest.mark.parametrize("name", ["CXX", "XENT_NO_NATIVE"])
def test_it_installs_again_for_another_compiler_or_none(fresh, name, monkeypatch):
    dev, commands = fresh
    monkeypatch.delenv(name, raising=False)
    dev.install()
    monkeypatch.setenv(name, "1")
    dev.install()
    dev.install()
    assert commands.count("venv") == 2


@pytest.mark.parametrize(
    ("chosen", "told"), [("none", "dev: XENT_CPU is 'none'\n"), ("baseline", None)]
)
def test_it_tells_why_there_is_no_kernel(dev, chosen, told, monkeypatch, capfd):
    monkeypatch.setenv("XENT_CPU", chosen)
    subprocess.run([sys.executable, "-c", dev.TELL], check=True)
    reason = library.find({"XENT_CPU": chosen})[1]
    assert capfd.readouterr().out == (told or (f"dev: {reason}\n" if reason else ""))


def test_a_failed_install_is_done_again(fresh, monkeypatch):
    dev, commands = fresh

    def fail(command, check):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(dev.subprocess, "run", fail)
    with pytest.raises(subprocess.CalledProcessError):
        dev.install()
    assert not dev.STAMP.exists()
    assert commands == ["venv"]


def test_an_old_python_is_told_so(dev, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    monkeypatch.setattr(sys, "version", "3.10.4 (main)")
    with pytest.raises(SystemExit, match=r"^dev: Python is 3\.10\.4, expected 3.11 or newer$"):
        dev.main(["test"])


def test_ci_runs_what_a_person_runs():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if line.startswith("./dev")] == ["./dev lint", "./dev test"]
    assert "set -euo pipefail" in lines


def test_torch_is_pinned():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in pins


@pytest.mark.parametrize(("status", "told"), [(0, ""), (1, "Chromium could not be installed\n")])
def test_ci_goes_on_without_a_browser(status, told, tmp_path):
    programs = {
        ".ci/run": (ROOT / ".ci" / "run").read_text(),
        "dev": '#!/bin/sh\necho "dev $*"\n',
        "bin/id": "#!/bin/sh\necho 0\n",
        "bin/apt-get": f"#!/bin/sh\necho apt-get >>asked\nexit {status}\n",
    }
    for name, text in programs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name in ("bash", "dirname", "timeout", "sh"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    run = subprocess.run(
        [tmp_path / ".ci" / "run"], env={"PATH": f"{tmp_path}/bin"}, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, "dev lint\ndev test\n")
    assert run.stderr.removeprefix(".ci/run: ") == told
    assert (tmp_path / "asked").read_text().splitlines() == ["apt-get"] * (2 - status)
