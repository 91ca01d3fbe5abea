"""explanation.backward: the gradient by hand, and the Jacobian of softmax."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET


def test_the_gradient_is_told_number_by_number() -> None:
    assert xent.explain(LOGITS, TARGET)["row_gradient"].worked == (
        "[0]",
        "∂loss / ∂u_0 = 0.6590 - 0 = 0.6590",
        "∂loss / ∂u_1 = 0.2424 - 1 = -0.7576",
        "∂loss / ∂u_2 = 0.0986 - 0 = 0.0986",
    )
    weighted = xent.explain(LOGITS[0], 1, [1.0, 3.0, 1.0])["row_gradient"]
    assert weighted.worked[1] == "∂loss / ∂u_1 = 3 × 0.2424 - 3 = -2.2727"


def test_rows_of_the_gradient_sum_to_0_but_for_the_z_loss() -> None:
    plain, more = (xent.explain(LOGITS, TARGET, z_loss=z)["row_gradient"] for z in (0.0, 0.1))
    np.testing.assert_allclose(plain.values["du"].sum(1), 0, atol=1e-15)
    assert plain.text.endswith("Each row sums to 0.")
    assert (more.values["du"].sum(1) > 0.1).all()
    assert "sums" not in more.text


def test_an_ignored_row_has_a_gradient_of_0() -> None:
    step = xent.explain(LOGITS, [1, -100])["gradient"]
    assert step.table is not None
    assert step.table.rows[1] == ("1", "0", "0", "0", "0")
    assert step.table.marked == {(0, 2)}
    assert step.text == "Every row is divided by D. Ignored rows get 0."


def test_the_jacobian_is_that_of_softmax(rng: np.random.Generator) -> None:
    logits = rng.standard_normal(5)
    values = xent.explain(logits, 2)["jacobian"].values
    x = torch.tensor(logits, requires_grad=True)
    p = torch.softmax(x, 0)
    by_torch = [torch.autograd.grad(entry, x, retain_graph=True)[0].numpy() for entry in p]
    np.testing.assert_allclose(values["jacobian"], by_torch, atol=1e-16)
    np.testing.assert_allclose(values["jacobian"].sum(1), 0, atol=1e-16)
    gradient = values["p"] - (np.arange(5) == 2)
    np.testing.assert_allclose(values["product"], gradient, atol=1e-15)


def test_a_jacobian_of_many_classes_is_not_written_out(rng: np.random.Generator) -> None:
    names = [step.name for step in xent.explain(rng.standard_normal((1, 9)), [0]).steps]
    assert "jacobian" not in names
