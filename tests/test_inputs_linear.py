"""What a linear head refuses, in whole sentences, and what its rows are."""

from __future__ import annotations

import numpy as np
import pytest

import xent
from xent.inputs_linear import linear_rows
from xent.spec import Spec

H, W, Y = np.zeros((3, 4)), np.zeros((5, 4)), np.array([0, 1, 2])
ADAPTER = xent.LowRank(W, np.zeros((2, 4)), np.zeros((5, 3)))


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "text"),
    [
        ((H, W[:, :3], Y), {}, ValueError, r"hidden has shape \(3, 4\), expected \(..., 3\) for"),
        ((H, W, Y[:2]), {}, ValueError, r"target has shape \(2,\), expected \(3,\) \(class ind"),
        ((H, W, np.zeros((3, 6))), {}, ValueError, r"target has shape \(3, 6\), .*\(5, 4\)$"),
        ((H, W, np.zeros(3)), {}, TypeError, "target has dtype float64 and shape"),
        ((H, W, Y), {"linear_bias": np.zeros(4)}, ValueError, r"linear_bias has shape \(4,\), exp"),
        ((H, W, Y), {"weight": np.zeros(4)}, ValueError, r"weight has shape \(4,\), expected \(5,"),
        ((H, W[0], Y), {}, ValueError, r"linear_weight has shape \(4,\), expected \(V, D\)"),
        ((Y, W, Y), {}, TypeError, "hidden has dtype int64, expected a floating dtype"),
        ((H, W, Y), {"shift": -1}, ValueError, "shift has value -1, expected an integer >= 0"),
        ((H, W, Y), {"shift": 4}, ValueError, "shift has value 4, expected at most"),
        ((H, W, Y + 3), {}, IndexError, "target has value 5 at row 2, expected a class in"),
        ((H, ADAPTER, Y), {}, ValueError, r"linear_weight.b has shape \(5, 3\), expected \(5, 2\)"),
        ((H[None], W[:, None], Y), {}, ValueError, r"hidden has shape \(1, 3, 4\), expected \(N,"),
        ((H, W, np.ones((3, 5))), {"ignore_index": 1}, ValueError, "ignore_index has value 1 with"),
    ],
)
def test_bad_arrays_are_named(arguments, options, kind, text):
    with pytest.raises(kind, match=f"^linear_cross_entropy: {text}"):
        xent.linear_cross_entropy(*arguments, **options)


def test_rows_share_the_memory_of_the_callers_arrays():
    hidden = np.ones((1, 6, 4), dtype=np.float16)
    spec = Spec(function="linear_cross_entropy")
    rows = linear_rows(hidden, W, np.zeros((1, 6), dtype=int), None, None, spec, shift=2)
    assert np.shares_memory(rows.hidden, hidden)
    assert rows.linear_weight is W
    assert rows.logits.shape == (4, 1, 5)
    assert rows.shape == (1, 4)
    assert rows.dtype == np.float64
    assert rows.unshifted(np.ones((4, 4))).shape == (1, 6, 4)
