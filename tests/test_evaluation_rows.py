"""evaluation.rows: the numbers of a row by their definitions, with and without the kernel."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from xent.evaluation import rows
from xent.kernels import library

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn, softmax


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize(
    ("dtype", "close"), [("float32", 3e-6), ("float64", 1e-12)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("shape", [(500, 3), (40, 100), (4, 20_000), (1, 1)], ids=str)
def test_the_numbers_are_what_they_are_called(
    shape: tuple[int, int],
    dtype: str,
    close: float,
    kernel: bool,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not kernel:
        monkeypatch.setattr(library, "why_not", lambda: "a test")
    logits, target = drawn(rng, *shape, dtype=dtype)
    if shape[1] > 1:
        logits[0, (target[0] + 1) % shape[1]] = -np.inf
    found = rows.row_numbers(logits, target)
    p, at = softmax(logits), np.arange(shape[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = np.log(p)
        entropy = -np.where(p > 0, p * log_p, 0).sum(axis=1)
    assert found.nll == pytest.approx(-log_p[at, target], rel=close, abs=close)
    assert np.array_equal(found.k, p.argmax(axis=1))
    assert found.confidence == pytest.approx(p.max(axis=1), rel=close)
    assert found.entropy == pytest.approx(entropy, rel=close, abs=10 * close)
    brier = ((p - np.eye(shape[1])[target]) ** 2).sum(axis=1) if shape[1] < 1000 else None
    if brier is not None:
        assert found.brier == pytest.approx(brier, rel=close, abs=close)
    rank = (logits > logits[at, target][:, None]).sum(axis=1)
    assert np.array_equal(rows.above_target(logits, target, found.k), rank)
    quick = rows.row_numbers(logits, target, quick=True)
    for name in ("nll", "lse", "k", "confidence"):
        assert getattr(quick, name) == pytest.approx(getattr(found, name), rel=close, abs=close)


def test_a_confident_row_keeps_its_digits() -> None:
    logits = np.array([[40.0, 0.0, 0.0]])
    found = rows.row_numbers(logits, np.array([0]))
    s = 2 * np.exp(-40.0)
    assert found.nll[0] == pytest.approx(s, rel=1e-14)
    assert found.brier[0] == pytest.approx(s * s * 1.5, rel=1e-14)
    assert found.entropy[0] == pytest.approx(s * 41, rel=1e-13)


def test_an_ignored_row_is_all_zeros() -> None:
    found = rows.row_numbers(np.array([[np.nan, 1.0], [2.0, 1.0]]), np.array([-1, 0]))
    assert [found.nll[0], found.brier[0], found.entropy[0]] == [0, 0, 0]
    assert found.nll[1] == pytest.approx(np.log1p(np.exp(-1)))


def test_a_row_is_the_same_alone_and_among_others(rng: np.random.Generator) -> None:
    for classes in (3, 100, 5000):
        logits, target = drawn(rng, 70, classes)
        whole = rows.row_numbers(logits, target)
        for i in rng.integers(0, 70, 10):
            alone = rows.row_numbers(logits[i : i + 1].copy(), target[i : i + 1].copy())
            for one, every in zip(alone, whole, strict=True):
                assert one[0] == every[i]
