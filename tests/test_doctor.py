"""doctor.py: what it tells is so, also where a library is missing or broken."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from xent import doctor
from xent.kernels import library

V3 = library.Library(None, "", "v3", ("v3", "baseline"))
MISSING = "no compiled kernel is installed: install xent with a C++ compiler"

OF_TORCH = {"native": "native", "reference": "chunks"}  # by what computes for NumPy


@pytest.fixture(params=["native", "reference"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What computes, with and without a compiled kernel on whatever machine."""
    found = (V3, None) if request.param == "native" else (None, MISSING)
    monkeypatch.setattr(library, "found", lambda: found)
    return request.param


def test_facts_are_those_of_this_environment(kernel: str) -> None:
    facts = doctor.examine()
    installed = {name: metadata.version(name) for name in doctor.LIBRARIES}
    told = {name: version.partition("+")[0] for name, version in facts["libraries"].items()}
    assert told == {name: version.partition("+")[0] for name, version in installed.items()}
    assert facts["xent"] == metadata.version("xent")
    assert facts["python"] == platform.python_version()
    assert facts["kernels"] == {"numpy": kernel, "torch": OF_TORCH[kernel]}
    assert facts["native"] == (
        {"instructions": "v3", "supported": ["v3", "baseline"], "reason": None}
        if kernel == "native"
        else {"instructions": None, "supported": [], "reason": MISSING}
    )
    assert facts["threads"] == {"cores": os.cpu_count(), "torch": torch.get_num_threads()}
    assert facts["errors"] == {}
    assert json.loads(json.dumps(facts)) == facts


def test_a_missing_library_is_none(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    facts = doctor.examine()
    assert facts["libraries"]["torch"] is None
    assert facts["errors"] == {}
    assert facts["kernels"] == {"numpy": kernel}
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
    source: str, reason: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_torch.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(doctor.LIBRARIES, "torch", "broken_torch")
    facts = doctor.examine()
    assert facts["libraries"]["torch"] is None
    assert facts["errors"] == {"torch": reason}
    assert facts["kernels"] == {"numpy": kernel}
    assert f"torch             {reason}" in doctor.told(facts).splitlines()


def test_told_is_one_aligned_column(kernel: str) -> None:
    facts = doctor.examine()
    lines = doctor.told(facts).splitlines()
    names = (
        "xent",
        "python",
        "numpy",
        "array-api-compat",
        "torch",
        "scipy",
        "native kernel",
        "cores",
    )
    assert tuple(line[:18].rstrip() for line in lines) == names
    assert lines[0][18:] == facts["xent"]
    v3 = " v3" if kernel == "native" else ""
    assert lines[2][18:] == f"{facts['libraries']['numpy']}, kernel: {kernel}{v3}"
    assert lines[4].endswith(f"kernel: {OF_TORCH[kernel]}{v3}, threads: {torch.get_num_threads()}")
    assert lines[6][18:] == ("v3 of v3, baseline" if kernel == "native" else MISSING)


def test_the_kernel_is_the_one_that_the_environment_chooses() -> None:
    code = "from xent import doctor; print(doctor.examine()['native']['reason'])"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XENT_CPU": "none"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "XENT_CPU is 'none'\n"
