"""explanation.summary: quantiles, shares, and the reason for each of the worst rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xent


def why(logits: Any, target: Any, **options: Any) -> str:
    """The reason for the worst row, among rows of little loss."""
    sure = np.zeros((9, len(logits)))
    sure[:, 0] = 50.0
    label = np.zeros(9, dtype=int) if np.ndim(target) == 0 else np.eye(len(logits))[[0] * 9]
    x = np.vstack([sure, [logits]])
    y = np.concatenate([label, [target]])
    note = xent.explain(x, y, rows=1, **options)["worst"].notes[0]
    assert note.startswith("[9] ")
    return note.removeprefix("[9] ")


@pytest.mark.parametrize(
    ("logits", "target", "said"),
    [
        (
            [0.0, 9.0, 0.0],
            2,
            "sure of class 1, which has > 99.9 %; target 2 has 0.012 %: a hard row, or a wrong "
            "label",
        ),
        (
            [-3.0, 1.0, 0.5],
            2,
            "a close call: class 1 (61.5 %) is ahead of target 2 (37.3 %) by 0.5000 nats",
        ),
        ([-9.0, 1.5, 0.0], 2, "class 1 (81.8 %) is likelier than target 2 (18.2 %)"),
        (
            [0.0, 0.4, -0.4],
            2,
            "undecided: 47.2 % is the most that a class has, the entropy is 1.0473 of at most "
            "1.0986 nats; target 2 has 21.2 %",
        ),
        ([0.0, 0.0, 2.0], 2, "the target 2 is the likeliest class, with 78.7 %"),
        ([0.0, np.nan, np.nan], 2, "the logits hold NaN in 2 of 3 classes, first in class 1"),
        ([0.0, np.inf, 0.0], 2, "the logit of class 1 is inf: inf - inf is NaN"),
        ([-np.inf] * 3, 2, "all logits are -inf: no class is possible"),
        (
            [0.0, 0.0, -np.inf],
            2,
            "the target's logit is -inf: its probability is 0, and the loss infinite",
        ),
        (
            [0.0, 0.0, -np.inf],
            [0.5, 0.0, 0.5],
            "a class with target probability has a logit of -inf, and the loss is infinite",
        ),
        (
            [0.0, np.log(3.0)],
            [0.5, 0.5],
            "H(t) = 0.6931, divergence 0.1438 nats; class 1 has the most, 75.0 %, and the target "
            "gives it 50.0 %",
        ),
    ],
)
def test_why_a_row_is_the_worst(logits: Any, target: Any, said: str) -> None:
    assert why(logits, target) == said


def test_weights_and_z_loss_are_named() -> None:
    weight = np.array([1.0, 1.0, 10.0])
    loss = -float(xent.log_softmax(np.array([-9.0, 1.5, 0.0]))[2])
    assert why([-9.0, 1.5, 0.0], 2, weight=weight).endswith(
        f"; its weight 10 makes {10 * loss:.3f} of {loss:.4f} nats"
    )
    said = why([900.0, 900.5, 900.0], 2, z_loss=1.0)
    lse = float(xent.logsumexp(np.array([900.0, 900.5, 900.0])))
    assert said.endswith(f"; {lse**2:.3f} nats of it are z-loss")


def test_the_distribution_is_that_of_the_rows_that_take_part(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((100, 6)) * 3, rng.integers(0, 6, 100)
    target[::10] = -100
    told = xent.explain(logits, target, rows=4)
    losses = np.asarray(xent.cross_entropy(logits, target, reduction="none"))
    kept = losses[target >= 0]
    values = told["summary"].values
    np.testing.assert_allclose(values["losses"], np.quantile(kept, values["quantiles"]), rtol=1e-12)
    worst = np.sort(kept)[::-1][:4]
    np.testing.assert_allclose(told["worst"].values["loss"], worst, rtol=1e-14)
    np.testing.assert_allclose(values["share"], worst / kept.sum(), rtol=1e-13)
    hit = (logits.argmax(1) == target)[target >= 0].mean()
    assert "Of 100 rows 90 take part and 10 are ignored." in told["summary"].text
    assert f"{100 * hit:.1f} %" in told["summary"].text
    rows = told["worst"].values["row"]
    order = np.argsort(np.argsort(-logits[rows], axis=1), axis=1)
    ranks = 1 + order[np.arange(4), target[rows]]
    assert told["worst"].values["rank"].tolist() == ranks.tolist()
    margin = logits[rows].max(1) - logits[rows, target[rows]]
    np.testing.assert_allclose(told["worst"].values["margin"], margin, rtol=1e-15)


def test_broken_rows_are_counted_and_told() -> None:
    logits = np.zeros((20, 3))
    logits[3, 1], logits[4, 0] = np.nan, -np.inf
    told = xent.explain(logits, np.zeros(20, dtype=int), rows=3)
    assert told["summary"].text.endswith("Rows whose loss is infinite: 1; not a number: 1.")
    assert told.rows.tolist() == [3, 4, 0]
    assert told["worst"].values["share"][2] == pytest.approx(1 / 18)
    assert np.isnan(told["worst"].values["share"][:2]).all()
    few = xent.explain(logits[:5], np.zeros(5, dtype=int))
    assert few.steps[0].name == "worst"
    assert any(note.startswith("[3] the logits hold NaN") for note in few["worst"].notes)


def test_a_small_batch_has_no_summary() -> None:
    names = [step.name for step in xent.explain(np.zeros((6, 3)), [0] * 6).steps]
    assert names[0] == "input"
