"""What the tests of xent.parallel run on the processes of `parallel_ranks`, beside whole cases."""

from __future__ import annotations

import datetime
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist

import xent
import xent.parallel as parallel
from xent.parallel import Shard, balanced

KINDS = {"all_gather_single", "all_gather_into_tensor", "all_reduce"}


@contextmanager
def counted() -> Iterator[list]:
    """The collectives that are called meanwhile: kind, and bytes that a process gives."""
    found: list = []

    def watching(name: str, function: Any) -> Any:
        def called(*arguments: Any, **named: Any) -> Any:
            given = arguments[-1] if name.startswith("all_gather") else arguments[0]
            found.append(
                (name.split("_in")[0].split("_si")[0], given.numel() * given.element_size())
            )
            return function(*arguments, **named)

        return called

    there = {n: getattr(dist, n) for n in KINDS if hasattr(dist, n)}
    with mock.patch.multiple(dist, **{n: watching(n, f) for n, f in there.items()}):
        yield found


def raised(call: Any) -> str:
    """The error that a call ends in, as a text."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def own(group: Any, classes: int) -> tuple[slice, Shard]:
    at = balanced(classes, group.size())[group.rank()]
    return at, Shard(group, at.start, classes)


def rows_counted(group: Any, logits: np.ndarray, target: np.ndarray, options: dict) -> list:
    """The collectives of two losses of logits, forward and backward."""
    at, shard = own(group, logits.shape[1])
    x = torch.tensor(logits)[:, at].clone().requires_grad_()
    t = torch.tensor(target)
    t = t[:, at] if t.ndim == 2 else t
    options = {n: torch.tensor(v) if isinstance(v, np.ndarray) else v for n, v in options.items()}
    with counted() as found:
        for _ in range(2):
            loss = parallel.cross_entropy(x, t, shard=shard, **options)
            found.append("forward")
            loss.sum().backward()
    return found


def head_counted(group: Any, arrays: dict, plan: Any = None, dtype: Any = None) -> tuple:
    """Collectives of a linear head, the order in which what happened, loss and gradients."""
    from xent.parallel import linear

    at, shard = own(group, len(arrays["linear_weight"]))
    h = torch.tensor(arrays["hidden"]).to(dtype).requires_grad_()
    w = torch.tensor(arrays["linear_weight"])[at].to(dtype).requires_grad_()
    order: list[str] = []
    send, receive, add = linear._Reduced._send, linear._Reduced._receive, linear.Sums.add

    def told(name: str, function: Any) -> Any:
        def called(self: Any, *given: Any) -> Any:
            order.append(name if name != "add" else f"add {''.join('ft'[w] for w in self.wanted)}")
            return function(self, *given)

        return called

    with (
        counted() as found,
        mock.patch.object(linear._Reduced, "_send", told("send", send)),
        mock.patch.object(linear._Reduced, "_receive", told("receive", receive)),
        mock.patch.object(linear.Sums, "add", told("add", add)),
    ):
        target = torch.tensor(arrays["target"])
        loss = parallel.linear_cross_entropy(h, w, target, shard=shard, plan=plan)
        loss.backward()
    grads = h.grad.float().numpy(force=True), w.grad.float().numpy(force=True)
    return found, order, loss.item(), *grads


def low_rank(group: Any, arrays: dict) -> list:
    """A loss of an adapter's head and its gradients; where group is None, on one process."""
    at, shard = (slice(None), None) if group is None else own(group, len(arrays["weight"]))
    given = {n: torch.tensor(v) for n, v in arrays.items()}
    h, a = given["hidden"].requires_grad_(), given["a"].requires_grad_()
    w, b = (given[n][at].clone().requires_grad_() for n in ("weight", "b"))
    head = xent.LowRank(w, a, b, 1.5)
    if group is None:
        loss = xent.linear_cross_entropy(h, head, given["target"])
    else:
        loss = parallel.linear_cross_entropy(h, head, given["target"], shard=shard)
    loss.backward()
    return [loss.item(), *(t.grad.numpy(force=True) for t in (h, a, w, b))]


def differing(group: Any, what: str, n: int) -> str:
    """The error where rank 1 calls otherwise, n rows being other than before on every rank."""
    odd, (at, shard) = group.rank() == 1, own(group, 10)
    x, t = torch.zeros(n, at.stop - at.start), torch.arange(n) % 10
    options: dict[str, Any] = {}
    if what == "rows":
        x, t = (x[1:], t[1:]) if odd else (x, t)
    elif what == "option":
        options["label_smoothing"] = 0.2 if odd else 0.1
    elif what == "dtype":
        t, options["weight"] = t, torch.ones(10) if odd else None
    elif what == "target":
        t = t.flip(0) if odd else t
    elif what == "first":
        shard = Shard(group, at.start + odd, 10)
        x = x[:, : 10 - shard.first]
    elif what == "count":
        x = x[:, odd:]
    elif what == "hidden":
        h, w = torch.zeros(n, 3).requires_grad_(odd), torch.zeros(at.stop - at.start, 3)
        return raised(lambda: parallel.linear_cross_entropy(h, w, t, shard=shard))
    return raised(lambda: parallel.cross_entropy(x, t, shard=shard, **options))


def after(group: Any) -> float:
    """A call that is right, after calls that were not."""
    at, shard = own(group, 10)
    return parallel.cross_entropy(
        torch.zeros(4, at.stop - at.start), torch.arange(4), shard=shard
    ).item()


def twice(group: Any) -> list[str]:
    """The errors of derivatives that are not served."""
    at, shard = own(group, 6)
    x, t = torch.randn(3, 6)[:, at].clone().requires_grad_(), torch.arange(3)

    def loss(x: Any) -> Any:
        return parallel.cross_entropy(x, t, shard=shard)

    def second() -> None:
        (dx,) = torch.autograd.grad(loss(x), x, create_graph=True)
        dx.square().sum().backward()

    return [
        raised(second),
        raised(lambda: torch.func.jvp(loss, (x.detach(),), (x.detach(),))),
        raised(lambda: torch.func.grad(loss)(x.detach())),
    ]


def half(group: Any, logits: np.ndarray, target: np.ndarray, dtype: Any) -> tuple:
    at, shard = own(group, logits.shape[1])
    x = torch.tensor(logits).to(dtype)[:, at].clone().requires_grad_()
    loss = parallel.cross_entropy(x, torch.tensor(target), shard=shard)
    loss.backward()
    return str(loss.dtype), loss.item(), x.grad.float().numpy(force=True)


def compiled(group: Any, logits: np.ndarray, weight: np.ndarray, target: np.ndarray) -> list:
    """Losses and gradients of logits and of a head, compiled in one piece, beside eager ones."""
    at, shard = own(group, logits.shape[1])
    t, found = torch.tensor(target), []

    def rows(x: Any) -> Any:
        return parallel.cross_entropy(x * 1.0, t, shard=shard, label_smoothing=0.1, z_loss=0.01)

    def head(w: Any) -> Any:
        return parallel.linear_cross_entropy(h * 2.0, w, t, shard=shard).exp()

    def over(x: Any) -> Any:
        return parallel.cross_entropy(x.sin(), t, rows=group)

    h = torch.tensor(logits[:, : weight.shape[1]]).clone().requires_grad_()
    x = torch.tensor(logits)
    cases = ((rows, x[:, at]), (head, torch.tensor(weight)[at]), (over, x))
    for function, array in cases:
        for call in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
            leaf, h.grad = array.clone().requires_grad_(), None
            value = call(leaf)
            value.backward()
            dh = None if h.grad is None else h.grad.numpy(force=True)
            found.append((value.item(), leaf.grad.numpy(force=True), dh))
    return found


def mean_over_rows(group: Any, arrays: dict, counts: list[int], options: dict) -> tuple:
    """A mean over rows of which each process has some, ignored ones among them."""
    ends = np.cumsum([0, *counts])
    cut = slice(int(ends[group.rank()]), int(ends[group.rank() + 1]))
    given = {n: torch.tensor(np.asarray(v)) for n, v in arrays.items()}
    h = given["hidden"][cut].clone().requires_grad_()
    x = given["logits"][cut].clone().requires_grad_()
    w, t = given["linear_weight"].requires_grad_(), given["target"][cut]
    loss = parallel.cross_entropy(x, t, given.get("weight"), rows=group, **options)
    loss.backward(torch.tensor(1.5).double())
    other = parallel.linear_cross_entropy(
        h, w, t, weight=given.get("weight"), rows=group, **options
    )
    other.backward()
    dist.all_reduce(w.grad, group=group)
    return (
        loss.item(),
        x.grad.numpy(force=True),
        other.item(),
        h.grad.numpy(force=True),
        w.grad.numpy(force=True),
    )


def images(group: Any, arrays: dict, whole: bool) -> tuple:
    """A loss of logits (N, C, d) under class weights, and the error of a class that is none."""
    at, shard = own(group, arrays["logits"].shape[1])
    x = torch.tensor(arrays["logits"])[:, at].clone().requires_grad_()
    weight, t = torch.tensor(arrays["weight"]), torch.tensor(arrays["target"])
    weight = weight if whole else weight[at]
    loss = parallel.cross_entropy(x, t, weight, shard=shard, label_smoothing=0.1)
    loss.backward()
    wrong = torch.full_like(t, shard.classes)
    text = raised(lambda: parallel.cross_entropy(x, wrong, shard=shard))
    return loss.item(), x.grad.numpy(force=True), text


def dying(rank: int, folder: str, when: str, pipe: Any) -> None:
    """One process of three, of which the second dies, sleeps or calls otherwise in between."""
    torch.set_num_threads(1)
    wait = datetime.timedelta(seconds=4)
    store = dist.FileStore(f"{folder}/store", 3)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=3, timeout=wait)
    group: Any = dist.group.WORLD
    shard, x, t = Shard(group, 2 * rank, 6), torch.zeros(2, 2), torch.arange(2)
    assert parallel.cross_entropy(x, t, shard=shard).item() == pytest.approx(math.log(6))
    pipe.send("ready")
    start = time.monotonic()
    if rank == 1 and when.startswith("before"):
        os._exit(1)
    if rank == 1 and when == "not: it sleeps":
        time.sleep(9)  # it lives, and calls nothing
        os._exit(0)
    if when == "before another call" or (rank == 1 and when == "not: it calls otherwise"):
        x, t = torch.zeros(5, 2), torch.arange(5)
    pipe.send((raised(lambda: parallel.cross_entropy(x, t, shard=shard)), time.monotonic() - start))
    os._exit(0)
