"""explanation.numerics: what naive formulas give in half precision, as NumPy and torch do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET

from xent.explanation.numerics import FORMATS, naive_losses

ONE = np.array([0.0, 1.0, 0.0])


def by_torch(u: np.ndarray, target: int, name: str) -> list[float]:
    """The three naive formulas in torch's own arithmetic, and xent's loss."""
    x = torch.tensor(u, dtype=getattr(torch, name))
    plain = -torch.log(torch.exp(x) / torch.exp(x).sum())[target]
    log = torch.log(torch.exp(x).sum()) - x[target]
    e = torch.exp(x - x.max())
    shifted = -torch.log(e / e.sum())[target]
    return [float(v) for v in (plain, log, shifted, xent.cross_entropy(x, torch.tensor(target)))]


@pytest.mark.parametrize("name", FORMATS)
def test_naive_losses_are_those_of_torch_in_the_format(name: str, rng: np.random.Generator) -> None:
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}[name]
    for _ in range(20):
        u = rng.standard_normal(3)
        np.testing.assert_allclose(
            naive_losses(u, ONE, name), by_torch(u, 1, name), rtol=4 * eps, atol=4 * eps
        )
    for u in ([100.0, 99.0, 98.0], [-200.0, -201.0, -202.0], [400.0, 0.0, 20.0]):
        found, expected = naive_losses(np.array(u), ONE, name), by_torch(np.array(u), 1, name)
        np.testing.assert_allclose(found[:2], expected[:2])
        np.testing.assert_allclose(found[2:], expected[2:], rtol=4 * eps)


def test_where_naive_formulas_fail() -> None:
    found = naive_losses(np.array([0.0, 200.0, 0.0]), np.array([1.0, 0.0, 0.0]), "float32")
    assert found.tolist() == [np.inf, np.inf, np.inf, 200.0]
    found = naive_losses(np.array([0.0, 17.0]), np.array([0.0, 1.0]), "float32")
    assert found[2] == 0
    assert found[3] == np.float32(np.log1p(np.exp(-17.0)))


def test_overflow_is_shown_in_every_format() -> None:
    step = xent.explain(LOGITS, TARGET)["naive"]
    losses = step.values["losses"]
    assert losses.shape == (5, 3, 4)
    assert np.isfinite(losses[..., 3]).all()
    assert not np.isfinite(losses[1:4, :, :2]).any()
    assert np.isinf(losses[3, :, 2]).all()
    assert (losses[4, :, 2] == 0).all()
    assert (losses[4, :, 3] > 0).all()
    assert step.table is not None
    assert [row[0] for row in step.table.rows[::3]] == [
        "as given",
        "u + 100",
        "u - 200",
        "200 u",
        "u_y: +17",
    ]


def test_a_target_of_probabilities_has_no_class_to_be_ahead() -> None:
    step = xent.explain(LOGITS, xent.softmax(LOGITS))["naive"]
    assert step.values["losses"].shape == (4, 3, 4)
    assert len(step.notes) == 1


def test_the_shift_changes_no_probability() -> None:
    values = xent.explain(LOGITS, TARGET)["shift_is_safe"].values
    np.testing.assert_allclose(values["p"][:2], [values["softmax"]] * 2, rtol=1e-15)
    assert values["a"].tolist() == [0, -2, 1000]
    assert np.isinf(values["sum"][2])
    assert np.isnan(values["p"][2]).all()


def test_a_broken_row_is_not_taken_for_an_example() -> None:
    told = xent.explain(np.vstack([[np.nan, 0, 0], LOGITS]), [0, 1, 0])
    assert "row 1" in told["naive"].text
    assert "row 1" in told["jacobian"].text
