"""Row statistics of a linear head whose classes are split over processes, under autograd.

The logits here are those of the weights here: they are made a tile at a time, twice, and their
statistics merged as those of logits are (`statistics.py`). The gradient by the weights is complete
where the weights are. That by the hidden states is a sum over processes: it is sent off, in the
dtype of products, as soon as it is complete here, while the weights' last product is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import array_api_compat.torch as xp
import torch
import torch.distributed as dist
from torch import Tensor

from xent.backends import torch_registered as registered
from xent.backends.torch_linear_device import engine_of
from xent.ops import Result
from xent.ops.linear import LinearStats
from xent.ops.slabs import Slab, finish
from xent.ops.stats import RowStats
from xent.ops.tiles import Engine, Sums
from xent.parallel import exchange
from xent.parallel.statistics import Split, merged_over, way
from xent.spec import Plan


@dataclass(frozen=True)
class ShardLinear:
    """The op: `LinearStats` of which each process has the weights of some classes.

    Its arrays are those of `LinearStats`, of the classes here but for codes, which are of all. Its
    residuals are those of `LinearStats`, and the mass of the target and the sum of class weights.
    """

    stats: RowStats = field(default_factory=RowStats)
    products: int = 1
    split: Split = field(default_factory=Split)

    outputs = 4

    @property
    def here(self) -> _Here:
        return _Here(self.stats, self.products, self.split)

    def forward(self, arrays: tuple, plan: Plan | None) -> Result:
        (hidden, linear_weight), (target, weight) = arrays[:2], arrays[-2:]
        engine = engine_of(plan, hidden)
        part = self.here.slab(arrays, engine)
        at, classes = self.split.at(linear_weight.shape[0]), self.split.classes
        whole = merged_over(self.split, self.stats, part, target, weight, at)
        outputs, (k, tail, top, entropy) = finish(xp, whole, target, classes)
        entropy = None if entropy is None else entropy.clone()
        share = torch.zeros_like(tail) + whole.share
        return Result(outputs, (k, tail, top, entropy, whole.mass, share))

    def vjp(
        self, arrays: tuple, residuals: tuple, cotangents: tuple, wanted: tuple, plan: Plan | None
    ) -> tuple:
        engine = engine_of(plan, arrays[0])
        return self.here.vjp(xp, arrays, residuals, cotangents, wanted, engine)


@dataclass(frozen=True)
class _Here(LinearStats):
    """The part of the op that this process computes."""

    split: Split = field(default_factory=Split)

    def place(self, slab: slice) -> slice:
        return slice(self.split.first + slab.start, self.split.first + slab.stop)

    def count(self, classes: int) -> int:
        return self.split.classes

    def slab(self, arrays: tuple, engine: Engine) -> Slab:
        """The statistics over the classes here, of all rows."""
        kept = engine.kept(arrays[-2])
        if kept is None:
            return self._slab(xp, arrays, engine)
        *part, share = self._slab(xp, self._some(arrays, kept), engine)
        n = arrays[0].shape[0]
        return Slab(*[engine.spread(a, kept, n) for a in part], share=share)

    def sums(self, engine: Engine, arrays: tuple, wanted: tuple[bool, ...]) -> Any:
        sums, group = super().sums(engine, arrays, wanted), exchange.group_of(self.split.group)
        return sums if group.size() == 1 else _Reduced(sums, group, 2 * self.products)


class _Reduced:
    """The gradients of tiles added up, and those by hidden states over processes."""

    def __init__(self, sums: Sums, group: Any, pairs: int) -> None:
        self.sums, self.group = sums, group
        self.wanted = sums.wanted
        self.lefts = tuple(w and i % 2 == 0 and i < pairs for i, w in enumerate(sums.wanted))
        self.rest = tuple(w and not of for w, of in zip(sums.wanted, self.lefts, strict=True))
        self.at_once = type(sums) is Sums  # no scale is left for the end
        self.sent: Tensor | None = None
        self.work: Any = None

    def scaled(self, cotangents: tuple) -> tuple:
        return self.sums.scaled(cotangents)

    def close(self, slab: slice) -> None:
        self.sums.close(slab)

    def add(self, cut: slice, slab: slice, lefts: list, rights: list, made: tuple) -> None:
        sums, tile = self.sums, (cut, slab, lefts, rights, made)
        n, classes = sums.arrays[0].shape[0], sums.arrays[1].shape[0]
        if not self.at_once or not any(self.lefts) or (cut.stop, slab.stop) != (n, classes):
            sums.add(*tile)
            return
        opened, sums.open = sums.open, [None] * len(sums.open)
        sums.wanted = self.lefts
        sums.add(*tile)
        self._send(sums.sums)
        sums.wanted, sums.open = self.rest, opened
        sums.add(*tile)
        sums.wanted = self.wanted

    def gradients(self, upstream: Any = None) -> tuple:
        sums = self.sums
        if self.at_once:
            self._receive(sums.sums)
            return sums.gradients(upstream)
        sums.wanted = self.lefts
        found = list(sums.gradients(upstream))
        wide = [None if f is None else f.to(sums.work) for f in found]
        self._send(wide)
        sums.wanted = self.rest
        other = sums.gradients(upstream)
        self._receive(wide)
        return tuple(
            o if w is None else w.to(f.dtype) for f, w, o in zip(found, wide, other, strict=True)
        )

    def _send(self, found: list) -> None:
        """Begin to add up the gradients by hidden states over all processes."""
        parts = [found[i] for i, of in enumerate(self.lefts) if of]
        if not parts:
            return
        self.sent = parts[0] if len(parts) == 1 else torch.cat([p.reshape(-1) for p in parts])
        self.work = dist.all_reduce(self.sent, group=self.group, async_op=True)

    def _receive(self, found: list) -> None:
        """Wait for the sums, and put them in the place of one's own."""
        if self.work is None or self.sent is None:
            return
        self.work.wait()
        at, flat = 0, self.sent.reshape(-1)
        for i, of in enumerate(self.lefts):
            if of:
                size = found[i].numel()
                found[i] = flat[at : at + size].view(found[i].shape)
                at += size


def _outline(op: ShardLinear, arrays: tuple) -> tuple:
    lead, stats = (arrays[0].shape[0], 1), op.stats
    there = arrays[-2] is not None
    outputs = registered._numbers(lead, True, there, stats.smooth, stats.entropy)
    rest = registered._numbers(lead, True, True, stats.entropy, there, True)
    return *outputs, (lead, torch.int64), *rest


registered.WAYS[ShardLinear] = way(_outline)
registered.RECORDS |= {ShardLinear.__name__: ShardLinear}
