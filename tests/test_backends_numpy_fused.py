"""A loss of NumPy arrays with its gradient, and what may be done with the function to it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

import xent
from xent import Plan
from xent.bench.memory import extra_bytes
from xent.kernels import library

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import ULP, near, same_bits

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

REFERENCE, INPLACE = Plan(kernel="reference"), Plan(inplace=True)
LIMITS = {"float16": ULP["float16"], "float32": ULP["float32"], "float64": (8.5, 12.0)}
DTYPES = pytest.mark.parametrize("dtype", list(LIMITS))
CLASSES = pytest.mark.parametrize("classes", [5, 64, 300, 9001])


def draw(rng, shape, dtype="float64"):
    logits = rng.normal(0, 3, shape).astype(dtype)
    return logits, rng.integers(0, shape[1], (shape[0], *shape[2:]))


def exactly(logits, target, weight=None, upstream=1.0, **options):
    """The loss and the gradient in float64."""
    weight = None if weight is None else np.float64(weight)
    arrays = np.float64(logits), target, weight
    loss, vjp = xent.cross_entropy_vjp(*arrays, plan=REFERENCE, **options)
    return loss, vjp(upstream)


@DTYPES
@CLASSES
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"reduction": "none"}], ids=str)
@pytest.mark.parametrize("upstream", [1.0, 0.3, -7, 65536.0])
def test_loss_and_gradient(rng, dtype, classes, options, upstream):
    logits, target = draw(rng, (6, classes), dtype)
    target[2] = -100
    loss, vjp = xent.cross_entropy_vjp(logits, target, **options)
    same_bits(np.asarray(xent.cross_entropy(logits, target, **options)), np.asarray(loss))
    assert loss.dtype == logits.dtype
    assert np.shape(loss) == ((6,) if options.get("reduction") == "none" else ())
    right, slope = exactly(logits, target, upstream=upstream, **options)
    near(loss, right, dtype, LIMITS[dtype][0], 0, classes)
    g = vjp(upstream)
    assert (type(g), g.dtype, g.shape) == (np.ndarray, logits.dtype, logits.shape)
    near(g, slope, dtype, LIMITS[dtype][1], 0, classes * max(1, abs(upstream)))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_every_call_gives_an_array_of_its_own(rng, reduction):
    logits, target = draw(rng, (6, 300))
    _, vjp = xent.cross_entropy_vjp(logits, target, reduction=reduction)
    found = [vjp(1.0), vjp(1.0), vjp(), vjp(2.0), vjp(1.0)]
    right = found[1].copy()
    found[0][...] = 7
    for g in (found[1], found[2], found[4], found[3] / 2):
        np.testing.assert_array_equal(g, right)
    assert len({g.__array_interface__["data"][0] for g in found}) == len(found)
    for g in found:
        assert not np.shares_memory(g, logits)
        assert g.flags.writeable


def test_the_order_of_upstreams_changes_no_bits(rng):
    logits, target = draw(rng, (6, 300))
    upstreams = [1.0, 0.3, -7.0, 1e-3]
    right = [xent.cross_entropy_vjp(logits, target)[1](u) for u in upstreams]
    _, vjp = xent.cross_entropy_vjp(logits, target)
    for place in [3, *rng.integers(0, 4, 10)]:
        same_bits(vjp(upstreams[place]), right[place])


@pytest.mark.parametrize("upstream", [2, 2.0, np.float32(2), np.asarray(2.0), np.asarray(2)])
def test_kinds_of_upstreams(rng, upstream):
    logits, target = draw(rng, (6, 30))
    _, vjp = xent.cross_entropy_vjp(logits, target)
    same_bits(vjp(upstream), vjp(2.0))


@pytest.mark.parametrize("upstream", [math.nan, math.inf, 0.0, -0.0, 1e-290])
def test_any_upstream(rng, upstream):
    logits, target = draw(rng, (6, 30))
    with np.errstate(all="ignore"):
        right = exactly(logits, target, upstream=upstream)[1]
    found = xent.cross_entropy_vjp(logits, target)[1](upstream)
    np.testing.assert_allclose(found, right, rtol=1e-13)


WRONG = ["1", None, True, [1.0, 2.0], np.ones(2), np.ones((6, 30)), np.asarray(True), 1j]


@pytest.mark.parametrize("upstream", WRONG, ids=repr)
@pytest.mark.parametrize("plan", [None, INPLACE])
def test_wrong_upstreams_raise_as_the_general_way(rng, upstream, plan):
    logits, target = draw(rng, (6, 30))

    def error(plan):
        _, vjp = xent.cross_entropy_vjp(logits.copy(), target, plan=plan)
        with pytest.raises((TypeError, ValueError)) as caught:
            vjp(upstream)
        return type(caught.value), str(caught.value)

    found = error(plan)
    assert found == error(REFERENCE)
    assert found[1].startswith("cross_entropy_vjp: upstream has ")


def test_a_wrong_upstream_takes_nothing_away(rng):
    logits, target = draw(rng, (6, 30))
    for plan in (None, INPLACE):
        right = xent.cross_entropy_vjp(logits, target)[1](1.0)
        _, vjp = xent.cross_entropy_vjp(logits.copy(), target, plan=plan)
        with pytest.raises(ValueError, match=r"upstream has shape \(2,\), expected \(\)"):
            vjp(np.ones(2))
        same_bits(vjp(1.0), right)


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.swapaxes(0, 1)).swapaxes(0, 1),
    "rows backwards": lambda a: a[::-1].copy()[::-1],
    "classes backwards": lambda a: np.ascontiguousarray(a[:, ::-1])[:, ::-1],
    "gaps": lambda a: np.repeat(a, 2, 1)[:, ::2],
    "rows apart": lambda a: np.repeat(a, 2, 0)[::2],
    "last axis first": lambda a: np.ascontiguousarray(np.moveaxis(a, -1, 0)).transpose(
        *range(1, a.ndim), 0
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("shape", [(6, 30), (5, 300), (2, 7, 3), (2, 7, 3, 4)], ids=str)
@pytest.mark.parametrize("plan", [None, INPLACE])
def test_layouts(rng, name, shape, plan):
    logits, target = draw(rng, shape)
    shares = np.moveaxis(rng.dirichlet(np.ones(shape[1]), target.shape), -1, 1)
    for given in (target, LAYOUTS[name](shares)):
        arranged = LAYOUTS[name](logits.copy())
        loss, vjp = xent.cross_entropy_vjp(arranged, given, plan=plan)
        right, slope = exactly(logits, given)
        np.testing.assert_allclose(loss, right, rtol=1e-14)
        g = vjp(1.0)
        np.testing.assert_allclose(g, slope, rtol=1e-12, atol=1e-16)
        if plan is None:
            np.testing.assert_array_equal(arranged, logits)


def test_a_row_that_is_shown_many_times(rng):
    row = rng.normal(size=(1, 30))
    writable = np.lib.stride_tricks.as_strided(row, (6, 30), (0, 8))
    target = rng.integers(0, 30, 6)
    for logits in (np.broadcast_to(row, (6, 30)), writable):
        for plan in (None, INPLACE):
            right, slope = exactly(logits, target)
            loss, vjp = xent.cross_entropy_vjp(logits, target, plan=plan)
            np.testing.assert_allclose(loss, right, rtol=1e-14)
            np.testing.assert_allclose(vjp(1.0), slope, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("which", ["logits", "target", "weight"])
def test_foreign_bytes_are_no_dtype_of_ours(rng, which):
    logits, target = draw(rng, (6, 30))
    arrays = {"logits": logits, "target": target, "weight": np.ones(30)}
    arrays[which] = arrays[which].astype(arrays[which].dtype.newbyteorder())
    for function in (xent.cross_entropy, xent.cross_entropy_vjp):
        with pytest.raises(TypeError, match=f"^{function.__name__}: {which} has dtype [<>]"):
            function(**arrays)


@pytest.mark.parametrize("dtype", list(LIMITS))
def test_nothing_that_is_given_is_changed(rng, dtype):
    logits, target = draw(rng, (6, 300), dtype)
    weight = rng.uniform(0.5, 2, 300).astype(dtype)
    before = logits.copy(), target.copy(), weight.copy()
    for array in (logits, target, weight):
        array.flags.writeable = False
    _, vjp = xent.cross_entropy_vjp(logits, target, weight)
    vjp(1.0)
    vjp(3.0)
    same_bits((logits, target, weight), before)


def test_what_is_kept_of_the_class_weights_is_theirs_of_the_loss(rng):
    logits, target = draw(rng, (6, 30))
    weight = rng.uniform(0.5, 2, 30).astype("f4").astype("f8")
    right = exactly(logits, target, weight, 2.0)[1]
    _, vjp = xent.cross_entropy_vjp(logits, target, weight)
    np.testing.assert_allclose(vjp(2.0), right, rtol=1e-12, atol=1e-16)
    for given in (weight[::-1].copy()[::-1], np.repeat(weight, 2)[::2]):
        same_bits(xent.cross_entropy_vjp(logits, target, given)[1](2.0), vjp(2.0))


@DTYPES
@CLASSES
def test_in_place(rng, dtype, classes):
    logits, target = draw(rng, (6, classes), dtype)
    right, vjp = xent.cross_entropy_vjp(logits, target)
    slope, given = vjp(1.0), logits.copy()
    loss, vjp = xent.cross_entropy_vjp(given, target, plan=INPLACE)
    same_bits(np.asarray(loss), np.asarray(right))
    assert vjp(1.0) is given
    same_bits(given, slope)
    for upstream in (1.0, 2.0):
        with pytest.raises(RuntimeError, match=r"^cross_entropy_vjp: logits has its gradient in"):
            vjp(upstream)


@DTYPES
def test_in_place_with_another_upstream(rng, dtype):
    logits, target = draw(rng, (6, 300), dtype)
    slope = exactly(logits, target, upstream=0.5)[1]
    _, vjp = xent.cross_entropy_vjp(logits, target, plan=INPLACE)
    g = vjp(0.5)
    assert g is logits
    near(g, slope, dtype, 2 * LIMITS[dtype][1], 0, 300)
    with pytest.raises(RuntimeError, match="expected no use after the loss and one backward"):
        vjp(0.5)


def test_a_loss_alone_or_for_each_row_is_not_written_over(rng):
    logits, target = draw(rng, (6, 30))
    before = logits.copy()
    xent.cross_entropy(logits, target, plan=INPLACE)
    _, vjp = xent.cross_entropy_vjp(logits, target, reduction="none", plan=INPLACE)
    assert not np.shares_memory(vjp(1.0), logits)
    same_bits(logits, before)


def test_read_only_logits_are_not_written_over(rng):
    logits, target = draw(rng, (6, 30))
    right, before = xent.cross_entropy_vjp(logits, target)[1](1.0), logits.copy()
    logits.flags.writeable = False
    _, vjp = xent.cross_entropy_vjp(logits, target, plan=INPLACE)
    for _ in range(2):
        np.testing.assert_allclose(vjp(1.0), right, rtol=1e-12)
    same_bits(logits, before)


def test_a_wrong_target_leaves_the_logits_as_they_are(rng):
    logits, target = draw(rng, (6, 30))
    before, target[3] = logits.copy(), 30
    with pytest.raises(IndexError, match="cross_entropy_vjp: target has value 30 at row 3"):
        xent.cross_entropy_vjp(logits, target, plan=INPLACE)
    same_bits(logits, before)


def test_scalars_are_numpys(rng):
    logits, target = draw(rng, (6, 30), "float32")
    assert type(xent.cross_entropy(logits, target)) is np.float32
    assert type(xent.cross_entropy_vjp(logits[0], target[0:1][0])[0]) is np.float32
    assert type(xent.cross_entropy(logits, target, reduction="none")) is np.ndarray


def test_nothing_of_the_size_of_the_logits_beside_the_gradient(rng):
    logits = rng.normal(size=(2000, 4000)).astype("f4")
    target = rng.integers(0, 4000, 2000)

    def extra(**options):
        found = extra_bytes(lambda: xent.cross_entropy_vjp(logits, target, **options)[1](1.0))
        if found is None:
            pytest.skip("this system does not tell the peak of a process's memory")
        return found / logits.nbytes

    xent.cross_entropy_vjp(logits, target)
    assert 0.9 < extra() < 1.2
    assert extra(plan=INPLACE) < 0.2
    assert extra_bytes(lambda: xent.cross_entropy(logits, target)) < logits.nbytes / 5


def test_fields_of_records(rng):
    records = np.zeros((6, 9), dtype=[("flag", "u1"), ("logit", "f8")])
    records["logit"] = rng.normal(size=(6, 9))
    logits, target = records["logit"], rng.integers(0, 9, 6)
    right = xent.cross_entropy_vjp(logits.copy(), target)
    found = xent.cross_entropy_vjp(logits, target)
    np.testing.assert_allclose(found[0], right[0], rtol=1e-15)
    np.testing.assert_allclose(found[1](1.0), right[1](1.0), rtol=1e-14)


def test_weights_that_are_masked_are_refused_again_and_again(rng):
    logits, target, weight = rng.normal(size=(6, 9)), rng.integers(0, 9, 6), rng.random(9)
    xent.cross_entropy(logits, target, weight)
    with pytest.raises(TypeError, match="cross_entropy: weight has type"):
        xent.cross_entropy(logits, target, np.ma.masked_less(weight, 0.5))
