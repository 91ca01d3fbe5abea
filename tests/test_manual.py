"""Layers with a backward of their own: reuse, order, chains, and their full error texts."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
import torch

import xent
from xent import manual
from xent.conformance import oracle

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
X = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([2, 0])

# name: (a layer, the arguments of its forward)
LAYERS = {
    "CrossEntropyLoss": (manual.CrossEntropyLoss, (X, Y)),
    "NLLLoss": (manual.NLLLoss, (X, Y)),
    "BCEWithLogitsLoss": (manual.BCEWithLogitsLoss, (X, X / 3)),
    "Softmax": (manual.Softmax, (X,)),
    "LogSoftmax": (manual.LogSoftmax, (X,)),
}
EACH = pytest.mark.parametrize("name", LAYERS)


def upstream_of(value):
    return np.asarray(value) * 0.5 - 1.25


@LIBRARIES
@EACH
def test_forward_is_the_function_of_the_same_name(name, array):
    make, given = LAYERS[name]
    functions = {
        "CrossEntropyLoss": xent.cross_entropy,
        "NLLLoss": xent.nll_loss,
        "BCEWithLogitsLoss": xent.binary_cross_entropy_with_logits,
        "Softmax": xent.softmax,
        "LogSoftmax": xent.log_softmax,
    }
    ready = [array(a) for a in given]
    value, right = make().forward(*ready), functions[name](*ready)
    assert type(value) is type(right)
    np.testing.assert_array_equal(np.asarray(value), np.asarray(right))


@LIBRARIES
@EACH
def test_backward_is_torchs(name, array):
    make, given = LAYERS[name]
    layer = make()
    value = layer.forward(*(array(a) for a in given))
    upstream = upstream_of(value)
    dx = layer.backward(array(upstream))
    leaf = torch.tensor(given[0], requires_grad=True)
    options = {"dim": -1} if "oftmax" in name else {}
    module = getattr(torch.nn, name)(**options)
    module(leaf, *(torch.tensor(a) for a in given[1:])).backward(torch.tensor(upstream))
    np.testing.assert_allclose(np.asarray(dx), leaf.grad, rtol=1e-13, atol=1e-16)


@EACH
def test_backward_before_forward(name):
    with pytest.raises(RuntimeError) as raised:
        LAYERS[name][0]().backward(X)
    assert str(raised.value) == f"{name}: backward has no forward before it, expected a forward"


@EACH
def test_backward_twice_gives_the_same_bits(name):
    make, given = LAYERS[name]
    layer = make()
    upstream = upstream_of(layer.forward(*given))
    first = layer.backward(upstream).copy()
    np.testing.assert_array_equal(layer.backward(upstream), first)


@EACH
def test_a_layer_can_be_used_again_and_backward_belongs_to_the_last_forward(rng, name):
    make, given = LAYERS[name]
    layer = make()
    value = layer.forward(*given)
    first = layer.backward(upstream_of(value)).copy()
    targets = {
        "CrossEntropyLoss": rng.integers(0, 4, 5),
        "NLLLoss": rng.integers(0, 4, 5),
        "BCEWithLogitsLoss": rng.random((5, 4)),
    }
    again = layer.forward(rng.normal(size=(5, 4)), *([targets[name]] if name in targets else []))
    assert layer.backward(upstream_of(again)).shape == (5, 4)
    np.testing.assert_array_equal(layer.forward(*given), value)
    np.testing.assert_array_equal(layer.backward(upstream_of(value)), first)


@EACH
def test_two_layers_of_one_network_are_independent(name):
    make, given = LAYERS[name]
    one, two = make(), make()
    one.forward(*given)
    two.forward(given[0][::-1] * 3, *given[1:])
    alone = make()
    value = alone.forward(*given)
    upstream = upstream_of(value)
    np.testing.assert_array_equal(one.backward(upstream), alone.backward(upstream))


@EACH
def test_a_forward_that_fails_leaves_the_last_one(name):
    make, given = LAYERS[name]
    layer = make()
    upstream = upstream_of(layer.forward(*given))
    before = layer.backward(upstream).copy()
    with pytest.raises(TypeError):
        layer.forward("no array", *given[1:])
    np.testing.assert_array_equal(layer.backward(upstream), before)


@LIBRARIES
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_the_chain_of_log_softmax_and_nll_is_cross_entropy(rng, reduction, array):
    logits, target = rng.normal(0, 3, (4, 5, 2)), rng.integers(0, 5, (4, 2))
    target[0, 0] = -100
    weight = rng.uniform(0.5, 2, 5)
    ready = array(logits), array(target), array(weight)
    upstream = array(rng.normal(size=(4, 2) if reduction == "none" else ()))
    whole = manual.CrossEntropyLoss(ready[2], reduction=reduction)
    softmax, nll = manual.LogSoftmax(axis=1), manual.NLLLoss(ready[2], reduction=reduction)
    loss = whole.forward(*ready[:2])
    chained = nll.forward(softmax.forward(ready[0]), ready[1])
    np.testing.assert_allclose(np.asarray(chained), np.asarray(loss), rtol=1e-15)
    dlogits = softmax.backward(nll.backward(upstream))
    np.testing.assert_allclose(
        np.asarray(dlogits), np.asarray(whole.backward(upstream)), rtol=1e-13, atol=1e-16
    )


@LIBRARIES
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax_backward_along_any_axis(rng, name, axis, array):
    x, upstream = rng.normal(0, 2, (2, 3, 4)), rng.normal(size=(2, 3, 4))
    layer = getattr(manual, name)(axis=axis)
    y = layer.forward(array(x))
    functions = {
        "Softmax": (oracle.softmax, oracle.softmax_vjp),
        "LogSoftmax": (oracle.log_softmax, oracle.log_softmax_vjp),
    }
    forward, backward = functions[name]
    np.testing.assert_allclose(np.asarray(y), np.asarray(forward(x, axis), float), rtol=2e-15)
    right = np.asarray(backward(x, upstream, axis), float)
    dx = layer.backward(array(upstream))
    np.testing.assert_allclose(np.asarray(dx), right, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax_takes_lists_and_expanded_upstreams(name):
    layer = getattr(manual, name)()
    layer.forward([[1.0, 2.0], [3.0, 4.0]])
    expanded = np.broadcast_to(np.float64(1.5), (2, 2))
    np.testing.assert_array_equal(
        layer.backward([[1.5, 1.5], [1.5, 1.5]]), layer.backward(expanded)
    )


def test_cross_entropy_takes_every_option_of_the_function(rng):
    logits, target = rng.normal(size=(3, 4, 2)), rng.integers(0, 2, (3, 4))
    options = {
        "ignore_index": 1,
        "label_smoothing": 0.1,
        "z_loss": 0.2,
        "softcap": 3.0,
        "logit_scale": 0.5,
        "normalizer": 5.0,
        "axis": -1,
        "plan": xent.Plan(chunk_bytes=64),
    }
    layer = manual.CrossEntropyLoss(np.array([0.5, 2.0]), **options)
    loss, vjp = xent.cross_entropy_vjp(logits, target, np.array([0.5, 2.0]), **options)
    assert layer.forward(logits, target) == loss
    np.testing.assert_array_equal(layer.backward(-2.0), vjp(-2.0))


def test_layers_check_their_options_when_they_are_made():
    with pytest.raises(ValueError, match=r"^CrossEntropyLoss: label_smoothing has value 2,"):
        manual.CrossEntropyLoss(label_smoothing=2)
    with pytest.raises(ValueError, match=r"^NLLLoss: reduction has value 'avg',"):
        manual.NLLLoss(reduction="avg")
    with pytest.raises(TypeError, match="unexpected keyword argument 'smoothing'"):
        manual.CrossEntropyLoss(smoothing=0.1)


def test_a_network_by_hand_learns(rng):
    # The gradient of a two-layer network by its layers, against torch's.
    data, target = rng.normal(size=(6, 3)), rng.integers(0, 4, 6)
    weights = [rng.normal(size=(3, 5)), rng.normal(size=(5, 4))]
    gate, loss = manual.Softmax(), manual.CrossEntropyLoss()
    hidden = gate.forward(data @ weights[0])
    value = loss.forward(hidden @ weights[1], target)
    dlogits = loss.backward()
    gradients = [data.T @ gate.backward(dlogits @ weights[1].T), hidden.T @ dlogits]
    leaves = [torch.tensor(w, requires_grad=True) for w in weights]
    right = torch.nn.functional.cross_entropy(
        torch.softmax(torch.tensor(data) @ leaves[0], 1) @ leaves[1], torch.tensor(target)
    )
    right.backward()
    assert math.isclose(value, right.item(), rel_tol=1e-14)
    for got, leaf in zip(gradients, leaves, strict=True):
        np.testing.assert_allclose(got, leaf.grad, rtol=1e-12, atol=1e-15)
