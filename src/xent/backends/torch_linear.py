"""A linear head on torch tensors under autograd, composable to any order; no logits are stored.

A loss that is one number is computed with its gradients, in three products, which backward hands
out once (`_Fused`); on a GPU it is backward that makes the last two. All else goes by row
statistics (`_Stats`), whose backward computes the logits anew. Where someone differentiates through
either, `torch_chunked` takes over.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import array_api_compat.torch as xp
import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad

from xent import backends, reduction
from xent.backends import linear
from xent.backends import torch as backend
from xent.backends.torch_chunked import Map, primal, pull, push
from xent.backends.torch_linear_device import engine_of
from xent.inputs import normalizer
from xent.inputs_linear import LinearRows
from xent.ops.blocks import Blocks
from xent.ops.linear import LinearStats
from xent.ops.stats import IGNORED, RowStats
from xent.ops.tiles import BUDGET, product_dtype
from xent.spec import Plan, Spec

TEMPORARIES = 8  # float64 for each logit of a chunk whose derivatives are torch's own


def loss(of: Any, rows: LinearRows, spec: Spec, plan: Plan | None) -> Tensor:
    """The loss of a linear head, reduced."""
    rows = linear.coded(cast(rows), spec, plan)
    if _is_fused(rows, spec, plan):
        return _fused(of, rows, spec, plan)
    outputs = statistics(of.op(spec), rows, plan)[:4]
    return backends._reduce(of, outputs, rows, spec, backend)[0]


def cast(rows: LinearRows) -> LinearRows:
    """What autocast makes of the arrays of a product."""
    kind = rows.hidden.device.type
    if not torch.amp.is_autocast_available(kind) or not torch.is_autocast_enabled(kind):
        return rows
    dtype = torch.get_autocast_dtype(kind)

    def narrow(array: Any) -> Any:
        return array if array is None or array.dtype == torch.float64 else array.to(dtype)

    names = "hidden", "linear_weight", "linear_bias"
    arrays = {name: narrow(getattr(rows, name)) for name in names}
    if rows.low_rank:
        a, b, scale = rows.low_rank
        arrays["low_rank"] = (narrow(a), narrow(b), scale)
    return linear.replaced(rows, **arrays)


def statistics(stats: RowStats, rows: LinearRows, plan: Plan | None) -> tuple:
    """Outputs and residuals of all heads, (N, K) each; the outputs are differentiable."""
    found = []
    for head in rows.heads():
        op = linear.op_of(stats, head)
        if torch.compiler.is_compiling():
            found.append(compiled(op, head.arrays, plan))
        else:
            found.append(_Stats.apply(op, plan, *head.arrays))
    return linear.side_by_side(xp, found)


def compiled(op: LinearStats, arrays: tuple, plan: Plan | None) -> tuple:
    """The statistics for a compiler: of an operator; elsewhere, and for torch.export, operations.

    Those are a loop over chunks, of which the compiler keeps for backward what it likes.
    """
    from xent.backends import torch_registered as registered

    if not backend._in_transform() and registered.serves(op, arrays):
        outputs, residuals = registered.apply(op, arrays, plan)
        return (*outputs, *residuals)
    function = _base(op, with_argmax=True)
    present = _present(op, arrays[-2])
    results = sum(present) + 1, 0
    of = Map(lambda *given: (function(*given), ()), op.folds, results, _step(arrays, plan, 1))
    outputs, _ = of(*arrays)
    *found, k = outputs
    every = iter(found)
    return (*(next(every) if p else None for p in present), k, None, None, None)


def _present(op: LinearStats, target: Any) -> tuple[bool, ...]:
    """Which of lse, nll, smooth and entropy there are."""
    return True, target is not None, op.stats.smooth, op.stats.entropy


def _products(op: LinearStats, arrays: Any) -> Tensor:
    """(R, 1, V) the logits of a few rows."""
    head, target = op.head(arrays), arrays[-2]
    work = product_dtype(xp, arrays[:-2])
    x: Any = None if head.bias is None else head.bias.to(work)
    for left, right in head.pairs:
        term = _kept(left, target).to(work) @ right.to(work).T
        x = term if x is None else x + term
    return x[:, None, :]


def _kept(left: Tensor, target: Any) -> Tensor:
    """Hidden states, 0 in ignored rows: what these hold, NaN included, must not reach a weight."""
    if target is None or target.ndim != 2:
        return left
    return torch.where(target == IGNORED, torch.zeros_like(left), left)


def _base(op: LinearStats, with_argmax: bool = False) -> Any:
    """The outputs of the op for a few rows, as tensor operations."""

    def function(*arrays: Any) -> tuple:
        given = (_products(op, arrays), *arrays[-2:])
        result = backend.apply(op.stats, given, None)
        found = tuple(o for o in result.outputs if o is not None)
        return (*found, result.residuals[0]) if with_argmax else found

    return function


def _tangent(op: LinearStats) -> Any:
    """The tangents of the outputs for a few rows, as tensor operations."""

    def function(arrays: list, tangents: list) -> tuple[tuple, tuple]:
        x, target = _products(op, arrays), arrays[-2]
        moved: Any = None if tangents[-3] is None else tangents[-3].to(x.dtype).expand_as(x)
        for i in range(op.products):
            left, right = (a.to(x.dtype) for a in arrays[2 * i : 2 * i + 2])
            dleft, dright = tangents[2 * i : 2 * i + 2]
            terms = []
            if dleft is not None:
                terms.append(_kept(dleft, target).to(x.dtype) @ right.T)
            if dright is not None:
                terms.append(_kept(left, target) @ dright.to(x.dtype).T)
            for term in terms:
                moved = term[:, None, :] if moved is None else moved + term[:, None, :]
        given, blocks = (x, *arrays[-2:]), Blocks()
        residuals = op.stats.forward(xp, given, blocks).residuals
        found = op.stats.jvp(xp, given, residuals, (moved, *tangents[-2:]), blocks)
        return tuple(f for f in found if f is not None), ()

    return function


def _map(op: LinearStats, arrays: tuple, plan: Plan | None) -> Map:
    function = _base(op)
    step = _step(arrays, plan, TEMPORARIES)
    results = sum(_present(op, arrays[-2])), 0
    return Map(lambda *given: (function(*given), ()), op.folds, results, step, _tangent(op))


def _step(arrays: tuple, plan: Plan | None, times: int) -> int:
    """Rows of a chunk."""
    limit = BUDGET if plan is None or plan.chunk_bytes is None else plan.chunk_bytes
    return max(1, limit // (8 * times * max(1, arrays[1].shape[0])))


class _Stats(torch.autograd.Function):
    """The statistics of a linear head: outputs and residuals of `LinearStats`."""

    @staticmethod
    def forward(op: LinearStats, plan: Plan | None, *arrays: Any) -> tuple:
        result = op.forward(xp, arrays, engine_of(plan, arrays[0]))
        *first, entropy = result.residuals
        # No output may be given twice.
        return (*result.outputs, *first, None if entropy is None else entropy.clone())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.op, ctx.plan, *arrays = inputs
        ctx.count = len(arrays)
        residuals = output[4:]
        ctx.save_for_backward(*arrays, *residuals)
        ctx.save_for_forward(*arrays)
        ctx.mark_non_differentiable(*(r for r in residuals if r is not None))
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        saved = ctx.saved_tensors
        arrays, residuals, cotangents = saved[: ctx.count], saved[ctx.count :], cotangents[:4]
        wanted = ctx.needs_input_grad[2:]
        if all(c is None for c in cotangents):
            return (None,) * (ctx.count + 2)
        if backend.differentiated(*arrays, *cotangents):
            return None, None, *_pull(ctx.op, arrays, cotangents, wanted, ctx.plan)
        engine = engine_of(ctx.plan, arrays[0])
        return None, None, *ctx.op.vjp(xp, arrays, residuals, cotangents, wanted, engine)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple:
        with forward_ad._set_fwd_grad_enabled(True):  # as in torch_chunked
            arrays = tuple(map(primal, ctx.saved_tensors[: ctx.count]))
            found = iter(push(_map(ctx.op, arrays, ctx.plan), arrays, tangents[2:]))
        present = _present(ctx.op, arrays[-2])
        return (*(next(found) if p else None for p in present), None, None, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
        (op, plan, *arrays), dims, size = inputs, in_dims[2:], info.batch_size
        return backend.mapped(partial(_Stats.apply, op, plan), op.folds, arrays, dims, size)


def _pull(op: LinearStats, arrays: tuple, g: tuple, wanted: tuple, plan: Plan | None) -> tuple:
    """The gradients of the statistics as an operation that can be differentiated."""
    present = _present(op, arrays[-2])
    return pull(
        _map(op, arrays, plan),
        arrays,
        tuple(c for c, p in zip(g, present, strict=True) if p),
        wanted,
    )


class _Expected:
    """The power of two that the last upstream was, for gradients in float16, which have no room
    for one to be scaled by it later."""

    upstream = 1.0


def _is_fused(rows: LinearRows, spec: Spec, plan: Plan | None) -> bool:
    """Whether the gradients are computed with the loss."""
    if reduction.keeps_rows(spec.reduction) or rows.linear_weight.ndim == 3:
        return False
    if plan is not None and plan.gradient == "recompute":
        return False
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if _functorch.maybe_current_level() is not None or forward_ad._current_level >= 0:
        return False
    given = spec.normalizer
    if isinstance(given, Tensor) and given.requires_grad:
        return False
    if rows.weight is not None and rows.weight.requires_grad:
        return False
    return any(a is not None and a.requires_grad for a in rows.arrays)


def _fused(of: Any, rows: LinearRows, spec: Spec, plan: Plan | None) -> Tensor:
    op, arrays = linear.op_of(of.op(spec), rows), rows.arrays
    wanted = tuple(a is not None and a.requires_grad for a in arrays)
    engine = engine_of(plan, arrays[0])
    half = any(w and a.dtype == torch.float16 for a, w in zip(arrays, wanted, strict=True))
    expected = _Expected.upstream if half and not engine.defers else 1.0
    with torch.no_grad():
        weight = reduction.row_weight(xp, rows)
        explicit = normalizer(spec.function, spec.normalizer, rows.logits)
        divisor = reduction.denominator(rows, weight, spec.reduction, explicit, backend.total)
        one = torch.full((), expected, dtype=rows.work, device=rows.device)
        scale = one if divisor is None else reduction.divide(xp, one, divisor)
        number = scale.item() if scale.is_cpu and not backend.watched() else None
        objective = linear.Objective(of, spec, xp, weight, scale, number)
        losses, found = op.both(xp, arrays, objective, wanted, engine)
        value = reduction.reduce(xp, losses, divisor, spec.reduction, backend.total)
        value = rows.per_row(value, backend.result_dtype(rows))
        found = found if engine.defers else list(found())
    made: tuple = value, found, expected, (of, op, rows, spec, plan)
    return _Fused.apply(made, *arrays)


class _Fused(torch.autograd.Function):
    """A loss that is computed, with its gradients for an upstream that is expected."""

    @staticmethod
    def forward(ctx: Any, made: tuple, *arrays: Any) -> Tensor:
        ctx.save_for_backward(*arrays)
        value, ctx.gradients, ctx.expected, ctx.how = made
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple:  # pyright: ignore
        arrays, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        if backend.differentiated(upstream):
            return None, *_anew(ctx.how, arrays, upstream, wanted, tracked=True)
        gradients: Any = ctx.gradients
        ctx.gradients = None
        if gradients is None:
            return None, *_anew(ctx.how, arrays, upstream, wanted)
        if not isinstance(gradients, list):  # what makes them
            return None, *gradients(upstream)
        if not upstream.is_cpu or backend.watched():  # not looked at: the host would wait
            factor = upstream / ctx.expected
            return None, *(None if g is None else g.mul_(factor) for g in gradients)
        factor = upstream.item()
        if factor == ctx.expected:
            return None, *gradients
        half = any(g is not None and g.dtype == torch.float16 for g in gradients)
        if half:
            del gradients
            if factor > 0 and torch.frexp(upstream.double())[0].item() == 0.5:
                _Expected.upstream = factor
            return None, *_anew(ctx.how, arrays, upstream, wanted)
        return None, *(None if g is None else g.mul_(factor / ctx.expected) for g in gradients)


def _anew(
    how: tuple, arrays: tuple, upstream: Tensor, wanted: tuple, tracked: bool = False
) -> tuple:
    """The gradients for an upstream, computed from the arrays."""
    of, op, rows, spec, plan = how
    *head, target, weight = arrays
    names = {"hidden": head[0], "linear_weight": head[1], "target": target, "weight": weight}
    rows = linear.replaced(rows, **names)
    if tracked:
        outputs = _Stats.apply(op, plan, *arrays)
    else:
        result = op.forward(xp, arrays, engine_of(plan, arrays[0]))
        outputs = (*result.outputs, *result.residuals)
    _, row_weight, divisor = backends._reduce(of, outputs[:4], rows, spec, backend)
    by_output = of.partials(xp, outputs[:4], row_weight, spec)
    scale = reduction.row_scale(xp, upstream.to(rows.work), divisor, row_weight)
    g = backends._products(scale, by_output)
    if tracked:
        return _pull(op, arrays, g, wanted, plan)
    return op.vjp(xp, arrays, outputs[4:], g, wanted, engine_of(plan, arrays[0]))
