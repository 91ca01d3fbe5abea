"""A loss of tensors on a GPU and its gradient, in kernels that no host waits for.

Where the loss is one number, its gradient is written in forward, for the upstream that the last
backward of such a loss had. Which upstream comes, only the device knows: backward launches the
kernel again, and it does nothing where the gradient is the right one already. So no rounded
gradient is scaled, but for one that was written over the logits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.backends import torch as backend
from xent.backends.torch import differentiated
from xent.backends.torch_whole import KINDS, consumed, seen, tracked
from xent.inputs import Rows, class_rows, leaf_in_place, rows_of, written_over
from xent.kernels import cpu, triton_rows
from xent.kernels import triton_loss as kernel
from xent.kernels.loss import Prepared
from xent.ops import cross_entropy
from xent.ops.stats import RowStats
from xent.spec import Plan, Spec

MOST = 4096  # options whose upstreams are remembered

# Never freed: a CUDA graph may hold the address of one.
_upstreams: dict[tuple[Spec, Any], Tensor] = {}


def loss(
    logits: Tensor, target: Any, weight: Any, prepared: Prepared, plan: Plan | None
) -> Tensor | None:
    """The loss of tensors on a GPU; None where it is not for this way."""
    rows, op = _rows(logits, target, weight, prepared.spec, plan), cross_entropy.op(prepared.spec)
    if rows is None or triton_rows.why_not(op, rows.arrays) is not None:
        return None
    dtype, graph = backend.result_dtype(rows), torch.is_grad_enabled()
    if not (graph and logits.requires_grad):
        found = _value(op, prepared, rows, plan, None, dtype, None)[0]
        return found.reshape(rows.shape) if found.ndim else found
    if prepared.recipe.keeps_rows or (plan is not None and plan.gradient == "recompute"):
        return None
    in_place = plan is not None and plan.inplace
    if in_place and logits.is_leaf:
        return leaf_in_place(prepared.spec.function)
    gradient = logits.detach() if in_place else torch.empty_like(logits)
    out = _spread(gradient, rows)
    if out is None or (in_place and cpu.overlaps(logits.shape, logits.stride())):
        return None
    expected = _expected(prepared.spec, logits)
    result, begun = _value(op, prepared, rows, plan, out, dtype, expected)
    made = result, gradient, begun, expected, prepared.spec
    if in_place:
        return consumed(logits, _InPlace.apply(logits, (*made, out)))
    return _Fused.apply(logits, target, weight, made)


def _rows(logits: Tensor, target: Any, weight: Any, spec: Spec, plan: Plan | None) -> Rows | None:
    """The arrays as rows, checked; None where they are not for this way."""
    if type(target) not in KINDS or seen():
        return None
    if plan is not None and plan.check_targets:  # the host is to wait
        return None
    if weight is not None and type(weight) not in KINDS:
        return None
    others = [a for a in (target, weight) if a is not None]
    if torch.is_grad_enabled() and any(a.requires_grad for a in others):
        return None
    rows = class_rows(logits, target, weight, spec)
    if rows.indexed and rows.target.dtype not in kernel.INTEGERS:
        return None
    return rows


def _value(
    op: RowStats,
    prepared: Prepared,
    rows: Rows,
    plan: Plan | None,
    out: Tensor | None,
    dtype: torch.dtype,
    expected: Tensor | None,
) -> tuple[Tensor, Any]:
    arrays = tuple(None if a is None else a.detach() for a in rows.arrays)
    begun = kernel.begin(op, prepared.recipe, arrays, plan, expected)
    return kernel.value(begun, arrays, out, dtype)


def _spread(gradient: Tensor, rows: Rows) -> Tensor | None:
    """A gradient as rows (N, D, V) to be written; None where these are no view of it."""
    found = rows_of(gradient, rows.axis or 0, gradient.dtype).logits
    return found if found.data_ptr() == gradient.data_ptr() else None


def _expected(spec: Spec, logits: Tensor) -> Tensor:
    """The upstream that the last backward of such a loss had, on the device; 1 at first.

    Several streams may read and write it: each loss reads it once, so that no more is at stake than
    a gradient computed twice.
    """
    found = _upstreams.get((spec, logits.device))
    if found is None:
        found = torch.ones((), dtype=torch.float64, device=logits.device)
        if len(_upstreams) < MOST and not _captured(logits):
            _upstreams[spec, logits.device] = found
    return found


def _captured(logits: Tensor) -> bool:
    """Whether the device's work is recorded in a graph, which would own what is allocated now."""
    return logits.is_cuda and torch.cuda.is_current_stream_capturing()


class _Fused(torch.autograd.Function):
    """A loss that is computed, with its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Any, made: tuple) -> Tensor:
        ctx.save_for_backward(logits, target, weight)
        result, ctx.gradient, ctx.begun, ctx.expected, ctx.spec = made
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:  # pyright: ignore
        arrays: tuple[Tensor, Tensor, Tensor | None] = ctx.saved_tensors
        rest = None, None, None
        if differentiated(upstream):
            return tracked(arrays, ctx.spec, upstream), *rest
        gradient, ctx.gradient = ctx.gradient, None
        rows = class_rows(*arrays, ctx.spec)
        made = gradient is not None
        gradient = gradient if made else torch.empty_like(arrays[0])
        out = _spread(gradient, rows)
        if out is None or triton_rows.why_not(ctx.begun.op, rows.arrays) is not None:
            return tracked(arrays, ctx.spec, upstream), *rest  # of hooks of autograd's
        kernel.heed(ctx.begun, upstream, ctx.expected)
        kernel.anew(ctx.begun, rows.arrays, out, made)
        return gradient, *rest


class _InPlace(torch.autograd.Function):
    """The same where the gradient lies where the logits were."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, made: tuple) -> Tensor:
        result, ctx.gradient, ctx.begun, ctx.expected, ctx.spec, ctx.rows = made
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:  # pyright: ignore
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None or differentiated(upstream):
            return written_over(ctx.spec.function)
        kernel.heed(ctx.begun, upstream, ctx.expected)
        kernel.rescale(ctx.begun, ctx.rows)
        return gradient, None
