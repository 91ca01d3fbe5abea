"""The full text of every error about an array, the same in every library."""

from __future__ import annotations

import itertools

import array_api_strict
import numpy as np
import pytest
import torch

import xent
from xent import Plan, manual

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
X = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([2, 0])
P = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
CUBE = np.zeros((2, 3, 4))

NUMBERS = "expected an array of numbers (NumPy, torch or another array-API library)"
FLOATING = "expected a floating dtype (float16, bfloat16, float32 or float64)"
KINDS = "(2,) (class indices) or (2, 3) (class probabilities)"
ON_1 = "for logits of shape (2, 3) with classes on axis 1"
OR_100 = "or ignore_index -100"
ce, ce_vjp, bce = xent.cross_entropy, xent.cross_entropy_vjp, xent.binary_cross_entropy_with_logits


def backward(layer, array, upstream):
    layer.forward(array(X))
    return layer.backward(upstream)


def number(value):
    return np.array(value)


def ints(*shape):
    return np.zeros(shape, int)


# (call with the library's `asarray`, exception, text)
ERRORS = [
    # What is no array.
    (lambda a: ce("x", a(Y)), TypeError, f"cross_entropy: logits has type str, {NUMBERS}"),
    (lambda a: ce(None, a(Y)), TypeError, f"cross_entropy: logits has type NoneType, {NUMBERS}"),
    (lambda a: ce(a(X[0]), True), TypeError, f"cross_entropy: target has type bool, {NUMBERS}"),
    (
        lambda a: ce(a(X), [True, False]),
        TypeError,
        f"cross_entropy: target has type list, {NUMBERS}",
    ),
    (lambda a: ce(a(X), a(Y), "w"), TypeError, f"cross_entropy: weight has type str, {NUMBERS}"),
    (
        lambda a: ce([[1.0], [1.0, 2.0]], [0, 0]),
        ValueError,
        "cross_entropy: logits has rows of unequal length, expected an array",
    ),
    (lambda a: xent.softmax("x"), TypeError, f"softmax: x has type str, {NUMBERS}"),
    # Logits.
    (
        lambda a: ce(a(ints(2, 3)), a(Y)),
        TypeError,
        f"cross_entropy: logits has dtype int64, {FLOATING}",
    ),
    (lambda a: ce(a(X > 0), a(Y)), TypeError, f"cross_entropy: logits has dtype bool, {FLOATING}"),
    (
        lambda a: ce(a(X + 0j), a(Y)),
        TypeError,
        f"cross_entropy: logits has dtype complex128, {FLOATING}",
    ),
    (lambda a: xent.softmax(a(Y)), TypeError, f"softmax: x has dtype int64, {FLOATING}"),
    (
        lambda a: xent.nll_loss(a(Y), a(Y)),
        TypeError,
        f"nll_loss: log_probs has dtype int64, {FLOATING}",
    ),
    (
        lambda a: ce(a(number(1.0)), a(number(0))),
        ValueError,
        "cross_entropy: logits has shape (), expected at least one axis, that of the classes",
    ),
    (
        lambda a: xent.log_softmax(a(number(1.0))),
        ValueError,
        "log_softmax: x has shape (), expected at least one axis, that of the classes",
    ),
    # The axis.
    (
        lambda a: ce(a(X), a(Y), axis=2),
        ValueError,
        "cross_entropy: axis has value 2, expected one in [-2, 2) for logits of shape (2, 3)",
    ),
    (
        lambda a: xent.softmax(a(X), -3),
        ValueError,
        "softmax: axis has value -3, expected one in [-2, 2) for x of shape (2, 3)",
    ),
    (
        lambda a: xent.logsumexp(a(X), None),
        TypeError,
        "logsumexp: axis has type NoneType, expected an integer",
    ),
    # Targets: type and dtype.
    (
        lambda a: ce(a(X), a(np.ones(2))),
        TypeError,
        "cross_entropy: target has dtype float64 and shape (2,), expected integer class indices, "
        "or class probabilities of shape (2, 3)",
    ),
    (
        lambda a: ce(a(X), a(Y > 0)),
        TypeError,
        "cross_entropy: target has dtype bool and shape (2,), expected integer class indices, "
        "or class probabilities of shape (2, 3)",
    ),
    (
        lambda a: ce(a(X), a(ints(2, 3))),
        TypeError,
        "cross_entropy: target has dtype int64 and the shape of the logits (2, 3), "
        "expected floating class probabilities, or class indices of shape (2,)",
    ),
    (
        lambda a: ce(a(X), a(P > 0.5)),
        TypeError,
        "cross_entropy: target has dtype bool and the shape of the logits (2, 3), "
        "expected floating class probabilities, or class indices of shape (2,)",
    ),
    (
        lambda a: xent.nll_loss(a(X), a(np.ones(2))),
        TypeError,
        "nll_loss: target has dtype float64 and shape (2,), expected integer class indices",
    ),
    # Targets: shape.
    (
        lambda a: ce(a(X), a(ints(2, 1))),
        ValueError,
        f"cross_entropy: target has shape (2, 1), expected {KINDS} {ON_1}",
    ),
    (
        lambda a: ce(a(X), a(ints(3))),
        ValueError,
        f"cross_entropy: target has shape (3,), expected {KINDS} {ON_1}",
    ),
    (
        lambda a: ce(a(X), a(np.ones((2, 4)))),
        ValueError,
        f"cross_entropy: target has shape (2, 4), expected {KINDS} {ON_1}",
    ),
    (
        lambda a: ce(a(X[0]), a(ints(2))),
        ValueError,
        "cross_entropy: target has shape (2,), expected () (class indices) or (3,) "
        "(class probabilities) for logits of shape (3,) with classes on axis 0",
    ),
    (
        lambda a: ce(a(CUBE), a(ints(2, 5))),
        ValueError,
        "cross_entropy: target has shape (2, 5), expected (2, 4) (class indices) or (2, 3, 4) "
        "(class probabilities) for logits of shape (2, 3, 4) with classes on axis 1",
    ),
    (
        lambda a: ce(a(CUBE), a(ints(2, 3))),
        ValueError,
        "cross_entropy: target has shape (2, 3), expected (2, 4) (class indices) or (2, 3, 4) "
        "(class probabilities) for logits of shape (2, 3, 4) with classes on axis 1; "
        "axis=-1 takes the last axis for the classes",
    ),
    (
        lambda a: xent.nll_loss(a(X), a(P)),
        ValueError,
        f"nll_loss: target has shape (2, 3), expected (2,) {ON_1}",
    ),
    (
        lambda a: xent.token_statistics(a(X), a(P)),
        ValueError,
        f"token_statistics: target has shape (2, 3), expected (2,) {ON_1}",
    ),
    # Targets: class indices out of range.
    (
        lambda a: ce(a(X), a(np.array([2, 3]))),
        IndexError,
        f"cross_entropy: target has value 3 at row 1, expected a class in [0, 3) {OR_100}",
    ),
    (
        lambda a: ce_vjp(a(X), a(np.array([-1, 3]))),
        IndexError,
        f"cross_entropy_vjp: target has value -1 at row 0, expected a class in [0, 3) {OR_100}",
    ),
    (
        lambda a: ce(a(X), a(np.array([0, -100])), ignore_index=-1),
        IndexError,
        "cross_entropy: target has value -100 at row 1, "
        "expected a class in [0, 3) or ignore_index -1",
    ),
    (
        lambda a: xent.nll_loss(a(CUBE), a(np.array([[0, 1, 2, 0], [0, 1, 7, 9]]))),
        IndexError,
        f"nll_loss: target has value 7 at (1, 2), expected a class in [0, 3) {OR_100}",
    ),
    (
        lambda a: xent.token_statistics(a(X[0]), a(number(5))),
        IndexError,
        f"token_statistics: target has value 5, expected a class in [0, 3) {OR_100}",
    ),
    (
        lambda a: ce(a(X[0]), a(np.array([5]))),
        IndexError,
        f"cross_entropy: target has value 5, expected a class in [0, 3) {OR_100}",
    ),
    (
        lambda a: ce(a(np.zeros((2, 0))), a(ints(2))),
        IndexError,
        f"cross_entropy: target has value 0 at row 0, expected a class in [0, 0) {OR_100}",
    ),
    (
        lambda a: ce(a(X), a(np.array([0, 2**64 - 100], np.uint64))),
        IndexError,
        "cross_entropy: target has value 18446744073709551516 at row 1, "
        f"expected a class in [0, 3) {OR_100}",
    ),
    (
        lambda a: ce(a(X), a(ints(2) - 1), plan=Plan(check_targets=True)),
        IndexError,
        f"cross_entropy: target has value -1 at row 0, expected a class in [0, 3) {OR_100}",
    ),
    (
        lambda a: ce(a(X), a(P), ignore_index=1),
        ValueError,
        "cross_entropy: ignore_index has value 1 with class probabilities, "
        "expected a negative one, as none is ignored",
    ),
    # Class weights.
    (
        lambda a: ce(a(X), a(Y), a(np.ones(2))),
        ValueError,
        "cross_entropy: weight has shape (2,), expected (3,)",
    ),
    (
        lambda a: ce(a(X), a(Y), a(X)),
        ValueError,
        "cross_entropy: weight has shape (2, 3), expected (3,)",
    ),
    (
        lambda a: ce(a(X), a(Y), 2.0),
        ValueError,
        "cross_entropy: weight has shape (), expected (3,)",
    ),
    (
        lambda a: ce(a(X), a(Y), a(ints(3))),
        TypeError,
        f"cross_entropy: weight has dtype int64, {FLOATING}",
    ),
    # The denominator.
    (
        lambda a: ce(a(X), a(Y), normalizer=a(np.ones(2))),
        ValueError,
        "cross_entropy: normalizer has shape (2,), expected ()",
    ),
    (
        lambda a: xent.nll_loss(a(X), a(Y), normalizer=a(number(True))),
        TypeError,
        "nll_loss: normalizer has dtype bool, expected a real number",
    ),
    # Binary cross entropy.
    (
        lambda a: bce(a(X), a(P[0])),
        ValueError,
        "binary_cross_entropy_with_logits: target has shape (3,), expected (2, 3), "
        "that of the logits",
    ),
    (
        lambda a: bce(a(X), a(ints(2, 3))),
        TypeError,
        f"binary_cross_entropy_with_logits: target has dtype int64, {FLOATING}",
    ),
    (
        lambda a: bce(a(X), a(P), a(np.ones(2))),
        ValueError,
        "binary_cross_entropy_with_logits: weight has shape (2,), "
        "expected one that broadcasts to (2, 3), that of the logits",
    ),
    (
        lambda a: bce(a(X[0]), a(P[0]), pos_weight=a(X)),
        ValueError,
        "binary_cross_entropy_with_logits: pos_weight has shape (2, 3), "
        "expected one that broadcasts to (3,), that of the logits",
    ),
    # Upstreams.
    (
        lambda a: ce_vjp(a(X), a(Y), reduction="none")[1](a(np.ones(3))),
        ValueError,
        "cross_entropy_vjp: upstream has shape (3,), expected (2,), that of the loss",
    ),
    (
        lambda a: ce_vjp(a(X), a(Y))[1](a(np.ones(2))),
        ValueError,
        "cross_entropy_vjp: upstream has shape (2,), expected (), that of the loss",
    ),
    (
        lambda a: ce_vjp(a(X), a(Y))[1](None),
        TypeError,
        f"cross_entropy_vjp: upstream has type NoneType, {NUMBERS}",
    ),
    (
        lambda a: ce_vjp(a(X), a(Y))[1](True),
        TypeError,
        f"cross_entropy_vjp: upstream has type bool, {NUMBERS}",
    ),
    (
        lambda a: ce_vjp(a(X), a(Y))[1](a(number(1j))),
        TypeError,
        "cross_entropy_vjp: upstream has dtype complex128, "
        "expected a real number or an array of them",
    ),
    (
        lambda a: backward(manual.Softmax(), a, a(X[0])),
        ValueError,
        "Softmax: upstream has shape (3,), expected (2, 3), that of forward's",
    ),
    (
        lambda a: backward(manual.LogSoftmax(), a, a(ints(2, 3))),
        TypeError,
        f"LogSoftmax: upstream has dtype int64, {FLOATING}",
    ),
]


@LIBRARIES
@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[text for _, _, text in ERRORS])
def test_the_text(call, kind, text, array):
    with pytest.raises(kind) as raised:
        call(array)
    assert type(raised.value) is kind
    assert str(raised.value) == text


NAMES = {
    np.asarray: "numpy.ndarray",
    torch.asarray: "torch.Tensor",
    array_api_strict.asarray: "array_api_strict._array_object.Array",
}


@pytest.mark.parametrize(("array", "other"), list(itertools.permutations(NAMES, 2)))
def test_arrays_of_two_libraries(array, other):
    mixed, wanted = NAMES[other], NAMES[array]
    calls = {
        "target": lambda: ce(array(X), other(Y)),
        "weight": lambda: ce(array(X), array(Y), other(X[0])),
        "upstream": lambda: ce_vjp(array(X), array(Y))[1](other(number(1.0))),
    }
    for argument, call in calls.items():
        name = "cross_entropy_vjp" if argument == "upstream" else "cross_entropy"
        with pytest.raises(TypeError) as raised:
            call()
        text = f"{name}: {argument} has type {mixed}, expected {wanted}, as the logits"
        assert str(raised.value) == text
    with pytest.raises(TypeError) as raised:
        ce(array(X), array(Y), normalizer=other(number(2.0)))
    text = f"cross_entropy: normalizer has type {mixed}, expected a number or {wanted}"
    assert str(raised.value) == text
