"""conformance/formats: each formula is right for plain logits, and fails where it should."""

from __future__ import annotations

import numpy as np

from xent.conformance import draws, expect, formats
from xent.conformance.draws import Case


def test_formulas_are_right_for_plain_logits(rng: np.random.Generator) -> None:
    for case in draws.plain(rng, reduction="none"):
        exact = expect.expected(case, expect.BOTH)
        for name, losses, gradients in formats.formulas(case):
            np.testing.assert_allclose(losses, exact["loss"], rtol=1e-5, atol=1e-6, err_msg=name)
            if gradients.any():
                np.testing.assert_allclose(gradients, exact["dlogits"], rtol=1e-4, atol=1e-5)


def wrong_on(logits: list[float], target: int, dtype: str = "float64") -> set[str]:
    case = Case(np.array([logits]), np.array([target]), reduction="none", dtype=dtype)
    exact = expect.expected(case, expect.LOSS)["loss"]
    found = {name for name, losses, _ in formats.formulas(case) if np.allclose(losses, exact)}
    return {name for name, _ in formats.FORMULAS} - found


def test_formulas_fail_where_they_should() -> None:
    assert "exp_unshifted" in wrong_on([1000.0, 0.0], 1)
    assert "log_one_plus" not in wrong_on([1000.0, 0.0], 1)
    assert "log_of_softmax" in wrong_on([0.0, 800.0], 0)
    assert "lse_minus_target" in wrong_on([1e8, 1e8, 1e8], 0, "float32")
    assert "zero_times_infinity" in wrong_on([1.0, -np.inf], 0)


def test_every_formula_has_words() -> None:
    assert {name for name, _ in formats.FORMULAS} == set(formats.TEXTS)
