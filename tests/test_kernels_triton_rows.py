"""Whom the Triton kernels serve, whole losses by them, and that they compile for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from kernel_cases import BOTH, near
from triton_cases import DTYPES, PLAIN, there

import xent
from xent import Plan
from xent.kernels import choose, triton_rows
from xent.kernels.triton_rows import Rows, Tile, parts_of, tile_of, why_not
from xent.ops.softmax import Softmax
from xent.ops.stats import RowStats

LOGITS = torch.zeros(2, 1, 3)


def test_whom_it_serves(monkeypatch):
    arrays = there(LOGITS), None, None
    assert "on a GPU" in (why_not(PLAIN, (LOGITS, None, None)) or "")
    assert "on a GPU" in (why_not(PLAIN, (np.zeros((2, 1, 3)), None, None)) or "")
    with triton_cases.running():
        assert why_not(PLAIN, arrays) is None
        assert "row statistics" in (why_not(Softmax(), arrays) or "")
        assert "derivative" in (why_not(PLAIN, arrays, (True, True, False)) or "")
        assert "dtype" in (why_not(PLAIN, (there(LOGITS.to(torch.int8)), None, None)) or "")
        assert "no rows" in (why_not(PLAIN, (there(LOGITS[:0]), None, None)) or "")
        monkeypatch.setattr(triton_rows, "installed", lambda: False)
        assert why_not(PLAIN, arrays) == "triton is not installed"


def test_when_it_is_chosen():
    arrays = there(LOGITS), None, None
    assert choose(PLAIN, (LOGITS, None, None), None) is not triton_rows
    with triton_cases.running():
        assert choose(PLAIN, arrays, None) is triton_rows
        assert choose(PLAIN, arrays, Plan(kernel="native")) is triton_rows
        assert choose(PLAIN, arrays, Plan(kernel="reference")) is None
        assert choose(Softmax(), arrays, None) is None
        with pytest.raises(ValueError, match="the op is not that of row statistics"):
            choose(Softmax(), arrays, Plan(kernel="native"))


@pytest.mark.parametrize("classes", [1, 3, 64, 1000, 4096, 5000, 1_000_000])
@pytest.mark.parametrize("step", [1, 49])
@pytest.mark.parametrize("work", [torch.float32, torch.float64])
def test_a_tile_is_of_powers_of_two_and_fits(classes, step, work):
    for outer, inner in ((1, 1), (1, 7), (64, 49), (1, 8192)):
        rows = Rows(outer, inner, (classes * inner, 1, step), (inner, 1), False)
        tile = tile_of(rows, classes, work)
        for size in tile[:2]:
            assert size & (size - 1) == 0
        assert tile.rows * tile.classes <= 4096
        parts, chunk = parts_of(rows, classes, tile, 132)
        assert (parts - 1) * chunk < classes <= parts * chunk
        assert parts == 1 or chunk % tile.classes == 0


def test_rows_are_split_where_they_are_few():
    tile, steps = Tile(1, 4096, 8), (128_000, 128_000, 1)
    assert parts_of(Rows(1, 8192, steps, (1, 1), True), 128_000, tile, 132) == (1, 128_000)
    assert parts_of(Rows(1, 1, steps, (1, 1), True), 128_000, tile, 132)[0] > 1


@DTYPES
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 9.0}])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_whole_losses(rng, dtype, options, reduction):
    x = torch.from_numpy(rng.normal(0, 3, (6, 40))).to(getattr(torch, dtype))
    target = torch.from_numpy(rng.integers(0, 40, 6))
    target[2] = -100
    found = []
    for plan in (Plan(kernel="native", gradient="recompute"), Plan(kernel="reference")):
        logits = there(x.clone()).requires_grad_()
        with triton_cases.running():
            loss = xent.cross_entropy(
                logits, there(target), reduction=reduction, plan=plan, **options
            )
            loss.sum().backward()
        found.append((loss.detach().cpu(), logits.grad.cpu()))
    # Each is rounded from an answer within the contract: the two may be a unit apart.
    for got, right, limit in zip(*found, BOTH[dtype], strict=True):
        size = abs(right.double().numpy()).max() if options else 0
        near(got, right, dtype, limit + 1, size)


def test_the_numbers_of_an_op_keep_their_bits():
    import struct

    op = RowStats(logit_scale=0.1, softcap=1e300)
    assert struct.unpack("dd", struct.pack("qq", *triton_rows._bits(op))) == (0.1, 1e300)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
def test_kernels_compile_for_a_gpu(architecture):
    given = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).parent / "compiled_kernels.py"
    command = [sys.executable, str(script), str(architecture)]
    told = subprocess.run(command, capture_output=True, text=True, env=given)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert len(lines) == 52
    # 8 bytes for sm_80, whose assembler keeps to 64 registers.
    assert all(int(line.split()[-1]) <= 16 for line in lines), told.stdout
