"""The script behind `./dev test-gpu`: which Python it takes, and what it lends to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import run


def test_this_python_comes_first():
    found = run.pythons()
    assert found[0] == sys.executable
    assert len(found) == len(set(found))


def test_a_python_without_torch_has_no_device(tmp_path):
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    assert run.device(str(bare)) is None


def test_it_lends_what_a_python_lacks(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')  # no installed packages
    bare.chmod(0o755)
    folder = tmp_path / "lent"
    folder.mkdir()
    assert run.lend(str(bare), folder) == []
    script = f"import sys; sys.path.append({str(folder)!r}); import pytest, mpmath, hypothesis"
    subprocess.run([str(bare), "-c", script], check=True)
    (tmp_path / "none").mkdir()
    assert run.lend(sys.executable, tmp_path / "none") == []
    assert not list((tmp_path / "none").iterdir())
