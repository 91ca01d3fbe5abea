"""The kernel's tests again with the instruction sets that are not the best that this CPU has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from xent.kernels import library

TESTS = Path(__file__).parent
FILES = sorted(
    path.name
    for pattern in ("test_kernels_cpu*.py", "test_backends_*fused*.py", "test_backends_fast.py")
    for path in TESTS.glob(pattern)
)
# What a set of instructions may do otherwise: vectors, their remainders, halves, sums of lanes.
TELLING = {
    "test_kernels_cpu.py": "first_nan or every_option and not 1500",
    "test_kernels_cpu_bits.py": "alone",
    "test_kernels_cpu_exact.py": "ulp_of_losses and sure and not 150",
    "test_backends_numpy_fused.py": "loss_and_gradient and 0.3",
    "test_backends_torch_fused.py": "as_good_as_one",
}


def outcome(instructions, *chosen):
    """What pytest tells of a run in a process of its own, and its status."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    run = subprocess.run(
        [*command, "-rs", *chosen],
        env={**environment, "XENT_CPU": instructions},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    return run.stdout + run.stderr, run.returncode


@pytest.mark.slow
@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("instructions", ["v3", "baseline"])
def test_other_instructions(instructions, name, seed):
    loaded = library.load()
    if loaded is None:
        pytest.skip(f"no compiled kernel: {library.why_not()}")
    if instructions not in loaded.supported:
        pytest.skip(f"this CPU has no {instructions}")
    if instructions == loaded.instructions:
        pytest.skip(f"{instructions} is what all tests run with")
    told, status = outcome(instructions, str(TESTS / name), "-k", TELLING[name])
    assert status == 0, told
    assert re.search(r"\d+ passed", told), told


def test_without_a_kernel_its_tests_are_skipped_for_that_reason():
    told, status = outcome("none", *(str(TESTS / name) for name in FILES))
    reasons = re.findall(r"^SKIPPED \[1\] .*?([\w.]+):\d+: (.*)$", told, re.MULTILINE)
    right = "no compiled kernel: XENT_CPU is 'none'"
    assert sorted(reasons) == [(name, right) for name in FILES], told
    assert status == pytest.ExitCode.NO_TESTS_COLLECTED
