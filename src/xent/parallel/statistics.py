"""Row statistics of logits whose classes are split over processes, under autograd.

Each process has the statistics of its own classes (`xent.ops.slabs`); they are packed and gathered,
once, and merged alike on every process, to the same bits. The derivative by a process's own logits
needs nothing from the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import array_api_compat.torch as xp
import torch
from torch import Tensor

from xent.backends import torch as backend
from xent.backends import torch_registered as registered
from xent.kernels import ONLY_FIRST
from xent.ops import Result
from xent.ops.blocks import BLOCK_BYTES, Blocks
from xent.ops.slabs import (
    Slab,
    Whole,
    finish,
    inside_of,
    merged,
    share_of,
    silenced,
    slab_of,
    slab_vjp,
)
from xent.ops.stats import RowStats
from xent.parallel import checks, exchange
from xent.spec import Plan

HEADER = 2  # numbers beside those of rows: of the target, and the sum of class weights


@dataclass(frozen=True)
class Split:
    """How classes are split over a process group."""

    function: str = ""  # the public name, for error texts
    options: str = ""  # those of the call, to compare
    group: str = ""  # the name of the process group
    first: int = 0  # of the classes here
    classes: int = 0  # everywhere

    def at(self, count: int) -> slice:
        return slice(self.first, self.first + count)


class RowEngine:
    """How the statistics of logits that must be kept are computed: by a kernel, or the op's own
    array code."""

    xp = xp

    def __init__(self, plan: Plan | None) -> None:
        self.plan = plan
        size = None if plan is None else plan.chunk_bytes
        self.blocks = Blocks(BLOCK_BYTES if size is None else size, write=True)

    def forward(self, op: RowStats, arrays: tuple) -> Result:
        if kernel := backend.choose(op, arrays, self.plan):
            return kernel.forward(op, arrays, self.plan)
        return op.forward(xp, arrays, self.blocks)

    def vjp(self, op: RowStats, arrays: tuple, residuals: tuple, g: tuple, wanted: tuple) -> tuple:
        kernel = backend.choose(op, arrays, self.plan, wanted) if wanted == ONLY_FIRST else None
        if kernel:
            return kernel.vjp(op, arrays, residuals, g, self.plan), None, None
        return op.vjp(xp, arrays, residuals, g, wanted, self.blocks)


@dataclass(frozen=True)
class ShardStats:
    """The op: `RowStats` of logits of which each process has some classes.

    Its arrays are logits (N, D, C), the target as codes of all classes (N, D) or probabilities
    (N, D, C) or None, and class weight (C,) or None. Its residuals are argmax, tail, largest logit
    and entropy, the mass of the target, each (N, D), the sum of class weights, and the argmax, the
    tail, the largest logit, the entropy and the mass of the classes here.
    """

    stats: RowStats = field(default_factory=RowStats)
    split: Split = field(default_factory=Split)

    outputs = 4

    def forward(self, arrays: tuple, plan: Plan | None) -> Result:
        logits, target, weight = arrays
        at, classes = self.split.at(logits.shape[-1]), self.split.classes
        part = slab_of(RowEngine(plan), self.stats, logits, target, weight, at, classes)
        whole = merged_over(self.split, self.stats, part, target, weight, at)
        outputs, (k, tail, top, entropy) = finish(xp, whole, target, classes)
        share = None if weight is None else whole.share
        entropy = None if entropy is None else entropy.clone()
        here = (part.k, part.tail, part.top, part.entropy, part.mass)
        return Result(outputs, (k, tail, top, entropy, whole.mass, share, *here))

    def vjp(
        self, arrays: tuple, residuals: tuple, cotangents: tuple, wanted: tuple, plan: Plan | None
    ) -> tuple:
        logits, target, weight = arrays
        _, tail, top, entropy, mass, share, *here = residuals
        k, tail_here, top_here, entropy_here, mass_here = here
        at, classes = self.split.at(logits.shape[-1]), self.split.classes
        g = silenced(xp, target, cotangents)
        if at.start == at.stop:
            return tuple(
                torch.zeros_like(a) if w else None for a, w in zip(arrays, wanted, strict=True)
            )
        own = share_of(xp, weight, logits.shape[-1], tail.dtype)
        part = Slab(k, top_here, tail_here, None, None, entropy_here, mass_here, own)
        every = Whole(tail, top, entropy, mass, classes if share is None else share)
        found = slab_vjp(RowEngine(plan), self.stats, arrays, at, classes, part, every, g, wanted)
        return tuple(
            None if f is None else f.to(a.dtype) for f, a in zip(found, arrays, strict=True)
        )


def merged_over(
    split: Split, stats: RowStats, part: Slab, target: Any, weight: Any, at: slice
) -> Slab:
    """The statistics over the classes of all processes: one collective, and none for one alone."""
    group = exchange.group_of(split.group)
    like = part.top
    call = {
        "rows": like.numel(),
        "dtype": str(like.dtype),
        "target": "none" if target is None else f"{target.ndim}-d",
        "weight": str(weight is not None),
        "options": split.options,
        "classes": split.classes,
        "first": at.start,
        "count": at.stop - at.start,
    }
    places = exchange.agree(split.function, group, call)
    if group.size() == 1:
        return part
    fields = _fields(part, target, weight)
    codes = None if target is None or target.ndim == 3 else target
    head = like.new_zeros(HEADER)
    head[0] = exchange.checksum(codes)
    head[1] = part.share
    columns = [head, *(getattr(part, name).to(like.dtype).reshape(-1) for name in fields)]
    told = exchange.gathered(group, torch.cat(columns))
    exchange.same(split.function, told[:, 0])
    shaped = told[:, HEADER:].view(len(places), len(fields), *like.shape)
    found = dict(zip(fields, shaped.unbind(1), strict=True))
    whole = _all_of(found, told, places, target, weight)
    # Who has all classes may ask for their argmax, told or not.
    return whole._replace(k=part.k) if call["count"] == split.classes else whole


def _fields(part: Slab, target: Any, weight: Any) -> list[str]:
    """What is told of each row, less what is known or of no use."""
    known = {"share"}
    if weight is None and (target is None or target.ndim == 2):
        known.add("mass")
    if part.entropy is None:  # nobody asks for the argmax
        known.add("k")
    names = (name for name in part._fields if name not in known)
    return [name for name in names if getattr(part, name) is not None]


def _all_of(found: dict, told: Tensor, places: list[slice], target: Any, weight: Any) -> Slab:
    """The slab of all classes from the numbers (W, N, D) of each, merged by pairs."""
    size, lead = len(places), (1,) * (found["top"].ndim - 1)
    if "mass" not in found and target is not None:
        inside = [inside_of(target, place) for place in places]
        found["mass"] = torch.stack(inside).to(told.dtype)
    shares = told[:, 1].view(size, *lead)
    found["k"] = found.get("k", torch.zeros_like(found["top"])).to(torch.int64)
    slab = Slab(**{name: found.get(name) for name in Slab._fields[:-1]}, share=shares)
    while size > 1:
        even, odd = (_every_other(slab, i, size // 2) for i in (0, 1))
        both = merged(xp, even, odd)
        if size % 2:
            both = Slab(*map(_with_last, both, slab))
        slab, size = both, size - size // 2
    total = slab.share.reshape(()) if weight is not None else places[-1].stop
    return Slab(*(None if a is None else a[0] for a in slab[:-1]), share=total)


def _every_other(slab: Slab, start: int, count: int) -> Slab:
    return Slab(*(None if a is None else a[start : 2 * count : 2] for a in slab))


def _with_last(some: Any, every: Any) -> Any:
    return None if some is None else torch.cat((some, every[-1:]))


class _Sharded(torch.autograd.Function):
    """An op of a split vocabulary; its derivatives are of first order, in reverse mode."""

    @staticmethod
    def forward(ctx: Any, op: Any, plan: Plan | None, *arrays: Any) -> tuple:  # pyright: ignore
        result = op.forward(arrays, plan)
        ctx.op, ctx.plan, ctx.count = op, plan, len(arrays)
        ctx.save_for_backward(*arrays, *result.residuals)
        ctx.mark_non_differentiable(*(r for r in result.residuals if r is not None))
        ctx.set_materialize_grads(False)
        return (*result.outputs, *result.residuals)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:  # pyright: ignore
        saved, op = ctx.saved_tensors, ctx.op
        if torch.is_grad_enabled():  # under create_graph, whose derivative would be a silent 0
            checks.first_derivatives_only(op.split.function)
        arrays, residuals = saved[: ctx.count], saved[ctx.count :]
        g = cotangents[: op.outputs]
        if all(c is None for c in g):
            return (None,) * (ctx.count + 2)
        return None, None, *op.vjp(arrays, residuals, g, ctx.needs_input_grad[2:], ctx.plan)


def apply(op: Any, arrays: tuple, plan: Plan | None) -> Result:
    """The outputs of an op of a split vocabulary, differentiable, and its residuals."""
    if torch.compiler.is_compiling():
        return registered.apply(op, arrays, plan)
    found = _Sharded.apply(op, plan, *arrays)
    return Result(found[: op.outputs], found[op.outputs :])


def _outline(op: ShardStats, arrays: tuple) -> tuple:
    logits, target, weight = arrays
    lead, entropy = logits.shape[:2], op.stats.entropy
    there = target is not None
    outputs = registered._numbers(lead, True, there, op.stats.smooth, entropy)
    one = ((), torch.float64)
    whole = ((lead, torch.int64), *registered._numbers(lead, True, True, entropy, there))
    here = ((lead, torch.int64), *registered._numbers(lead, True, True, entropy, there))
    return *outputs, *whole, None if weight is None else one, *here


def way(outline: Any) -> registered.Way:
    """How an op of a split vocabulary runs as an operator."""
    return registered.Way(
        outline,
        lambda op, arrays, plan: op.forward(arrays, plan),
        lambda op, *given: op.vjp(*given),
        lambda op, *given: checks.first_derivatives_only(op.split.function),
        lambda op, *given: checks.first_derivatives_only(op.split.function),
    )


registered.WAYS[ShardStats] = way(_outline)
registered.RECORDS |= {kind.__name__: kind for kind in (ShardStats, Split)}
