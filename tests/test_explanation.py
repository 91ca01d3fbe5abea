"""explain: its numbers are those of the losses, and its steps make one another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET, calls


@settings(max_examples=40)
@given(calls())
def test_loss_and_gradient_are_those_of_cross_entropy(
    call: tuple[np.ndarray, np.ndarray, dict[str, Any]],
) -> None:
    logits, target, options = call
    told = xent.explain(logits, target, **options)
    loss, vjp = xent.cross_entropy_vjp(logits, target, **options)
    np.testing.assert_allclose(told.loss, loss, rtol=1e-14)
    upstream = np.ones_like(np.asarray(loss)) if np.ndim(loss) else 1.0
    np.testing.assert_allclose(told.gradient, vjp(upstream), rtol=1e-13, atol=1e-300)
    shown = told["gradient"].values
    np.testing.assert_allclose(shown["gradient"], told.gradient[shown["row"]], rtol=1e-13)


@settings(max_examples=40)
@given(calls())
def test_the_steps_make_one_another(
    call: tuple[np.ndarray, np.ndarray, dict[str, Any]],
) -> None:
    logits, target, options = call
    told = xent.explain(logits, target, rows=9, **options)
    u = logits * options["logit_scale"]
    if options["softcap"]:
        u = options["softcap"] * np.tanh(u / options["softcap"])
    row = told["shift"].values["row"]
    z, e = told["shift"].values["z"], told["exponentials"].values["e"]
    np.testing.assert_allclose(z, u[row] - u[row].max(1, keepdims=True), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(e, np.exp(z), rtol=1e-12)
    total = told["sum"].values["S"]
    np.testing.assert_allclose(total, e.sum(1), rtol=1e-14)
    lse = told["lse"].values["lse"]
    np.testing.assert_allclose(lse, told["shift"].values["max"] + np.log(total), rtol=1e-13)
    log_p, p = told["log_probabilities"].values["log_p"], told["probabilities"].values["p"]
    np.testing.assert_allclose(log_p, xent.log_softmax(u[row]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(p, e / total[:, None], rtol=1e-14)
    t, mass = told["measure"].values["t"], told["measure"].values["m"]
    np.testing.assert_allclose(mass, t.sum(1), rtol=1e-15)
    weight = told["denominator"].values["weight"][row]
    z_loss = options["z_loss"] * weight * lse**2
    np.testing.assert_allclose(
        told["row_loss"].values["loss"], -(t * log_p).sum(1) + z_loss, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(
        told["row_gradient"].values["du"],
        mass[:, None] * p - t + (2 * options["z_loss"] * weight * lse)[:, None] * p,
        rtol=1e-9,
        atol=1e-13,
    )
    scale, slope = (told["gradient"].values[name] for name in ("scale", "slope"))
    kept = np.isin(told["gradient"].values["row"], row)
    by_hand = scale[kept, None] * slope * told["row_gradient"].values["du"]
    np.testing.assert_allclose(
        told["gradient"].values["gradient"][kept], by_hand, rtol=1e-9, atol=1e-13
    )
    loss = told["loss"].values
    if options["reduction"] == "mean":
        np.testing.assert_allclose(loss["loss"], loss["sum"] / loss["D"], rtol=1e-14)
    np.testing.assert_allclose(loss["sum"], told["row_loss"].values["losses"].sum(), rtol=1e-13)


def test_the_worked_example_of_the_course_notes() -> None:
    # The notes give classes 2 and 1, counted from 1, and three digits.
    told = xent.explain(LOGITS, TARGET)
    printed = [[0.659, 0.242, 0.099], [0.073, 0.487, 0.440]]
    assert told["probabilities"].values["p"].round(3).tolist() == printed
    assert told["row_loss"].values["loss"].round(3).tolist() == [1.417, 2.620]
    assert told.loss.round(3) == 2.019
    gradient = [[0.330, -0.379, 0.049], [-0.464, 0.243, 0.220]]
    # 0.3295009 is printed as 0.330
    assert told.gradient.round(3).tolist() == gradient
    assert told["denominator"].worked == ("D = 1 + 1 = 2",)
    assert told["loss"].worked == ("L = (1.4170 + 2.6200) / 2 = 2.0185",)


def test_an_ignored_row_is_0_in_the_denominator() -> None:
    logits = np.vstack([LOGITS, [np.nan, 0.0, 0.0]])
    told = xent.explain(logits, [1, 0, -100])
    assert told["denominator"].worked == ("D = 1 + 1 + 0 = 2",)
    assert told["loss"].worked == ("L = (1.4170 + 2.6200 + 0) / 2 = 2.0185",)
    assert told["row_loss"].worked[2] == "[2] ignored: 0"
    assert told.gradient[2].tolist() == [0, 0, 0]
    assert "nan" not in str(told).partition("Numerics")[0]


def test_weights_are_in_the_denominator() -> None:
    told = xent.explain(LOGITS, TARGET, [1.0, 0.5, 2.0])
    assert told["denominator"].worked == ("D = 0.5 + 1 = 1.5",)
    assert told["row_loss"].worked[0] == "[0] loss = 0.5000 × 1.4170 = 0.7085"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_torch_tensors_of_every_format(dtype: str, rng: np.random.Generator) -> None:
    logits = torch.tensor(rng.standard_normal((4, 5)), dtype=getattr(torch, dtype))
    target = torch.tensor([0, 4, -100, 2])
    told = xent.explain(logits.requires_grad_(), target, label_smoothing=0.1)
    exact = xent.cross_entropy(
        logits.detach().double().numpy(), target.numpy(), label_smoothing=0.1
    )
    np.testing.assert_allclose(told.loss, exact, rtol=1e-14)
    assert dtype in told["input"].text


def test_further_axes_and_an_axis(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((2, 5, 3, 2)), rng.integers(0, 5, (2, 3, 2))
    told = xent.explain(logits, target, reduction="none", rows=20)
    np.testing.assert_allclose(
        told.loss, xent.cross_entropy(logits, target, reduction="none"), rtol=1e-14
    )
    assert told.gradient.shape == logits.shape
    moved = xent.explain(np.moveaxis(logits, 1, -1), target, axis=-1)
    np.testing.assert_allclose(moved.gradient, np.moveaxis(told.gradient, 1, -1) / 12, rtol=1e-12)
    assert told["row_loss"].worked[-1].startswith("[(1, 2, 1)] loss = ")
    soft = xent.explain(logits, xent.softmax(logits[::-1], axis=1))
    np.testing.assert_allclose(
        soft.loss, xent.cross_entropy(logits, xent.softmax(logits[::-1], axis=1)), rtol=1e-14
    )


def test_one_row() -> None:
    told = xent.explain([2.0, 1.0, 0.1], 1)
    assert told.loss.round(4) == 1.417
    assert told["loss"].worked == ("L = 1.4170 / 1 = 1.4170",)
    assert told.gradient.shape == (3,)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (
            lambda: xent.explain(LOGITS, [1, 3]),
            IndexError,
            "explain: target has value 3 at row 1, expected a class in [0, 3) or ignore_index -100",
        ),
        (
            lambda: xent.explain(LOGITS, TARGET, lang="fr"),
            ValueError,
            "explain: lang has value 'fr', expected 'en' or 'ko'",
        ),
        (
            lambda: xent.explain(LOGITS, TARGET, label_smoothing=2.0),
            ValueError,
            "explain: label_smoothing has value 2.0, expected a number in [0, 1]",
        ),
        (
            lambda: xent.explain(np.zeros((0, 3)), np.zeros(0, dtype=int)),
            ValueError,
            "explain: logits has shape (0, 1, 3), expected a row and a class at least",
        ),
    ],
)
def test_what_is_wrong_is_told(call: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
