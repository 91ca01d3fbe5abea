"""The discrete measures against exact arithmetic, their identities, torch and array_api_strict."""

from __future__ import annotations

import math
import subprocess
import sys

import array_api_strict
import mpmath
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from xent import info

PAIRS = [info.cross_entropy, info.kl_divergence, info.js_divergence, info.js_distance]
MEASURES = {f.__name__: f for f in PAIRS}


@pytest.fixture(autouse=True, scope="module")
def precision():
    with mpmath.workprec(300):
        yield


def exact(values):
    return [mpmath.mpf(float(v)) for v in np.ravel(values)]


def softmax(logits):
    weights = [mpmath.exp(v) for v in exact(logits)]
    return [w / mpmath.fsum(weights) for w in weights]


def entropy_of(p):
    return -mpmath.fsum(a * mpmath.log(a) for a in p if a)


def cross_entropy_of(p, q):
    return -mpmath.fsum(a * mpmath.log(b) for a, b in zip(p, q, strict=True) if a)


def kl_of(p, q):
    terms = ((a * mpmath.log(a / b) if a else 0) - a + b for a, b in zip(p, q, strict=True))
    return mpmath.fsum(terms)


def js_of(p, q):
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (kl_of(p, middle) + kl_of(q, middle)) / 2


def js_distance_of(p, q):
    return mpmath.sqrt(js_of(p, q))


EXACT = {
    "cross_entropy": cross_entropy_of,
    "kl_divergence": kl_of,
    "js_divergence": js_of,
    "js_distance": js_distance_of,
}


def ulps(value, truth, dtype=np.float64):
    """The error of a value in units of the spacing of its dtype at the truth."""
    spacing = float(np.spacing(np.abs(np.asarray(float(truth), dtype=dtype))))
    return abs(float((mpmath.mpf(float(value)) - truth) / spacing))


def normalised(weights):
    p = np.array(weights)
    return p / p.sum()


def weights(classes):
    positive = st.floats(1e-6, 1.0)
    return st.lists(positive | st.just(0.0), min_size=classes, max_size=classes).filter(any)


PAIR_OF_ROWS = st.integers(1, 8).flatmap(lambda n: st.tuples(weights(n), weights(n)))


def test_numbers_of_the_textbook():
    assert ulps(info.entropy([0.8, 0.2], base=2), mpmath.mpf("0.7219280948873623")) <= 1
    assert info.entropy([0.5, 0.25, 0.125, 0.125], base=2) == 1.75
    assert info.information([1.0, 0.5, 0.0], base=2).tolist() == [0.0, 1.0, math.inf]
    for k in range(1, 14):
        assert info.entropy(np.full(2**k, 0.5**k), base=2) == k


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("name", MEASURES)
def test_values_are_right_to_a_few_ulp(name, classes, rng):
    p, q = rng.dirichlet(np.ones(classes)), rng.dirichlet(np.full(classes, 0.3))
    assert ulps(info.entropy(p), entropy_of(exact(p))) <= 2
    assert ulps(MEASURES[name](p, q), EXACT[name](exact(p), exact(q))) <= 4


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", MEASURES)
def test_narrow_types_are_rounded_once(name, dtype, rng):
    narrow = getattr(torch, dtype)
    p, q = (torch.from_numpy(rng.dirichlet(np.ones(20), 50)).to(narrow) for _ in range(2))
    value = MEASURES[name](p, q)
    wide = MEASURES[name](
        p.double() / p.double().sum(1, True), q.double() / q.double().sum(1, True)
    )
    assert value.dtype == narrow
    for row in range(50):
        truth = EXACT[name](exact(p[row].double()), exact(q[row].double()))
        assert abs(value[row].item() - float(wide[row])) < 0.05
        spacing = torch.finfo(narrow).eps * 2.0 ** math.floor(math.log2(float(truth)))
        assert abs(value[row].item() - float(truth)) <= 0.501 * spacing


@pytest.mark.parametrize("size", [1.0, 1e-1, 1e-3, 1e-6, 1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("classes", [2, 7])
def test_near_distributions_do_not_cancel(size, classes, rng):
    for _ in range(20):
        q = rng.dirichlet(np.ones(classes))
        p = normalised(q * (1 + size * rng.uniform(-1, 1, classes)))
        for name in ("kl_divergence", "js_divergence", "js_distance"):
            truth = EXACT[name](exact(p), exact(q))
            assert abs(float((float(MEASURES[name](p, q)) - truth) / truth)) < 2e-15
        # The textbook divergence of the normalised distributions, as far as the docstring says.
        (p_sum, q_sum), ratio = (mpmath.fsum(exact(v)) for v in (p, q)), info.kl_divergence(p, q)
        truth = kl_of([v / p_sum for v in exact(p)], [v / q_sum for v in exact(q)])
        assert abs(float(ratio) - truth) <= 3e-15 * truth + (p_sum - q_sum) ** 2


@pytest.mark.parametrize(
    ("size", "offset"),
    [(10.0, 0.0), (1.0, 1e4), (1e-3, 0.0), (1e-8, 0.0), (1e-8, 1e4), (1e-12, 0.0)],
)
def test_near_logits_do_not_cancel(size, offset, rng):
    for _ in range(10):
        p_logits = offset + 3 * rng.normal(size=6)
        q_logits = p_logits + size * rng.normal(size=6)
        p, q = softmax(p_logits), softmax(q_logits)
        for name, measure in MEASURES.items():
            value = measure(p_logits, q_logits, from_logits=True)
            assert abs(float((float(value) - EXACT[name](p, q)) / EXACT[name](p, q))) < 5e-15
        value = info.entropy(p_logits, from_logits=True)
        assert abs(float((float(value) - entropy_of(p)) / entropy_of(p))) < 2e-15


@pytest.mark.parametrize("gap", [0.0, 20.0, 50.0, 700.0])
def test_entropy_of_confident_logits(gap):
    with mpmath.workprec(2500):
        truth = entropy_of(softmax([gap, 0.0, -1.5]))
    assert ulps(info.entropy([gap, 0.0, -1.5], from_logits=True), truth) <= 4


def test_logits_never_overflow_and_mixed_forms_agree(rng):
    logits = rng.normal(size=(4, 5))
    p = rng.dirichlet(np.ones(5), 4)
    q = torch.softmax(torch.from_numpy(logits), 1).numpy()
    for measure in PAIRS:
        mixed = measure(p, logits, from_logits=(False, True))
        np.testing.assert_allclose(mixed, measure(p, q), rtol=1e-13)
        mixed = measure(logits, p, from_logits=(True, False))
        np.testing.assert_allclose(mixed, measure(q, p), rtol=1e-13)
    far, near = [0.0, -800.0], [-800.0, 0.0]
    assert info.kl_divergence(far, near, from_logits=True) == 800
    assert info.js_divergence(far, near, from_logits=True) == math.log(2)
    assert info.cross_entropy([0.0, 1.0], far, from_logits=(False, True)) == 800
    assert info.kl_divergence([0.0, 1.0], far, from_logits=(False, True)) == 800
    # exp(-800) is 0 in the format and not 0 in truth: q = 0 there makes both infinite.
    for measure in (info.cross_entropy, info.kl_divergence):
        assert measure(far, [0.0, -math.inf], from_logits=True) == math.inf
        assert measure(far, [1.0, 0.0], from_logits=(True, False)) == math.inf
    assert info.kl_divergence([0.0, -math.inf], far, from_logits=True) == 0
    assert info.entropy([1e4, -math.inf], from_logits=True) == 0


def test_zeros_and_infinities():
    for measure in PAIRS:
        assert measure([1.0], [1.0]) == 0
    zero_one, one_zero = [0.0, 1.0], [1.0, 0.0]
    for value in (info.entropy(zero_one), info.cross_entropy(zero_one, zero_one)):
        assert str(value) == "0.0"  # not -0.0
    assert info.kl_divergence(zero_one, zero_one) == 0
    assert info.kl_divergence(zero_one, [0.5, 0.5], base=2) == 1
    for measure in (info.cross_entropy, info.kl_divergence):
        assert measure(zero_one, one_zero) == math.inf
        assert measure([0.5, 0.5], one_zero) == math.inf
    assert info.js_divergence(zero_one, one_zero) == math.log(2)
    assert info.js_distance(zero_one, one_zero, base=2) == 1
    beyond = 1 + 2.0**-52  # a rounding error more than a probability
    assert info.js_divergence([beyond, 0.0], zero_one) == math.log(2)
    tiny = 5e-324  # p / q overflows, log(p / q) does not
    assert ulps(info.kl_divergence([1.0, 0.0], [tiny, 1.0]), -mpmath.log(exact(tiny)[0])) <= 1
    assert info.kl_divergence([tiny, 1.0], [1e-310, 1.0]) > 0


@given(PAIR_OF_ROWS)
def test_identities(rows):
    p, q = map(normalised, rows)
    uniform = np.full(len(p), 1 / len(p))
    entropy, kl = info.entropy(p), info.kl_divergence(p, q)
    cross, js = info.cross_entropy(p, q), info.js_divergence(p, q)
    assert -1e-15 <= entropy <= math.log(len(p)) * (1 + 1e-15)
    assert entropy <= info.entropy(uniform) + 1e-15
    assert kl >= 0
    assert 0 <= js <= math.log(2)
    assert info.js_distance(p, q) == pytest.approx(math.sqrt(js), rel=1e-15, abs=0)
    assert js == pytest.approx(info.js_divergence(q, p), rel=1e-14, abs=1e-300)
    assert cross == pytest.approx(entropy + kl, rel=1e-13, abs=1e-13)
    assert info.kl_divergence(p, uniform) == pytest.approx(math.log(len(p)) - entropy, abs=1e-13)
    middle = normalised(p + q)
    by_kl = (info.kl_divergence(p, middle) + info.kl_divergence(q, middle)) / 2
    assert js == pytest.approx(by_kl, rel=1e-12, abs=1e-14)


@given(PAIR_OF_ROWS, st.randoms(use_true_random=False), st.floats(1.1, 50))
def test_order_of_classes_and_base_change_nothing_else(rows, random, base):
    p, q = map(normalised, rows)
    order = list(range(len(p)))
    random.shuffle(order)
    for measure in (*PAIRS, lambda p, _, **kw: info.entropy(p, **kw)):
        value = measure(p, q)
        assert measure(p[order], q[order]) == pytest.approx(value, rel=1e-14, abs=1e-15)
        unit = math.sqrt(math.log(base)) if measure is info.js_distance else math.log(base)
        assert measure(p, q, base=base) == pytest.approx(value / unit, rel=1e-14)


def test_against_scipy(rng):
    p, q = rng.dirichlet(np.ones(9), 5), rng.dirichlet(np.ones(9), 5)
    np.testing.assert_allclose(info.entropy(p, base=2), scipy.stats.entropy(p, base=2, axis=1))
    np.testing.assert_allclose(info.kl_divergence(p, q), scipy.stats.entropy(p, q, axis=1))
    distance = scipy.spatial.distance.jensenshannon(p, q, axis=1, base=10)
    np.testing.assert_allclose(info.js_distance(p, q, base=10), distance)


def test_axes_shapes_and_broadcasting(rng):
    p = rng.dirichlet(np.ones(4), (2, 3))
    moved = np.moveaxis(p, -1, 0)
    expected = info.entropy(p)
    assert expected.shape == (2, 3)
    np.testing.assert_array_equal(info.entropy(moved, axis=0), expected)
    np.testing.assert_array_equal(info.entropy(moved, axis=-3, keepdims=True), expected[None])
    both = info.entropy(p / 3, axis=(1, -1), keepdims=True)
    assert both.shape == (2, 1, 1)
    assert info.entropy(p / 2, axis=(-1, 0), keepdims=True).shape == (1, 3, 1)
    np.testing.assert_allclose(both.ravel(), info.entropy(p.reshape(2, 12) / 3), rtol=1e-15)
    q = rng.dirichlet(np.ones(4))
    rows = info.kl_divergence(p, q)
    np.testing.assert_array_equal(rows, info.kl_divergence(p, np.broadcast_to(q, p.shape)))
    np.testing.assert_array_equal(info.kl_divergence(q, p, keepdims=True).shape, (2, 3, 1))
    assert info.entropy(np.zeros((0, 4))).shape == (0,)


def test_types_that_come_back(rng):
    assert isinstance(info.entropy([0.5, 0.5]), np.float64)
    assert isinstance(info.entropy([1, 0]), np.float64)
    assert isinstance(info.entropy(np.float32([0.5, 0.5])), np.float32)
    assert isinstance(info.information(0.5), np.float64)
    assert isinstance(info.entropy(torch.tensor([0.5, 0.5])), torch.Tensor)
    beside = info.kl_divergence(torch.tensor([0.5, 0.5]), [0.25, 0.75])
    assert isinstance(beside, torch.Tensor)
    assert beside.dtype == torch.float32
    wide = info.kl_divergence(np.float32([0.5, 0.5]), np.array([0.25, 0.75]))
    assert isinstance(wide, np.float64)


@pytest.mark.parametrize("name", MEASURES)
def test_any_array_library_and_nothing_is_modified(name, rng):
    p, q = rng.dirichlet(np.ones(4), (2, 3)), rng.dirichlet(np.ones(4), (2, 3))
    kept = p.copy(), q.copy()
    for measure, values in ((MEASURES[name], (p, q)), (info.entropy, (p,))):
        expected = measure(*values)
        for convert in (array_api_strict.asarray, torch.from_numpy):
            arrays = [convert(v) for v in values]
            value = measure(*arrays)
            assert type(value) is type(arrays[0])
            np.testing.assert_allclose(np.asarray(value), expected, rtol=1e-15)
            logits = measure(*arrays, from_logits=True)
            np.testing.assert_allclose(
                np.asarray(logits), measure(*values, from_logits=True), rtol=1e-14
            )
    np.testing.assert_array_equal((p, q), kept)


@pytest.mark.parametrize("name", [*MEASURES, "entropy"])
def test_torch_derivatives(name, rng):
    def of_probabilities(*logits):
        measure = getattr(info, name)
        return measure(*(torch.softmax(x, -1) for x in logits))

    def of_logits(*logits):
        return getattr(info, name)(*logits, from_logits=True)

    count = 1 if name == "entropy" else 2
    logits = [torch.from_numpy(rng.normal(size=3)).requires_grad_() for _ in range(count)]
    for function in (of_probabilities, of_logits):
        assert torch.autograd.gradcheck(function, logits)
        assert torch.autograd.gradgradcheck(function, logits)


def test_gradients_are_those_of_the_formulas(rng):
    p, q = (torch.from_numpy(rng.dirichlet(np.ones(5))).requires_grad_() for _ in range(2))
    for measure, expected in (
        (info.cross_entropy, (-q.log(), -p / q)),
        (info.kl_divergence, ((p / q).log(), 1 - p / q)),
        (info.js_divergence, ((2 * p / (p + q)).log() / 2, (2 * q / (p + q)).log() / 2)),
    ):
        gradient = torch.autograd.grad(measure(p, q), (p, q))
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(torch.autograd.grad(info.entropy(p), p)[0], -p.log() - 1)
    near = (q.detach() * (1 + 1e-9 * torch.tensor([1, -1, 1, -1, 0.0]))).requires_grad_()
    (gradient,) = torch.autograd.grad(info.kl_divergence(near / near.sum(), q.detach()), near)
    assert gradient.abs().max() < 1e-8


def test_gradients_at_zero_are_finite_where_the_limit_is():
    def gradients(measure, p, q):
        pair = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (p, q)]
        return [g.tolist() for g in torch.autograd.grad(measure(*pair), pair)]

    log2, inf = math.log(2), math.inf
    assert gradients(info.cross_entropy, [0.0, 1.0], [0.5, 0.5]) == [[log2, log2], [0.0, -2.0]]
    assert gradients(info.cross_entropy, [0.0, 1.0], [0.0, 1.0]) == [[0.0, 0.0], [0.0, -1.0]]
    assert gradients(info.kl_divergence, [0.0, 1.0], [0.5, 0.5]) == [[0.0, log2], [1.0, -1.0]]
    assert gradients(info.kl_divergence, [0.0, 1.0], [0.0, 1.0]) == [[0.0, 0.0], [1.0, 0.0]]
    assert gradients(info.kl_divergence, [0.5, 0.5], [0.0, 1.0])[1] == [-inf, 0.5]
    (p_gradient, q_gradient) = gradients(info.js_divergence, [0.0, 1.0], [0.5, 0.5])
    assert p_gradient == pytest.approx([0.0, math.log(4 / 3) / 2])
    assert q_gradient == pytest.approx([log2 / 2, math.log(2 / 3) / 2])
    assert gradients(info.js_distance, [0.5, 0.5], [0.5, 0.5]) == [[0.0, 0.0], [0.0, 0.0]]
    for measure in (info.entropy, lambda x: info.kl_divergence(x, torch.tensor([0.0, 0.5, 0.5]))):
        logits = torch.tensor([-math.inf, 0.0, 1.0], requires_grad=True)
        (gradient,) = torch.autograd.grad(measure(torch.softmax(logits, 0)), logits)
        assert bool(torch.isfinite(gradient).all())


def test_gradient_of_masked_and_tied_logits(rng):
    logits = torch.tensor([1.0, -math.inf, 1.0, 0.5], dtype=torch.float64, requires_grad=True)
    p = torch.softmax(logits, 0).detach()
    (gradient,) = torch.autograd.grad(info.entropy(logits, from_logits=True), logits)
    surprisal = torch.where(p > 0, -p.log(), 0.0)
    expected = p * (surprisal - (p * surprisal).sum())
    torch.testing.assert_close(gradient, expected, rtol=1e-13, atol=1e-16)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_torch_transforms_and_compile(rng):
    p, q = (torch.from_numpy(rng.dirichlet(np.ones(4), 3)) for _ in range(2))
    for measure in PAIRS:
        expected = measure(p, q)
        torch.testing.assert_close(torch.func.vmap(measure)(p, q), expected)
        tangent = torch.from_numpy(rng.normal(size=(3, 4)))
        _, jvp = torch.func.jvp(lambda p, f=measure: f(p, q), (p,), (tangent,))
        gradient = torch.func.grad(lambda p, f=measure: f(p, q).sum())(p)
        torch.testing.assert_close(jvp, (gradient * tangent).sum(-1))
    compiled = torch.compile(info.kl_divergence, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(p, q), info.kl_divergence(p, q))
    torch.testing.assert_close(
        compiled(p.log(), q.log(), from_logits=True), info.kl_divergence(p, q)
    )
    logits = torch.zeros(3, dtype=torch.float64)
    hessian = torch.func.hessian(lambda x: info.kl_divergence(logits, x, from_logits=True))(logits)
    torch.testing.assert_close(hessian, torch.eye(3, dtype=torch.float64) / 3 - 1 / 9)


def test_import_brings_neither_torch_nor_scipy():
    code = "import sys, xent.info; print([m for m in ('torch', 'scipy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
