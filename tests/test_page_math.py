"""page/math.js, run in Node, against xent: the same numbers to 1e-12 of themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xent
from xent import info

sys.path.insert(0, str(Path(__file__).parent))
from page_modules import batches, javascript

CLOSE = 1e-12


def options(batch: dict) -> dict[str, Any]:
    return {
        "label_smoothing": batch["smoothing"],
        "z_loss": batch["zLoss"],
        "logit_scale": 1 / batch["temperature"],
        "reduction": batch["reduction"],
    }


def of_xent(batch: dict) -> tuple[Any, np.ndarray]:
    logits, weight = np.array(batch["logits"]), np.array(batch["weight"], float)
    target = np.where(batch["ignored"], -100, batch["target"])
    loss, vjp = xent.cross_entropy_vjp(logits, target, weight, **options(batch))
    return loss, vjp(np.ones_like(loss))


def magnitude(batch: dict, divisor: float) -> np.ndarray:
    """What an entry of the gradient is the difference of: its digits are those of the larger."""
    scaled = np.array(batch["logits"]) / batch["temperature"]
    p, lse = xent.softmax(scaled), xent.logsumexp(scaled)
    weight, e = np.array(batch["weight"], float), batch["smoothing"]
    t = weight * ((1 - e) * np.eye(len(weight))[batch["target"]] + e / len(weight))
    of_lse = 2 * batch["zLoss"] * weight[batch["target"]] * np.abs(lse)
    return ((t.sum(1) + of_lse)[:, None] * p + t) / batch["temperature"] / divisor


def test_loss_and_gradient_are_those_of_xent(rng: np.random.Generator, tmp_path: Path) -> None:
    cases = [{"batch": batch} for batch in batches(rng, 200)]
    for case, found in zip(
        cases,
        javascript(tmp_path, "math.js", "batchLoss", "return batchLoss(batch);", cases),
        strict=True,
    ):
        batch = case["batch"]
        loss, gradient = of_xent(batch)
        rows = [row["loss"] for row in found["rows"]]
        by_row, _ = of_xent({**batch, "reduction": "none"})
        np.testing.assert_allclose(rows, by_row, rtol=CLOSE)
        np.testing.assert_allclose(found["loss"], np.sum(loss), rtol=CLOSE)
        plain = batch["smoothing"] == batch["zLoss"] == 0
        off = np.abs(np.array(found["gradient"]) - gradient)
        scale = np.abs(gradient) if plain else magnitude(batch, found["divisor"])
        assert np.all(off <= CLOSE * scale), batch


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_confident_row_keeps_its_digits(reduction: str, rng: Any, tmp_path: Path) -> None:
    batch = batches(rng, 1)[0]
    V = len(batch["weight"])
    top = rng.uniform(40, 700, (3, 1))
    logits = np.eye(V)[batch["target"]] * top + rng.normal(0, 1, (3, V))
    plain = {"smoothing": 0, "zLoss": 0, "temperature": 1, "reduction": reduction}
    batch |= {"logits": logits.tolist(), **plain}
    (found,) = javascript(
        tmp_path, "math.js", "batchLoss", "return batchLoss(batch);", [{"batch": batch}]
    )
    by_row, _ = of_xent({**batch, "reduction": "none"})
    assert 0 < by_row[~np.array(batch["ignored"])].min() < 1e-15
    np.testing.assert_allclose([row["loss"] for row in found["rows"]], by_row, rtol=CLOSE)
    np.testing.assert_allclose(found["gradient"], of_xent(batch)[1], rtol=CLOSE)


def test_every_row_ignored_and_every_weight_zero(rng: Any, tmp_path: Path) -> None:
    batch = batches(rng, 1)[0] | {"reduction": "mean", "smoothing": 0.1}
    cases = [
        {"batch": batch | {"ignored": [True] * 3}},
        {"batch": batch | {"weight": [0] * len(batch["weight"])}},
    ]
    ignored, weightless = javascript(
        tmp_path, "math.js", "batchLoss", "return batchLoss(batch);", cases
    )
    assert np.isnan(ignored["loss"])
    assert np.all(np.array(ignored["gradient"]) == 0)
    assert np.isnan(weightless["loss"])
    with np.errstate(invalid="ignore"):
        gradient = of_xent(cases[1]["batch"])[1]
    np.testing.assert_array_equal(np.isnan(weightless["gradient"]), np.isnan(gradient))


def test_a_step_goes_down_the_gradient(rng: Any, tmp_path: Path) -> None:
    cases = [{"batch": batch | {"temperature": 1}, "rate": 1e-3} for batch in batches(rng, 20)]
    body = """
    const first = batchLoss(batch);
    const logits = descend(batch.logits, first.gradient, rate);
    return { first, logits, second: batchLoss({ ...batch, logits }) };
    """
    told = javascript(tmp_path, "math.js", "batchLoss, descend", body, cases)
    for case, found in zip(cases, told, strict=True):
        gradient = np.array(found["first"]["gradient"])
        moved = np.array(case["batch"]["logits"]) - 1e-3 * gradient
        np.testing.assert_allclose(found["logits"], moved, rtol=1e-15, atol=1e-16)
        fallen = found["first"]["loss"] - found["second"]["loss"]
        assert fallen == pytest.approx(1e-3 * np.sum(gradient**2), rel=0.1, abs=1e-12)


def test_entropies_are_those_of_xent(rng: Any, tmp_path: Path) -> None:
    cases = []
    for _ in range(100):
        K = int(rng.integers(2, 7))
        p, q = rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(K))
        if rng.random() < 0.3:
            p[rng.integers(K)] = 0
            p /= p.sum()
        if rng.random() < 0.3:
            q = p * (1 + 10.0 ** rng.uniform(-9, -1) * rng.uniform(-1, 1, K))
            q /= q.sum()
        cases.append({"p": p.tolist(), "q": q.tolist()})
    cases += [{"p": [0.8, 0.2], "q": [1.0, 0.0]}, {"p": [0.5, 0.5], "q": [0.5, 0.5]}]
    names = "entropy, crossEntropy, klDivergence"
    body = "return [entropy(p), crossEntropy(p, q), klDivergence(p, q)];"
    for case, (entropy, cross, divergence) in zip(
        cases, javascript(tmp_path, "math.js", names, body, cases), strict=True
    ):
        p, q = np.array(case["p"]), np.array(case["q"])
        assert entropy == pytest.approx(float(info.entropy(p)), rel=CLOSE, abs=0)
        assert cross == pytest.approx(float(info.cross_entropy(p, q)), rel=CLOSE, abs=0)
        exact = float(info.kl_divergence(p, q))
        assert divergence == pytest.approx(exact, rel=CLOSE, abs=0)
