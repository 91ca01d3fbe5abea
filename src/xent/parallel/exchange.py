"""What processes tell each other: that they make the same call, the numbers of rows, and totals.

A call's description (shapes, dtypes, options, classes of the shard) travels through the group's
store, and only where it is another than that of the call before: as long as calls are the same on
all processes, all of them know when this is. Shapes that differ would otherwise end a collective
in a crash of one process, or in numbers that mean nothing.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import array_api_compat.torch as xp
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from xent.ops.exact import row_sum
from xent.parallel import checks

EXACT = 1 << 52  # integers below it are float64
STRIDE = 4093


class _Agreed:
    """What the processes of a group last agreed upon, and how often they did."""

    def __init__(self) -> None:
        self.mine: dict = {}
        self.places: list[slice] = []
        self.times = 0


_AGREED: WeakKeyDictionary[ProcessGroup, _Agreed] = WeakKeyDictionary()


def group_of(name: str) -> ProcessGroup:
    """The process group of a name."""
    resolve: Any = dist.distributed_c10d._resolve_process_group  # pyright: ignore
    return resolve(name)


def agree(function: str, group: ProcessGroup, call: dict) -> list[slice]:
    """The classes of each process, after every process has described the same call."""
    known = _AGREED.setdefault(group, _Agreed())
    if call == known.mine:
        return known.places
    calls = _told(function, group, json.dumps(call), known)
    checks.alike(function, calls, group.rank())
    known.mine = call
    known.places = [slice(c["first"], c["first"] + c["count"]) for c in calls]
    return known.places


def _told(function: str, group: ProcessGroup, text: str, known: _Agreed) -> list[dict]:
    """What each process says of its call."""
    if group.size() == 1:
        return [json.loads(text)]
    known.times, rank, store = known.times + 1, group.rank(), group.get_group_store()
    keys = [f"xent/{known.times}/{r}" for r in range(group.size())]
    store.set(keys[rank], text)
    waited = _timeout(group)
    try:
        store.wait(keys, waited)
    except RuntimeError as error:
        checks.silent(function, waited.total_seconds(), error)
    # Whoever waited here has read all that was told before.
    store.delete_key(f"xent/{known.times - 1}/{rank}")
    return [json.loads(store.get(key)) for key in keys]


def _timeout(group: ProcessGroup) -> timedelta:
    device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
    return group._get_backend(device).options._timeout


def checksum(codes: Tensor | None) -> int | Tensor:
    """A number that tells class indices apart, exact in float64: every process is to have the same
    targets."""
    if codes is None:
        return 0
    flat = codes.reshape(-1)
    times = torch.arange(flat.shape[0], device=flat.device) % STRIDE + 1
    return ((flat + 7) * times).sum() % EXACT


def gathered(group: ProcessGroup, numbers: Tensor) -> Tensor:
    """(L,) of each process -> (W, L), in one collective."""
    size = group.size()
    found = numbers.new_empty((size, *numbers.shape))
    # torch 2.13 has another name for it.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(found.view(-1), numbers, group=group)
    return found


def same(function: str, told: Tensor) -> None:
    """That all processes told the same number, without waiting for a GPU."""
    text = f"{function}: target has other class indices on other ranks, expected the same on each"
    torch._assert_async((told == told[0]).all(), text)  # pyright: ignore


class _Totals(torch.autograd.Function):
    """Sums over processes, the same bits on each; the derivative is that by one's own share."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, name: str) -> Tensor:  # pyright: ignore
        return _sums(numbers, name)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:  # pyright: ignore
        return upstream, None


def totals(group: ProcessGroup, numbers: Tensor) -> Tensor:
    """(M,) -> (M,) the sums over the processes of a group, in one collective."""
    name = group.group_name
    if torch.compiler.is_compiling():
        return _operator(numbers, name)
    return _Totals.apply(numbers, name)


def _sums(numbers: Tensor, name: str) -> Tensor:
    return row_sum(xp, gathered(group_of(name), numbers.contiguous()).T).contiguous()


@torch.library.custom_op("xent::totals", mutates_args=())
def _operator(numbers: Tensor, name: str) -> Tensor:
    return _sums(numbers, name)


@_operator.register_fake
def _(numbers: Tensor, name: str) -> Tensor:
    return torch.empty_like(numbers)


_operator.register_autograd(lambda ctx, upstream: (upstream, None))
