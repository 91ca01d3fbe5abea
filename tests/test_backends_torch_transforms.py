"""torch.func and torch.autograd.functional: whole Hessians, vmaps in vmaps, mixed derivatives."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import functional
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

import xent

sys.path.insert(0, str(Path(__file__).parent))
from torch_cases import CASES

EACH = pytest.mark.parametrize("name", CASES)
SHARED = torch.tensor([0, 5])
SEVERAL = pytest.mark.parametrize(
    "name", [n for n in CASES if n.startswith(("prob", "norm", "binary"))]
)


def close(got, right):
    torch.testing.assert_close(got, right, rtol=1e-10, atol=1e-12, check_stride=False)


def scalars(case):
    """A number, not linear in the results, of ours and of the plain formula."""

    def scalar(function):
        def value(*arrays):
            result = function(*arrays)
            results = (result,) if isinstance(result, torch.Tensor) else result
            return sum(torch.sin(r).sum() for r in results)

        return value

    return scalar(case.ours), scalar(case.plain)


def directions(rng, arrays):
    return tuple(torch.from_numpy(rng.normal(size=a.shape)).reshape(a.shape) for a in arrays)


@EACH
def test_every_block_of_the_hessian(rng, name):
    case = CASES[name](rng)
    ours, plain = scalars(case)
    every = tuple(range(len(case.arrays)))
    got, right = (hessian(f, argnums=every)(*case.arrays) for f in (ours, plain))
    close(got, right)
    forward = {"vectorize": True, "outer_jacobian_strategy": "forward-mode"}
    close(functional.hessian(ours, case.arrays, **forward), right)


@EACH
def test_forward_modes_and_products_with_the_hessian(rng, name):
    case = CASES[name](rng)
    (ours, plain), arrays = scalars(case), case.arrays
    v = directions(rng, arrays)
    close(jvp(case.ours, arrays, v), jvp(case.plain, arrays, v))
    upstream = torch.tensor(2.5, dtype=torch.float64)
    close(vjp(ours, *arrays)[1](upstream), functional.vjp(plain, arrays, upstream)[1])
    hv = functional.vhp(plain, arrays, v)
    close(functional.vhp(ours, arrays, v), hv)
    close(functional.hvp(ours, arrays, v), hv)
    close(functional.jvp(ours, arrays, v), functional.jvp(plain, arrays, v))


@pytest.mark.filterwarnings("ignore:.*get_attr Node")  # torch's own, of the graph it makes
@pytest.mark.parametrize("name", ["nll", "probabilities", "statistics"])
def test_a_linearized_loss(rng, name):
    case = CASES[name](rng)
    v = directions(rng, case.arrays)
    close(linearize(case.ours, *case.arrays)[1](*v), jvp(case.plain, case.arrays, v)[1])


@SEVERAL
def test_vmap_over_one_argument_of_several(rng, name):
    case = CASES[name](rng)
    ours, plain = scalars(case)
    every = tuple(range(len(case.arrays)))
    for mapped in every:
        two = torch.stack([case.arrays[mapped], 0.7 * case.arrays[mapped]])
        dims = tuple(0 if i == mapped else None for i in every)

        def at(i, mapped=mapped, two=two):
            return (*case.arrays[:mapped], two[i], *case.arrays[mapped + 1 :])

        arguments = (*case.arrays[:mapped], two, *case.arrays[mapped + 1 :])
        got = vmap(grad(ours, argnums=every), in_dims=dims)(*arguments)
        right = [grad(plain, argnums=every)(*at(i)) for i in (0, 1)]
        close(got, tuple(map(torch.stack, zip(*right, strict=True))))


@EACH
def test_vmap_in_vmap_and_hessians_of_a_batch(rng, name):
    case = CASES[name](rng)
    ours, plain = scalars(case)
    x, others = case.arrays[0], case.arrays[1:]
    many = torch.stack([torch.stack([x, 0.5 * x, 0.1 * x])] * 2)
    values = torch.stack([plain(a, *others) for a in many[0]])
    close(vmap(vmap(lambda x: ours(x, *others)))(many), torch.stack([values] * 2))
    one = vmap(lambda x: ours(x, *others), randomness="different", chunk_size=2)
    close(one(many[0]), values)
    got = vmap(hessian(lambda x: ours(x, *others)))(many[0])
    close(got, torch.stack([hessian(plain)(a, *others) for a in many[0]]))


def test_where_the_mapped_axis_goes(rng):
    x, y = torch.from_numpy(rng.normal(size=(6, 5, 2, 3))), torch.randint(5, (4, 6, 3))
    rows = vmap(partial(xent.cross_entropy, reduction="none"), in_dims=(2, None), out_dims=1)
    got = vmap(rows, in_dims=(None, 0), out_dims=2)(x, y)
    right = [[F.cross_entropy(x[:, :, i], t, reduction="none") for t in y] for i in range(2)]
    close(got, torch.stack([torch.stack(row, 1) for row in right], 1))


def test_targets_alone_are_mapped(rng):
    x = torch.from_numpy(rng.normal(size=(4, 5)))
    y = torch.from_numpy(rng.integers(0, 5, (4, 3)))  # mapped along axis 1
    got = vmap(lambda y: xent.cross_entropy(x, y), in_dims=1)(y)
    close(got, torch.stack([F.cross_entropy(x, t) for t in y.T]))
    close(vmap(xent.cross_entropy)(x, y[:, 0]), F.cross_entropy(x, y[:, 0], reduction="none"))


def test_every_derivative_of_a_batch_with_class_weights_of_its_own(rng):
    x, w = torch.from_numpy(rng.normal(size=(3, 4, 5))), torch.from_numpy(rng.random((5, 3)))
    y = torch.from_numpy(rng.integers(0, 5, (3, 4)))

    def together(x):
        return vmap(partial(xent.cross_entropy, label_smoothing=0.1), in_dims=(0, 0, 1))(x, y, w)

    def one_by_one(x):
        rows = zip(x, y, w.T, strict=True)
        return torch.stack([F.cross_entropy(*row, label_smoothing=0.1) for row in rows])

    for derivative in (jacrev, jacfwd, lambda f: jacfwd(jacrev(f)), lambda f: jacrev(jacfwd(f))):
        close(derivative(together)(x), derivative(one_by_one)(x))


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (xent.cross_entropy, (torch.zeros(4, 3), torch.tensor([0, 1, 2, 9])), "9 at row 3"),
        (xent.nll_loss, (torch.zeros(2, 2, 3), torch.tensor([[0, 1], [-1, 2]])), r"-1 at \(1, 0\)"),
        (vmap(xent.cross_entropy), (torch.zeros(2, 2, 3), torch.tensor([[0, 1], [2, 3]])), "3 at"),
        (lambda x: xent.cross_entropy(x, SHARED), (torch.zeros(4, 2, 3),), "5 at row 1"),
        (grad(lambda x: xent.cross_entropy(x, SHARED)), (torch.zeros(4, 2, 3),), "5 at row 1"),
        (xent.token_statistics, (torch.zeros(4, 3), torch.tensor([0, 1, 2, 9])), "9 at row 3"),
    ],
)
def test_targets_out_of_range_are_told(function, arguments, text):
    with pytest.raises(IndexError, match=f"target has value {text}"):
        vmap(function)(*arguments)


@pytest.mark.parametrize("function", [xent.cross_entropy, xent.nll_loss], ids=lambda f: f.__name__)
def test_class_weights_with_indices_have_a_forward_mode_only(rng, function):
    # A loss without the derivative by its weights must not lose them in a sum: right, or an error.
    x, w = torch.from_numpy(rng.normal(size=(4, 3))), torch.from_numpy(rng.random(3))
    y = torch.tensor([0, 2, 1, 1])

    def loss(x, w):
        return function(x, y, w)

    def plain(x, w):
        log_p = x.log_softmax(1) if function is xent.cross_entropy else x
        return -(w[y] * log_p[torch.arange(4), y]).sum() / w[y].sum()

    v, u = directions(rng, (x, w))
    close(jvp(loss, (x, w), (v, u)), jvp(plain, (x, w), (v, u)))
    close(jacfwd(loss, argnums=1)(x, w), jacrev(plain, argnums=1)(x, w))
    for first in (jacfwd, jacrev):
        mixed = [jacfwd(first(f, argnums=0), argnums=1)(x, w) for f in (loss, plain)]
        close(*mixed)
    leaf = w.clone().requires_grad_()
    text = f"^{function.__name__}: weight has requires_grad=True with class indices, expected one"
    for reverse in (
        lambda: grad(loss, argnums=1)(x, w),
        lambda: hessian(loss, argnums=(0, 1))(x, w),
        lambda: grad(lambda w: jvp(lambda x: loss(x, w), (x,), (v,))[1])(w),
        lambda: grad(lambda w: vmap(lambda x: loss(x, w))(torch.stack([x, x])).sum())(w),
        lambda: vmap(lambda x: loss(x, leaf))(torch.stack([x, x])),
    ):
        with pytest.raises(RuntimeError, match=text):
            reverse()


def test_the_gradient_of_each_sample_of_a_network(rng):
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    model.double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x, y = torch.from_numpy(rng.normal(size=(5, 4))), torch.from_numpy(rng.integers(0, 3, 5))

    def of_sample(loss):
        def value(parameters, x, y):
            return loss(functional_call(model, parameters, x), y)

        return vmap(grad(value), in_dims=(None, 0, 0))(parameters, x, y)

    close(of_sample(xent.cross_entropy), of_sample(F.cross_entropy))
