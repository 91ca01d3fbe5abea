"""The fast way of a loss: the same numbers and errors as the general way, and for which calls."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import xent
import xent.nn
from xent import Plan
from xent.backends import fast
from xent.kernels import library

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import cast, floats

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

REFERENCE, RECOMPUTE = Plan(kernel="reference"), Plan(gradient="recompute")
KINDS = pytest.mark.parametrize("kind", ["torch", "numpy"])
DTYPES = pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2, "float32": 1e-6, "float64": 1e-13}


@pytest.fixture
def taken(monkeypatch):
    """Whether each loss asked of the fast way was given by it."""
    found = []

    def watch(module, name):
        whole = getattr(module, name)

        def watched(*arguments):
            result = whole(*arguments)
            found.append(result is not None)
            return result

        monkeypatch.setattr(module, name, watched)

    watch(importlib.import_module("xent.backends.torch_fused"), "loss")
    for name in ("loss", "loss_and_vjp"):
        watch(importlib.import_module("xent.backends.numpy_fused"), name)
    return found


OPTIONS = {
    "plain": {},
    "ignored": {"ignore_index": 2},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothing": {"label_smoothing": 0.1},
    "all smoothing": {"label_smoothing": 1},
    "z-loss": {"z_loss": 0.01},
    "softcap": {"softcap": 5.0},
    "scale": {"logit_scale": 0.3},
    "normalizer": {"normalizer": 7},
    "axis": {"axis": 1},
    "all": {
        "label_smoothing": 0.2,
        "z_loss": 0.1,
        "softcap": 9.0,
        "logit_scale": 2.0,
        "normalizer": 3.5,
    },
}


def draw(rng, kind, dtype, shape=(6, 5), soft=False, weighted=False):
    """Logits, target and class weights."""
    logits = cast(rng.normal(0, 3, shape), dtype, kind)
    lead = (shape[0], *shape[2:])
    target = rng.integers(0, shape[1], lead)
    target.flat[0] = 2
    if soft:
        target = np.moveaxis(rng.dirichlet(np.ones(shape[1]), lead), -1, 1)
        target = cast(target, dtype, kind)
    elif kind == "torch":
        target = torch.from_numpy(target)
    weight = cast(rng.uniform(0.5, 2, shape[1]), dtype, kind) if weighted else None
    return logits, target, weight


def results(arrays, plan, options):
    """A loss and its gradient."""
    logits, *others = arrays
    if isinstance(logits, torch.Tensor):
        leaf = logits.detach().requires_grad_()
        loss = xent.cross_entropy(leaf, *others, plan=plan, **options)
        loss.backward(torch.full_like(loss, 1.5))
        return loss.detach(), leaf.grad
    loss, vjp = xent.cross_entropy_vjp(logits, *others, plan=plan, **options)
    same = xent.cross_entropy(logits, *others, plan=plan, **options)
    np.testing.assert_allclose(same, loss, rtol=1e-15 if loss.dtype == "f8" else 0)
    return loss, vjp(1.5)


@KINDS
@DTYPES
@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_as_the_general_way(rng, taken, kind, dtype, name):
    if (kind, dtype) == ("numpy", "bfloat16"):
        pytest.skip("NumPy has no bfloat16")
    for shape in ((6, 5), (3, 130), (2, 7, 3, 2)):
        for soft in (False, True) if name != "ignored" else (False,):
            for weighted in (False, True):
                arrays = draw(rng, kind, dtype, shape, soft, weighted)
                here = results(arrays, None, OPTIONS[name])
                assert any(taken) or name == "none"
                for plan in (REFERENCE, RECOMPUTE, Plan(accurate=True)):
                    for got, right in zip(here, results(arrays, plan, OPTIONS[name]), strict=True):
                        assert got.dtype == right.dtype
                        assert got.shape == right.shape
                        near = TOLERANCE[dtype]
                        np.testing.assert_allclose(floats(got), floats(right), near, near)


@KINDS
def test_no_rows_that_count(rng, kind):
    logits, target, _ = draw(rng, kind, "float64")
    target[...] = -100
    for plan in (None, REFERENCE):
        loss, gradient = results((logits, target, None), plan, {})
        assert np.isnan(floats(loss))
        np.testing.assert_array_equal(floats(gradient), 0)
        assert not results((logits, target, None), plan, {"normalizer": 2})[0]
        assert not results((logits, target, None), plan, {"reduction": "sum"})[0]


@KINDS
def test_unchecked_indices_out_of_range_are_nan(rng, kind):
    logits, target, _ = draw(rng, kind, "float64")
    target[3] = 5
    for plan in (Plan(check_targets=False), Plan(check_targets=False, kernel="reference")):
        loss, gradient = results((logits, target, None), plan, {"reduction": "sum"})
        assert np.isnan(floats(loss))
        assert np.isnan(floats(gradient)[3]).all()
        assert np.isfinite(floats(gradient)[[0, 1, 2, 4, 5]]).all()


WRONG_OPTIONS = [
    {"reduction": "avg"},
    {"reduction": None},
    {"label_smoothing": 2},
    {"label_smoothing": "0.1"},
    {"z_loss": -1.0},
    {"softcap": 0},
    {"logit_scale": float("nan")},
    {"logit_scale": [1.0]},
    {"ignore_index": 1.5},
    {"ignore_index": True},
    {"ignore_index": 2**63},
    {"axis": 2},
    {"axis": 0.0},
    {"axis": [1]},
    {"normalizer": -1.0},
    {"normalizer": "3"},
    {"normalizer": True},
    {"normalizer": 2.0, "reduction": "sum"},
]
X, T, W = np.arange(20.0).reshape(4, 5) / 7, np.array([0, 4, 2, 1]), np.ones(5)
WRONG_ARRAYS = {
    "no logits": (None, T, None),
    "a number": (3.0, T, None),
    "integer logits": (X.astype(int), T, None),
    "no axis": (np.asarray(1.0), np.asarray(0), None),
    "too few indices": (X, T[:3], None),
    "indices of another shape": (X, T[:, None], None),
    "floating indices": (X, T * 1.0, None),
    "boolean indices": (X, T > 0, None),
    "integers of the logits' shape": (X, X.astype(int), None),
    "no target": (X, None, None),
    "too large": (X, np.array([0, 1, 5, 7]), None),
    "too small": (X, np.array([0, -1, 2, 5]), None),
    "far too large": (X, np.array([2**62, 1, 5, 7]), None),
    "too large, int32": (X, np.array([0, 1, 5, 7], np.int32), None),
    "too large, in a volume": (X.reshape(2, 5, 2), np.array([[0, 1], [5, 1]]), None),
    "too large, one row": (X[0], np.asarray(9), None),
    "weights of other classes": (X, T, W[:4]),
    "integer weights": (X, T, W.astype(int)),
    "weights of two axes": (X, T, W[None]),
    "weights that are none": (X, T, "balanced"),
}
FOREIGN = {
    "foreign bytes": (X.astype(">f8"), T, None),
    "foreign indices": (X, T.astype(">i8"), None),
    "foreign weights": (X, T, W.astype(">f8")),
}


def error(function, arrays, plan, options):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - compared with that of the general way
        function(*arrays, plan=plan, **options)
    return type(caught.value), str(caught.value)


@KINDS
@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=str)
def test_errors_of_options_are_those_of_the_general_way(kind, options):
    arrays = [torch.from_numpy(a.copy()) if kind == "torch" else a for a in (X, T)]
    for function in (xent.cross_entropy, xent.cross_entropy_vjp):
        kind_of, text = error(function, arrays, None, options)
        assert (kind_of, text) == error(function, arrays, REFERENCE, options)
        assert kind_of in (TypeError, ValueError)
        assert text.startswith(f"{function.__name__}: {next(iter(options))} has ")


@KINDS
@pytest.mark.parametrize("name", [*WRONG_ARRAYS, *FOREIGN])
def test_errors_of_arrays_are_those_of_the_general_way(kind, name):
    arrays = {**WRONG_ARRAYS, **FOREIGN}[name]
    if kind == "torch" and name in WRONG_ARRAYS:
        made = (torch.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in arrays)
        arrays = tuple(made)
    for function in (xent.cross_entropy, xent.cross_entropy_vjp):
        kind_of, text = error(function, arrays, None, {})
        assert (kind_of, text) == error(function, arrays, REFERENCE, {})
        assert kind_of in (TypeError, ValueError, IndexError)
        assert text.startswith(f"{function.__name__}: ")


@KINDS
def test_errors_of_probabilities(kind):
    shares = X / X.sum(1, keepdims=True)
    arrays = [torch.from_numpy(a.copy()) if kind == "torch" else a for a in (X, shares)]
    found = error(xent.cross_entropy, arrays, None, {"ignore_index": 0})
    assert found == error(xent.cross_entropy, arrays, REFERENCE, {"ignore_index": 0})
    assert found[0] is ValueError


def test_arrays_of_two_libraries():
    for arrays in ((torch.from_numpy(X.copy()), T), (X, torch.from_numpy(T.copy()))):
        found = error(xent.cross_entropy, arrays, None, {})
        assert found == error(xent.cross_entropy, arrays, REFERENCE, {})
        assert found[0] is TypeError


@KINDS
def test_errors_of_training_logits(kind):
    logits, target = torch.from_numpy(X.copy()).requires_grad_(), torch.tensor([0, 1, 5, 7])
    if kind == "numpy":
        logits, target = X, target.numpy()
    right = "cross_entropy: target has value 5 at row 2, expected a class in [0, 5) or ignore_index"
    for plan in (None, RECOMPUTE, REFERENCE):
        assert error(xent.cross_entropy, (logits, target), plan, {}) == (
            IndexError,
            f"{right} -100",
        )


@KINDS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_usual_calls_take_it(rng, taken, kind, dtype):
    for soft in (False, True):
        for weighted in (False, True):
            arrays = draw(rng, kind, dtype, (2, 5, 3), soft, weighted)
            xent.cross_entropy(*arrays)
            xent.cross_entropy(*arrays, reduction="none", label_smoothing=0.1)
            results(arrays, Plan(kernel="native", accurate=True, chunk_bytes=100), {})
    assert taken
    assert all(taken)
    if kind == "torch":
        arrays = draw(rng, kind, dtype)
        with torch.inference_mode():
            xent.cross_entropy(*arrays)
        xent.cross_entropy(torch.nn.Parameter(arrays[0]), arrays[1]).backward()
        xent.nn.CrossEntropyLoss()(arrays[0], arrays[1])
        assert all(taken)


def general(taken, function, *arguments, **options):
    """See that a call is computed the general way."""
    taken.clear()
    found = function(*arguments, **options)
    assert not any(taken)
    return found


NOT_NUMPY = {
    "lists": (X.tolist(), T.tolist(), None),
    "a list of indices": (X, T.tolist(), None),
    "int32": (X, T.astype(np.int32), None),
    "indices with gaps": (X, np.repeat(T, 2)[::2], None),
    "a memory map of another type": (X.view(type("Mine", (np.ndarray,), {})), T, None),
    "weights of another dtype": (X, T, W.astype("f4")),
    "probabilities of another dtype": (X, np.full_like(X, 0.2, dtype="f4"), None),
    "a row that is one of one": (X[0], T[:1], None),
}


@pytest.mark.parametrize("name", NOT_NUMPY)
def test_these_calls_of_numpy_arrays_go_the_general_way(taken, name):
    loss = general(taken, xent.cross_entropy, *NOT_NUMPY[name])
    found, vjp = general(taken, xent.cross_entropy_vjp, *NOT_NUMPY[name])
    assert loss == found
    assert np.isfinite(vjp(1.0)).all()


def test_plans_that_go_the_general_way(rng, taken):
    for kind in ("numpy", "torch"):
        arrays = draw(rng, kind, "float64")
        general(taken, results, arrays, REFERENCE, {})
        if kind == "torch":
            general(taken, results, arrays, RECOMPUTE, {})
            general(taken, results, arrays, None, {"reduction": "none"})
        two = cast(np.asarray(2.0), "float64", kind)
        assert two.shape == ()
        general(taken, xent.cross_entropy, *arrays, normalizer=two)


class Tagged(torch.Tensor):
    pass


def test_tensors_that_go_the_general_way(rng, taken):
    x, t, w = draw(rng, "torch", "float64", weighted=True)
    shares = torch.softmax(x, 1)
    for arrays in (
        (x.as_subclass(Tagged), t, None),
        (x, t.as_subclass(Tagged), None),
        (x, t.int(), None),
        (x, t.repeat_interleave(2)[::2], None),
        (x, t, w.float()),
        (x, shares.float(), None),
        (x, shares.clone().requires_grad_(), None),
        (x.clone().requires_grad_(), shares.clone().requires_grad_(), None),
        (x, shares, w.clone().requires_grad_()),
        (x.to("meta"), t.to("meta"), None),
        (x, t.tolist(), None),
    ):
        general(taken, xent.cross_entropy, *arrays)


def test_what_watches_or_transforms_goes_the_general_way(rng, taken):
    x, t, _ = draw(rng, "torch", "float64")
    right = xent.cross_entropy(x, t)

    def loss(x):
        return xent.cross_entropy(x, t)

    with FlopCounterMode(display=False):
        torch.testing.assert_close(general(taken, loss, x), right, rtol=1e-13, atol=0)
    recorded = general(taken, make_fx(loss), x)
    torch.testing.assert_close(recorded(x), right, rtol=1e-13, atol=0)
    assert len(list(recorded.graph.nodes)) > 3
    with torch.overrides.BaseTorchFunctionMode():
        torch.testing.assert_close(general(taken, loss, x), right, rtol=1e-13, atol=0)
    slope = general(taken, torch.func.grad(loss), x)
    leaf = x.clone().requires_grad_()
    loss(leaf).backward()
    torch.testing.assert_close(slope, leaf.grad, rtol=1e-12, atol=1e-15)
    assert general(taken, torch.func.vmap(loss), x[None]).shape == (1,)
    moved = general(taken, torch.func.jvp, loss, (x,), (x,))[1]
    torch.testing.assert_close(moved, (leaf.grad * x).sum(), rtol=1e-12, atol=1e-15)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        tangent = forward_ad.unpack_dual(general(taken, loss, dual)).tangent
    torch.testing.assert_close(tangent, moved)


def test_what_is_compiled_goes_the_general_way(rng, taken):
    x, t, _ = draw(rng, "torch", "float64")
    compiled = torch.compile(lambda x: xent.cross_entropy(x, t), backend="eager", fullgraph=True)
    found = general(taken, compiled, x)
    torch.testing.assert_close(found, xent.cross_entropy(x, t), rtol=1e-13, atol=0)


def test_options_are_prepared_once():
    fast._prepared.cache_clear()
    for _ in range(3):
        xent.cross_entropy(X, T, label_smoothing=0.5)
        xent.cross_entropy(X, T, label_smoothing=np.float64(0.5))
    assert fast._prepared.cache_info().misses == 2  # by type too: 1 is no True
    with pytest.raises(TypeError, match="label_smoothing has type bool"):
        xent.cross_entropy(X, T, label_smoothing=True)


def test_without_a_library_there_is_no_fast_way(monkeypatch):
    monkeypatch.setattr(fast, "_ways", {})
    monkeypatch.setattr(library, "load", lambda: None)
    assert fast._way(X, None) is None
    assert fast._way(torch.zeros(2), None) is None
