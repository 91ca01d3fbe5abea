"""What autograd does around a loss: hooks, threads, checkpoints, in-place writes, frozen inputs."""

from __future__ import annotations

import itertools
import math
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import xent

sys.path.insert(0, str(Path(__file__).parent))
from torch_cases import CASES

EACH = pytest.mark.parametrize("name", CASES)
SEVERAL = pytest.mark.parametrize(
    "name", [n for n in CASES if n.startswith(("prob", "norm", "binary"))]
)
UNUSED = {"allow_unused": True, "materialize_grads": True}


def total(result):
    return sum(r.sum() for r in (result if isinstance(result, tuple) else (result,)))


def close(got, right):
    torch.testing.assert_close(got, right, rtol=1e-11, atol=1e-13, check_stride=False)


def gradients(case):
    arrays = case.leaves()
    return torch.autograd.grad(total(case.plain(*arrays)), arrays, **UNUSED)


@pytest.fixture
def batch(rng):
    """Logits (a leaf), targets, and torch's gradient of the mean."""
    x = torch.from_numpy(rng.normal(size=(4, 3))).requires_grad_()
    y = torch.from_numpy(rng.integers(0, 3, 4))
    return x, y, torch.autograd.grad(F.cross_entropy(x, y), x)[0]


@SEVERAL
def test_any_of_the_inputs_may_be_frozen(rng, name):
    case = CASES[name](rng)
    right = gradients(case)
    for wanted in itertools.product([True, False], repeat=len(case.arrays)):
        arrays = [a.clone().requires_grad_(w) for a, w in zip(case.arrays, wanted, strict=True)]
        result = case.ours(*arrays)
        assert result.requires_grad == any(wanted)
        if any(wanted):
            total(result).backward()
        for array, g, w in zip(arrays, right, wanted, strict=True):
            assert (array.grad is not None) == w
            if w:
                close(array.grad, g)


@EACH
def test_without_a_graph(rng, name):
    case = CASES[name](rng)
    right = case.ours(*case.arrays)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            result = case.ours(*case.leaves())
        assert not total(result).requires_grad
        torch.testing.assert_close(result, right, rtol=0, atol=0)


@EACH
def test_a_checkpoint_unpacks_what_is_saved_only_once(rng, name):
    case = CASES[name](rng)
    right = gradients(case)
    for reentrant in (False, True):
        arrays = case.leaves()
        # Of intermediate results: those a checkpoint does not keep.
        loss = checkpoint(
            lambda *a: total(case.ours(*(1.0 * v for v in a))), *arrays, use_reentrant=reentrant
        )
        loss.backward()
        close(tuple(a.grad for a in arrays), right)


def test_saved_tensors_may_live_elsewhere(batch):
    x, y, right = batch
    packed = []

    def pack(tensor):
        packed.append(tensor.clone())
        return len(packed) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda i: packed[i]):
        loss = xent.cross_entropy(x, y)
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    close(g.detach(), right)


def test_backward_in_another_thread(batch):
    x, y, right = batch
    loss = xent.cross_entropy(x, y)
    other = threading.Thread(target=loss.backward)
    other.start()
    other.join()
    close(x.grad, right)


def test_many_threads_at_once(rng):
    x = torch.from_numpy(rng.normal(size=(8, 30, 7)))
    y = torch.from_numpy(rng.integers(0, 7, (8, 30)))
    found = [None] * 8

    def work(i):
        leaf = x[i].clone().requires_grad_()
        xent.cross_entropy(leaf, y[i], label_smoothing=0.1).backward()
        found[i] = leaf.grad

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        leaf = x[i].clone().requires_grad_()
        F.cross_entropy(leaf, y[i], label_smoothing=0.1).backward()
        close(found[i], leaf.grad)


def test_hooks_see_and_change_gradients(batch):
    x, y, right = batch
    seen = []
    x.register_hook(lambda g: seen.append(g) or 10 * g)
    hidden = 2 * x
    hidden.retain_grad()
    xent.cross_entropy(hidden / 2, y).backward()
    close(seen[0], right)
    close(hidden.grad, right / 2)
    close(x.grad, 10 * right)


def test_gradients_accumulate(batch):
    x, y, right = batch
    for _ in range(3):
        xent.cross_entropy(x, y).backward()
    close(x.grad, 3 * right)


def test_anomaly_detection_finds_nothing(batch):
    x, y, right = batch
    with (
        pytest.warns(UserWarning, match="Anomaly Detection has been enabled"),
        torch.autograd.detect_anomaly(),
    ):
        xent.cross_entropy(x, y).backward()
    close(x.grad, right)


def test_results_may_be_written_to(batch):
    x, y, _ = batch
    for ours, plain in (
        (xent.softmax, lambda x: F.softmax(x, -1)),
        (xent.log_softmax, lambda x: F.log_softmax(x, -1)),
        (
            lambda x: xent.cross_entropy(x, y, reduction="none"),
            lambda x: F.cross_entropy(x, y, reduction="none"),
        ),
    ):
        results = ours(x), plain(x).clone()
        for result in results:
            result[0] = 0
            result.mul_(2)
        close(*(torch.autograd.grad(result.pow(2).sum(), x)[0] for result in results))


@pytest.mark.parametrize("written", ["logits", "weight"])
def test_what_the_backward_needs_may_not_be_written_to(batch, written):
    x, y, right = batch
    for plan in (None, xent.Plan(gradient="recompute")):
        logits, weight = 1 * x, torch.ones(3, dtype=torch.float64)
        loss = xent.cross_entropy(logits, y, weight, plan=plan)
        {"logits": logits, "weight": weight}[written].detach().mul_(2)
        made = type(loss.grad_fn).__name__ == "_FusedBackward"
        if made:  # with the loss
            loss.backward()
            close(x.grad, right)
            x.grad = None
            continue
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_target_written_to_later_is_the_target_as_it_was(batch):
    x, y, right = batch
    loss = xent.cross_entropy(x, y)
    y.fill_(0)
    loss.backward()
    close(x.grad, right)


def test_nothing_given_is_changed(rng):
    x = torch.from_numpy(rng.normal(size=(4, 3))).requires_grad_()
    p, w = torch.rand(4, 3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    upstream = torch.from_numpy(rng.normal(size=4))
    before = [t.detach().clone() for t in (x, p, w, upstream)]
    loss = xent.cross_entropy(x, p, w, reduction="none", label_smoothing=0.1)
    torch.autograd.grad(loss, x, upstream, create_graph=True)[0].sum().backward()
    for tensor, was in zip((x, p, w, upstream), before, strict=True):
        assert torch.equal(tensor.detach(), was)


def test_expanded_logits_and_upstreams(rng):
    row = torch.from_numpy(rng.normal(size=3)).requires_grad_()
    column = torch.from_numpy(rng.normal(size=(4, 1))).requires_grad_()
    y = torch.tensor([0, 2, 1, 1])
    for leaf, logits in ((row, row.expand(4, 3)), (column, column.expand(4, 3))):
        got, right = (
            torch.autograd.grad(
                loss(logits, y, reduction="none"), leaf, torch.tensor(3.0).double().expand(4)
            )[0]
            for loss in (xent.cross_entropy, F.cross_entropy)
        )
        close(got, right)
    x = torch.from_numpy(rng.normal(size=(4, 3))).requires_grad_()
    upstream = torch.from_numpy(rng.normal(size=(1, 3))).expand(4, 3)
    for ours, plain in ((xent.softmax, F.softmax), (xent.log_softmax, F.log_softmax)):
        got, right = (torch.autograd.grad(f(x, -1), x, upstream)[0] for f in (ours, plain))
        close(got, right)


def test_an_upstream_for_each_row(rng):
    x = torch.from_numpy(rng.normal(size=(4, 3))).requires_grad_()
    y, upstream = torch.tensor([0, 2, 1, 1]), torch.tensor([3.0, -7.0, 0.0, 1e-3]).double()
    got, right = (
        torch.autograd.grad(loss(x, y, reduction="none"), x, upstream)[0]
        for loss in (xent.cross_entropy, F.cross_entropy)
    )
    close(got, right)
    assert not got[2].any()


def test_a_chunk_is_no_part_of_the_answer(rng):
    x = torch.from_numpy(rng.normal(size=(50, 2, 20))).transpose(1, 2).requires_grad_()
    p = torch.from_numpy(rng.dirichlet([1.0] * 20, (50, 2))).transpose(1, 2).requires_grad_()
    w = torch.from_numpy(rng.random(20)).requires_grad_()
    upstream = torch.from_numpy(rng.normal(size=(50, 2)))

    def all_of_it(size):
        plan = None if size is None else xent.Plan(chunk_bytes=size)
        options = {"label_smoothing": 0.1, "z_loss": 0.1, "reduction": "none"}
        loss = xent.cross_entropy(x, p, w, plan=plan, **options)
        return loss.detach(), *torch.autograd.grad(loss, (x, p, w), upstream)

    whole = all_of_it(None)
    for size in (1, 160, 900, 5000):
        loss, dlogits, dtarget, dweight = all_of_it(size)
        for got, right in zip((loss, dlogits, dtarget), whole, strict=False):
            assert torch.equal(got, right)
        torch.testing.assert_close(dweight, whole[3], rtol=1e-14, atol=1e-14)  # terms cancel


def test_deterministic_algorithms_are_all_there_is(batch):
    x, y, right = batch
    torch.use_deterministic_algorithms(True)
    try:
        for function in (xent.softmax, xent.log_softmax, xent.logsumexp):
            total(function(x)).backward()
        x.grad = None
        xent.cross_entropy(x, y).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    close(x.grad, right)


def test_parameters_and_losses_that_are_infinite():
    x = torch.nn.Parameter(torch.tensor([[0.0, -math.inf, 1.0]], dtype=torch.float64))
    loss = xent.cross_entropy(x, torch.tensor([1]))
    loss.backward()
    assert type(loss) is torch.Tensor
    assert type(x.grad) is torch.Tensor
    assert loss.item() == math.inf
    p = 1 / (1 + math.exp(1))
    close(x.grad, torch.tensor([[p, -1.0, 1 - p]], dtype=torch.float64))
