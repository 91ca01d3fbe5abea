"""doctor.py: what it tells is so, also where a library is missing or broken."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from xent import doctor


def test_facts_are_those_of_this_environment() -> None:
    facts = doctor.examine()
    installed = {name: metadata.version(name) for name in doctor.LIBRARIES}
    told = {name: version.partition("+")[0] for name, version in facts["libraries"].items()}
    assert told == {name: version.partition("+")[0] for name, version in installed.items()}
    assert facts["xent"] == metadata.version("xent")
    assert facts["python"] == platform.python_version()
    assert facts["kernels"] == {"numpy": "reference", "torch": "reference"}
    assert facts["threads"] == {"cores": os.cpu_count(), "torch": torch.get_num_threads()}
    assert facts["errors"] == {}
    assert json.loads(json.dumps(facts)) == facts


def test_a_missing_library_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    facts = doctor.examine()
    assert facts["libraries"]["torch"] is None
    assert facts["errors"] == {}
    assert facts["kernels"] == {"numpy": "reference"}
    assert facts["threads"] == {"cores": os.cpu_count()}
    assert "torch             not installed" in doctor.told(facts).splitlines()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('no libtorch.so')", "OSError: no libtorch.so"),
        ("import its_part", "ModuleNotFoundError: No module named 'its_part'"),
    ],
)
def test_a_broken_library_tells_why(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_torch.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.LIBRARIES, "torch", "broken_torch")
    facts = doctor.examine()
    assert facts["libraries"]["torch"] is None
    assert facts["errors"] == {"torch": reason}
    assert facts["kernels"] == {"numpy": "reference"}
    assert f"torch             {reason}" in doctor.told(facts).splitlines()


def test_told_is_one_aligned_column() -> None:
    facts = doctor.examine()
    lines = doctor.told(facts).splitlines()
    names = ["xent", "python", "numpy", "array-api-compat", "torch", "scipy", "cores"]
    assert [line.split()[0] for line in lines] == names
    assert {line[:18].rstrip() for line in lines} == set(names)
    assert lines[0][18:] == facts["xent"]
    assert lines[2][18:] == f"{facts['libraries']['numpy']}, kernel: reference"
    assert lines[4].endswith(f"kernel: reference, threads: {torch.get_num_threads()}")
