"""The oracle against literals, torch in float64, decimal arithmetic and finite differences."""

from __future__ import annotations

import ast
import decimal
import itertools
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mpmath import mpf

from xent.conformance import exact, oracle

INF, NAN = math.inf, math.nan
X = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([2, 0])
W = np.array([1.0, 2.0, 4.0])
P = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])


def as_float(values):
    return np.asarray(values, dtype=float)


def assert_same(got, expected, tolerance=1e-25):
    assert np.shape(got) == np.shape(expected)
    for a, b in zip(np.ravel(got), np.ravel(expected), strict=True):
        assert mpmath.almosteq(a, b, rel_eps=tolerance, abs_eps=tolerance), (a, b)


# (weight, target, options, value), the values worked out with pencil and decimal.Decimal.
LITERALS = [
    (None, Y, {"reduction": "none"}, [0.4076059644443803, 1.0986122886681098]),
    (None, Y, {"reduction": "sum"}, 1.5062182531124901),
    (None, Y, {}, 0.753109126556245),
    (W, Y, {"reduction": "none"}, [1.6304238577775212, 1.0986122886681098]),
    (W, Y, {"reduction": "sum"}, 2.729036146445631),
    (W, Y, {}, 0.5458072292891262),
    (None, [-100, 0], {"reduction": "none"}, [0.0, 1.0986122886681098]),
    (None, [-100, 0], {}, 1.0986122886681098),
    (None, [-1, 0], {"ignore_index": -1}, 1.0986122886681098),
    (None, [1, 0], {"ignore_index": 1}, 1.0986122886681098),
    (None, [999, 0], {"ignore_index": 999}, 1.0986122886681098),
    (None, [-100, -100], {"reduction": "none"}, [0.0, 0.0]),
    (None, [-100, -100], {"reduction": "sum"}, 0.0),
    (None, [-100, -100], {}, NAN),
    (None, [-100, -100], {"normalizer": 2}, 0.0),
    (None, P, {}, 1.103109126556245),
    (None, 2 * P, {}, 2.20621825311249),
    (W, P, {"reduction": "none"}, [2.141296700444265, 1.0986122886681098]),
    (W, P, {}, 1.6199544945561872),
    (
        None,
        Y,
        {"label_smoothing": 0.1, "reduction": "none"},
        [0.5076059644443803, 1.0986122886681098],
    ),
    (None, Y, {"label_smoothing": 0.1}, 0.803109126556245),
    (None, Y, {"label_smoothing": 1.0}, 1.253109126556245),
    (None, P, {"label_smoothing": 0.1}, 1.118109126556245),
    (W, Y, {"label_smoothing": 0.1}, 0.5881833581721298),
    (W, [-100, 0], {"label_smoothing": 0.1}, 1.2450939271571912),
    (None, Y, {"normalizer": 4.0}, 0.3765545632781225),
]


@pytest.mark.parametrize(("weight", "target", "options", "value"), LITERALS)
def test_the_literals(weight, target, options, value):
    logits = X[: len(target)]
    loss = oracle.cross_entropy(logits, target, weight, **options)
    np.testing.assert_allclose(as_float(loss), value, rtol=5e-16)


def test_a_row_in_decimal_arithmetic(rng):
    decimal.getcontext().prec = 90
    logits, target = rng.normal(0, 5, 7), int(rng.integers(7))
    powers = [decimal.Decimal(float(x)).exp() for x in logits]
    p = [power / sum(powers) for power in powers]
    loss = oracle.cross_entropy(logits, target)
    dlogits = oracle.cross_entropy_grad(logits, target).dlogits
    with mpmath.workprec(250):
        assert mpmath.almosteq(loss, mpf(str(-p[target].ln())), rel_eps=mpf(10) ** -58)
        for c in range(7):
            right = mpf(str(p[c] - (c == target)))
            assert mpmath.almosteq(dlogits[c], right, rel_eps=mpf(10) ** -58)


@pytest.mark.parametrize("gap", [40.0, 300.0, 745.0, 1200.0])
@pytest.mark.parametrize("offset", [0.0, 5000.0, -(2.0**60)])
def test_a_confident_row_keeps_its_digits(gap, offset):
    gap = (offset + gap) - offset  # as the two logits hold it
    decimal.getcontext().prec = 1200
    tail = (-decimal.Decimal(gap)).exp()
    loss = oracle.cross_entropy([offset + gap, offset], 0)
    dlogits = oracle.cross_entropy_grad([offset + gap, offset], 0).dlogits
    with mpmath.workprec(250):
        close = {"rel_eps": mpf(10) ** -58, "abs_eps": 0}
        assert mpmath.almosteq(loss, mpf(str((1 + tail).ln())), **close)
        assert mpmath.almosteq(dlogits[0], mpf(str(-tail / (1 + tail))), **close)
        assert mpmath.almosteq(dlogits[1], mpf(str(tail / (1 + tail))), **close)


def test_the_largest_floats():
    big = 1.5e308
    assert oracle.cross_entropy([big, -big], 1) == 2 * mpf(big)
    assert as_float(oracle.cross_entropy_grad([big, -big], 1).dlogits).tolist() == [1.0, -1.0]
    assert float(oracle.cross_entropy([big, big], 0)) == math.log(2)


SHAPES = [(3, 4), (4,), (2, 3, 2), (2, 4, 1, 3), (1, 1), (0, 3), (2, 3, 0)]
BOTH = [False, True]
GRID = list(itertools.product(SHAPES, ["none", "sum", "mean"], BOTH, BOTH, [0.0, 0.3]))


@pytest.mark.parametrize(("shape", "reduction", "weighted", "soft", "smoothing"), GRID)
def test_torch_in_float64(rng, shape, reduction, weighted, soft, smoothing):
    axis = min(1, len(shape) - 1)
    classes, lead = shape[axis], shape[:axis] + shape[axis + 1 :]
    logits = torch.from_numpy(rng.normal(0, 3, shape)).requires_grad_()
    weight = torch.from_numpy(rng.uniform(0.1, 2, classes)) if weighted else None
    if soft:
        target = torch.from_numpy(rng.uniform(0, 1, shape)).requires_grad_()
    else:
        target = torch.from_numpy(np.asarray(rng.choice([*range(classes), -100], lead)))
    if soft and weight is not None:
        weight.requires_grad_()
    options = {"reduction": reduction, "label_smoothing": smoothing}
    loss = F.cross_entropy(logits, target, weight, **options)
    upstream = torch.from_numpy(np.asarray(rng.normal(size=loss.shape)))
    loss.backward(upstream)

    arrays = [None if a is None else a.detach().numpy() for a in (logits, target, weight)]
    exact_loss = oracle.cross_entropy(*arrays, **options)
    gradient = oracle.cross_entropy_grad(*arrays, upstream=upstream.numpy(), **options)
    close = {"rtol": 1e-13, "atol": 1e-14}
    np.testing.assert_allclose(as_float(exact_loss), loss.detach(), **close)
    np.testing.assert_allclose(as_float(gradient.dlogits), logits.grad, **close)
    assert (gradient.dtarget is None) == (gradient.dweight is None) == (not soft)
    if soft:
        np.testing.assert_allclose(as_float(gradient.dtarget), target.grad, **close)
    if soft and weight is not None:
        np.testing.assert_allclose(as_float(gradient.dweight), weight.grad, **close)


def test_z_loss_softcap_and_logit_scale_as_torch_composes_them(rng):
    logits = torch.from_numpy(rng.normal(0, 3, (5, 4))).requires_grad_()
    target = torch.tensor([3, 0, -100, 1, 1])
    weight = torch.from_numpy(rng.uniform(0.1, 2, 4))
    z = 2.5 * torch.tanh(0.7 * logits / 2.5)
    row = F.cross_entropy(z, target, weight, label_smoothing=0.1, reduction="none")
    row = row + 0.01 * weight[target.clamp(0)] * (target >= 0) * torch.logsumexp(z, 1) ** 2
    loss = row.sum() / 3
    loss.backward()
    options = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 2.5, "logit_scale": 0.7}
    arguments = (logits.detach().numpy(), target.numpy(), weight.numpy())
    value = oracle.cross_entropy(*arguments, **options, normalizer=3)
    gradient = oracle.cross_entropy_grad(*arguments, **options, normalizer=3)
    np.testing.assert_allclose(float(value), loss.item(), rtol=1e-14)
    np.testing.assert_allclose(as_float(gradient.dlogits), logits.grad, rtol=1e-12, atol=1e-15)


def test_axis_moves_the_classes(rng):
    logits = rng.normal(size=(2, 3, 4))
    target = rng.integers(0, 4, (2, 3))
    soft = rng.uniform(size=(2, 3, 4))
    moved = np.moveaxis(logits, -1, 1)
    for options in ({"reduction": "none"}, {"label_smoothing": 0.2}):
        for y, moved_y in ((target, target), (soft, np.moveaxis(soft, -1, 1))):
            same = oracle.cross_entropy(moved, moved_y, **options)
            assert_same(oracle.cross_entropy(logits, y, axis=-1, **options), same)
            gradient = oracle.cross_entropy_grad(logits, y, axis=-1, **options).dlogits
            same = oracle.cross_entropy_grad(moved, moved_y, **options).dlogits
            assert_same(gradient, np.moveaxis(same, 1, -1))


OPTIONS = [
    {},
    {"reduction": "sum", "label_smoothing": 0.2, "z_loss": 0.05},
    {"reduction": "none", "softcap": 2.0, "logit_scale": 1.5, "z_loss": 0.1},
    {"normalizer": 7.5, "label_smoothing": 1.0, "logit_scale": -0.5},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_limits_of_differences(rng, options, soft):
    logits = rng.normal(0, 2, (3, 4, 2))
    target = rng.uniform(0, 1, (3, 4, 2)) if soft else rng.choice([0, 1, 2, 3, -100], (3, 2))
    weight = rng.uniform(0.1, 2, 4)
    upstream = rng.normal(size=(3, 2)) if options.get("reduction") == "none" else rng.normal()
    gradient = oracle.cross_entropy_grad(logits, target, weight, upstream=upstream, **options)
    by_logits = exact.differences(
        lambda x: oracle.cross_entropy(x, target, weight, **options), logits, upstream
    )
    assert_same(gradient.dlogits, by_logits)
    if soft:
        by_target = exact.differences(
            lambda p: oracle.cross_entropy(logits, p, weight, **options), target, upstream
        )
        by_weight = exact.differences(
            lambda w: oracle.cross_entropy(logits, target, w, **options), weight, upstream
        )
        assert_same(gradient.dtarget, by_target)
        assert_same(gradient.dweight, by_weight)


MASKED = [1.0, 2.0, -INF]
SPECIAL = [  # logits, target, loss, dlogits
    (MASKED, 0, 1.3132616875182228, [-0.7310585786300049, 0.7310585786300049, 0.0]),
    (MASKED, 2, INF, [0.2689414213699951, 0.7310585786300049, -1.0]),
    (MASKED, [0.5, 0.5, 0.0], 0.8132616875182228, [-0.2310585786300049, 0.2310585786300049, 0.0]),
    (MASKED, [0.5, 0.25, 0.25], INF, [-0.2310585786300049, 0.4810585786300049, -0.25]),
    ([-INF, -INF], 0, NAN, [NAN, NAN]),
    ([INF, 0.0], 0, NAN, [NAN, NAN]),
    ([INF, 0.0], 1, NAN, [NAN, NAN]),
    ([NAN, 0.0], 1, NAN, [NAN, NAN]),
    ([NAN, 0.0], [0.0, 0.0], NAN, [NAN, NAN]),
]


@pytest.mark.parametrize(("logits", "target", "loss", "dlogits"), SPECIAL)
def test_infinities_and_nan(logits, target, loss, dlogits):
    np.testing.assert_allclose(float(oracle.cross_entropy(logits, target)), loss, rtol=1e-15)
    gradient = oracle.cross_entropy_grad(logits, target)
    np.testing.assert_allclose(as_float(gradient.dlogits), dlogits, rtol=1e-15)


def test_the_derivative_by_a_probability_is_infinite_at_a_masked_class():
    logits, target = [[1.0, 2.0, -INF]], [[0.5, 0.5, 0.0]]
    gradient = oracle.cross_entropy_grad(logits, target, [1.0, 0.0, 1.0])
    assert as_float(gradient.dtarget).tolist() == [[1.3132616875182228, 0.0, INF]]
    np.testing.assert_allclose(
        as_float(gradient.dweight), [0.6566308437591114, 0.1566308437591114, 0]
    )


@pytest.mark.parametrize("row", [[NAN, 0.0], [INF, -INF], [-INF, -INF]])
def test_an_ignored_row_is_zero_whatever_it_holds(row):
    logits, target = [[0.0, 0.0], row], [1, -100]
    for reduction in ("none", "sum", "mean"):
        options = {"reduction": reduction, "z_loss": 0.1, "softcap": 3.0}
        loss = oracle.cross_entropy(logits, target, **options)
        alone = oracle.cross_entropy([[0.0, 0.0]], [1], **options)
        assert_same(np.ravel(loss)[:1], np.ravel(alone))
        gradient = oracle.cross_entropy_grad(logits, target, **options)
        assert as_float(gradient.dlogits).tolist()[1] == [0.0, 0.0]


def test_all_ignored_has_no_mean_and_a_gradient_of_zero():
    gradient = oracle.cross_entropy_grad(X, [-100, -100])
    assert as_float(gradient.dlogits).tolist() == [[0.0] * 3] * 2


def test_no_classes():
    empty = np.zeros((2, 0))
    assert as_float(oracle.cross_entropy(empty, empty, reduction="none")).tolist() == [0.0, 0.0]
    assert math.isnan(oracle.cross_entropy(empty, empty, z_loss=0.1))
    ignored = oracle.cross_entropy(empty, [-100, -100], reduction="sum", z_loss=0.1)
    assert ignored == 0


def test_a_class_without_weight():
    logits, weight = [[1.0, 2.0, -INF], [1.0, 1.0, 1.0]], [1.0, 1.0, 0.0]
    loss = oracle.cross_entropy(logits, [2, 0], weight, reduction="none")
    np.testing.assert_allclose(as_float(loss), [0.0, math.log(3)])
    assert math.isnan(oracle.cross_entropy(X, [2, 2], weight))
    assert math.isnan(oracle.cross_entropy([[NAN, 1.0, 1.0]], [2], weight, reduction="sum"))


def test_a_weight_of_nan_counts_where_it_is_used():
    weight = [1.0, NAN, 1.0]
    assert float(oracle.cross_entropy(X, Y, weight)) == 0.753109126556245
    assert math.isnan(oracle.cross_entropy(X, Y, weight, label_smoothing=0.1))
    assert math.isnan(oracle.cross_entropy(X, P, weight))


def test_what_cannot_be_asked():
    with pytest.raises(IndexError) as raised:
        oracle.cross_entropy(X, [0, -1])
    assert str(raised.value) == "oracle: target has value -1 in row 1, expected a class in [0, 3)"
    with pytest.raises(ValueError, match="reduction has value 'avg', expected 'none'"):
        oracle.cross_entropy(X, Y, reduction="avg")


def test_nothing_passed_is_modified(rng):
    arrays = [rng.normal(size=(3, 4)), rng.uniform(size=(3, 4)), rng.uniform(size=4)]
    copies = [array.copy() for array in arrays]
    oracle.cross_entropy_grad(*arrays, label_smoothing=0.1, upstream=2.0)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_nll_loss(rng, reduction):
    log_prob = torch.from_numpy(rng.normal(size=(3, 4, 2))).requires_grad_()
    target = torch.from_numpy(rng.choice([0, 1, 2, 3, 1, -100], (3, 2)))
    weight = torch.from_numpy(rng.uniform(0.1, 2, 4))
    loss = F.nll_loss(log_prob, target, weight, reduction=reduction)
    upstream = torch.from_numpy(np.asarray(rng.normal(size=loss.shape)))
    loss.backward(upstream)
    arguments = (log_prob.detach().numpy(), target.numpy(), weight.numpy())
    got = oracle.nll_loss(*arguments, reduction=reduction)
    np.testing.assert_allclose(as_float(got), loss.detach(), rtol=1e-14)
    dlog_prob = oracle.nll_loss_vjp(*arguments, reduction=reduction, upstream=upstream.numpy())
    np.testing.assert_allclose(as_float(dlog_prob), log_prob.grad, rtol=1e-14)


def test_nll_loss_of_an_impossible_class():
    log_prob, weight = [[-INF, 0.0]], [0.0, 1.0]
    assert oracle.nll_loss(log_prob, [0], reduction="sum") == mpmath.inf
    assert oracle.nll_loss(log_prob, [0], weight, reduction="sum") == 0


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_binary_cross_entropy(rng, reduction):
    logits = torch.from_numpy(rng.normal(0, 5, (4, 3))).requires_grad_()
    target = torch.from_numpy(rng.uniform(size=(4, 3))).requires_grad_()
    weight, pos_weight = (torch.from_numpy(rng.uniform(0.1, 3, n)) for n in ((4, 1), 3))
    loss = F.binary_cross_entropy_with_logits(
        logits, target, weight, reduction=reduction, pos_weight=pos_weight
    )
    upstream = torch.from_numpy(np.asarray(rng.normal(size=loss.shape)))
    loss.backward(upstream)
    arguments = (logits.detach().numpy(), target.detach().numpy(), weight.numpy())
    options = {"pos_weight": pos_weight.numpy(), "reduction": reduction}
    got = oracle.binary_cross_entropy_with_logits(*arguments, **options)
    np.testing.assert_allclose(as_float(got), loss.detach(), rtol=1e-12)
    gradient = oracle.binary_cross_entropy_with_logits_vjp(
        *arguments, **options, upstream=upstream.numpy()
    )
    np.testing.assert_allclose(as_float(gradient.dlogits), logits.grad, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(as_float(gradient.dtarget), target.grad, rtol=1e-11, atol=1e-14)

    def by_logits(x):
        return oracle.binary_cross_entropy_with_logits(x, *arguments[1:], **options)

    assert_same(gradient.dlogits, exact.differences(by_logits, arguments[0], upstream.numpy()))


def test_binary_cross_entropy_at_infinity():
    logits, target = [INF, -INF, -INF, INF, NAN, 30.0], [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
    loss = oracle.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = [0.0, 0.0, INF, INF, NAN, 9.357622968839737e-14]
    np.testing.assert_allclose(as_float(loss), right, rtol=1e-15)
    gradient = oracle.binary_cross_entropy_with_logits_vjp(logits, target, reduction="sum")
    right = [0.0, 0.0, -1.0, 1.0, NAN, -9.357622968839299e-14]
    np.testing.assert_allclose(as_float(gradient.dlogits), right, rtol=1e-15)
    np.testing.assert_array_equal(as_float(gradient.dtarget), [-INF, INF, INF, -INF, NAN, -30.0])


def test_the_oracle_shares_no_line_with_the_library():
    folder = Path(oracle.__file__).parent
    for name in ("exact", "softmax", "oracle"):
        tree = ast.parse((folder / f"{name}.py").read_text())
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        ours = {m for m in modules if m.startswith("xent")}
        assert ours <= {"xent.errors", "xent.conformance.exact", "xent.conformance.softmax"}
        assert not modules & {"scipy", "torch", "scipy.special"}
