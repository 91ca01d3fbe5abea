"""Runs ops on torch tensors under autograd: the one place that knows torch's derivatives.

`_Apply` is an op as an autograd.Function: reverse mode and forward mode by the op's own vjp and
jvp, vmap by folding the mapped axis into the rows. Where a derivative may itself be differentiated
(create_graph, torch.func, forward over reverse), vjp and jvp run as ordinary tensor operations on
statistics computed anew, so that torch differentiates them, to any order. torch.compile is given
the operators of `torch_registered`, and where they do not serve `_Traced`, the same without jvp,
which dynamo refuses: forward mode raises there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import array_api_compat.torch as xp
import torch
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

from xent import kernels
from xent.inputs import Rows, no_weight_gradient, target_codes
from xent.kernels import ONLY_FIRST
from xent.ops import Op, Result, exact
from xent.ops.blocks import BLOCK_BYTES, Blocks
from xent.spec import Plan, Spec


def apply(op: Op, arrays: tuple, plan: Plan | None) -> Result:
    """The outputs of an op, differentiable, and its residuals."""
    if torch.compiler.is_compiling():
        from xent.backends import torch_registered as registered

        # One block: the compiler fuses the operations and needs no loop unrolled before it.
        blocks = Blocks(None)
        if _in_transform():
            return op.forward(xp, arrays, blocks)
        if registered.serves(op, arrays):
            return registered.apply(op, arrays, plan)
        if not torch.is_grad_enabled() or not any(_needs_gradient(a) for a in arrays):
            return op.forward(xp, arrays, blocks)
        outputs = _Traced.apply(op, blocks, plan, *arrays)
    else:
        outputs = applied(op, arrays, plan)
    return Result(outputs[: op.outputs], outputs[op.outputs :])


def applied(op: Op, arrays: tuple, plan: Plan | None) -> tuple:
    """The outputs of an op and its residuals where nothing is compiled."""
    size = BLOCK_BYTES if plan is None or plan.chunk_bytes is None else plan.chunk_bytes
    return _Apply.apply(op, Blocks(size), plan, *arrays)


def quiet() -> AbstractContextManager:
    """Nothing to silence: torch warns of no overflow."""
    return nullcontext()


def untracked() -> AbstractContextManager:
    """A computation that autograd does not see."""
    return torch.no_grad()


def coded(rows: Rows, spec: Spec, plan: Plan | None) -> Rows:
    """Class indices replaced by codes, checked on a CPU or where the plan asks for it.

    A call that is compiled or recorded (make_fx) has no values to check.
    """
    if not rows.indexed:
        return rows
    if rows.weight is not None and rows.weight.requires_grad and torch.is_grad_enabled():
        no_weight_gradient(spec.function)
    asked = None if plan is None else plan.check_targets
    if torch.compiler.is_compiling() or asked is False or _recorded():
        return rows.coded(spec, check=False)
    target = _unwrapped(rows.target)
    readable = type(target) is torch.Tensor and target.device.type != "meta"
    if not readable or (asked is None and target.device.type != "cpu"):
        return rows.coded(spec, check=False)
    if target is rows.target:
        return rows.coded(spec)
    shape = tuple(length for length in target.shape if length != 1)
    target_codes(xp, target, rows.logits.shape[-1], spec, shape)
    return rows.coded(spec, check=False)


def total(terms: torch.Tensor) -> torch.Tensor:
    """The sum of all elements."""
    # Halves would be unrolled, and compiled anew for each number of rows.
    return terms.sum() if torch.compiler.is_compiling() else exact.total(xp, terms)


def result_dtype(rows: Rows) -> torch.dtype:
    """The dtype of a loss: float32 where autocast would have cast half-precision logits."""
    half, kind = rows.dtype in (torch.float16, torch.bfloat16), rows.logits.device.type
    if half and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.float32
    return rows.dtype


class _Traced(torch.autograd.Function):
    """An op under autograd."""

    @staticmethod
    def forward(op: Op, blocks: Blocks, plan: Plan | None, *arrays: Any) -> Any:
        if differentiated(*arrays):
            result = op.forward(xp, arrays, blocks)
        elif kernel := choose(op, arrays, plan):
            result = kernel.forward(op, arrays, plan)
        else:
            result = op.forward(xp, arrays, Blocks(blocks.bytes, write=True))
        return (*result.outputs, *result.residuals)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        op, blocks, plan, *arrays = inputs
        residuals = output[op.outputs :]
        ctx.op, ctx.blocks, ctx.plan, ctx.count = op, blocks, plan, len(arrays)
        ctx.save_for_backward(*arrays, *residuals)
        ctx.save_for_forward(*arrays, *residuals)
        ctx.mark_non_differentiable(*(r for r in residuals if r is not None))
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        saved = ctx.saved_tensors  # read once: the hooks of a checkpoint unpack it but once
        arrays, residuals = saved[: ctx.count], saved[ctx.count :]
        op, blocks = ctx.op, ctx.blocks
        cotangents = cotangents[: op.outputs]
        wanted = ctx.needs_input_grad[3:]
        if all(c is None for c in cotangents):
            return (None,) * (ctx.count + 3)
        if differentiated(*arrays, *cotangents):
            residuals = op.forward(xp, arrays, blocks).residuals
        elif kernel := choose(op, arrays, ctx.plan, wanted):
            dlogits = kernel.vjp(op, arrays, residuals, cotangents, ctx.plan)
            return None, None, None, dlogits, *(None for _ in arrays[1:])
        else:
            blocks = Blocks(blocks.bytes, write=True)
        return None, None, None, *op.vjp(xp, arrays, residuals, cotangents, wanted, blocks)


class _Apply(_Traced):
    """The same with forward mode and vmap."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple:
        op, tangents = ctx.op, tangents[3:]
        # torch turns forward mode off around this method, and with it the tangents of an outer
        # jvp: they are let through, and those of this level, already given, are taken off.
        with forward_ad._set_fwd_grad_enabled(True):
            arrays = tuple(_primal(array) for array in ctx.saved_tensors[: ctx.count])
            residuals = op.forward(xp, arrays, ctx.blocks).residuals
            outputs = op.jvp(xp, arrays, residuals, tangents, ctx.blocks)
        return (*outputs, *(None for _ in residuals))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
        (op, blocks, plan, *arrays), dims, size = inputs, in_dims[3:], info.batch_size
        return mapped(partial(_Apply.apply, op, blocks, plan), op.folds, arrays, dims, size)


def mapped(
    apply: Callable[..., tuple], folds: tuple[bool, ...], arrays: Any, dims: tuple, size: int
) -> tuple[tuple, tuple]:
    """What a vmap of arrays gives: the mapped axis as rows, or one call each where it cannot be."""
    if any(d is not None and not f for d, f in zip(dims, folds, strict=True)):
        each = [apply(*map(_select, arrays, dims, (i,) * len(arrays))) for i in range(size)]
        columns = zip(*each, strict=True)
        outputs = tuple(None if c[0] is None else torch.stack(c) for c in columns)
    else:
        folded = (
            _fold(a, d, size) if f else a for a, d, f in zip(arrays, dims, folds, strict=True)
        )
        outputs = tuple(
            None if o is None else o.reshape(size, o.shape[0] // size, *o.shape[1:])
            for o in apply(*folded)
        )
    return outputs, tuple(None if o is None else 0 for o in outputs)


def _in_transform() -> bool:
    """Whether derivatives are taken of what is compiled within what is compiled, or exported."""
    # There torch (2.13) loses the derivative of a Function's derivative without a word. What is
    # exported, moreover, is to run without xent.
    within = getattr(torch._dynamo.config, "trace_autograd_ops", False)
    level = _functorch.maybe_current_level()
    forward = forward_ad._current_level >= 0
    return within or forward or level is not None or torch.compiler.is_exporting()


# What torch.compiler.assume_constant_result does, which would import the compiler: two seconds.
_in_transform._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def _needs_gradient(array: Any) -> bool:
    return array is not None and array.requires_grad


def _primal(array: Any) -> Any:
    if array is None or not array.is_floating_point():
        return array
    return forward_ad.unpack_dual(array).primal


def _select(array: Any, dim: int | None, index: int) -> Any:
    return array if array is None or dim is None else array.select(dim, index)


def _fold(array: Any, dim: int | None, size: int) -> Any:
    """Make the mapped axis part of the first."""
    if array is None:
        return None
    array = array.expand(size, *array.shape) if dim is None else array.movedim(dim, 0)
    return array.reshape(size * array.shape[1], *array.shape[2:])


def differentiated(*tensors: Any) -> bool:
    """Whether someone may differentiate through what is computed from these tensors."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return True
    if forward_ad._current_level >= 0 or _in_old_vmap():
        return True
    return any(t is not None and _is_wrapped(t) for t in tensors)


def choose(op: Op, arrays: tuple, plan: Plan | None, wanted: tuple = ONLY_FIRST) -> Any:
    """The kernel for an op on these arrays; None where it is the op's own array code."""
    return None if watched() else kernels.choose(op, arrays, plan, wanted)


def watched() -> bool:
    """Whether a mode of torch's is to see every operation: one that records or counts them."""
    return torch._C._len_torch_dispatch_stack() > 0 or _recorded()


def _in_old_vmap() -> bool:
    """Whether torch's old vmap is at work, that of autograd.grad(is_grads_batched=True)."""
    depth = torch._C._vmapmode_increment_nesting()  # there is no call that only tells
    torch._C._vmapmode_decrement_nesting()
    return depth > 1


def _recorded() -> bool:
    """Whether make_fx is recording the operations."""
    # torch.fx.experimental has a function for this, whose import takes seconds.
    proxy = torch._C._TorchDispatchModeKey.PROXY
    before, now = torch._ops._get_dispatch_mode_pre_dispatch, torch._C._get_dispatch_mode
    return before(proxy) is not None or now(proxy) is not None


def _unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor under the wrappers of torch.func, with every mapped axis."""
    while _is_wrapped(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def _is_wrapped(tensor: torch.Tensor) -> bool:
    return _functorch.is_functorch_wrapped_tensor(tensor)
