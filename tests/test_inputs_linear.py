"""What a linear head refuses, in whole sentences, and what its rows are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import xent
from xent.inputs_linear import linear_rows
from xent.spec import Spec

H, W, Y = np.zeros((3, 4)), np.zeros((5, 4)), np.array([0, 1, 2])
ADAPTER = xent.LowRank(W, np.zeros((2, 4)), np.zeros((5, 3)))
NARROW = xent.LowRank(W, np.zeros((2, 3)), np.zeros((5, 2)))
DEEP = xent.LowRank(W[:, None], np.zeros((2, 4)), np.zeros((5, 2)))


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "text"),
    [
        (
            (H, W[:, :3], Y),
            {},
            ValueError,
            r"hidden has shape \(3, 4\), expected \(..., 3\) for li.* \(5, 3\)$",
        ),
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
        (
            (H, ADAPTER, Y),
            {},
            ValueError,
            r"linear_weight.b has shape \(5, 3\), expected \(5, 2\) for linear_weight.weight of "
            r"shape \(5, 4\) and linear_weight.a of shape \(2, 4\)$",
        ),
        (
            (H, NARROW, Y),
            {},
            ValueError,
            r"linear_weight.a has shape \(2, 3\), expected \(R, 4\) for",
        ),
        (
            (H, DEEP, Y),
            {},
            ValueError,
            r"linear_weight.weight has shape \(5, 1, 4\), expected \(V, D\)",
        ),
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


ARGUMENTS: dict[str, dict[str, Any]] = {
    "linear_weight": {"linear_weight": W},
    "linear_weight.b": {"linear_weight": xent.LowRank(W, np.zeros((2, 4)), np.zeros((5, 2)))},
    "target": {"target": Y},
    "linear_bias": {"linear_bias": np.zeros(5)},
    "weight": {"weight": np.zeros(5)},
}


def on_meta(value: Any) -> Any:
    """NumPy's array as a tensor without numbers, and an adapter with such a weight and `a`."""
    if isinstance(value, xent.LowRank):
        return xent.LowRank(on_meta(value.weight), on_meta(value.a), torch.from_numpy(value.b))
    return torch.from_numpy(value).to("meta")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_array_of_another_library_or_device_is_compared_with_hidden(name):
    given: dict[str, Any] = {"hidden": H, "linear_weight": W, "target": Y}
    (argument,) = ARGUMENTS[name]
    other: Any = ARGUMENTS[name][argument]
    if name == "linear_weight.b":
        mixed = xent.LowRank(W, other.a, torch.from_numpy(other.b))
    else:
        mixed = torch.from_numpy(other)
    text = (
        rf"^linear_cross_entropy: {name} has type torch.Tensor, expected numpy.ndarray, as hidden$"
    )
    with pytest.raises(TypeError, match=text):
        xent.linear_cross_entropy(**given | {argument: mixed})
    tensors = {n: on_meta(a) for n, a in given.items()}
    elsewhere = on_meta(other) if name == "linear_weight.b" else torch.from_numpy(other)
    text = rf"^linear_cross_entropy: {name} has device cpu, expected meta, as hidden$"
    with pytest.raises(ValueError, match=text):
        xent.linear_cross_entropy(**tensors | {argument: elsewhere})


def test_an_upstream_of_another_library_is_compared_with_hidden():
    _, vjp = xent.linear_cross_entropy_vjp(H, W, Y)
    with pytest.raises(TypeError, match=r"upstream has type torch.Tensor, .* as hidden$"):
        vjp(torch.ones(()))


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_bad_target_is_named_by_its_place_in_the_callers_target(convert):
    h, w, target = np.zeros((2, 6, 4)), np.zeros((5, 4)), np.zeros((2, 6), dtype=np.int64)
    target[0, 1] = target[1, 4] = 7  # the first is nobody's target
    h, w, target = map(convert, (h, w, target))
    with pytest.raises(IndexError, match=r"target has value 7 at \(1, 4\), expected a class in"):
        xent.linear_cross_entropy(h, w, target, shift=2)
    with pytest.raises(IndexError, match="target has value 7 at row 4,"):
        xent.linear_cross_entropy(h[1], w, target[1], shift=3)
    heads = convert(np.zeros((5, 3, 4)))
    several = convert(np.array([[0, 0, 0], [0, 0, 0], [0, 8, 0]]))
    with pytest.raises(IndexError, match=r"target has value 8 at \(2, 1\),"):
        xent.linear_cross_entropy(h[0, :3], heads, several, shift=1)
