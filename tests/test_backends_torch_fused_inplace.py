"""Plan(inplace=True): the gradient lies where the logits were, and no use of them goes unseen; and
that a loss and its gradient take no other memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad

import xent
from xent import Plan
from xent.bench.memory import extra_bytes
from xent.kernels import library

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import ULP, cast, near, same_bits

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

REFERENCE, INPLACE = Plan(kernel="reference"), Plan(inplace=True)
LIMITS = {**ULP, "float64": (6.5, 12.0)}  # with the reference's own error
USED = "logits has its gradient in its place, as Plan\\(inplace=True\\) allows, expected no use "
USED += "after the loss and one backward"


def draw(rng, shape, dtype="float64"):
    """A leaf, what follows from it, and class indices."""
    x = cast(rng.normal(0, 3, shape), dtype).requires_grad_()
    return x, x * 2, torch.from_numpy(rng.integers(0, shape[1], shape[0]))


@pytest.mark.parametrize("dtype", list(LIMITS))
@pytest.mark.parametrize("classes", [5, 64, 300, 9001])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"softcap": 9.0}], ids=str)
@pytest.mark.parametrize("upstream", [1.0, 0.5])
def test_the_gradient_is_that_of_memory_of_its_own(rng, dtype, classes, options, upstream):
    x, y, t = draw(rng, (6, classes), dtype)
    right = xent.cross_entropy(y, t, **options)
    g = torch.tensor(upstream, dtype=right.dtype)
    (slope,) = grad(right, y, torch.ones_like(g), retain_graph=True)
    loss = xent.cross_entropy(y, t, plan=INPLACE, **options)
    same_bits(loss.detach(), right.detach())
    loss.backward(g)
    near(x.grad, 2 * upstream * slope.double(), dtype, 0 if upstream == 1 else 2, 0, classes)


@pytest.mark.parametrize("strange", [0.0, float("nan"), float("inf")])
def test_an_upstream_that_nothing_can_be_scaled_from_is_not_expected(rng, strange):
    x, y, t = draw(rng, (4, 5))
    options = {"z_loss": 0.123}  # of no other test
    (right,) = grad(xent.cross_entropy(y, t, **options), x, retain_graph=True)
    for plan in (INPLACE, None):
        grad(xent.cross_entropy(x * 2, t, plan=plan, **options), x, torch.tensor(strange).double())
        (found,) = grad(xent.cross_entropy(x * 2, t, plan=INPLACE, **options), x)
        torch.testing.assert_close(found, right, rtol=1e-12, atol=1e-15)


def test_it_lies_in_the_memory_of_the_logits(rng):
    _, y, t = draw(rng, (4, 5))
    place, kept, found = y.data_ptr(), y.detach(), []
    (right,) = grad(xent.cross_entropy(y, t), y, retain_graph=True)
    y.register_hook(lambda g: found.append(g.data_ptr()))
    loss = xent.cross_entropy(y, t, plan=INPLACE)
    same_bits(kept, right)
    loss.backward()
    assert found == [place]


@pytest.mark.parametrize("kind", ["weight", "probabilities", "image", "transposed"])
def test_other_targets_and_layouts(rng, kind):
    x, y, t = draw(rng, (4, 5))
    weight = None
    if kind == "weight":
        weight = cast(rng.uniform(0.5, 2, 5), "float64")
    elif kind == "probabilities":
        t = cast(rng.dirichlet(np.ones(5), 4), "float64")
    elif kind == "image":
        x, y, _ = draw(rng, (4, 5, 3, 2))
        t = torch.from_numpy(rng.integers(0, 5, (4, 3, 2)))
    else:
        x, y, _ = draw(rng, (5, 4))
        y = y.T
    (right,) = grad(xent.cross_entropy(y, t, weight), x, retain_graph=True)
    xent.cross_entropy(y, t, weight, plan=INPLACE).backward()
    torch.testing.assert_close(x.grad, right, rtol=1e-13, atol=1e-16)


USES = {
    "add": lambda y: y + 1,
    "a method": lambda y: y.sum(),
    "a function": lambda y: F.log_softmax(y, 1),
    "index": lambda y: y[0],
    "item": lambda y: y[0, 0].item(),
    "a second loss": lambda y: xent.cross_entropy(y, torch.zeros(4, dtype=torch.int64)),
    "a second loss in place": lambda y: xent.cross_entropy(
        y, torch.zeros(4, dtype=torch.int64), plan=INPLACE
    ),
    "detach": lambda y: y.detach(),
    "clone": lambda y: y.clone(),
    "NumPy": lambda y: np.asarray(y.detach()),
    "write": lambda y: y.mul_(2),
    "write an entry": lambda y: y.__setitem__(0, 1.0),
    "backward": lambda y: y.sum().backward(),
    "tolist": lambda y: y.tolist(),
    "print": repr,
}


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("when", ["before backward", "after"])
def test_any_use_of_the_logits_raises(rng, name, when):
    _, y, t = draw(rng, (4, 5))
    loss = xent.cross_entropy(y, t, plan=INPLACE)
    if when == "after":
        loss.backward()
    with pytest.raises(RuntimeError, match=USED):
        USES[name](y)


@pytest.mark.parametrize("name", ["add", "a function", "index", "write"])
def test_any_use_of_what_the_logits_are_a_view_of_raises(rng, name):
    x, base, t = draw(rng, (2, 2, 5))
    y = base.view(4, 5)
    t = torch.from_numpy(rng.integers(0, 5, 4))
    xent.cross_entropy(y, t, plan=INPLACE).backward()
    assert x.grad.shape == x.shape
    with pytest.raises(RuntimeError, match=USED):
        USES[name](base)


def test_a_view_that_was_kept_raises_by_its_version(rng):
    _, y, t = draw(rng, (4, 5))
    kept = (y[:2] ** 2).sum()
    loss = xent.cross_entropy(y, t, plan=INPLACE)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (kept + loss).backward()


@pytest.mark.parametrize(
    "function", [torch.tanh, torch.exp, torch.sigmoid, lambda x: F.softmax(x, 1)]
)
def test_an_operation_that_kept_its_result_raises(rng, function):
    x, _, t = draw(rng, (4, 5))
    loss = xent.cross_entropy(function(x), t, plan=INPLACE)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_another_loss_of_the_same_logits_raises(rng):
    _, y, t = draw(rng, (4, 5))
    other = (y**2).sum()  # keeps y
    loss = xent.cross_entropy(y, t, plan=INPLACE)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + other).backward()


def test_a_leaf_raises(rng):
    x, _, t = draw(rng, (4, 5))
    before = x.detach().clone()
    for leaf in (x, torch.nn.Parameter(x.detach())):
        text = "logits has requires_grad=True and no operation before it, with Plan"
        with pytest.raises(ValueError, match=text):
            xent.cross_entropy(leaf, t, plan=INPLACE)
    same_bits(x, before)


def test_what_needs_no_gradient_is_left_alone(rng):
    x, y, t = draw(rng, (4, 5))
    for logits in (x.detach(), y.detach()):
        before = logits.clone()
        assert xent.cross_entropy(logits, t, plan=INPLACE) == xent.cross_entropy(logits, t)
        same_bits(logits, before)
    with torch.no_grad():
        assert xent.cross_entropy(y, t, plan=INPLACE) == xent.cross_entropy(y, t)


def test_a_second_backward_raises(rng):
    _, y, t = draw(rng, (4, 5))
    loss = xent.cross_entropy(y, t, plan=INPLACE)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=USED):
        loss.backward()


def test_a_graph_of_the_gradient_raises(rng):
    x, y, t = draw(rng, (4, 5))
    loss = xent.cross_entropy(y, t, plan=INPLACE)
    with pytest.raises(RuntimeError, match=USED):
        grad(loss, x, create_graph=True)


@pytest.mark.parametrize("plan", [INPLACE, Plan(inplace=True, kernel="reference")])
def test_a_loss_for_each_row_is_not_written_over(rng, plan):
    x, y, t = draw(rng, (4, 5))
    before = y.detach().clone()
    xent.cross_entropy(y, t, reduction="none", plan=plan).sum().backward()
    same_bits(y, before)
    assert x.grad.any()


def test_a_wrong_target_leaves_the_logits_as_they_are(rng):
    _, y, t = draw(rng, (4, 5))
    before, t[2] = y.detach().clone(), 5
    with pytest.raises(IndexError, match="target has value 5 at row 2"):
        xent.cross_entropy(y, t, plan=INPLACE)
    same_bits(y, before)
    assert type(y) is torch.Tensor


def test_rows_that_are_shown_many_times_are_not_written_over(rng):
    x, y, _ = draw(rng, (1, 5))
    t = torch.from_numpy(rng.integers(0, 5, 4))
    before = y.detach().clone()
    (right,) = grad(xent.cross_entropy(y.expand(4, 5), t), x, retain_graph=True)
    xent.cross_entropy(y.expand(4, 5), t, plan=INPLACE).backward()
    torch.testing.assert_close(x.grad, right)
    same_bits(y, before)


def test_a_layer_is_trained_as_without(rng):
    torch.manual_seed(int(rng.integers(2**31)))
    layer, x = torch.nn.Linear(8, 100).double(), torch.randn(16, 8).double()
    t = torch.from_numpy(rng.integers(0, 100, 16))
    right = grad(xent.cross_entropy(layer(x), t), tuple(layer.parameters()))
    for _ in range(2):
        found = grad(xent.cross_entropy(layer(x), t, plan=INPLACE), tuple(layer.parameters()))
        for got, expected in zip(found, right, strict=True):
            same_bits(got, expected)


SIZE = 4 * 2000 * 4000


def extra(function):
    found = extra_bytes(function)
    if found is None:
        pytest.skip("this system does not tell the peak of a process's memory")
    return found / SIZE


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"softcap": 30.0}], ids=str)
def test_nothing_of_the_size_of_the_logits_beside_the_gradient(rng, options):
    numbers = torch.randn(2000, 4000)
    t, x = torch.from_numpy(rng.integers(0, 4000, 2000)), numbers.requires_grad_()

    def train():
        x.grad = None
        xent.cross_entropy(x, t, **options).backward()

    def in_place():
        xent.cross_entropy(y, t, plan=Plan(inplace=True), **options).backward()

    train()
    x.grad = None
    assert 0.9 < extra(train) < 1.2
    x.grad = None
    assert 1.8 < extra(lambda: (train(), x.grad.clone())) < 2.3
    assert extra(lambda: xent.cross_entropy(x.detach(), t, **options)) < 0.2
    with torch.no_grad():
        y = x * 1
    y = _Given.apply(x, y)
    assert extra(in_place) < 0.2


class _Given(torch.autograd.Function):
    """A tensor as the result of an operation that allocates nothing."""

    @staticmethod
    def forward(ctx, x, y):
        return y.view_as(y)

    @staticmethod
    def backward(ctx, upstream):
        return None, None
