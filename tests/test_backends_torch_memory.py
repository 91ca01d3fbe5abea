"""What is kept and what is allocated, where a gradient lies in memory, and that bits repeat."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import xent

N, V = 500, 4000
Y = torch.arange(N)
SMALL = xent.Plan(chunk_bytes=2**19)
LOSSES = {
    "indices": lambda x: xent.cross_entropy(x, Y, plan=SMALL),
    "options": lambda x: xent.cross_entropy(
        x, Y, x[0].detach(), label_smoothing=0.1, z_loss=0.1, softcap=30.0, plan=SMALL
    ),
    "nll": lambda x: xent.nll_loss(x, Y, plan=SMALL),
    "logsumexp": lambda x: xent.logsumexp(x, plan=SMALL).sum(),
    "statistics": lambda x: sum(s.sum() for s in xent.token_statistics(x, Y, plan=SMALL)[:3]),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Allocations(TorchDispatchMode):
    """Counts the bytes of what operations allocate, while it lives."""

    def __init__(self):
        super().__init__()
        self.live = self.most = 0

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        known = {s._cdata for s in storages(arguments)}
        for storage in storages(result):
            if storage._cdata not in known:
                known.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.most = max(self.most, self.live)
        return result

    def free(self, size):
        self.live -= size


def storages(value):
    if isinstance(value, torch.Tensor):
        return [value.untyped_storage()]
    return [s for v in value for s in storages(v)] if isinstance(value, (list, tuple)) else []


def peak(function) -> int:
    """The most bytes that live at once of those that a call allocates."""
    with Allocations() as allocations:
        function()
    return allocations.most


def saved_by(function):
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t), t)[1], lambda t: t):
        function()
    return saved


def test_the_peak_is_known_where_it_is_known():
    size = 4 * 1_000_000
    assert size <= peak(lambda: torch.ones(1_000_000)) < 1.01 * size
    assert 2 * size <= peak(lambda: (torch.ones(1_000_000) + 1) * 2 + 1) < 2.01 * size
    x = torch.randn(500, 1000, requires_grad=True)
    unfused = peak(lambda: F.cross_entropy(x, torch.arange(500)).backward()) / (4 * x.numel())
    assert unfused > 1.9  # torch's own: a log-softmax, and at least its gradient


@pytest.mark.parametrize("name", LOSSES)
def test_forward_and_backward_allocate_one_gradient_and_some_blocks(name):
    x, one = torch.randn(N, V, requires_grad=True), 4 * N * V
    assert one <= peak(lambda: LOSSES[name](x).backward()) <= one + 10 * SMALL.chunk_bytes


@pytest.mark.parametrize("function", [xent.softmax, xent.log_softmax], ids=lambda f: f.__name__)
def test_a_softmax_allocates_its_result_and_some_blocks(function):
    x, upstream = torch.randn(N, V, requires_grad=True), torch.randn(N, V)
    one, blocks = 4 * N * V, 10 * SMALL.chunk_bytes
    assert one <= peak(lambda: function(x.detach(), plan=SMALL)) <= one + blocks
    y = function(x, plan=SMALL)
    assert one <= peak(lambda: torch.autograd.grad(y, x, upstream)) <= one + blocks


def test_the_library_chooses_blocks_of_two_megabytes():
    x, y = torch.randn(2000, 5000, requires_grad=True), torch.arange(2000)
    one, blocks = 4 * 2000 * 5000, 10 * 2**21
    assert peak(lambda: xent.cross_entropy(x.detach(), y)) <= blocks
    assert one <= peak(lambda: xent.cross_entropy(x, y).backward()) <= one + blocks


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("layout", ["plain", "transposed"])
def test_numbers_per_row_are_all_that_is_saved_beside_the_logits(name, layout):
    x = torch.randn(N, 900) if layout == "plain" else torch.randn(900, N).T
    saved = saved_by(lambda: LOSSES[name](x.requires_grad_()))
    storage = x.untyped_storage().data_ptr()
    others = [t for t in saved if t.untyped_storage().data_ptr() != storage]
    assert len(others) < len(saved)
    assert all(t.numel() <= 900 for t in others)


def test_a_sequence_of_tokens_is_saved_as_it_lies():
    x = torch.randn(4, 50, 30).transpose(1, 2).requires_grad_()
    y = torch.zeros(4, 50, dtype=torch.int64)
    for function in (
        lambda x: xent.cross_entropy(x, y),
        lambda x: xent.softmax(x, 1),
        lambda x: xent.log_softmax(x, 1),
    ):
        saved = saved_by(lambda function=function: function(x))
        own = [t for t in saved if t.data_ptr() == x.data_ptr()]
        assert own
        assert all(t.numel() <= 200 for t in saved if t.data_ptr() != x.data_ptr())


LAYOUTS = {
    "plain": lambda: torch.randn(6, 5),
    "transposed": lambda: torch.randn(5, 6).T,
    "large, transposed": lambda: torch.randn(300, 1500).T,
    "volume": lambda: torch.randn(2, 5, 3, 4),
    "channels last": lambda: torch.randn(2, 5, 3, 4).to(memory_format=torch.channels_last),
    "large, channels last": lambda: torch.randn(8, 40, 60, 60).to(
        memory_format=torch.channels_last
    ),
    "tokens": lambda: torch.randn(4, 7, 5).transpose(1, 2),
    "five axes": lambda: torch.randn(2, 5, 2, 3, 2).to(memory_format=torch.channels_last_3d),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_and_softmaxes_lie_in_memory_as_the_logits(layout):
    x = LAYOUTS[layout]().requires_grad_()
    shape = (x.shape[0], *x.shape[2:])
    y = torch.zeros(shape, dtype=torch.int64)
    p = torch.softmax(torch.randn(x.shape), 1)
    for loss in (
        lambda x: xent.cross_entropy(x, y),
        lambda x: xent.cross_entropy(x, p),
        lambda x: xent.nll_loss(x, y),
        lambda x: xent.softmax(x, 1).pow(2).sum(),
        lambda x: xent.log_softmax(x, 1).sum(),
    ):
        (g,) = torch.autograd.grad(loss(x), x)
        assert g.stride() == x.stride()
    for ours, plain in ((xent.softmax, F.softmax), (xent.log_softmax, F.log_softmax)):
        result = ours(x, 1)
        assert result.stride() == x.stride()
        torch.testing.assert_close(result, plain(x, 1), check_stride=False)


def test_logits_with_gaps_have_a_gradient_without():
    x = torch.randn(12, 10)[::2, ::2].requires_grad_()
    (g,) = torch.autograd.grad(xent.cross_entropy(x, torch.arange(6) % 5), x)
    assert g.is_contiguous()


BITS = {
    "indices": lambda x, y, p: xent.cross_entropy(x, y, label_smoothing=0.1, reduction="none"),
    "probabilities": lambda x, y, p: xent.cross_entropy(x, p, reduction="none"),
    "softmax": lambda x, y, p: xent.softmax(x),
    "log-softmax": lambda x, y, p: xent.log_softmax(x),
    "entropy": lambda x, y, p: xent.token_statistics(x, y).entropy,
    "binary": lambda x, y, p: xent.binary_cross_entropy_with_logits(x, p, reduction="none"),
}


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(20, 15001), (3000, 7)], ids=str)
def test_bits_are_the_same_whatever_runs_beside(rng, name, dtype, shape):
    x = torch.from_numpy(rng.normal(0, 5, shape)).to(dtype)
    y = torch.from_numpy(rng.integers(0, shape[1], shape[0]))
    p = torch.from_numpy(rng.random(shape)).to(dtype)

    def both(rows, copy=lambda t: t):
        leaf = copy(x)[rows].detach().requires_grad_()
        value = BITS[name](leaf, y[rows], p[rows])
        (g,) = torch.autograd.grad(value, leaf, torch.full_like(value, 0.3))
        return value.detach(), g

    every, alone, rest = slice(None), slice(3, 4), slice(1, None)
    right = both(every)
    torch.set_num_threads(2)
    others = [(rows, both(rows)) for rows in (every, alone, rest)]
    for rows, results in others:
        for got, whole in zip(results, right, strict=True):
            assert torch.equal(got, whole[rows])
    for got, whole in zip(both(every, lambda t: t.T.contiguous().T), right, strict=True):
        torch.testing.assert_close(got, whole)  # another layout is added up in another order
