"""bench/memory.py: the peak of a call whose memory is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xent.bench import memory
from xent.bench.runner import MEMORY_ALLOCATOR

MIB = 2**20
CODE = """
import numpy as np
from xent.bench.memory import extra_bytes
def call():
    first = np.ones(8 * 2**20, np.uint8)
    del first
    second = np.ones({size}, np.uint8)
    return second[:10].copy()
np.ones(64 * 2**20, np.uint8)  # a higher peak before
print(extra_bytes(call))
"""


@pytest.mark.skipif(not memory.RESET.exists(), reason="this system does not tell")
@pytest.mark.parametrize("mebibytes", [16, 40])
def test_the_peak_is_that_of_the_call_alone(mebibytes: int) -> None:
    """In a process of its own, as the benchmark does: other tests leave memory behind."""
    code = CODE.format(size=mebibytes * MIB)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=MEMORY_ALLOCATOR)
    # The kernel counts pages in batches.
    assert abs(int(done.stdout) - mebibytes * MIB) < MIB, done.stderr


@pytest.mark.parametrize("name", ["STATUS", "RESET"])
def test_a_system_that_does_not_tell_gives_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "RESET", tmp_path / "clear_refs")
    monkeypatch.setattr(memory, name, tmp_path / "no" / "such")
    assert memory.extra_bytes(list) is None


def test_a_peak_that_is_not_forgotten_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    status.write_text("VmHWM:\t  900000 kB\nVmRSS:\t  100000 kB\n")
    monkeypatch.setattr(memory, "STATUS", status)
    monkeypatch.setattr(memory, "RESET", tmp_path / "clear_refs")
    assert memory.extra_bytes(list) is None
    status.write_text("VmHWM:\t  100000 kB\nVmRSS:\t  100000 kB\n")
    assert memory.extra_bytes(list) == 0
