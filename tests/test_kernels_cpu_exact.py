"""The compiled kernel in ULP against exact arithmetic, in float64 above all."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xent import Plan
from xent.conformance import exact, oracle
from xent.kernels import library
from xent.ops import cross_entropy as ce
from xent.ops.stats import RowStats
from xent.spec import Spec

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import ULP, by_kernel, cast, floats, unit

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

DTYPES = pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
LIMITS = {**ULP, "float64": (3.5, 5.0)}
WITH_OPTIONS = {**ULP, "float64": (4.5, 6.0)}
ACCURATE = {"float32": (0.51, 0.51)}
KINDS = ["normal 0", "normal -70", "normal 100", "normal 300", "normal 1e4", "near ties"]
KINDS += ["sure 0", "sure -60", "sure 5000", "uniform 1e4", "uniform 50", "uniform 1e-3"]


def rows_of(rng, kind, shape):
    """Logits (N, V) of one kind."""
    if kind == "near ties":
        return 1 + 2.0**-7 * rng.integers(0, 5, shape)
    name, number = kind.split()
    if name == "sure":  # nearly all probability on the first class
        logits = np.minimum(rng.normal(0, 1, shape), 0)
        logits[:, 0] = rng.uniform(1, 40, shape[0])
        return logits + float(number)
    if name == "uniform":
        return rng.uniform(-1, 1, shape) * float(number)
    return rng.normal(float(number), 4, shape)


def right_to(limit, found, right, size, dtype, lost):
    """See that numbers are right, in ULP of their format or of the larger of two addends."""
    with np.errstate(over="ignore"):
        errors = exact.ulp_error(floats(found), right, dtype)
        size = np.asarray(size * np.ones(errors.shape), float)
    right = np.asarray(right, float)
    small = abs(floats(found) - right) <= np.ldexp(lost, -1022 if dtype == "float64" else -126)
    errors = errors * unit(right, dtype) / unit(np.fmax(abs(right), size), dtype)
    assert (small | (errors <= limit)).all(), f"{errors[~small].max()} ULP"


def losses_and_gradients(logits, target, weight, spec, plan, upstream):
    """Losses (N,) and the gradient (N, V) of `upstream` times their sum."""
    op = ce.op(spec)
    arrays = (logits[:, None], target[:, None], weight)
    zeros = torch.zeros(arrays[0].shape[:2], dtype=torch.float64)
    outputs = by_kernel(op, arrays, (zeros,) * 2 + (None,) * 2, plan)[:4]
    kept = torch.ones_like(zeros) if target.ndim == 2 or weight is None else weight[target][:, None]
    found = ce.value(outputs, kept, spec)[:, 0]
    partials = ce.partials(torch, outputs, kept, spec)
    g = tuple(None if d is None else upstream * d for d in partials)
    return found.to(logits.dtype), by_kernel(op, arrays, g, plan)[-1][:, 0]


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [2, 10, 150])
def test_ulp_of_losses_and_gradients(rng, dtype, kind, classes):
    rows, upstream = (6, 2)[classes > 100], float(rng.choice([1, 0.003, 300]))
    logits = cast(rows_of(rng, kind, (rows, classes)), dtype)
    target = torch.from_numpy(rng.integers(0, classes, rows))
    target[: rows // 2] = 0
    numbers = logits.double().numpy(), target.numpy()
    loss = oracle.cross_entropy(*numbers, reduction="none")
    slope = oracle.cross_entropy_grad(*numbers, reduction="sum", upstream=upstream).dlogits
    plans = [(None, LIMITS[dtype])]
    if dtype == "float32":
        plans.append((Plan(accurate=True), ACCURATE[dtype]))
    for plan, limits in plans:
        # Class by class in memory (a tile), and row by row.
        for layout in (lambda x: x, lambda x: x.T.contiguous().T):
            found = losses_and_gradients(layout(logits), target, None, Spec(), plan, upstream)
            right_to(limits[0], found[0], loss, 0, dtype, classes)
            right_to(limits[1], found[1], slope, 0, dtype, classes * max(1, upstream))


OPTIONS = {
    "smoothing": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 1e-3},
    "weight": {},
    "weight, smoothing": {"label_smoothing": 0.3},
    "scale": {"logit_scale": 0.37},
    "probabilities": {},
    "probabilities, weight, smoothing": {"label_smoothing": 0.1},
}


@DTYPES
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", ["normal 0", "sure -60", "uniform 50"])
@pytest.mark.parametrize("classes", [4, 90])
def test_ulp_with_options(rng, dtype, option, kind, classes):
    rows, spec = (5, 2)[classes > 50], Spec(**OPTIONS[option])
    logits = cast(rows_of(rng, kind, (rows, classes)), dtype)
    target = torch.from_numpy(rng.integers(0, classes, rows))
    if option.startswith("prob"):
        target = cast(rng.dirichlet(np.ones(classes), rows), dtype)
    weight = None
    if "weight" in option:
        weight = cast(rng.uniform(0.5, 2, classes), "float64")
    numbers = tuple(None if a is None else floats(a) for a in (logits, target, weight))
    if target.ndim == 1:
        numbers = (numbers[0], target.numpy(), numbers[2])
    options = {**OPTIONS[option], "reduction": "sum"}
    loss = oracle.cross_entropy(*numbers, **{**options, "reduction": "none"})
    slope = oracle.cross_entropy_grad(*numbers, **options).dlogits
    size = larger_addends(numbers, spec)
    limits = WITH_OPTIONS[dtype]
    found = losses_and_gradients(logits, target, weight, spec, None, 1.0)
    right_to(limits[0], found[0], loss, 0, dtype, 100 * classes)
    right_to(limits[1], found[1], slope, size, dtype, 100 * classes)


def larger_addends(numbers, spec):
    """The larger of the two numbers whose difference an entry of the gradient is."""
    logits, target, weight = numbers
    u = logits * spec.logit_scale
    p = np.exp(u - u.max(1, keepdims=True))
    lse = np.log(p.sum(1, keepdims=True)) + u.max(1, keepdims=True)
    p /= p.sum(1, keepdims=True)
    w = np.ones(logits.shape[1]) if weight is None else weight
    q = target if target.ndim == 2 else np.eye(logits.shape[1])[target]
    kept = 1 if target.ndim == 2 else w[target][:, None]
    q = w * ((1 - spec.label_smoothing) * q + spec.label_smoothing / logits.shape[1])
    by_lse = 2 * spec.z_loss * kept * abs(lse)
    return np.maximum(np.maximum(q.sum(1, keepdims=True), by_lse) * p, q) * spec.logit_scale


@pytest.mark.parametrize("softcap", [5.0, 50.0])
def test_a_softcap_in_float64_is_right_to_units_of_the_softcap(rng, softcap):
    logits = rng.normal(0, 40, (6, 20))
    target = rng.integers(0, 20, 6)
    right = oracle.cross_entropy(logits, target, reduction="none", softcap=softcap)
    spec, op = Spec(softcap=softcap), RowStats(softcap=softcap)
    assert ce.op(spec) == op
    found = losses_and_gradients(*map(torch.from_numpy, (logits, target)), None, spec, None, 1.0)
    np.testing.assert_allclose(
        floats(found[0]), np.float64(right), rtol=8e-16, atol=softcap * 1e-15
    )


@DTYPES
@pytest.mark.parametrize("classes", [3, 80])
def test_a_probability_at_the_target_is_as_good_as_elsewhere(rng, dtype, classes):
    numbers = rng.normal(-60, 3, (40, 1, classes))
    numbers[:, 0, 0] = rng.uniform(0, 3, 40)
    logits = cast(numbers, dtype)
    target = torch.full((40, 1), classes - 1)
    one = torch.ones((40, 1), dtype=torch.float64)
    right = oracle.softmax(floats(logits), axis=-1)
    for op in (RowStats(), RowStats(entropy=True)):
        for codes in (None, target):
            gradient = by_kernel(op, (logits, codes, None), (one, None, None, None))[-1]
            right_to(LIMITS[dtype][1], gradient, right, 0, dtype, 1)


@DTYPES
@pytest.mark.parametrize("places", [1, 8])
def test_losses_of_sums_of_the_smallest_numbers(rng, dtype, places):
    # Each of the classes adds about half of the smallest normal number, which may be taken as 0.
    small = {"float64": -708.5}.get(dtype, -87.5)
    numbers = rng.uniform(small - 3, small, (8 // places, places, 40))
    numbers[..., 0] = 0
    logits = cast(numbers, dtype)
    target = torch.zeros(logits.shape[:2], dtype=torch.int64)
    zero = torch.zeros(logits.shape[:2], dtype=torch.float64)
    found = by_kernel(RowStats(), (logits, target, None), (zero, None, None, None))[1]
    right = oracle.cross_entropy(floats(logits), target.numpy(), axis=-1, reduction="none")
    smallest = 2.0**-1022 if dtype == "float64" else 2.0**-126
    apart = np.abs(floats(found) - np.asarray(right, float))
    assert (apart <= 40 * smallest).all()
