"""A loss of torch tensors and its gradient in one call of the compiled kernel.

Where the loss is one number, its gradient is written while each row is in the cache, for the
upstream that the last backward of such a loss had; backward hands it out once. Another upstream, or
a second backward, computes it anew, to the same bits. Where someone differentiates through
backward, it runs as tensor operations, like the general way.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from xent.backends.torch import differentiated
from xent.backends.torch_whole import KINDS, consumed, seen, tracked
from xent.inputs import leaf_in_place, written_over
from xent.kernels import cpu, library, memory
from xent.kernels import loss as kernel
from xent.spec import Plan

CODES = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}
HALF = (torch.float16, torch.bfloat16)
PARALLEL = library.torch_threads() or 0

run, pack = cpu.function("xent_loss"), kernel.pack


def loss(
    logits: Tensor, target: Any, weight: Any, prepared: kernel.Prepared, plan: Plan | None
) -> Tensor | None:
    """The loss of torch tensors; None where it is not for this way."""
    if type(target) not in KINDS or not logits.is_cpu or not target.is_cpu or seen():
        return None
    weights = None
    if weight is not None:
        weights = _weights(logits, weight)
        if weights is None:
            return None
    autocast = logits.dtype in HALF and torch.is_autocast_enabled("cpu")
    arrays = (logits.dtype, logits.shape, logits.stride(), target.dtype, target.shape)
    classes = None if weights is None else weights.shape[0]
    key = (*arrays, target.stride(), plan, autocast, classes)
    form = prepared.forms.get(key)
    if form is None:
        form = _form(logits, target, weight, prepared, plan, autocast)
        if form is None:
            return None
        if len(prepared.forms) >= kernel.MOST_FORMS:
            prepared.forms.clear()
        prepared.forms[key] = form
    if logits.requires_grad and torch.is_grad_enabled():
        if prepared.recipe.keeps_rows or (plan is not None and plan.gradient == "recompute"):
            return None
        return _with_gradient(logits, target, weight, weights, prepared, plan, form)
    if target.requires_grad and torch.is_grad_enabled():
        return None
    result = torch.empty(form.lead, dtype=form.dtype, device="cpu")
    given = _given(logits, target, weights, 0, result, 1.0)
    return result if run(given, form.record) == -1 else None


def _with_gradient(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    weights: Tensor | None,
    prepared: kernel.Prepared,
    plan: Plan | None,
    form: kernel.Form,
) -> Tensor | None:
    if target.requires_grad:
        return None
    in_place = plan is not None and plan.inplace
    if in_place:
        if logits.is_leaf:
            return leaf_in_place(prepared.spec.function)
        if cpu.overlaps(logits.shape, logits.stride()):
            return None
        gradient = logits.detach()
    else:
        gradient = _fresh(logits, form, plan)
    result = torch.empty((), dtype=form.dtype, device="cpu")
    upstream = prepared.upstream
    given = _given(logits, target, weights, gradient.data_ptr(), result, upstream)
    if run(given, form.record) != -1:
        return None
    made = result, gradient, upstream, prepared, plan
    if in_place:
        return consumed(logits, _InPlace.apply(logits, made))
    return _Fused.apply(logits, target, weight, made)


def _given(
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None,
    gradient: int,
    result: Tensor,
    upstream: float,
) -> bytes:
    weight = 0 if weights is None else weights.data_ptr()
    return pack(logits.data_ptr(), target.data_ptr(), weight, gradient, result.data_ptr(), upstream)


def _fresh(logits: Tensor, form: kernel.Form, plan: Plan | None) -> Tensor:
    small = form.size < memory.HUGE and (plan is None or not plan.reuse)
    return torch.empty_like(logits) if small else memory.fresh(logits, plan)


def _weights(logits: Tensor, weight: Any) -> Tensor | None:
    """Class weights as the kernel reads them; None where they are not for this way."""
    if type(weight) not in KINDS or not weight.is_cpu:
        return None
    if weight.requires_grad and torch.is_grad_enabled():
        return None
    if weight.dtype != logits.dtype or weight.ndim != 1:
        return None
    return weight.to(torch.float64).contiguous()


def _form(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    prepared: kernel.Prepared,
    plan: Plan | None,
    autocast: bool,
) -> kernel.Form | None:
    if target.dtype == torch.int64:
        if not target.is_contiguous():
            return None
    elif target.dtype not in CODES:
        return None
    in_place = plan is not None and plan.inplace
    strides = logits.stride() if in_place else torch.empty_like(logits, device="meta").stride()
    dtype = torch.float32 if autocast else logits.dtype
    return kernel.form(
        prepared.recipe,
        plan,
        kernel.Array(CODES.get(logits.dtype), tuple(logits.shape), logits.stride()),
        kernel.Array(CODES.get(target.dtype), tuple(target.shape), target.stride()),
        None if weight is None else weight.shape[0],
        strides,
        (dtype, CODES.get(dtype, 0)),
        PARALLEL,
    )


class _Fused(torch.autograd.Function):
    """A loss that is computed, with its gradient."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Any, made: tuple) -> Tensor:
        ctx.save_for_backward(logits, target, weight)
        result, ctx.gradient, ctx.upstream, ctx.prepared, ctx.plan = made
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:  # pyright: ignore
        if differentiated(upstream):
            dlogits = tracked(ctx.saved_tensors, ctx.prepared.spec, upstream)
            return dlogits, None, None, None
        factor = upstream.item()
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None or factor != ctx.upstream:
            gradient = _anew(ctx.saved_tensors, ctx.prepared, ctx.plan, gradient, factor)
        return gradient, None, None, None


def _anew(
    arrays: tuple[Tensor, Tensor, Tensor | None],
    prepared: kernel.Prepared,
    plan: Plan | None,
    gradient: Tensor | None,
    upstream: float,
) -> Tensor:
    """The gradient for another upstream, which the next forward expects."""
    logits, target, weight = arrays
    form = _form(logits, target, weight, prepared, plan, False)
    if form is None or not logits.is_cpu:  # a hook of autograd's gave other tensors than it took
        scalar = torch.tensor(upstream, dtype=torch.float64, device=logits.device)
        return tracked(arrays, prepared.spec, scalar)
    _expect(prepared, upstream)
    gradient = _fresh(logits, form, plan) if gradient is None else gradient
    weights = None if weight is None else _weights(logits, weight)
    result = torch.empty((), dtype=torch.float64, device="cpu")
    run(_given(logits, target, weights, gradient.data_ptr(), result, upstream), form.record)
    return gradient


class _InPlace(torch.autograd.Function):
    """The same where the gradient lies where the logits were."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, made: tuple) -> Tensor:
        result, ctx.gradient, ctx.upstream, ctx.prepared, _ = made
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:  # pyright: ignore
        gradient, ctx.gradient = ctx.gradient, None
        if gradient is None or differentiated(upstream):
            return written_over(ctx.prepared.spec.function)
        factor = upstream.item()
        if factor != ctx.upstream:
            gradient.mul_(factor / ctx.upstream)
            _expect(ctx.prepared, factor)
        return gradient, None


def _expect(prepared: kernel.Prepared, upstream: float) -> None:
    """Have the next forward expect an upstream, unless a gradient in place could not be scaled."""
    if upstream and math.isfinite(upstream):
        prepared.upstream = upstream
