"""torch.compile(fullgraph=True), torch.export, make_fx, fake and meta tensors."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, hessian, jvp
from torch.fx.experimental.proxy_tensor import make_fx

import xent

sys.path.insert(0, str(Path(__file__).parent))
from torch_cases import CASES

# A compilation takes seconds: losses that compile to almost what another compiles to.
ALIKE = (
    "indices none",
    "indices sum",
    "weight, smoothing, ignored, none",
    "probabilities",
    "probabilities, weight, none",
    "scale",
    "z-loss, softcap of probabilities",
    "one row",
    "binary",
)
UNUSED = {"allow_unused": True, "materialize_grads": True}


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


def tupled(values):
    return values if isinstance(values, tuple) else (values,)


def close(got, right):
    for a, b in zip(tupled(got), tupled(right), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13, check_stride=False)


def compare(case, backend, **options):
    """A compiled case beside the eager one: values, then gradients."""
    compiled = torch.compile(case.ours, fullgraph=True, backend=backend, **options)
    arrays, again = case.leaves(), case.leaves()
    got, right = tupled(compiled(*arrays)), tupled(case.ours(*again))
    close(got, right)
    ones = [torch.ones_like(r) for r in right]
    close(
        torch.autograd.grad(got, arrays, ones, **UNUSED),
        torch.autograd.grad(right, again, ones, **UNUSED),
    )


@pytest.mark.parametrize("name", [n for n in CASES if n not in ALIKE])
def test_a_compiled_loss_is_the_eager_one(rng, name):
    compare(CASES[name](rng), "aot_eager")


@pytest.mark.parametrize("name", ["weight, smoothing, ignored", "probabilities", "statistics"])
def test_a_loss_compiled_to_native_code_is_the_eager_one(rng, name):
    compare(CASES[name](rng), "inductor")


def test_the_number_of_rows_may_change(rng):
    compiled = torch.compile(xent.cross_entropy, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (5, 6, 9):
        x = torch.from_numpy(rng.normal(size=(rows, 7))).requires_grad_()
        y = torch.from_numpy(rng.integers(0, 7, rows))
        close(compiled(x, y), xent.cross_entropy(x, y))


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_loss_without_gradients_is_the_eager_one(rng, name):
    case = CASES[name](rng)
    compiled = torch.compile(case.ours, fullgraph=True, backend="eager")
    close(compiled(*case.arrays), case.ours(*case.arrays))


@pytest.mark.parametrize("name", ["probabilities", "z-loss, softcap, scale", "binary"])
def test_derivatives_taken_inside_what_is_compiled(rng, name):
    case = CASES[name](rng)
    x, others = case.arrays[0], case.arrays[1:]

    def loss(x):
        return case.ours(x, *others)

    for derivative in (
        grad(loss),
        hessian(loss),
        lambda x: jvp(loss, (x,), (torch.cos(x),))[1],
        lambda x: grad(lambda x: grad(loss)(x).pow(2).sum())(x),
    ):
        compiled = torch.compile(derivative, fullgraph=True, backend="aot_eager")
        close(compiled(x), derivative(x))


def test_a_target_out_of_range_is_nan_where_it_cannot_be_checked():
    compiled = torch.compile(xent.cross_entropy, fullgraph=True, backend="aot_eager")
    x = torch.zeros(3, 4, requires_grad=True)
    loss = compiled(x, torch.tensor([0, 9, 1]), reduction="none")
    assert torch.isnan(loss).tolist() == [False, True, False]
    torch.testing.assert_close(loss[::2], torch.full((2,), math.log(4)))
    (g,) = torch.autograd.grad(loss.sum(), x)
    assert torch.isnan(g[1]).all()
    assert torch.isfinite(g[::2]).all()


class Loss(torch.nn.Module):
    def forward(self, logits, target):
        return xent.cross_entropy(logits, target, label_smoothing=0.1)


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_loss_can_be_saved_and_run(strict):
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    file = io.BytesIO()
    torch.export.save(torch.export.export(Loss(), (x, y), strict=strict), file)
    file.seek(0)
    torch.testing.assert_close(torch.export.load(file).module()(x, y), Loss()(x, y))


def test_make_fx_records_the_loss():
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    recorded = make_fx(lambda x, y: xent.cross_entropy(x, y))(x, y)
    assert torch.equal(recorded(2 * x, y), xent.cross_entropy(2 * x, y))


@pytest.mark.parametrize("device", ["fake", "meta"])
def test_tensors_without_values_give_shapes_and_dtypes(device):
    if device == "fake":
        with FakeTensorMode():
            x, y = torch.zeros(4, 5, 3, dtype=torch.bfloat16), torch.zeros(4, 3, dtype=torch.int64)
            loss = xent.cross_entropy(x, y, reduction="none")
    else:
        x = torch.zeros(4, 5, 3, dtype=torch.bfloat16, device="meta")
        y = torch.zeros(4, 3, dtype=torch.int64, device="meta")
        loss = xent.cross_entropy(x, y, reduction="none")
    assert (tuple(loss.shape), loss.dtype) == ((4, 3), torch.bfloat16)
