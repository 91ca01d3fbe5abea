"""The way of every call: arrays or DTensors, checked, to statistics, to a loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import array_api_compat.torch as xp
import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

from xent import reduction
from xent.backends import torch as backend
from xent.backends import torch_linear
from xent.functional import TokenStatistics
from xent.inputs import Rows, class_axis, class_rows, is_half
from xent.inputs_linear import LowRank, linear_rows
from xent.ops import cross_entropy as ce
from xent.ops.stats import RowStats
from xent.parallel import checks, dtensors, reduce, statistics
from xent.parallel.dtensors import Layout
from xent.parallel.linear import ShardLinear
from xent.parallel.shard import Shard
from xent.parallel.statistics import ShardStats, Split
from xent.spec import Plan, Spec


@dataclass(frozen=True)
class Call:
    """A call on the arrays of this process."""

    arrays: tuple  # logits or hidden states and their head, target, class weights
    shard: Shard | None
    over: tuple[ProcessGroup, ...]  # groups that rows are split over
    layout: Layout | None  # of DTensors
    shape: tuple[int, ...]  # of a result of each row, on all processes

    def given(self, value: Tensor) -> Tensor:
        """A result in the kind of the caller's arrays."""
        if self.layout is None:
            return value
        return self.layout.whole(value, self.shape if value.ndim else ())


def of_logits(logits: Any, target: Any, weight: Any, shard: Any, rows: Any, spec: Spec) -> Call:
    """A call on logits."""
    function = spec.function
    if not isinstance(logits, DTensor):
        return Call((logits, target, weight), *_groups(function, shard, rows), None, ())
    axis = class_axis(function, "logits", logits, spec.axis)
    layout, shape = dtensors.of_logits(function, logits, axis), tuple(logits.shape)
    soft = isinstance(target, Tensor) and tuple(target.shape) == shape
    of_target = logits.placements if soft else layout.rows
    here = (
        layout.local(logits, logits.placements),
        layout.local(target, of_target),
        layout.local(weight, layout.by_class(), summed=True),
    )
    return Call(here, layout.shard, layout.over, layout, shape[:axis] + shape[axis + 1 :])


def of_head(arrays: tuple, shard: Any, rows: Any, spec: Spec, shift: int) -> Call:
    """A call on hidden states, linear weight, target, linear bias and class weights."""
    hidden, linear_weight, target, linear_bias, weight = arrays
    if not isinstance(linear_weight, DTensor):
        return Call(arrays, *_groups(spec.function, shard, rows), None, ())
    layout, lead = dtensors.of_head(spec.function, hidden, linear_weight), tuple(hidden.shape[:-1])
    soft = isinstance(target, Tensor) and target.ndim == hidden.ndim
    if shift:
        checks.unshifted(spec.function, shift, layout.rows)
        lead = (*lead[:-1], lead[-1] - shift)
    here = (
        layout.local(hidden, layout.rows),
        layout.local(linear_weight, linear_weight.placements, summed=True),
        layout.local(target, layout.by_class(hidden.ndim - 1) if soft else layout.rows),
        layout.local(linear_bias, layout.by_class(), summed=True),
        layout.local(weight, layout.by_class(), summed=True),
    )
    return Call(here, layout.shard, layout.over, layout, lead)


def loss_of_logits(call: Call, spec: Spec, plan: Plan | None) -> Tensor:
    """The loss of logits, reduced."""
    given, outputs, residuals = _statistics(call, ce.op(spec), spec, plan)
    return call.given(_reduced(call, given, outputs, residuals, spec))


def loss_of_head(call: Call, spec: Spec, shift: int, plan: Plan | None) -> Tensor:
    """The loss of a linear head, reduced."""
    given, outputs, residuals = _linear_statistics(call, ce.op(spec), spec, shift, plan)
    return call.given(_reduced(call, given, outputs, residuals, spec))


def told_of_logits(call: Call, spec: Spec, plan: Plan | None) -> TokenStatistics:
    """The statistics of each row of logits."""
    stats = RowStats(spec.logit_scale, spec.softcap, entropy=True)
    rows, outputs, residuals = _statistics(call, stats, spec, plan)
    dtype = torch.float32 if is_half(rows.logits) else rows.dtype
    return _told(call, rows, outputs, residuals[0], dtype)


def told_of_head(call: Call, spec: Spec, shift: int, plan: Plan | None) -> TokenStatistics:
    """The statistics of each row of a linear head."""
    stats = RowStats(spec.logit_scale, spec.softcap, entropy=True)
    rows, outputs, residuals = _linear_statistics(call, stats, spec, shift, plan)
    return _told(call, rows, outputs, residuals[0], rows.dtype)


def _groups(function: str, shard: Any, rows: Any) -> tuple[Shard | None, tuple[ProcessGroup, ...]]:
    if shard is not None or rows is None:
        checks.kind(function, "shard", shard, Shard)
    if rows is None:
        return shard, ()
    over = tuple(rows) if isinstance(rows, Sequence) else (rows,)
    for group in over:
        checks.kind(function, "rows", group, ProcessGroup)
    return shard, over


def _statistics(call: Call, stats: RowStats, spec: Spec, plan: Plan | None) -> tuple:
    """Rows as a reduction sees them, and the outputs and residuals of their statistics."""
    (logits, target, weight), shard = call.arrays, call.shard
    if shard is not None and isinstance(logits, Tensor) and logits.ndim:
        axis = class_axis(spec.function, "logits", logits, spec.axis)
        weight = _own(weight, shard, logits.shape[axis])
    rows = class_rows(logits, target, weight, spec, soft=not stats.entropy)
    here = rows.logits
    if shard is None:
        rows = _coded(rows, spec, plan)
        return rows, *backend.apply(stats, rows.arrays, plan)
    checks.inside(spec.function, "logits", shard.first, here.shape[-1], shard.classes)
    rows = _coded(_seen(rows, shard), spec, plan)
    op = ShardStats(stats, _split(shard, spec))
    return rows, *statistics.apply(op, (here, rows.target, rows.weight), plan)


def _linear_statistics(
    call: Call, stats: RowStats, spec: Spec, shift: int, plan: Plan | None
) -> tuple:
    """The same of a linear head."""
    (hidden, linear_weight, target, linear_bias, weight), shard = call.arrays, call.shard
    own = linear_weight.weight if isinstance(linear_weight, LowRank) else linear_weight
    count = own.shape[0] if isinstance(own, Tensor) and own.ndim else 0
    weight = weight if shard is None else _own(weight, shard, count)
    given = hidden, linear_weight, target, linear_bias, weight
    rows = torch_linear.cast(linear_rows(*given, spec, shift, soft=not stats.entropy))
    checks.head(spec.function, tuple(rows.linear_weight.shape))
    if shard is None:
        rows = _coded(rows, spec, plan)
        found = torch_linear.statistics(stats, rows, plan)
        return rows, found[:4], found[4:]
    checks.inside(spec.function, "linear_weight", shard.first, count, shard.classes)
    rows = _coded(_seen(rows, shard), spec, plan)
    # Processes that want the gradient of hidden states exchange it: all are to want it, or none.
    tracked = torch.is_grad_enabled() and rows.hidden.requires_grad
    split = _split(shard, spec, f"hidden.requires_grad={tracked}")
    op = ShardLinear(stats, 2 if rows.low_rank else 1, split)
    return rows, *statistics.apply(op, rows.arrays, plan)


def _reduced(call: Call, rows: Rows, outputs: tuple, residuals: tuple, spec: Spec) -> Tensor:
    if call.shard is not None and rows.indexed:
        weight = residuals[4]
    else:
        weight = reduction.row_weight(xp, rows)
    return reduce.reduced(outputs, weight, rows, spec, call.over)


def _told(
    call: Call, rows: Rows, outputs: tuple, argmax: Tensor, dtype: torch.dtype
) -> TokenStatistics:
    lse, nll, _, entropy = outputs
    found = (
        rows.per_row(0.0 - nll, dtype),
        rows.per_row(entropy, dtype),
        rows.per_row(lse, dtype),
        rows.per_row(argmax, torch.int64),
    )
    return TokenStatistics(*map(call.given, found))


def _own(weight: Any, shard: Shard, count: int) -> Any:
    """The class weights of the classes here: those given, or of those of all classes."""
    if not isinstance(weight, Tensor) or tuple(weight.shape) != (shard.classes,):
        return weight
    return weight[shard.first : shard.first + count]


def _seen(rows: Any, shard: Shard) -> Any:
    """Rows with as many classes as there are on all processes, in place of logits: what checks and
    reductions read."""
    one = rows.logits.new_zeros(())
    return replace(rows, logits=one.expand(*rows.logits.shape[:2], shard.classes))


def _coded(rows: Any, spec: Spec, plan: Plan | None) -> Any:
    """Class indices checked and replaced by codes."""
    return backend.coded(rows, spec, plan)


def _split(shard: Shard, spec: Spec, *more: str) -> Split:
    """How classes are split, and the options that all processes are to share, as a text."""
    left_out = ("function", "normalizer", "axis")
    names = [f.name for f in fields(spec) if f.name not in left_out]
    options = " ".join([*(f"{name}={getattr(spec, name)}" for name in names), *more])
    return Split(spec.function, options, shard.group.group_name, shard.first, shard.classes)
