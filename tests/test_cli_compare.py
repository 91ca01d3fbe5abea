"""cli.compare: the command, its exit status, and its tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import xent

sys.path.insert(0, str(Path(__file__).parent))
from command import call
from prediction_files import drawn, saved


@pytest.fixture(autouse=True)
def files(own_folder: Path, rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 300, 6)
    saved(own_folder, x=logits, y=logits * np.float32(1.2), t=target)


def test_it_prints_what_the_function_tells() -> None:
    result = call("compare", "x.npy", "y.npy", "t.npy")
    assert (result.exit_code, result.stderr) == (0, "")
    told = xent.compare("x.npy", "y.npy", "t.npy")
    assert result.stdout == f"{told}\n"
    assert "Same top p" in result.stdout
    shown = json.loads(call("compare", "x.npy", "y.npy", "t.npy", "--json").stdout)
    assert shown["kl"]["mean"] == told.kl.mean
    assert shown["kl_at"]["99.9"] == told.kl_at[99.9]


def test_the_exit_status_tells() -> None:
    kl = xent.compare("x.npy", "y.npy", "t.npy").kl.mean
    for limit, code in ((2 * kl, 0), (kl / 2, 1)):
        assert (
            call("compare", "x.npy", "y.npy", "t.npy", "--fail-above", str(limit)).exit_code == code
        )
    result = call("compare", "x.npy", "t.npy", "t.npy")
    assert result.exit_code == 2
    assert "Error: compare: t.npy has shape (300,), expected rows and classes" in result.stderr
