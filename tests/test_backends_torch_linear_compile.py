"""A linear head that is compiled: opaque operators, nothing of N x V, any row ignored."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import make_boxed_func
from torch.autograd import forward_ad
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

import xent
from xent.backends import torch_registered as registered
from xent.backends import torch_tiles

N, D, V = 13, 5, 41
LARGE = 400, 270, 1301  # D and V above every block; N V is more than any gradient
# torch's own code, where it decomposes a program
ON_ITS_OWN = "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()


def close(got, right):
    torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-11)


def arrays_of(rng, n=N, d=D, v=V, dtype=torch.float64):
    """Hidden states, weights and bias that require a gradient, and a target with ignored rows."""
    h, w, b = (
        torch.from_numpy(rng.normal(size=s)).to(dtype).requires_grad_()
        for s in ((n, d), (v, d), (v,))
    )
    target = torch.from_numpy(rng.integers(0, v, n))
    target[::3] = -100
    return h, w, b, target


def compare(function, leaves, backend="aot_eager"):
    """A compiled function beside the eager one: values, then gradients of different cotangents."""
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    found = []
    for run in (compiled, function):
        made = [o for o in tree_leaves(run(*leaves)) if o is not None]
        floating = [o for o in made if o.requires_grad]
        up = [torch.cos(torch.arange(1.0, 1 + o.numel())).to(o).view_as(o) for o in floating]
        found.append((*made, *torch.autograd.grad(floating, leaves, up)))
    close(*found)


def probabilities(rng, heads=()):
    shape = (N, V, *heads)
    return torch.from_numpy(rng.random(shape)).softmax(1).requires_grad_()


def plain(rng, **options):
    h, w, b, target = arrays_of(rng)
    weight = torch.from_numpy(rng.random(V))

    def function(h, w, b):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b, weight=weight, **options)

    return function, (h, w, b)


def of_probabilities(rng):
    h, w, b, _ = arrays_of(rng)
    leaves = h, w, b, probabilities(rng), torch.from_numpy(rng.random(V)).requires_grad_()

    def function(h, w, b, target, weight):
        options = {"linear_bias": b, "weight": weight, "label_smoothing": 0.1}
        return xent.linear_cross_entropy(h, w, target, reduction="none", **options)

    return function, leaves


def of_heads(rng):
    h, *_ = arrays_of(rng)
    w = torch.from_numpy(rng.normal(size=(V, 2, D))).requires_grad_()
    b = torch.from_numpy(rng.normal(size=(V, 2))).requires_grad_()
    target = torch.from_numpy(rng.integers(0, V, (N, 2)))
    target[4, 1] = -100
    return lambda h, w, b: xent.linear_cross_entropy(h, w, target, linear_bias=b), (h, w, b)


def of_an_adapter(rng):
    h, w, _, target = arrays_of(rng)
    a_, b_ = (torch.from_numpy(rng.normal(size=s)).requires_grad_() for s in ((2, D), (V, 2)))

    def function(h, w, a_, b_):
        return xent.linear_cross_entropy(h, xent.LowRank(w, a_, b_, 1.5), target, z_loss=0.01)

    return function, (h, w, a_, b_)


def of_statistics(rng):
    h, w, b, target = arrays_of(rng)

    def function(h, w, b):
        return tuple(xent.linear_token_statistics(h, w, target, linear_bias=b, softcap=4.0))

    return function, (h, w, b)


def of_a_normalizer(rng):
    h, w, _, target = arrays_of(rng)
    count = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)

    def function(h, w, count):
        return xent.linear_cross_entropy(h.view(1, N, D), w, target[None], normalizer=count)

    return function, (h, w, count)


def of_turned_weights(rng):
    h, w, _, target = arrays_of(rng)
    turned = w.detach().T.contiguous().requires_grad_()

    def function(h, turned):
        h, later = h.view(1, N, D), target[None]
        return xent.linear_cross_entropy(h, turned.T, later, shift=2, reduction="sum")

    return function, (h, turned)


CASES = {
    "sum, every option": lambda rng: plain(
        rng, reduction="sum", label_smoothing=0.1, z_loss=0.01, softcap=3.0, logit_scale=0.7
    ),
    "none, slabs": lambda rng: plain(
        rng, reduction="none", plan=xent.Plan(chunk_bytes=800, chunk_over="classes")
    ),
    "rows, reference": lambda rng: plain(
        rng, plan=xent.Plan(chunk_bytes=4 * 8 * V, chunk_over="rows", kernel="reference")
    ),
    "torch's options": lambda rng: plain(
        rng, options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=3)
    ),
    "probabilities": of_probabilities,
    "heads": of_heads,
    "an adapter": of_an_adapter,
    "statistics": of_statistics,
    "a normalizer": of_a_normalizer,
    "turned weights": of_turned_weights,
}


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_head_is_the_eager_one(rng, name):
    native = name in ("sum, every option", "probabilities")  # seconds each
    compare(*CASES[name](rng), backend="inductor" if native else "aot_eager")


@pytest.mark.parametrize("frozen", ["h", "wb"])
def test_what_is_frozen_gets_no_gradient(rng, frozen):
    h, w, b, target = arrays_of(rng)
    for name, leaf in (("h", h), ("w", w), ("b", b)):
        leaf.requires_grad_(name not in frozen)

    def function(*given):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b)

    compare(function, [a for a in (h, w, b) if a.requires_grad])


def size(tensor):
    """How many elements a tensor of a graph has, where sizes are symbols too."""
    return prod(getattr(getattr(n, "node", n), "hint", n) for n in tensor.shape)


def graphs(function, leaves, dynamic=None):
    """What a compiler's graphs call, and the most elements of a tensor in them."""
    called, most = [], [0]

    def keep(module, _):
        for node in module.graph.nodes:
            called.append(node.target)
            tensors = [t for t in tree_leaves(node.meta.get("val")) if isinstance(t, torch.Tensor)]
            most.extend(map(size, tensors))
        return make_boxed_func(module.forward)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    compiled = torch.compile(function, fullgraph=True, backend=backend, dynamic=dynamic)
    torch.autograd.grad(compiled(*leaves).sum(), leaves)
    return called, max(most)


@pytest.mark.parametrize(("dynamic", "reduction"), [(None, "none"), (True, "mean")])
def test_a_compiler_sees_one_operator_each_way_and_no_logits(rng, dynamic, reduction):
    n, d, v = 67, 33, 301
    h, w, b, target = arrays_of(rng, n, d, v)

    def function(h, w, b):
        given = {"linear_bias": b, "reduction": reduction, "label_smoothing": 0.1}
        return xent.linear_cross_entropy(h, w, target, **given)

    called, most = graphs(function, (h, w, b), dynamic)
    assert called.count(registered._forward) == called.count(registered._vjp) == 1
    assert max(n * d, v * d) <= most < n * v


def test_a_compiler_would_see_logits(rng):
    *leaves, target = arrays_of(rng)
    _, most = graphs(lambda h, w, b: F.cross_entropy(h @ w.T + b, target), leaves)
    assert most >= N * V


def largest(function, leaves):
    """The most bytes that were taken from the allocator at once, in a loss and its gradients."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        torch.autograd.grad(function(*leaves), leaves)
    return max(event.self_cpu_memory_usage for event in seen.events())


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_what_is_compiled_allocates_nothing_as_large_as_the_logits(rng, monkeypatch, backend):
    n, d, v = LARGE
    h, w, b, target = arrays_of(rng, n, d, v, torch.float32)
    tiles, logits = [], torch_tiles.TorchEngine.logits
    plan = xent.Plan(chunk_bytes=4 * v * 64)

    def counted(engine, *given):
        made = logits(engine, *given)
        tiles.append((tuple(made.shape), engine.room.numel()))
        return made

    def ours(h, w, b):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b, plan=plan)

    monkeypatch.setattr(torch_tiles.TorchEngine, "logits", counted)
    compiled = torch.compile(ours, fullgraph=True, backend=backend)
    torch.autograd.grad(compiled(h, w, b), (h, w, b))
    tiles.clear()
    assert largest(compiled, (h, w, b)) < 4 * n * v
    assert max(room for _, room in tiles) <= 64 * v
    rows = sum(shape[0] for shape, _ in tiles)
    assert rows == 2 * int((target >= 0).sum())  # forward and backward, none ignored
    plain = largest(lambda h, w, b: F.cross_entropy(h @ w.T + b, target), (h, w, b))
    assert plain >= 4 * n * v  # and the check can fail


@pytest.mark.parametrize("dynamic", [None, True])
def test_sizes_that_change(rng, dynamic):
    function = torch.compile(
        xent.linear_cross_entropy, fullgraph=True, backend="aot_eager", dynamic=dynamic
    )
    for n, d, v in ((4, 6, 9), (5, 7, 11), (9, 8, 300)):
        h, w, b, target = arrays_of(rng, n, d, v)
        losses = [f(h, w, target, linear_bias=b) for f in (function, xent.linear_cross_entropy)]
        close(*losses)
        close(*(torch.autograd.grad(loss, (h, w, b)) for loss in losses))
    assert counters["stats"]["unique_graphs"] == {None: 2, True: 1}[dynamic]


def test_the_rows_that_are_ignored_change_from_call_to_call(rng):
    h, w, b, target = arrays_of(rng)

    def function(h, w, b, target):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for ignored in ([], [0], [1, 4, N - 1], range(N - 1), range(N)):
        now = target.clone().clamp(min=0)
        now[list(ignored)] = -100
        given = h.detach().clone()
        given[list(ignored)] = float("nan")  # what these hold is nobody's
        given.requires_grad_()
        losses = [f(given, w, b, now) for f in (compiled, function)]
        torch.testing.assert_close(*losses, equal_nan=True)
        gradients = [torch.autograd.grad(loss, (given, w, b)) for loss in losses]
        assert not any(g.isnan().any() for g in gradients[0])
        close(*gradients)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_compiled_head_gives_the_bits_of_the_eager_one(rng, dtype):
    h, w, b, target = arrays_of(rng, dtype=dtype)
    upstream = torch.from_numpy(rng.normal(size=N)).float()

    def function(h, w, b):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b, reduction="none")

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    found = []
    for run in (compiled, function):
        loss = run(h, w, b)
        found.append((loss, *torch.autograd.grad(loss, (h, w, b), upstream)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_autocast(rng):
    h, w, b, target = arrays_of(rng, dtype=torch.float32)

    def function(h, w, b):
        with torch.autocast("cpu", torch.bfloat16):
            return xent.linear_cross_entropy(h, w, target, linear_bias=b)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    losses = [f(h, w, b) for f in (compiled, function)]
    assert losses[0].dtype == torch.float32
    torch.testing.assert_close(*losses)
    gradients = (torch.autograd.grad(loss, (h, w, b)) for loss in losses)
    torch.testing.assert_close(*gradients, rtol=2e-2, atol=1e-3)


def test_a_loss_alone_and_a_bad_target(rng):
    h, w, b, target = (a.detach() for a in arrays_of(rng))
    target[4] = V

    def function(h, w, b):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b, reduction="none")

    with torch.inference_mode():
        rows = torch.compile(function, fullgraph=True, backend="aot_eager")(h, w, b)
    assert rows.isnan().nonzero().tolist() == [[4]]


def test_forward_mode_reaches_through_what_was_compiled_without_it(rng):
    h, w, b, target = (a.detach() for a in arrays_of(rng))

    def function(h):
        return xent.linear_cross_entropy(h, w, target, linear_bias=b)

    compiled, v = torch.compile(function, fullgraph=True, backend="aot_eager"), torch.ones_like(h)
    compiled(h)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(compiled(forward_ad.make_dual(h, v))).tangent
    close(tangent, torch.func.jvp(function, (h,), (v,))[1])


def test_derivatives_taken_within_what_is_compiled(rng):
    h, w, b, target = (a.detach() for a in arrays_of(rng))

    def function(h, w, b):
        return torch.func.grad(
            lambda h: xent.linear_cross_entropy(h, w, target, linear_bias=b, label_smoothing=0.1)
        )(h)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    close(compiled(h, w, b), function(h, w, b))


class Head(torch.nn.Module):
    def __init__(self, w, b):
        super().__init__()
        self.w, self.b = torch.nn.Parameter(w.detach()), torch.nn.Parameter(b.detach())

    def forward(self, h, target):
        return xent.linear_cross_entropy(
            h, self.w, target, linear_bias=self.b, label_smoothing=0.1, z_loss=0.01
        )


@pytest.mark.filterwarnings(ON_ITS_OWN)
@pytest.mark.parametrize("strict", [True, False])
def test_what_is_exported_runs_and_needs_no_operator(rng, strict):
    h, w, b, target = arrays_of(rng)
    head = Head(w, b)
    program = torch.export.export(head, (h.detach(), target), strict=strict)
    other = arrays_of(rng)[0].detach(), target.roll(1)
    for again in (program, program.run_decompositions()):
        names = [str(node.target) for node in again.graph.nodes]
        assert not [name for name in names if name.startswith("xent")]
        for given in ((h.detach(), target), other):
            close(again.module()(*given), head(*given))
