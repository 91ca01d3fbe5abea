"""The operators that a compiled loss calls: torch's own checks of them, and what they compute."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import make_boxed_func
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

import xent
from xent.backends import torch as backend
from xent.backends import torch_registered as registered
from xent.kernels import cpu, library
from xent.ops.softmax import Softmax
from xent.ops.stats import RowStats
from xent.spec import Plan

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EVERY = RowStats(0.7, 2.0, smooth=True, entropy=True)
TARGETS = ("indices", "probabilities", "none")
LAYOUTS = ("rows", "image", "cut")
# torch's own code, where it decomposes a program
ON_ITS_OWN = "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"
compiled_kernel = pytest.mark.skipif(library.load() is None, reason="no compiled kernel")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()


def arrays_of(rng, kind, layout="rows", dtype=torch.float64, classes=5):
    """Logits (N, D, V), target and weights, those that may have a gradient requiring it."""
    shape = {"rows": (6, classes), "image": (2, classes, 3), "cut": (6, classes + 2)}[layout]
    x = torch.from_numpy(rng.normal(0, 2, shape)).to(dtype).requires_grad_()
    rows = x[:, None] if layout == "rows" else x[:, None, :classes]
    rows = x.permute(0, 2, 1) if layout == "image" else rows
    weight = torch.from_numpy(rng.uniform(0.2, 1.5, classes))
    target = torch.from_numpy(rng.integers(-1, max(1, classes), rows.shape[:2]))
    if kind == "probabilities":
        target = torch.from_numpy(rng.dirichlet([1.0] * classes, rows.shape[:2])).requires_grad_()
        weight.requires_grad_()
    return x, rows, None if kind == "none" else target, None if kind == "none" else weight


def made(outputs):
    return [o for o in outputs if o is not None]


def recorded(monkeypatch):
    """What the operators are given."""
    calls = []
    for name in ("_forward", "_vjp"):
        operator = getattr(registered, name)

        def call(*given, operator=operator):
            calls.append((operator, given))
            return operator(*given)

        monkeypatch.setattr(registered, name, call)
    return calls


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("op", [RowStats(), EVERY], ids=["plain", "every"])
def test_torch_finds_no_fault_in_the_operators(rng, monkeypatch, dtype, kind, op):
    for layout in LAYOUTS:
        _, rows, target, weight = arrays_of(rng, kind, layout, dtype)
        with monkeypatch.context() as patch:
            calls = recorded(patch)
            found = registered.apply(op, (rows, target, weight), None)
            sum(o.sum() for o in made(found.outputs)).backward()
        assert set(dict(calls)) == {registered._forward, registered._vjp}
        for operator, (given, *others) in dict(calls).items():
            tracked = operator is registered._forward
            leaves = [t.detach().requires_grad_(tracked and t.requires_grad) for t in given]
            opcheck(operator, (leaves, *others))


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_operator_gives_the_bits_of_the_eager_op(rng, dtype, layout, kind):
    x, rows, target, weight = arrays_of(rng, kind, layout, dtype)
    for plan in (None, Plan(kernel="reference", chunk_bytes=64), Plan(accurate=True)):
        leaves = made((x, target, weight))
        leaves = [a for a in leaves if a.requires_grad]
        results = []
        for apply in (registered.apply, backend.apply):
            found = apply(EVERY, (rows, target, weight), plan)
            scores = [torch.cos(o.detach()) for o in made(found.outputs)]
            gradients = torch.autograd.grad(made(found.outputs), leaves, scores, retain_graph=True)
            results.append((*made(found.outputs), *found.residuals, *gradients))
        for ours, theirs in zip(*results, strict=True):
            assert torch.equal(ours, theirs)
            assert ours.stride() == theirs.stride()


@pytest.mark.parametrize("shape", [(0, 1, 5), (3, 1, 0), (0, 1, 0)])
def test_operators_of_nothing(shape):
    x = torch.zeros(shape, requires_grad=True)
    target = torch.full(shape[:2], -1)
    for of in (registered.apply, backend.apply):
        found = of(RowStats(), (x, target, None), None).outputs
        assert [tuple(o.shape) for o in made(found)] == [shape[:2]] * 2
        (g,) = torch.autograd.grad(found[1].sum(), x)
        assert g.shape == x.shape


@pytest.mark.parametrize("kind", TARGETS)
def test_every_derivative_of_an_operator(rng, kind):
    _, rows, target, weight = arrays_of(rng, kind, classes=3)
    some = (None if a is None else a[:2].detach() for a in (rows, target))
    arrays = tuple(a if a is None else a.requires_grad_(a.is_floating_point()) for a in some)
    arrays = (*arrays, weight)

    def outputs(*given):
        given = given if kind == "probabilities" else (*given, *arrays[1:])
        return tuple(made(registered.apply(EVERY, given, None).outputs))

    inputs = arrays if kind == "probabilities" else arrays[:1]
    assert gradcheck(outputs, inputs, check_forward_ad=True)
    assert gradgradcheck(outputs, inputs, check_fwd_over_rev=True)


def test_third_derivatives_of_an_operator(rng):
    _, rows, target, weight = arrays_of(rng, "indices")
    x = rows.detach().requires_grad_()
    results = []
    for apply in (registered.apply, backend.apply):
        value = apply(EVERY, (x, target, weight), None).outputs[1].sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(value, x, create_graph=True)
            value = g.sin().sum()
        results.append(value.detach())
    torch.testing.assert_close(*results, rtol=1e-12, atol=0)


def targets(function, *given):
    """What the nodes of the compiled forward and backward call."""
    nodes = []

    def keep(module, _):
        nodes.append([node.target for node in module.graph.nodes])
        return make_boxed_func(module.forward)

    whole = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    result = torch.compile(function, fullgraph=True, backend=whole)(*given)
    if result.requires_grad:
        result.sum().backward()
    return nodes


def test_what_is_compiled_is_one_operator_each_way():
    x, y = torch.randn(4, 5, requires_grad=True), torch.tensor([0, 1, 2, 3])
    forward, backward = targets(xent.cross_entropy, x, y)
    assert forward.count(registered._forward) == backward.count(registered._vjp) == 1
    exponentials = {torch.ops.aten.exp.default, torch.ops.aten.log1p.default}
    assert not exponentials & {*forward, *backward}
    (forward,) = targets(xent.cross_entropy, x.detach(), y)
    assert registered._forward in forward


@compiled_kernel
@pytest.mark.parametrize("shape", [(8, 300), (2, 7, 5)])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_loss_is_computed_by_the_kernel(monkeypatch, shape, backend):
    modes = []
    run = cpu._run

    def counted(*given, mode, **fields):
        modes.append(mode)
        run(*given, mode=mode, **fields)

    x = torch.randn(shape, requires_grad=True)
    y = torch.randint(0, shape[1], (shape[0], *shape[2:]))

    def loss(x):
        return xent.cross_entropy(x, y, label_smoothing=0.1, reduction="none")

    function = torch.compile(loss, fullgraph=True, backend=backend)
    (right,) = torch.autograd.grad(loss(x).sum(), x)
    monkeypatch.setattr(cpu, "_run", counted)
    got = function(x)
    (g,) = torch.autograd.grad(got.sum(), x)
    assert modes == [cpu.STATISTICS, cpu.GRADIENT]
    assert torch.equal(got, loss(x))
    assert torch.equal(g, right)


@pytest.mark.parametrize("dynamic", [None, True, False])
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_sizes_that_change(backend, dynamic):
    function = torch.compile(xent.cross_entropy, fullgraph=True, backend=backend, dynamic=dynamic)
    for rows, classes in ((4, 6), (5, 7), (9, 8)):
        x = torch.randn(rows, classes, requires_grad=True)
        y = torch.randint(0, classes, (rows,))
        losses = [f(x, y) for f in (function, xent.cross_entropy)]
        torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
        gradients = [torch.autograd.grad(loss, x)[0] for loss in losses]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
    assert counters["stats"]["unique_graphs"] == {None: 2, True: 1, False: 3}[dynamic]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_numbers_that_change_are_compiled_for_once_more(backend):
    def loss(x, scale, cap):
        return xent.cross_entropy(x, zeros, logit_scale=scale, softcap=cap)

    zeros, x = torch.zeros(3, dtype=torch.int64), torch.randn(3, 4, requires_grad=True)
    function = torch.compile(loss, fullgraph=True, backend=backend)
    for numbers in ((0.5, 3.0), (0.7, 4.0), (0.9, 5.0), (1.1, 6.0)):
        losses = [f(x, *numbers) for f in (function, loss)]
        torch.testing.assert_close(*losses)
        torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in losses))
    assert counters["stats"]["unique_graphs"] == 2


def test_a_compiled_loss_in_inference_mode():
    x, y = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    with torch.inference_mode():
        function = torch.compile(xent.cross_entropy, fullgraph=True, backend="aot_eager")
        assert torch.equal(function(x, y), xent.cross_entropy(x, y))


def test_transforms_of_an_operator_raise():
    x, target = torch.randn(4, 1, 5), torch.zeros(4, 1, dtype=torch.int64)

    def loss(x):
        return registered.apply(RowStats(), (x, target, None), None).outputs[1].sum()

    for transform in (grad(loss), lambda x: jvp(loss, (x,), (x,)), lambda x: vmap(loss)(x[None])):
        with pytest.raises((NotImplementedError, RuntimeError)):
            transform(x)


def test_a_plan_holds_where_it_is_compiled():
    x, y = torch.randn(64, 300), torch.randint(0, 300, (64,))
    for plan in (Plan(kernel="reference", chunk_bytes=4096), Plan(accurate=True)):
        for dynamic in (None, True):
            function = torch.compile(
                lambda x, plan=plan: xent.cross_entropy(x, y, reduction="none", plan=plan),
                fullgraph=True,
                backend="aot_eager",
                dynamic=dynamic,
            )
            assert torch.equal(function(x), xent.cross_entropy(x, y, reduction="none", plan=plan))


def test_a_kernel_that_cannot_serve_raises_where_it_is_compiled():
    empty, none = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    function = torch.compile(xent.cross_entropy, backend="eager", fullgraph=True)
    with pytest.raises(ValueError, match="expected None or 'reference'"):
        function(empty, none, plan=Plan(kernel="native"))


def test_forward_mode_reaches_through_what_was_compiled_without_it():
    x, v, y = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    function = torch.compile(xent.cross_entropy, fullgraph=True, backend="aot_eager")
    function(x, y)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(x, v), y)).tangent
    torch.testing.assert_close(tangent, jvp(lambda x: xent.cross_entropy(x, y), (x,), (v,))[1])


def test_a_checkpoint_within_what_is_compiled():
    x, y = torch.randn(4, 5, requires_grad=True), torch.tensor([0, 1, 2, 3])

    def loss(x):
        return checkpoint(lambda x: xent.cross_entropy(x.sin(), y), x, use_reentrant=False)

    function = torch.compile(loss, fullgraph=True, backend="aot_eager")
    gradients = (torch.autograd.grad(f(x), x)[0] for f in (function, loss))
    torch.testing.assert_close(*gradients)


class Mean(torch.nn.Module):
    def forward(self, x, y):
        return xent.cross_entropy(x, y)


class Surprisal(torch.nn.Module):
    def forward(self, x, codes):
        return registered.apply(RowStats(), (x, codes, None), None).outputs[1]


@pytest.mark.filterwarnings(ON_ITS_OWN)
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_exported_needs_no_operator(strict):
    given = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    program = torch.export.export(Mean(), given, strict=strict)
    for again in (program, program.run_decompositions()):
        names = [str(node.target) for node in again.graph.nodes]
        assert not [name for name in names if name.startswith("xent")]
        torch.testing.assert_close(again.module()(*given), xent.cross_entropy(*given))


@pytest.mark.filterwarnings(ON_ITS_OWN)
def test_an_operator_can_be_exported():
    rows = {0: torch.export.Dim("rows")}
    given = torch.randn(4, 1, 5), torch.tensor([[0], [1], [-1], [3]])
    program = torch.export.export(Surprisal(), given, dynamic_shapes={"x": rows, "codes": rows})
    x, codes = torch.randn(9, 1, 5), torch.arange(9)[:, None] % 5
    right = Surprisal()(x, codes)
    for again in (program, program.run_decompositions()):
        assert registered._forward in [node.target for node in again.graph.nodes]
        assert torch.equal(again.module()(x, codes), right)
    copied = torch.export.export(program.module(), (x, codes)).module()
    assert torch.equal(copied(x, codes), right)


class Wrapped(torch.Tensor):
    pass


def test_whom_the_operators_serve():
    x, target = torch.zeros(3, 1, 4), torch.zeros(3, 1, dtype=torch.int64)
    assert registered.serves(RowStats(), (torch.nn.Parameter(x), target, None))
    assert not registered.serves(Softmax(), (x,))
    assert not registered.serves(RowStats(), (x.to("meta"), target.to("meta"), None))
    assert not registered.serves(RowStats(), (x.as_subclass(Wrapped), target, None))


@pytest.mark.parametrize(
    "record", [RowStats(), EVERY, Plan(), Plan(kernel="native", inplace=True, chunk_bytes=2**40)]
)
def test_a_record_is_told_in_full(record):
    real, whole = [], []
    words = registered._told(record, real, whole)
    assert registered._read(iter(words), iter(real), iter(whole)) == record


def test_registering_is_left_until_something_is_compiled_and_imports_no_compiler():
    code = """
import sys, torch, xent
x = torch.zeros(2, 3, requires_grad=True)
for reduction in ("mean", "none"):
    xent.cross_entropy(x, torch.tensor([0, 1]), reduction=reduction).sum().backward()
print("xent.backends.torch_registered" in sys.modules)
import xent.backends.torch_registered
print("torch._dynamo" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_probabilities_in_half_precision_are_compiled(rng, dtype):
    x = torch.from_numpy(rng.normal(size=(4, 7))).to(dtype).requires_grad_()
    p = torch.from_numpy(rng.normal(size=(4, 7))).softmax(1).to(dtype)
    compiled = torch.compile(xent.cross_entropy, backend="aot_eager", fullgraph=True)
    found, right = compiled(x, p), xent.cross_entropy(x, p)
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in (found, right)))
