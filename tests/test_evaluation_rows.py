"""evaluation.rows: the numbers of a row by their definitions, with and without the kernel."""

from __future__ import annotations

import math
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
    assert np.array_equal(found.above, rank)
    gap = np.where(p > 0, logits.max(axis=1, keepdims=True) - logits, 0)
    slope = gap[at, target] - (p * gap).sum(axis=1)
    assert found.slope == pytest.approx(slope, rel=close, abs=10 * close)
    assert found.curve is None


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("classes", [1, 7, 64, 65, 128, 129, 5000])
def test_the_numbers_at_a_scale_are_those_of_scaled_logits(
    classes: int, kernel: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(library, "why_not", lambda: "a test")
    logits, target = drawn(rng, 37, classes, "float64")
    target[::5] = -1
    step = 1e-3
    low, found, high = (
        rows.row_numbers(logits, target, scale=1.7 * math.exp(i * step), threads=True)
        for i in (-1, 0, 1)
    )
    scaled = rows.row_numbers(1.7 * logits, target)
    for one, other in zip(found[:-1], scaled[:-1], strict=True):
        assert one == pytest.approx(other, rel=1e-12, abs=1e-12)
    assert found.slope == pytest.approx((high.nll - low.nll) / (2 * step), abs=1e-4)
    bend = (high.nll - 2 * found.nll + low.nll) / step**2
    assert found.curve == pytest.approx(bend - found.slope, abs=1e-3)


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("classes", [5, 100, 300])
def test_half_precision_is_read_as_it_lies(
    classes: int, kernel: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(library, "why_not", lambda: "a test")
    logits, target = drawn(rng, 50, classes)
    logits[:, 1] = logits[:, 0]  # the first of the largest is the likeliest
    bits = np.ascontiguousarray(logits.view(np.uint32) >> 16).astype(np.uint16)
    widened = (bits.astype(np.uint32) << 16).view(np.float32)
    for half, wide, bfloat16 in (
        (logits.astype(np.float16), logits.astype(np.float16).astype(np.float32), False),
        (bits, widened, True),
    ):
        found = rows.row_numbers(half, target, bfloat16)
        for one, other in zip(found[:-1], rows.row_numbers(wide, target)[:-1], strict=True):
            assert one == pytest.approx(other, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("classes", [3, 100, 5000])
def test_broken_rows_show_in_their_lse(classes: int, rng: np.random.Generator) -> None:
    for dtype in ("float16", "float32", "float64"):
        logits, target = drawn(rng, 40, classes, "float64")
        logits = logits.astype(dtype)
        at = rng.integers(0, classes, 4)
        logits[3, at[0]], logits[9, at[1]] = np.nan, np.inf
        logits[11], logits[39] = -np.inf, np.nan
        with np.errstate(invalid="ignore"):
            lse = rows.row_numbers(logits, target).lse
        assert np.flatnonzero(~np.isfinite(lse)).tolist() == [3, 9, 11, 39]


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
            for one, every in zip(alone[:-1], whole[:-1], strict=True):
                assert one[0] == every[i]
