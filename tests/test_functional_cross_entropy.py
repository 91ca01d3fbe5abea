"""Cross entropy, case by case and on random options: against the oracle, then against torch."""

from __future__ import annotations

import functools
import math

import array_api_strict
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import xent
from xent.conformance import oracle

INF, NAN = math.inf, math.nan
LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
REDUCTIONS = pytest.mark.parametrize("reduction", ["none", "sum", "mean"])

X = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([2, 0])
W = np.array([1.0, 2.0, 4.0])
P = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
Q = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])
X3, X4 = (np.sin(np.arange(math.prod(s))).reshape(s) * 9 for s in [(2, 3, 4), (2, 3, 4, 5)])
Y3, Y4 = np.arange(8).reshape(2, 4) % 3, np.arange(40).reshape(2, 4, 5) % 3


def row(*logits):
    return np.array([logits], float)


# name: (logits, target, weight, options). Torch gives the same in all of them.
AS_TORCH = {
    "one row": (X[0], 2, None, {}),
    "one row, probabilities": (X[0], P[0], None, {}),
    "one row, weight": (X[0], 2, W, {}),
    "two rows": (X, Y, None, {}),
    "one more axis": (X3, Y3, W, {}),
    "two more axes": (X4, Y4, W, {}),
    "two more axes, probabilities": (X4, np.cos(X4) ** 2, W, {"label_smoothing": 0.1}),
    "no rows": (np.zeros((0, 3)), np.zeros(0, int), None, {}),
    "no rows, probabilities": (np.zeros((0, 3)), np.zeros((0, 3)), None, {}),
    "an empty last axis": (np.zeros((2, 3, 0)), np.zeros((2, 0), int), None, {}),
    "no classes, all ignored": (np.zeros((2, 0)), [-100, -100], None, {}),
    "no classes, probabilities": (np.zeros((2, 0)), np.zeros((2, 0)), None, {}),
    "one class": (X[:, :1], [0, 0], None, {}),
    "weight": (X, Y, W, {}),
    "weight, probabilities": (X, P, W, {}),
    "weight, one-hot probabilities": (X, np.eye(3)[Y], W, {}),
    "weight 0 at every target": (X, Y, [0.0, 1.0, 0.0], {}),
    "nan weight of another class": (X, Y, [1.0, NAN, 1.0], {}),
    "nan weight of another class, smoothing": (X, Y, [1.0, NAN, 1.0], {"label_smoothing": 0.1}),
    "an ignored row": (X, [-100, 0], None, {}),
    "ignore_index -1": (X, [-1, 0], None, {"ignore_index": -1}),
    "ignore_index of a class": (X, [1, 0], None, {"ignore_index": 1}),
    "ignore_index beyond the classes": (X, [999, 0], None, {"ignore_index": 999}),
    "an ignored row, nan weight of another class": (X, [-100, 1], [NAN, 1.0, 1.0], {}),
    "ignored in the middle": (X3, np.where(Y3 == 1, -100, Y3), W, {"label_smoothing": 0.2}),
    "all ignored": (X, [-100, -100], None, {}),
    "all ignored, weight, smoothing": (X, [-100, -100], W, {"label_smoothing": 0.1}),
    "negative ignore_index, probabilities": (X, P, None, {"ignore_index": -7}),
    "smoothing": (X, Y, None, {"label_smoothing": 0.1}),
    "smoothing 1": (X, Y, None, {"label_smoothing": 1.0}),
    "smoothing, weight": (X, Y, W, {"label_smoothing": 0.1}),
    "smoothing, weight, an ignored row": (X, [-100, 0], W, {"label_smoothing": 0.1}),
    "smoothing, probabilities": (X, P, None, {"label_smoothing": 0.1}),
    "smoothing, one-hot probabilities, weight": (X, np.eye(3)[Y], W, {"label_smoothing": 0.1}),
    "smoothing, a masked class": (row(1, 2, -INF), [0], None, {"label_smoothing": 0.1}),
    "a masked class": (row(1, 2, -INF), [0], None, {}),
    "the target masked": (row(1, 2, -INF), [2], None, {}),
    "all classes masked": (row(-INF, -INF), [0], None, {}),
    "+inf at the target": (row(INF, 0, 0), [0], None, {}),
    "+inf elsewhere": (row(INF, 0, 0), [1], None, {}),
    "a nan logit": (row(NAN, 0, 0), [1], None, {}),
    "a nan row among others": (np.array([[NAN, 0.0], [1.0, 2.0]]), [1, 0], None, {}),
    "shift": (row(1e4, 1e4 + 1, 1e4 + 2), [2], None, {}),
    "equal at 1e30": (row(1e30, 1e30), [0], None, {}),
    "equal at -1e7": (row(-1e7, -1e7), [1], None, {}),
    "a gap of 200": (row(0, 200), [0], None, {}),
    "a gap of 1000": (row(1000, 0), [1], None, {}),
    "negative and far": (row(-200, -201), [0], None, {}),
    "the largest floats": (row(1.7e308, 1.7e308), [0], None, {}),
    "negative probabilities": (X, -P, None, {}),
    "unnormalised probabilities": (X, 3 * P, None, {"label_smoothing": 0.1}),
    "probabilities of sum 0": (X, 0 * P, None, {}),
    "nan probabilities": (X, NAN * P, None, {}),
    "probability at a masked class": (row(1, 2, -INF), Q[:1], None, {}),
}

# Where torch is nan, or fails, or has no such option.
BEYOND_TORCH = {
    "one row, target of shape (1,)": (X[0], [2], None, {}),
    "negative weights that cancel": (X, Y, [-4.0, 2.0, 4.0], {}),
    "probability 0 at a masked class": (row(1, 2, -INF), row(0.5, 0.5, 0), None, {}),
    "weight 0 at a masked class": (row(1, 2, -INF), Q[:1], [1.0, 1.0, 0.0], {}),
    "smoothing 1, the target masked": (row(1, 2, -INF), [2], None, {"label_smoothing": 1.0}),
    "an ignored nan row": (np.array([[NAN, -INF, INF], [1.0, 2.0, 3.0]]), [-100, 0], W, {}),
    "a loss below eps": (row(40, 0, 0), [0], None, {}),
    "all but certain at 5000": (row(5036, 5000), [0], None, {}),
    "explicit denominator": (X, Y, W, {"normalizer": 7.0}),
    "explicit denominator, all ignored": (X, [-100, -100], None, {"normalizer": 3}),
    "classes on the last axis": (X3, np.arange(6).reshape(2, 3) % 4, None, {"axis": -1}),
    "classes on the first axis": (X3, np.arange(12).reshape(3, 4) % 2, None, {"axis": 0}),
    "scale": (X, Y, W, {"logit_scale": 0.3}),
    "softcap": (4 * X3, Y3, W, {"softcap": 5.0, "logit_scale": 0.5}),
    "softcap, infinite logits": (row(INF, 2, -INF), [0], None, {"softcap": 5.0}),
    "z-loss": (X, Y, W, {"z_loss": 1e-2}),
    "z-loss, probabilities": (X, P, W, {"z_loss": 1e-2}),
    "everything": (
        X4,
        np.where(Y4 == 1, 9, Y4),
        W,
        {
            "ignore_index": 9,
            "label_smoothing": 0.2,
            "z_loss": 1e-3,
            "softcap": 8.0,
            "logit_scale": 0.7,
        },
    ),
}
CASES = {**AS_TORCH, **BEYOND_TORCH}
EACH_CASE = pytest.mark.parametrize("name", CASES)


def ready(array, name):
    """The arrays of a case, in a library."""
    logits, target, weight, _ = CASES[name]
    target = np.asarray(target)
    return array(logits), array(target), None if weight is None else array(np.array(weight))


def options_of(name, reduction):
    options = {**CASES[name][3], "reduction": reduction}
    if reduction != "mean":
        options.pop("normalizer", None)
    return options


@functools.cache
def exact(function, name, reduction):
    logits, target, weight, _ = CASES[name]
    return function(logits, target, weight, **options_of(name, reduction))


# The contract of docs/design.md in ULP, for a loss and for an entry of the gradient.
LOSS = {"float16": 0.51, "bfloat16": 0.51, "float32": 3}
GRADIENT = {"float16": 0.51, "bfloat16": 0.51, "float32": 4}


SMALLEST = {"bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


def assert_within(got, right, ulps, floor=0.0):
    """Entry by entry within `ulps` of the dtype of `got`, or within `floor`."""
    dtype = str(got.dtype).rsplit(".", 1)[-1]
    got = np.asarray(got.to(torch.float64) if isinstance(got, torch.Tensor) else got, float)
    assert got.shape == np.shape(right)
    errors = np.asarray(oracle.ulp_error(got, right, dtype))
    with np.errstate(invalid="ignore"):
        apart = np.abs(got - np.asarray(right, float))
    # A kernel makes 0 of what is below the smallest normal number.
    flushed = (got == 0) & (apart < SMALLEST.get(dtype, 0))
    wrong = (errors > ulps) & ~(apart <= floor) & ~flushed
    assert not wrong.any(), (errors[wrong], got[wrong], np.asarray(right, object)[wrong])


def allowance(logits, target, options):
    """ULP of a loss and of a gradient in float64, and the absolute error where terms cancel."""
    if options.get("softcap"):
        return 4, 8, 2e-15 * options["softcap"]
    mixed = np.shape(target) == np.shape(logits) or {"label_smoothing", "z_loss"} & set(options)
    return (4, 8, 2e-15) if mixed else (2.5, 4, 0.0)


@LIBRARIES
@REDUCTIONS
@EACH_CASE
def test_every_case(name, reduction, array):
    logits, target, weight = ready(array, name)
    options = options_of(name, reduction)
    ulps, gradient_ulps, floor = allowance(logits, target, options)
    right = exact(oracle.cross_entropy, name, reduction)
    assert_within(xent.cross_entropy(logits, target, weight, **options), right, ulps, floor)
    loss, vjp = xent.cross_entropy_vjp(logits, target, weight, **options)
    assert_within(loss, right, ulps, floor)
    dlogits = vjp(1.0)
    assert type(dlogits) is type(logits)
    right = exact(oracle.cross_entropy_grad, name, reduction).dlogits
    assert_within(dlogits, right, gradient_ulps, floor)


@REDUCTIONS
@pytest.mark.parametrize("name", AS_TORCH)
def test_torch_gives_the_same(name, reduction):
    logits, target, weight = ready(torch.asarray, name)
    options = options_of(name, reduction)
    results = []
    for function in (F.cross_entropy, xent.cross_entropy):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf, target, weight, **options)
        loss.backward(torch.ones_like(loss))
        results.append((loss.detach(), leaf.grad))
    assert results[0][0].dtype == results[1][0].dtype
    torch.testing.assert_close(results[1], results[0], equal_nan=True)


# Random options and shapes.


@st.composite
def problems(draw):
    """(logits, target, weight, options) in NumPy, and the name of a dtype for them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
    shape = draw(st.sampled_from([(5,), (3, 4), (1, 1), (4, 9), (2, 3, 2), (2, 2, 2, 3), (0, 2)]))
    axis = draw(st.sampled_from([None, *range(-len(shape), len(shape))] if shape[0] else [1]))
    place = axis if axis is not None else min(1, len(shape) - 1)
    spread = draw(st.sampled_from([0.0, 0.01, 1.0, 10.0, 100.0, 1e4]))
    offset = draw(st.sampled_from([0.0, 0.0, 1000.0, -3e4]))
    logits = (rng.normal(0, 1, shape) * spread + offset).astype(dtype)
    per_row = logits.shape[:place] + logits.shape[place:][1:]
    options = {"reduction": draw(st.sampled_from(["none", "sum", "mean"])), "axis": axis}
    target = rng.integers(0, logits.shape[place], per_row)
    weight = rng.uniform(0.25, 4, logits.shape[place]).astype(dtype)
    weight = draw(st.sampled_from([None, weight]))
    if draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from([-100, 0, 77]))
        target = np.where(rng.random(per_row) < 0.3, options["ignore_index"], target)
    return logits, target, weight, options


MORE_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "label_smoothing": st.sampled_from([0.1, 0.75, 1.0]),
        "z_loss": st.sampled_from([1e-4, 0.5]),
        "softcap": st.sampled_from([2.0, 30.0]),
        "logit_scale": st.sampled_from([0.3, 3.0]),
    },
)


def losses_and_gradients(problem, plan=None):
    logits, target, weight, options = problem
    options = {**options, "plan": plan}
    for array in (np.asarray, torch.asarray):
        arrays = array(logits), array(target), None if weight is None else array(weight)
        loss, vjp = xent.cross_entropy_vjp(*arrays, **options)
        yield loss, vjp(1.0)
    arrays[0].requires_grad_()
    loss = xent.cross_entropy(*arrays, **options)
    loss.backward(torch.ones_like(loss))
    yield loss.detach(), arrays[0].grad


@given(problem=problems())
@settings(max_examples=120)
def test_class_indices_to_the_last_digit(problem):
    loss_right = oracle.cross_entropy(*problem[:3], **problem[3])
    right = oracle.cross_entropy_grad(*problem[:3], **problem[3]).dlogits
    dtype = str(problem[0].dtype)
    double = dtype == "float64"
    floor = 1e-58 if 1 in problem[0].shape else 0.0  # all that the oracle's digits leave of 0
    # Almost always within 2.5; sums of many terms, weights and their sum round too.
    plain = problem[2] is None and problem[3]["reduction"] == "none"
    for loss, dlogits in losses_and_gradients(problem):
        assert_within(loss, loss_right, (3.5 if plain else 4.5) if double else LOSS[dtype], floor)
        assert_within(dlogits, right, (4 if plain else 6) if double else GRADIENT[dtype], floor)
    for loss, dlogits in losses_and_gradients(problem, xent.Plan(accurate=True)):
        assert_within(loss, loss_right, (3.5 if plain else 4.5) if double else 0.51, floor)
        assert_within(dlogits, right, (4 if plain else 6) if double else 0.51, floor)


@given(problem=problems(), more=MORE_OPTIONS, soft=st.booleans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=120)
def test_every_option_where_nothing_cancels(problem, more, soft, seed):
    logits, target, weight, options = problem
    options = {**options, **more}
    if soft:
        target = np.random.default_rng(seed).random(logits.shape).astype(logits.dtype)
        options["ignore_index"] = -100
    problem = logits, target, weight, options
    loss_right = oracle.cross_entropy(*problem[:3], **options)
    right = oracle.cross_entropy_grad(*problem[:3], **options).dlogits
    dtype = str(logits.dtype)
    double = dtype == "float64"
    # What the terms of a difference may be away from the result that is left of them.
    largest = float(np.max(np.abs(np.asarray(loss_right, float)), initial=1))
    floor = 2e-14 * largest
    # Where p and a target that is no class are near, float32 has what it has of them.
    cancels = soft or more.get("label_smoothing", 0) > 0
    of_terms = 2.0**-22 * np.max(weight if weight is not None else 1, initial=1)
    left = of_terms if cancels and not double else floor
    for loss, dlogits in losses_and_gradients(problem):
        assert_within(loss, loss_right, 4 if double else LOSS[dtype], floor)
        assert_within(dlogits, right, 6 if double else GRADIENT[dtype], left)
    for loss, dlogits in losses_and_gradients(problem, xent.Plan(accurate=True)):
        assert_within(loss, loss_right, 4 if double else 0.51, floor)
        assert_within(dlogits, right, 6 if double else 0.51, floor)


@given(problem=problems(), smoothing=st.sampled_from([0.0, 0.1, 1.0]), soft=st.booleans())
@settings(max_examples=100)
def test_random_options_as_torch(problem, smoothing, soft):
    logits, target, weight, options = problem
    axis = options.pop("axis")
    place = axis if axis is not None else min(1, logits.ndim - 1)
    logits = logits.astype(np.float64) if logits.dtype == np.float16 else logits
    weight = None if weight is None else torch.tensor(weight.astype(logits.dtype))
    options["label_smoothing"] = smoothing
    if soft:
        target, options["ignore_index"] = np.cos(logits) ** 2, -100
    leaves = [torch.tensor(logits).requires_grad_() for _ in range(2)]
    mine = xent.cross_entropy(leaves[0], torch.tensor(target), weight, axis=axis, **options)
    moved, goal = leaves[1].movedim(place, min(1, logits.ndim - 1)), torch.tensor(target)
    goal = goal.movedim(place, min(1, logits.ndim - 1)) if soft else goal
    torchs = F.cross_entropy(moved, goal, weight, **options)
    torch.testing.assert_close(mine, torchs, equal_nan=True)
    for loss in (mine, torchs):
        loss.backward(torch.ones_like(loss))
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, equal_nan=True)


# Dtypes.


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("target", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint64"])
def test_any_integer_target_and_the_dtype_of_the_logits(target, dtype):
    logits = torch.tensor(X).to(getattr(torch, dtype))
    target = torch.tensor(Y).to(getattr(torch, target))
    loss, vjp = xent.cross_entropy_vjp(logits, target)
    assert loss.dtype == vjp(1.0).dtype == logits.dtype
    assert_within(loss, oracle.cross_entropy(X, Y), 2.5 if dtype == "float64" else LOSS[dtype])


def test_uint8_targets_ignore_255():
    target = torch.tensor([255, 0], dtype=torch.uint8)
    loss = xent.cross_entropy(torch.tensor(X), target, ignore_index=255)
    assert_within(loss, oracle.cross_entropy(X, [255, 0], ignore_index=255), 2.5)


@pytest.mark.parametrize("logits", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("other", [torch.float16, torch.float32, torch.float64])
def test_probabilities_and_logits_promote_as_in_torch(logits, other):
    x, p = torch.tensor(X, dtype=logits), torch.tensor(P, dtype=other)
    loss, vjp = xent.cross_entropy_vjp(x, p)
    assert loss.dtype == F.cross_entropy(x, p).dtype == torch.promote_types(logits, other)
    assert vjp(1.0).dtype == logits
    right = oracle.cross_entropy(x.double().numpy(), p.double().numpy())
    assert_within(loss, right, 2.5 if loss.dtype in (torch.float32, torch.float64) else 0.51)


# Half precision does not overflow, and big sums keep their digits.


@pytest.mark.parametrize(
    ("rows", "classes", "value"), [(1000, 2, 300.0), (70_000, 2, 0.0), (1, 70_000, 0.0)]
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_float16_sums_do_not_overflow(rows, classes, value, reduction):
    logits = np.zeros((rows, classes), np.float16)
    logits[:, 0] = value
    target = np.full(rows, classes - 1)
    right = oracle.cross_entropy(logits[:1, :2], [1]) if classes == 2 else math.log(classes)
    for array in (np.asarray, torch.asarray):
        loss, vjp = xent.cross_entropy_vjp(array(logits), array(target), reduction=reduction)
        loss = np.asarray(loss).reshape(-1)[:1]
        assert loss.dtype == np.float16
        assert_within(loss, np.array([right]), 0.51)
        assert (np.asarray(vjp(1.0))[:, 1] != 0).all() or reduction == "mean"


def test_float16_weighted_mean_does_not_overflow():
    logits, weight = np.zeros((1000, 2), np.float16), np.full(2, 100, np.float16)
    loss = xent.cross_entropy(logits, np.zeros(1000, int), weight)
    assert_within(loss, math.log(2), 0.51)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_mean_of_many_rows_is_rounded_once(rng, dtype):
    logits = torch.tensor(rng.normal(0, 2, (200_000, 2))).to(dtype)
    target = torch.tensor(rng.integers(0, 2, 200_000))
    loss = xent.cross_entropy(logits, target)
    wide = logits.double().numpy()
    gaps = wide[:, 1] - wide[:, 0]
    rows = np.logaddexp(0, np.where(target.numpy() == 1, -gaps, gaps))
    assert_within(loss, math.fsum(rows) / len(rows), 1.5 if dtype == torch.float32 else 0.51)


def test_a_mean_of_float64_rows_has_the_accuracy_of_a_row(rng):
    logits, target = rng.normal(0, 2, (3000, 2)), rng.integers(0, 2, 3000)
    right = oracle.cross_entropy(logits, target)
    for array in (np.asarray, torch.asarray):
        assert_within(xent.cross_entropy(array(logits), array(target)), right, 2)


@pytest.mark.parametrize("spread", [0.0, 1e-3])
def test_a_million_classes(rng, spread):
    logits = (rng.random((1, 1_000_000)) * spread).astype(np.float32)
    wide = logits[0].astype(float)
    right = math.log(math.fsum(np.exp(wide - wide[7]).tolist()))
    p = np.exp(wide - wide[7] - right)
    for plan, of_loss, of_gradient in ((None, 3, 4), (xent.Plan(accurate=True), 0.51, 0.51)):
        loss, vjp = xent.cross_entropy_vjp(logits, np.array([7]), plan=plan)
        assert_within(loss, right, of_loss)
        np.testing.assert_allclose(vjp(1.0)[0, 8:], p[8:], rtol=of_gradient * 2.0**-23)
