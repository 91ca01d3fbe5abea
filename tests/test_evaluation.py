"""evaluation: every measure beside scikit-learn, torchmetrics, netcal; any piece gives the same."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from sklearn import metrics

import xent
from xent.evaluation.report import as_json

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn, saved, softmax

EXACT = {"rel": 1e-12, "abs": 1e-12}


@pytest.fixture(params=[(400, 10), (60, 300), (2000, 3), (1, 2)], ids=str)
def case(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[Any, ...]:
    logits, target = drawn(rng, *request.param, dtype="float64")
    return logits, target, softmax(logits)


def test_as_scikit_learn(case: tuple[Any, ...], rng: np.random.Generator) -> None:
    logits, target, p = case
    labels = np.arange(p.shape[1])
    weight = rng.random(len(target)) + 0.1
    for given, share in ((None, None), (weight, weight)):
        told = xent.evaluate(logits, target, row_weight=given)
        expected = metrics.log_loss(target, p, labels=labels, sample_weight=share)
        assert told.loss == pytest.approx(expected, **EXACT)
        expected = metrics.accuracy_score(target, p.argmax(1), sample_weight=share)
        assert told.accuracy == pytest.approx(expected, **EXACT)
        k = min(5, p.shape[1] - 1)
        again = xent.evaluate(logits, target, row_weight=given, top=k)
        if p.shape[1] > 2:
            expected = metrics.top_k_accuracy_score(
                target, p, k=k, labels=labels, sample_weight=share
            )
            assert again.top_accuracy == pytest.approx(expected, **EXACT)
        one_hot = np.eye(p.shape[1])[target]
        expected = np.average(((p - one_hot) ** 2).sum(axis=1), weights=share)
        assert told.brier == pytest.approx(expected, **EXACT)
        entropy = -(p * np.log(p)).sum(axis=1)
        assert told.entropy == pytest.approx(np.average(entropy, weights=share), **EXACT)
        if len(set(target)) > 1:
            expected = metrics.d2_log_loss_score(target, p, labels=labels, sample_weight=share)
            assert told.skill == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_brier_score_is_scikit_learns(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 500, 2, "float64")
    expected = 2 * metrics.brier_score_loss(target, softmax(logits)[:, 1])
    assert xent.evaluate(logits, target).brier == pytest.approx(expected, **EXACT)


def test_as_torchmetrics(case: tuple[Any, ...]) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error
    from torchmetrics.functional.text import perplexity

    logits, target, p = case
    told = xent.evaluate(logits, target, bins=12)
    chances, labels = torch.from_numpy(p), torch.from_numpy(target)
    for norm, mine in (("l1", told.ece), ("max", told.mce)):
        theirs = multiclass_calibration_error(chances, labels, p.shape[1], n_bins=12, norm=norm)
        # torchmetrics adds a bin's confidences in float32, one after another: up to 2000 roundings
        assert mine == pytest.approx(float(theirs), abs=1e-5)
    theirs = perplexity(torch.from_numpy(logits)[None], labels[None])
    assert told.perplexity == pytest.approx(float(theirs), rel=1e-6)


def test_as_netcal(rng: np.random.Generator) -> None:
    netcal = pytest.importorskip("netcal.metrics")
    logits, target = drawn(rng, 1000, 7, "float64")
    told = xent.evaluate(logits, target, bins=10)
    assert told.ece == pytest.approx(netcal.ECE(10).measure(softmax(logits), target), abs=1e-9)
    assert told.mce == pytest.approx(netcal.MCE(10).measure(softmax(logits), target), abs=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "log-probabilities"])
def test_kinds_and_dtypes_agree(kind: str, dtype: str, rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 500, 12, "float64")
    p = softmax(logits)
    stored = {"logits": logits, "probabilities": p, "log-probabilities": np.log(p)}[kind]
    stored = stored.astype(dtype)
    told = xent.evaluate(stored, target)
    assert (told.kind, told.kind_detected, told.dtype) == (kind, True, dtype)
    wide = stored.astype(np.float64)
    own = wide[np.arange(500), target]
    expected = {"probabilities": -np.log(np.maximum(own, 1e-300)), "log-probabilities": -own}
    mean = np.mean(expected.get(kind, -np.log(softmax(wide)[np.arange(500), target])))
    assert told.loss == pytest.approx(mean, rel=1e-12 if dtype == "float64" else 1e-6)
    assert told.brier == pytest.approx(
        np.mean(((p - np.eye(12)[target]) ** 2).sum(1)), abs=5e-3 if dtype == "float16" else 1e-6
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_cross_entropys(
    smoothing: float, weighted: bool, rng: np.random.Generator
) -> None:
    logits, target = drawn(rng, 700, 9, "float64")
    target[rng.random(700) < 0.2] = -100
    weight = rng.random(9) + 0.5 if weighted else None
    told = xent.evaluate(logits, target, weight=weight, label_smoothing=smoothing)
    given = None if weight is None else torch.from_numpy(weight)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(target), given, label_smoothing=smoothing
    )
    assert told.loss == pytest.approx(float(expected), **EXACT)
    assert told.ignored == np.count_nonzero(target == -100)
    p = softmax(logits)
    again = xent.evaluate(p, target, weight=weight, label_smoothing=smoothing)
    assert again.kind == "probabilities"
    assert again.loss == pytest.approx(float(expected), rel=1e-11)
    prior = np.bincount(target[target >= 0], minlength=9) / (target >= 0).sum()
    best = np.log(np.tile(prior, (700, 1))) if not smoothing and not weighted else None
    if best is not None:
        assert told.baseline == pytest.approx(xent.evaluate(best, target).loss, **EXACT)


@hypothesis.given(
    st.integers(1, 300), st.integers(1, 40), st.floats(0.0005, 1), st.integers(0, 2**32 - 1)
)
@hypothesis.settings(max_examples=25)
def test_the_size_of_a_piece_changes_no_bit(
    rows: int, classes: int, chunk: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, target = drawn(rng, rows, classes)
    target[: rows // 3] = -100
    target[-1] = 0
    one = as_json(xent.evaluate(logits, target, chunk_mb=1024))
    assert one == as_json(xent.evaluate(logits, target, chunk_mb=chunk))
    new = logits + rng.standard_normal(logits.shape).astype(np.float32)
    one = as_json(xent.compare(logits, new, target, chunk_mb=1024))
    assert one == as_json(xent.compare(logits, new, target, chunk_mb=chunk))


def test_many_blocks_are_the_same_for_any_piece(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, target = drawn(rng, 5000, 20)
    monkeypatch.setattr("xent.evaluation.passes.block_rows", lambda classes: 64)
    told = [as_json(xent.evaluate(logits, target, chunk_mb=mb)) for mb in (64, 0.01, 0.001)]
    assert told[0] == told[1] == told[2]
    exact = math.fsum(xent.cross_entropy(np.float64(logits), target, reduction="none")) / 5000
    assert json.loads(told[0])["loss"] == pytest.approx(exact, rel=1e-7)


def test_files_are_as_arrays(own_folder: Path, rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 300, 6)
    files = saved(own_folder, logits=logits, target=target)
    of_files = xent.evaluate(files["logits"], files["target"])
    of_arrays = xent.evaluate(torch.from_numpy(logits), torch.from_numpy(target))
    assert of_files.predictions == files["logits"]
    assert (of_files.loss, of_files.worst) == (of_arrays.loss, of_arrays.worst)


def test_an_infinite_loss_is_told_as_one(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 50, 4)
    logits[7, target[7]] = -np.inf
    told = xent.evaluate(logits, target)
    assert (told.infinite, told.loss, told.perplexity) == (1, math.inf, math.inf)
    assert told.temperature is not None
    assert told.temperature.temperature is None
    assert told.worst[0]["row"] == 7
    p = softmax(logits)
    entropy = -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1)
    assert told.entropy == pytest.approx(entropy.mean(), rel=1e-5)
    assert told.brier == pytest.approx(np.mean(((p - np.eye(4)[target]) ** 2).sum(1)), rel=1e-5)
    assert json.loads(as_json(told))["loss"] is None
    assert re.search(r"^mean loss +inf nats$", str(told), re.MULTILINE)


def test_compare_is_what_it_says(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 800, 11, "float64")
    target[::7] = -100
    new = logits + 0.3 * rng.standard_normal(logits.shape)
    kept = target >= 0
    p, q, t = softmax(logits)[kept], softmax(new)[kept], target[kept]
    told = xent.compare(logits, new, target)
    kl = (p * np.log(p / q)).sum(1)
    at = np.arange(len(t))
    assert told.kl.mean == pytest.approx(kl.mean(), rel=1e-10)
    assert told.kl.error == pytest.approx(kl.std(ddof=1) / math.sqrt(len(t)), rel=1e-9)
    for q_of, value in told.kl_at.items():
        assert value == pytest.approx(np.percentile(kl, q_of), rel=1e-9)
    change = q[at, t] - p[at, t]
    for q_of, value in told.change_at.items():
        assert value == pytest.approx(np.percentile(change, q_of), abs=1e-13)
    assert told.change.mean == pytest.approx(change.mean(), abs=1e-14)
    assert told.change_rms.mean == pytest.approx(np.sqrt(np.mean(change**2)), rel=1e-10)
    assert told.same_top.mean == np.mean(p.argmax(1) == q.argmax(1))
    losses = -np.log(p[at, t]), -np.log(q[at, t])
    gap = losses[1] - losses[0]
    assert told.difference.mean == pytest.approx(gap.mean(), rel=1e-10)
    assert told.difference.error == pytest.approx(gap.std(ddof=1) / math.sqrt(len(t)), rel=1e-9)
    assert told.correlation == pytest.approx(np.corrcoef(*losses)[0, 1], rel=1e-10)
    assert told.ratio.mean == pytest.approx(math.exp(gap.mean()), rel=1e-10)
    assert (told.rows, told.ignored) == (800, np.count_nonzero(~kept))
    same = xent.compare(logits, logits, target)
    assert (same.kl.mean, same.difference.mean, same.same_top.mean) == (0, 0, 1)


def test_a_small_divergence_keeps_its_digits(rng: np.random.Generator) -> None:
    logits, target = drawn(rng, 20, 5, "float64")
    step = 1e-7 * rng.standard_normal(logits.shape)
    p = softmax(logits)
    second = 0.5 * ((p * step**2).sum(1) - (p * step).sum(1) ** 2)  # of log sum exp
    told = xent.compare(logits, logits + step, target)
    assert told.kl.mean == pytest.approx(second.mean(), rel=1e-5)
