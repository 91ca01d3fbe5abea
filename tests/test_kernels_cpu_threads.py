"""The kernel's own threads, which NumPy arrays are worked on by: how many, shared, and forked."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import xent
from xent.kernels import cpu, library

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

# Rows shared out, one row shared out, and a tile.
PROGRAM = """
import hashlib, os, sys
import numpy as np, xent
rng = np.random.default_rng(int(sys.argv[1]))
found = hashlib.sha256()
def results():
    for shape in ((400, 1000), (1, 300000), (40000, 10)):
        logits, target = rng.normal(0, 3, shape), rng.integers(0, shape[1], shape[0])
        for dtype in ("f2", "f4", "f8"):
            loss, vjp = xent.cross_entropy_vjp(logits.astype(dtype), target)
            found.update(loss.tobytes() + vjp(1.0).tobytes())
results()
if len(sys.argv) > 2 and os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
results()
print(found.hexdigest(), flush=True)
"""


def digest(seed, threads, *more):
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(seed), *more]
    environment = {**os.environ, "XENT_NUM_THREADS": str(threads)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_any_number_of_threads_gives_the_same_bits(seed):
    right = digest(seed, 1)
    for threads in (2, 3, 16):
        assert digest(seed, threads) == right


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_threads_of_its_own(seed):
    assert digest(seed, 2, "fork") == digest(seed, 1)


@pytest.mark.parametrize("array", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_calls_from_many_threads_at_once(rng, array):
    given = []
    for shape in ((200, 700), (1, 100000), (20000, 10), (30, 3)) * 4:
        logits = rng.normal(0, 3, shape).astype("f4")
        given.append((array(logits), array(rng.integers(0, shape[1], shape[0]))))

    def gradient(arrays):
        loss, vjp = xent.cross_entropy_vjp(*arrays)
        return np.asarray(loss), np.asarray(vjp(1.0))

    right = [gradient(arrays) for arrays in given]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, expected in zip(pool.map(gradient, given), right, strict=True):
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("asked", "threads"), [("3", 3), ("1", 1), ("", None), ("0", None), ("many", None)]
)
def test_the_number_of_threads(monkeypatch, asked, threads):
    monkeypatch.setenv("XENT_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {2, 3, 5, 7, 11}, raising=False)
    assert cpu.threads() == (threads or 5)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpu.threads() == (threads or os.cpu_count())
