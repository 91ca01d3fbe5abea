"""Fixtures and hypothesis settings shared by all tests."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Triton's kernels run in its interpreter where there is no GPU: to be told before one is imported.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A fresh machine is slow at its first call: time is no test here.
hypothesis.settings.register_profile(
    "xent", deadline=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("xent")


@pytest.fixture
def seed() -> int:
    """A fresh seed, printed when the test fails; XENT_SEED=... repeats a run."""
    drawn = int(os.environ.get("XENT_SEED", secrets.randbits(32)))
    print(f"XENT_SEED={drawn}")
    return drawn


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A NumPy generator from the test's fresh seed."""
    return np.random.default_rng(seed)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to write into, and no wish of the environment's about colour or width."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return tmp_path
