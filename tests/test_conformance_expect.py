"""conformance/expect: what is compared, and what is told of a difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xent.conformance import expect
from xent.conformance.draws import Case
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import prepare

CASE = Case(np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), np.array([2, 0]), reduction="none")


def twice(logits, target, reduction="mean"):
    return 2 * torch.nn.functional.cross_entropy(logits, target, reduction=reduction)


def fails(logits, target):
    if len(target) == 2 and logits.dtype == torch.float64 and target[0] == 2:
        raise RuntimeError("not this one")
    return torch.nn.functional.cross_entropy(logits, target)


def test_the_numbers_and_the_row_are_told() -> None:
    with pytest.raises(Fault) as caught:
        expect.right(prepare(twice), CASE)
    assert caught.value.given.startswith("logits [[1, 2, 3], [1, 1, 1]], target [2, 0]")
    assert caught.value.expected == "a loss of [0.407605964, 1.09861229]"
    assert caught.value.obtained == "[0.815211929, 2.19722458]"
    assert caught.value.note == "row 0 is the first that is off"


def test_an_error_is_a_fault_or_a_refusal() -> None:
    subject = prepare(fails)
    case = Case(CASE.logits, CASE.target)
    with pytest.raises(Fault, match="RuntimeError: not this one"):
        expect.right(subject, case)
    with pytest.raises(NotOffered, match=r"such rows \(RuntimeError: not this one\)"):
        expect.right(subject, case, decline="such rows")


def test_a_refusal_that_is_expected() -> None:
    subject = prepare(torch.nn.functional.cross_entropy)
    error = expect.refuses(subject, Case(CASE.logits, np.array([2, 3])), "a target of 3")
    assert isinstance(error, IndexError)
    with pytest.raises(Fault, match=r"expected an error: nothing, obtained the loss 0\.75"):
        expect.refuses(subject, Case(CASE.logits, CASE.target), "nothing")


def test_near_takes_nan_for_nan_and_wants_the_size() -> None:
    assert expect.near(np.array([np.nan, np.inf]), np.array([np.nan, np.inf]), (0, 0))
    assert not expect.near(np.array([np.nan]), np.array([1.0]), (1, 1))
    assert not expect.near(np.zeros(2), np.zeros(3), (0, 0))
    assert not expect.near(None, np.zeros(3), (0, 0))


def test_the_gradient_of_no_rows_is_0() -> None:
    case = Case(CASE.logits, np.full(2, -100), reduction="mean")
    assert not expect.expected(case, expect.GRADIENT)["dlogits"].any()
