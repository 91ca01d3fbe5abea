"""How often a loss is compiled, what raises where it is compiled, and training what is exported."""

from __future__ import annotations

import io
import logging

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import xent
import xent.nn

W = torch.tensor([0.5, 2.0, 1.5, 1.0, 3.0])


def zeros_of(x):
    return torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.int64)


OF_ANY_SIZE = {
    "indices": lambda x: xent.cross_entropy(
        x, zeros_of(x), W, label_smoothing=0.1, z_loss=0.1, softcap=5.0
    ),
    "probabilities": lambda x: xent.cross_entropy(x, torch.ones_like(x), W),
    "nll": lambda x: xent.nll_loss(x, zeros_of(x), W),
    "softmax": xent.softmax,
    "binary": lambda x: xent.binary_cross_entropy_with_logits(x, torch.ones_like(x), W),
    "statistics": lambda x: xent.token_statistics(x, zeros_of(x)),
}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()


def compiled(function, backend="eager", **options):
    return torch.compile(function, fullgraph=True, backend=backend, **options)


def graphs():
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("name", OF_ANY_SIZE)
def test_a_second_compilation_is_for_any_number_of_rows(name):
    function = compiled(OF_ANY_SIZE[name])
    for rows in (3, 7, 16, 33):
        x = torch.randn(rows, 5, requires_grad=True)
        torch.testing.assert_close(function(x), OF_ANY_SIZE[name](x))
    assert graphs() == 2


def test_tokens_of_any_length_and_normalizers_of_any_size():
    def mean(x, normalizer):
        return xent.cross_entropy(x, zeros_of(x), normalizer=normalizer)

    function = compiled(mean)
    for rows, length, normalizer in ((2, 4, 5), (2, 7, 6), (3, 9, 7), (5, 10, 8)):
        x = torch.randn(rows, 6, length)
        right = F.cross_entropy(x, zeros_of(x), reduction="sum") / normalizer
        torch.testing.assert_close(function(x, normalizer), right)
    assert graphs() <= 4  # a size that changes is compiled for once more
    torch._dynamo.reset()
    counters.clear()
    for normalizer in (3, 5, 7, 11):
        compiled(mean)(torch.ones(2, 3), torch.tensor(normalizer))
    assert graphs() == 1


def test_vmap_inside_what_is_compiled(rng):
    x, y = (
        torch.from_numpy(rng.normal(size=(4, 3, 5))),
        torch.from_numpy(rng.integers(0, 5, (4, 3))),
    )
    for function in (vmap(xent.cross_entropy), vmap(grad(xent.cross_entropy))):
        torch.testing.assert_close(compiled(function)(x, y), function(x, y))


def test_a_gradient_inside_what_is_compiled_has_a_gradient(rng):
    x, y = torch.from_numpy(rng.normal(size=(4, 3))), torch.tensor([0, 2, 1, 1])

    def penalty(x):
        hidden = torch.tanh(x)
        loss = xent.cross_entropy(hidden, y)
        return loss + grad(lambda h: xent.cross_entropy(h, y))(hidden).pow(2).sum()

    leaves = [x.clone().requires_grad_() for _ in range(2)]
    compiled(penalty, "aot_eager")(leaves[0]).backward()
    penalty(leaves[1]).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


def test_autograd_grad_inside_what_is_compiled(rng):
    x, y = torch.from_numpy(rng.normal(size=(4, 3))), torch.tensor([0, 2, 1, 1])

    def penalty(x):
        hidden = torch.tanh(x)
        (g,) = torch.autograd.grad(xent.cross_entropy(hidden, y), hidden, create_graph=True)
        return g.pow(2).sum()

    leaves = [x.clone().requires_grad_() for _ in range(2)]
    penalty(leaves[1]).backward()
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled(penalty, "aot_eager")(leaves[0]).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_what_torch_cannot_do_to_a_compiled_function_raises(rng):
    x, y = torch.from_numpy(rng.normal(size=(4, 3))), torch.tensor([0, 2, 1, 1])
    loss = compiled(lambda x: xent.cross_entropy(x, y), "aot_eager")
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        g.sum().backward()
    for outside in (
        lambda: jvp(loss, (x,), (x,)),
        lambda: grad(loss)(x),
        lambda: vmap(loss)(x[None]),
    ):
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported):
            outside()
    torch._dynamo.reset()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="implement the jvp"):
        loss(forward_ad.make_dual(leaf, x))


def test_forward_mode_through_a_compiled_function(rng):
    x, v = (torch.from_numpy(rng.normal(size=(4, 3))) for _ in range(2))
    y = torch.tensor([0, 2, 1, 1])
    with forward_ad.dual_level():
        got = compiled(lambda x: xent.cross_entropy(x, y), "aot_eager")(forward_ad.make_dual(x, v))
        tangent = forward_ad.unpack_dual(got).tangent
    torch.testing.assert_close(tangent, jvp(lambda x: F.cross_entropy(x, y), (x,), (v,))[1])


def test_class_weights_that_want_a_gradient_raise_where_it_is_compiled(caplog):
    w = torch.ones(3, requires_grad=True)
    text = "cross_entropy: weight has requires_grad=True with class indices"
    with caplog.at_level(logging.CRITICAL), pytest.raises(Exception, match=text):
        compiled(xent.cross_entropy)(torch.zeros(2, 3), torch.tensor([0, 1]), w)


class Head(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 5)
        self.loss = xent.nn.CrossEntropyLoss(W, label_smoothing=0.1, ignore_index=1)

    def forward(self, x, y):
        return self.loss(self.linear(x), y)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_head_of_any_number_of_rows_can_be_trained(strict):
    model, rows = Head(), {0: torch.export.Dim("rows")}
    given = torch.randn(4, 4), torch.tensor([0, 1, 2, 3])
    shapes = {"x": rows, "y": rows}
    program = torch.export.export(model, given, strict=strict, dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    x, y = torch.randn(9, 4), torch.arange(9) % 5
    losses = [m(x, y) for m in (model, again)]
    torch.testing.assert_close(*losses)
    grads = [
        torch.autograd.grad(loss, list(m.parameters()))
        for loss, m in zip(losses, (model, again), strict=True)
    ]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("function", [xent.softmax, OF_ANY_SIZE["probabilities"]])
def test_an_exported_function_of_any_number_of_rows(function):
    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    shapes = {"x": {0: torch.export.Dim("rows")}}
    program = torch.export.export(Module(), (torch.randn(4, 5),), dynamic_shapes=shapes)
    x = torch.randn(7, 5)
    torch.testing.assert_close(program.module()(x), function(x))


def test_what_make_fx_records(rng):
    x, y = torch.from_numpy(rng.normal(size=(4, 5))), torch.tensor([0, 1, -100, 3])

    def loss(x, y):
        return xent.cross_entropy(x, y, label_smoothing=0.1)

    for mode in ("real", "fake", "symbolic"):
        recorded = make_fx(loss, tracing_mode=mode)(x, y)
        torch.testing.assert_close(recorded(2 * x, y), loss(2 * x, y))
        got, right = (grad(f)(2 * x, y) for f in (recorded, loss))
        torch.testing.assert_close(got, right)
    recorded = make_fx(grad(loss))(x, y)
    torch.testing.assert_close(recorded(2 * x, y), grad(loss)(2 * x, y))
    recorded = make_fx(loss, pre_dispatch=True)(x, y)
    torch.testing.assert_close(recorded(2 * x, y), loss(2 * x, y))
