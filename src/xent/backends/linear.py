"""The way of a linear head from rows to its result, where nothing is differentiated: NumPy arrays,
and torch tensors outside autograd. With autograd it is that of torch_linear.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

from xent import kernels, reduction
from xent.backends import _products, _reduce, backend_of
from xent.inputs import is_torch, upstream_rows
from xent.inputs_linear import LinearRows, LowRank
from xent.kernels import cpu
from xent.kernels import linear as kernel
from xent.ops import Result
from xent.ops.blocks import BLOCK_BYTES, Blocks
from xent.ops.linear import LinearStats
from xent.ops.stats import IGNORED, RowStats
from xent.ops.tiles import Engine
from xent.spec import Plan, Spec


class KernelEngine(Engine):
    """Tiles on a CPU: the compiled kernel where it serves, or another way to compute an op."""

    def __init__(self, xp: Any, plan: Plan | None = None) -> None:
        limit, over = (None, None) if plan is None else (plan.chunk_bytes, plan.chunk_over)
        super().__init__(xp, limit, over)
        self.plan = plan
        self.defers = False  # whether gradients wait for their upstream

    def choose(self, op: RowStats, arrays: tuple, wanted: tuple = kernels.ONLY_FIRST) -> Any:
        return kernels.choose(op, arrays, self.plan, wanted)

    def kept(self, target: Any) -> Any:
        if target is None or target.ndim != 2:
            return None
        taken = target[:, 0] != IGNORED
        return None if bool(self.xp.all(taken)) else self.xp.nonzero(taken)[0]

    def forward(self, op: RowStats, arrays: tuple) -> Result:
        if found := self.choose(op, arrays):
            return found.forward(op, arrays, self.plan)
        return op.forward(self.xp, arrays, self._blocks())

    def vjp(self, op: RowStats, arrays: tuple, residuals: tuple, g: tuple, wanted: tuple) -> tuple:
        if not any(wanted):
            return None, None, None
        found = self.choose(op, arrays, wanted)
        if found is cpu:
            kernel.vjp(op, arrays, residuals, g, self.plan)
            return arrays[0], None, None
        if found:
            return found.vjp(op, arrays, residuals, g, self.plan), None, None
        return op.vjp(self.xp, arrays, residuals, g, wanted, self._blocks())

    def both(
        self, op: RowStats, arrays: tuple, objective: Any, cut: slice, wanted: tuple
    ) -> tuple[Any, tuple]:
        scale = objective.number
        if scale is None or self.choose(op, arrays, wanted) is not cpu:
            return super().both(op, arrays, objective, cut, wanted)
        x = arrays[0]
        losses = self.empty(tuple(x.shape[:2]), x, self.xp.float64)
        kernel.both(op, arrays, objective.coefficients, scale, losses, self.plan)
        return losses, (x, None, None)

    def _blocks(self) -> Blocks:
        limit = self.limit
        return Blocks(BLOCK_BYTES if limit is None else limit, write=True)


class Objective:
    """The sum of the losses of rows, times a scale: what `LinearStats.both` differentiates.

    The scale is 0-d or (N, K); `number` is it where the kernel can take it, as a Python number.
    """

    def __init__(
        self, loss: Any, spec: Spec, xp: Any, weight: Any, scale: Any, number: float | None
    ) -> None:
        self.loss, self.spec, self.xp, self.weight, self.scale = loss, spec, xp, weight, scale
        self.number = number
        self.coefficients = loss.coefficients(spec)

    def some(self, kept: Any) -> Objective:
        """The same for some rows."""
        scale = self.scale[kept] if self.scale.ndim else self.scale
        return Objective(self.loss, self.spec, self.xp, self.weight[kept], scale, self.number)

    def times(self, scale: Any) -> Objective:
        """The same with another scale."""
        return Objective(self.loss, self.spec, self.xp, self.weight, scale, None)

    def cotangents(self, outputs: tuple, cut: slice) -> tuple[Any, tuple]:
        """The losses of some rows, and the cotangents of their statistics."""
        weight = self.weight[cut]
        by_output = self.loss.partials(self.xp, outputs, weight, self.spec)
        scale = self.scale[cut] if self.scale.ndim else self.scale
        return self.loss.value(outputs, weight, self.spec), _products(scale, by_output)


class LinearGradients(NamedTuple):
    """The gradients of a linear head's loss, each of its array's shape and dtype."""

    hidden: Any
    linear_weight: Any  # a LowRank where the head is one
    linear_bias: Any  # None where there is none


def replaced(rows: LinearRows, **arrays: Any) -> LinearRows:
    """The same rows with other arrays."""
    return replace(rows, **arrays)


def op_of(stats: RowStats, rows: LinearRows) -> LinearStats:
    """The op of one head of rows."""
    return LinearStats(stats, 2 if rows.low_rank else 1)


def side_by_side(xp: Any, heads: list[tuple]) -> tuple:
    """The (N, 1) numbers of each head as (N, K)."""
    if len(heads) == 1:
        return heads[0]
    return tuple(None if c[0] is None else xp.concat(c, axis=1) for c in zip(*heads, strict=True))


def run(loss: Any, rows: LinearRows, spec: Spec, plan: Plan | None) -> Any:
    """The loss of a linear head, reduced; differentiable where the array's library is."""
    backend = backend_of(rows.hidden)
    if is_torch(rows.hidden):
        from xent.backends import torch_linear

        return torch_linear.loss(loss, rows, spec, plan)
    rows = coded(rows, spec, plan)
    with backend.quiet():
        outputs = statistics(loss.op(spec), rows, plan)[:4]
        return _reduce(loss, outputs, rows, spec, backend)[0]


def statistics(stats: RowStats, rows: LinearRows, plan: Plan | None) -> tuple:
    """Outputs and residuals of all heads, (N, K) each; nothing is differentiated."""
    engine = engine_of(rows, plan)
    found = []
    for head in rows.heads():
        result = op_of(stats, head).forward(rows.xp, head.arrays, engine)
        found.append((*result.outputs, *result.residuals))
    return side_by_side(rows.xp, found)


def token_statistics(
    stats: RowStats, rows: LinearRows, spec: Spec, plan: Plan | None
) -> tuple[LinearRows, tuple]:
    """Checked rows, and the outputs and residuals of all heads; differentiable on torch."""
    backend = backend_of(rows.hidden)
    if is_torch(rows.hidden):
        from xent.backends import torch_linear

        rows = coded(torch_linear.cast(rows), spec, plan)
        return rows, torch_linear.statistics(stats, rows, plan)
    with backend.quiet():
        rows = coded(rows, spec, plan)
        return rows, statistics(stats, rows, plan)


def coded(rows: LinearRows, spec: Spec, plan: Plan | None) -> LinearRows:
    """Class indices checked, as the array's library says, and replaced by codes."""
    checked: Any = backend_of(rows.hidden).coded(rows, spec, plan)
    return checked


def engine_of(rows: LinearRows, plan: Plan | None) -> Engine:
    """How tiles of these rows are computed."""
    if is_torch(rows.hidden):
        from xent.backends.torch_linear_device import engine_of as of_torch

        return of_torch(plan, rows.hidden)
    return KernelEngine(rows.xp, plan)


def run_vjp(
    loss: Any, rows: LinearRows, spec: Spec, plan: Plan | None
) -> tuple[Any, Callable[..., LinearGradients]]:
    """The reduced loss, and the function from its cotangent to the gradients."""
    backend = backend_of(rows.hidden)
    with backend.untracked():
        rows = coded(rows, spec, plan)
        found = statistics(loss.op(spec), rows, plan)
        value, weight, divisor = _reduce(loss, found[:4], rows, spec, backend)

    def vjp(upstream: Any = 1.0) -> LinearGradients:
        given = upstream_rows(spec, upstream, rows)
        with backend.untracked():
            scale = reduction.row_scale(rows.xp, given, divisor, weight)
            by_output = loss.partials(rows.xp, found[:4], weight, spec)
            g = _products(scale, by_output)
            return _gradients(loss.op(spec), rows, found[4:], g, plan, backend)

    return value, vjp


def _gradients(
    stats: RowStats,
    rows: LinearRows,
    residuals: tuple,
    cotangents: tuple,
    plan: Plan | None,
    backend: ModuleType,
) -> LinearGradients:
    xp, engine, heads = rows.xp, engine_of(rows, plan), rows.heads()
    found = []
    for j, head in enumerate(heads):
        op, arrays = op_of(stats, head), head.arrays
        wanted = (True,) * (2 * op.products) + (head.linear_bias is not None, False, False)
        rest, g = (
            tuple(None if a is None else a[:, j : j + 1] for a in part)
            for part in (residuals, cotangents)
        )
        found.append(op.vjp(xp, arrays, rest, g, wanted, engine))
    dhidden, dweight, dbias = found[0][0], found[0][1], found[0][-3]
    if rows.linear_weight.ndim == 3:
        total = found[0][0]
        for other in found[1:]:
            total = total + other[0]
        dhidden = total
        dweight = xp.reshape(xp.stack([f[1] for f in found], axis=1), rows.weight_shape)
        if dbias is not None:
            dbias = xp.reshape(xp.stack([f[-3] for f in found], axis=1), rows.weight_shape[:-1])
    if rows.low_rank:
        a, b, scale = rows.low_rank
        work = found[0][2].dtype
        narrow, db = scale * found[0][2], found[0][3]
        wide = xp.astype(rows.hidden, work)
        da = xp.matmul(xp.permute_dims(narrow, (1, 0)), wide)
        more = xp.matmul(narrow, xp.astype(a, work))
        dhidden = xp.astype(xp.astype(dhidden, work) + more, dhidden.dtype)
        dweight = LowRank(dweight, xp.astype(da, a.dtype), xp.astype(db, b.dtype), scale)
    return LinearGradients(rows.unshifted(dhidden), dweight, dbias)
