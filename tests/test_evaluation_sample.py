"""evaluation.sample: rows from all over a file, the same for any way of passing by them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from xent.evaluation import processes
from xent.evaluation.predictions import predictions
from xent.evaluation.sample import KEPT, MOST_ROWS, evenly

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn, softmax


@pytest.mark.parametrize("shape", [(5, 3), (40_000, 2), (3000, 5000)], ids=str)
def test_rows_are_evenly_spaced(shape: tuple[int, int], rng: np.random.Generator) -> None:
    logits = rng.standard_normal(shape, dtype=np.float32)
    found = evenly(predictions("evaluate", logits, -1, "logits"))
    assert len(found.rows) == min(shape[0], MOST_ROWS, KEPT // shape[1])
    assert found.rows[0] == 0
    assert len(set(np.diff(found.rows))) <= 2
    step = int(rng.integers(1, shape[0] + 1))
    for start in range(0, shape[0], step):
        found.keep(start, min(shape[0], start + step), logits[start : start + step])
    assert np.array_equal(found.logits, logits[found.rows])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rows_are_kept_as_the_kernel_takes_them(dtype: str, rng: np.random.Generator) -> None:
    logits, _ = drawn(rng, 20, 4, dtype)
    assert evenly(predictions("evaluate", logits, -1, "logits")).logits.dtype == dtype
    chances = predictions("evaluate", softmax(logits).astype(dtype), -1, "auto")
    assert chances.kind == "probabilities"
    wide = "float64" if dtype == "float64" else "float32"
    assert evenly(chances).logits.dtype == wide


def test_processes_give_each_other_their_rows(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = rng.standard_normal((100, 3))
    of = [evenly(predictions("evaluate", logits, -1, "logits")) for _ in range(2)]
    given = []
    for rank, one in enumerate(of):
        for start in range(8 * rank, 100, 16):
            one.keep(start, start + 8, logits[start : start + 8])
        monkeypatch.setattr(processes, "world", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(processes, "gathered", lambda data: given.append(data) or [])
        one.share(8)
    monkeypatch.setattr(processes, "gathered", lambda data: given)
    for rank, one in enumerate(of):
        monkeypatch.setattr(processes, "world", lambda rank=rank: (rank, 2))
        one.share(8)
        assert np.array_equal(one.logits, logits)
