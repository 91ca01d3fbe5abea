"""Derivatives on torch: against torch's own of the same formula, and against finite differences."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import xent

sys.path.insert(0, str(Path(__file__).parent))
from torch_cases import CASES

EACH = pytest.mark.parametrize("name", CASES)
UNUSED = {"allow_unused": True, "materialize_grads": True}


def tupled(values):
    return values if isinstance(values, tuple) else (values,)


def close(got, right, rtol=1e-11, atol=1e-13):
    for a, b in zip(tupled(got), tupled(right), strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, check_stride=False)


@EACH
def test_values_and_gradients_are_those_of_the_plain_formula(rng, name):
    case = CASES[name](rng)
    arrays, again = case.leaves(), case.leaves()
    got, right = tupled(case.ours(*arrays)), tupled(case.plain(*again))
    close(got, right)
    upstream = [torch.from_numpy(rng.normal(size=r.shape)).reshape(r.shape) for r in right]
    ours = torch.autograd.grad(got, arrays, upstream, **UNUSED)
    close(ours, torch.autograd.grad(right, again, upstream, **UNUSED))


@EACH
def test_first_derivatives_are_those_of_finite_differences(rng, name):
    case = CASES[name](rng)
    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(case.ours, case.leaves(), check_forward_ad=True, **batched)


@EACH
def test_second_derivatives_are_those_of_finite_differences(rng, name):
    case = CASES[name](rng)
    options = {"check_fwd_over_rev": True, "check_batched_grad": True}
    assert gradgradcheck(case.ours, case.leaves(), **options)


@pytest.mark.parametrize("name", ["indices", "z-loss, softcap, scale", "probabilities", "binary"])
def test_third_derivatives_by_every_composition(rng, name):
    case = CASES[name](rng)
    x, others = case.arrays[0], case.arrays[1:]
    right = jacrev(jacrev(jacrev(lambda x: case.plain(x, *others))))(x)
    for first, second, third in itertools.product((jacrev, jacfwd), repeat=3):
        got = first(second(third(lambda x: case.ours(x, *others))))(x)
        close(got, right, rtol=1e-9, atol=1e-11)


@EACH
def test_vmap_of_values_and_of_gradients(rng, name):
    cases = [CASES[name](rng) for _ in range(2)]
    case = cases[0]
    stacked = [torch.stack([a, 0.5 * a], dim=-1) for a in case.arrays]
    each = [case.plain(*(s[..., i] for s in stacked)) for i in range(2)]
    together = vmap(case.ours, in_dims=-1)(*stacked)
    close(together, tuple(map(torch.stack, zip(*map(tupled, each), strict=True))))

    def scalar(function):
        return lambda *arrays: sum(r.sum() for r in tupled(function(*arrays)))

    got = vmap(grad(scalar(case.ours)), in_dims=-1)(*stacked)
    right = [grad(scalar(case.plain))(*(s[..., i] for s in stacked)) for i in range(2)]
    close(got, torch.stack(right))
    through = grad(lambda *a: scalar(vmap(case.ours, in_dims=-1))(*a))(*stacked)
    close(through, torch.stack(right, dim=-1))


def test_vmap_over_class_weights_with_smoothing(rng):
    x, w = torch.from_numpy(rng.normal(size=(3, 4, 5))), torch.from_numpy(rng.random((3, 5)))
    y = torch.from_numpy(rng.integers(0, 5, (3, 4)))
    got = vmap(lambda x, y, w: xent.cross_entropy(x, y, w, label_smoothing=0.1))(x, y, w)
    each = [F.cross_entropy(*row, label_smoothing=0.1) for row in zip(x, y, w, strict=True)]
    close(got, torch.stack(each))


def test_a_target_out_of_range_is_told_under_vmap_too():
    text = r"cross_entropy: target has value 7 at \(1, 0\), expected a class in \[0, 3\) or"
    with pytest.raises(IndexError, match=text):
        vmap(xent.cross_entropy)(torch.zeros(2, 2, 3), torch.tensor([[0, 1], [7, 0]]))


def test_the_hessian_of_two_logits():
    got = hessian(lambda x: xent.cross_entropy(x, torch.tensor(1)))(torch.tensor([0.0, 1.0]))
    p = 0.19661193324148185
    torch.testing.assert_close(got, torch.tensor([[p, -p], [-p, p]]))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_masked_classes_ignored_rows_and_zero_upstreams_leave_no_nan(reduction):
    rows = [[1.0, 2.0, -math.inf], [math.nan, math.inf, 0.0], [-math.inf, 0.0, 3.0]]
    x = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    loss = xent.cross_entropy(x, torch.tensor([0, -100, 2]), reduction=reduction)
    upstream = torch.tensor([2.0, 5.0, 0.0]).double() if loss.ndim else torch.tensor(3.0).double()
    upstream.requires_grad_()
    (first,) = torch.autograd.grad(loss, x, upstream, create_graph=True)
    assert first[1].tolist() == [0, 0, 0]
    assert first[0, 2] == 0
    second, by_upstream = torch.autograd.grad(first[0, 0] + first[2, 1], (x, upstream))
    assert torch.isfinite(second).all()
    p, q = math.exp(1) / (math.exp(1) + math.exp(2)), 1 / (1 + math.exp(3))
    factor = 1 if loss.ndim else 0.5
    right = [p - 1, 0, q] if loss.ndim else (p - 1 + q) * factor
    torch.testing.assert_close(by_upstream, torch.tensor(right, dtype=torch.float64))


def test_a_gradient_penalty_is_torchs(rng):
    x = torch.from_numpy(rng.normal(size=(6, 4)))
    y = torch.from_numpy(rng.integers(0, 3, 6))
    start = torch.from_numpy(rng.normal(size=(4, 3)))

    def penalised(loss):
        w = start.clone().requires_grad_()
        given = x.clone().requires_grad_()
        value = loss(given @ w, y)
        (g,) = torch.autograd.grad(value, given, create_graph=True)
        (value + g.pow(2).sum()).backward()
        return w.grad

    close(penalised(xent.cross_entropy), penalised(F.cross_entropy))


def test_backward_twice_with_an_upstream_scales_nothing_twice(rng):
    x = torch.from_numpy(rng.normal(size=(3, 4))).requires_grad_()
    loss = xent.cross_entropy(x, torch.tensor([0, 1, 2]))
    upstreams = [torch.tensor(u, dtype=torch.float64) for u in (3.0, 3.0, 1.0)]
    grads = [torch.autograd.grad(loss, x, u, retain_graph=True)[0] for u in upstreams]
    assert torch.equal(grads[0], grads[1])
    close(grads[0], 3 * grads[2])


def test_forward_mode_over_a_plain_backward(rng):
    x, v = (torch.from_numpy(rng.normal(size=(3, 4))) for _ in range(2))
    y = torch.tensor([0, 1, 2])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone().requires_grad_(), v)
        (g,) = torch.autograd.grad(xent.cross_entropy(dual, y), dual)
        got = forward_ad.unpack_dual(g).tangent
    _, right = jvp(grad(lambda x: F.cross_entropy(x, y)), (x,), (v,))
    close(got, right)


def test_class_weights_have_no_gradient_with_indices():
    w = torch.ones(3, requires_grad=True)
    text = (
        "cross_entropy: weight has requires_grad=True with class indices, "
        "expected one that needs no gradient"
    )
    with pytest.raises(RuntimeError, match=f"^{text}$"):
        xent.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), w)
    with torch.no_grad():
        xent.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), w)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: xent.cross_entropy(x, torch.arange(64) % 100, label_smoothing=0.1),
        lambda x: xent.softmax(x),
        lambda x: xent.log_softmax(x),
    ],
    ids=["cross_entropy", "softmax", "log_softmax"],
)
def test_the_logits_and_numbers_per_row_are_all_that_is_saved(function):
    x, saved = torch.randn(64, 100, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        function(x)
    others = [t for t in saved if t.data_ptr() != x.data_ptr()]
    assert len(others) < len(saved)
    assert all(t.numel() <= 64 for t in others)


@pytest.mark.parametrize("layout", ["plain", "transposed", "channels last"])
def test_a_gradient_lies_in_memory_as_its_logits(layout):
    if layout == "channels last":
        x = torch.randn(2, 5, 3, 4).to(memory_format=torch.channels_last)
        y = torch.zeros(2, 3, 4, dtype=torch.int64)
    else:
        x = torch.randn(6, 5) if layout == "plain" else torch.randn(5, 6).T
        y = torch.zeros(6, dtype=torch.int64)
    (g,) = torch.autograd.grad(xent.cross_entropy(x.requires_grad_(), y), x)
    assert g.stride() == x.stride()


def test_the_bits_do_not_depend_on_threads_or_on_the_batch(rng):
    x = torch.from_numpy(rng.normal(0, 5, (40, 9000))).float().requires_grad_()
    y = torch.from_numpy(rng.integers(0, 9000, 40))

    def both(x, y):
        loss = xent.cross_entropy(x, y, reduction="none")
        return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]

    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(both(x, y))
    finally:
        torch.set_num_threads(threads)
    alone = [both(x.detach()[i : i + 1].requires_grad_(), y[i : i + 1]) for i in range(5)]
    for one, two, rows in zip(*results, zip(*alone, strict=True), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one[:5], torch.cat(rows))


AUTOCAST = [
    (xent.cross_entropy, F.cross_entropy, "indices"),
    (xent.nll_loss, F.nll_loss, "indices"),
    (xent.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, "same"),
    (xent.softmax, lambda x: F.softmax(x, -1), None),
    (xent.log_softmax, lambda x: F.log_softmax(x, -1), None),
    (xent.logsumexp, lambda x: torch.logsumexp(x, -1), None),
]


@pytest.mark.parametrize("case", AUTOCAST, ids=lambda case: case[0].__name__)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("inside", [torch.bfloat16, torch.float16, None])
def test_autocast_gives_the_dtypes_of_torch(case, dtype, inside):
    ours, torchs, target = case
    x = torch.randn(3, 4).to(dtype).requires_grad_()
    y = {"indices": torch.tensor([0, 1, 2]), "same": torch.rand(3, 4).to(dtype)}.get(target)
    arguments = (x,) if y is None else (x, y)
    with torch.autocast("cpu", inside or torch.bfloat16, enabled=inside is not None):
        got, right = ours(*arguments), torchs(*arguments)
    assert got.dtype == right.dtype
    got.sum().backward()
    assert x.grad.dtype == dtype


def test_the_first_call_does_not_import_the_compiler():
    code = (
        "import sys, torch, xent; x = torch.zeros(2, 3, requires_grad=True); "
        "xent.cross_entropy(x, torch.tensor([0, 1])).backward(); "
        "print([m for m in ('sympy', 'torch._dynamo') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
