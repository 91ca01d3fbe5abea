"""bench/machine.py: what is told of the machine, and what is not."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from xent import doctor
from xent.bench import machine

ROOT = Path(__file__).parents[1]


def everything() -> str:
    return json.dumps([machine.machine(), machine.software(), machine.allocator(), machine.load()])


def test_neither_host_nor_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_CONF", "/home/someone/settings")
    monkeypatch.setenv("LD_PRELOAD", "/opt/someone/libjemalloc.so.2")
    told = everything()
    assert "/" not in told
    assert socket.gethostname() not in told
    assert machine.allocator()["preloaded"] == ["libjemalloc.so.2"]


def test_the_settings_of_the_allocator_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"MALLOC_ARENA_MAX": "1", "THP_MEM_ALLOC_ENABLE": "1", "OMP_WAIT_POLICY": "active"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SOME_TOKEN", "1")
    told = machine.allocator()["environment"]
    assert told.items() >= given.items()
    assert "SOME_TOKEN" not in told


def test_the_machine_is_this_one() -> None:
    told = machine.machine()
    assert told["cores"] == os.cpu_count()
    assert told["architecture"] == platform.machine()
    assert told["processor"]
    if platform.system() == "Linux":
        assert told["memory_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    capability = torch.backends.cpu.get_cpu_capability()
    if told["instructions"] and capability in ("AVX2", "AVX512"):
        assert {"AVX2": "avx2", "AVX512": "avx512f"}[capability] in told["instructions"]


def test_what_is_not_known_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_read", lambda file: "")
    told = machine.machine()
    assert (told["memory_bytes"], told["virtual"], told["instructions"]) == (None, None, [])
    assert told["processor"]
    assert machine.allocator()["huge_pages"] is None


def test_software_is_what_doctor_tells() -> None:
    told, facts = machine.software(), doctor.examine()
    assert told["kernels"] == facts["kernels"]
    assert told["libraries"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert set(told["libraries"]) == set(machine.LIBRARIES)


def test_the_commit_is_that_of_the_sources() -> None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    if not (ROOT / ".git").exists():
        assert machine.commit() is None
        return
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(machine.commit()).rstrip("+") == done.stdout.strip()
