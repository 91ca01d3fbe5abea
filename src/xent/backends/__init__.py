"""Where a call runs, by the array's type, and the way of every loss from rows to its result.

A backend is a module: `apply` runs an op (with derivatives, where the library has them), `coded`
checks class indices, `total` sums an array, `result_dtype` is the dtype of a loss, `quiet`
surrounds a computation and `untracked` one that the library's own differentiation must not see. A
library that the user has not imported is not imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from xent import reduction
from xent.inputs import Rows, is_torch, normalizer, upstream_entries, upstream_rows
from xent.ops import Loss, Op
from xent.ops.blocks import Blocks
from xent.spec import Plan, Spec


def backend_of(array: Any) -> ModuleType:
    """`backends.torch` for a torch tensor, `backends.numpy` for every other array."""
    if is_torch(array):
        from xent.backends import torch as backend
    else:
        from xent.backends import numpy as backend
    return backend


def run(loss: Loss, rows: Rows, spec: Spec, plan: Plan | None) -> Any:
    """The loss of rows, reduced; differentiable where the array's library is."""
    backend = backend_of(rows.logits)
    rows = backend.coded(rows, spec, plan)
    outputs = backend.apply(loss.op(spec), rows.arrays, plan).outputs
    with backend.quiet():
        return _reduce(loss, outputs, rows, spec, backend)[0]


def run_vjp(
    loss: Loss, rows: Rows, spec: Spec, plan: Plan | None
) -> tuple[Any, Callable[..., Any]]:
    """The reduced loss, and the function from its cotangent to that of the logits."""
    from xent.backends import numpy as reference

    backend = backend_of(rows.logits)
    with backend.untracked():
        rows = backend.coded(rows, spec, plan)
        op, xp = loss.op(spec), rows.xp
        result = reference.apply(op, rows.arrays, plan)
        value, weight, divisor = _reduce(loss, result.outputs, rows, spec, backend)

    def vjp(upstream: Any = 1.0) -> Any:
        given = upstream_rows(spec, upstream, rows)
        with backend.untracked():
            by_output = loss.partials(xp, result.outputs, weight, spec)
            scale = reduction.row_scale(xp, given, divisor, weight)
            cotangents = _products(scale, by_output)
            return rows.spread(reference.vjp(op, rows.arrays, result.residuals, cotangents, plan))

    return value, vjp


def gradient(loss: Loss, rows: Rows, spec: Spec, upstream: Any) -> Any:
    """The gradient of a loss by its logits, as operations that the library can differentiate."""
    op, xp, backend = loss.op(spec), rows.xp, backend_of(rows.logits)
    rows = backend.coded(rows, spec, None)
    outputs, residuals = op.forward(xp, rows.arrays, Blocks())
    _, weight, divisor = _reduce(loss, outputs, rows, spec, backend)
    by_output = loss.partials(xp, outputs, weight, spec)
    given = xp.astype(upstream, rows.work)
    given = xp.reshape(given, rows.logits.shape[:2]) if given.ndim else given
    cotangents = _products(reduction.row_scale(xp, given, divisor, weight), by_output)
    wanted = (True,) + (False,) * (len(rows.arrays) - 1)
    found = op.vjp(xp, rows.arrays, residuals, cotangents, wanted, Blocks())
    return rows.spread(found[0])


def _products(scale: Any, by_output: tuple) -> tuple:
    return tuple(None if d is None else scale * d for d in by_output)


def run_op_vjp(op: Op, rows: Rows, function: str) -> tuple[Any, Callable[..., Any]]:
    """An op whose output has the shape of its array, and the function to the array's cotangent."""
    from xent.backends import numpy as reference

    backend = backend_of(rows.logits)
    with backend.untracked():
        result = reference.apply(op, (rows.logits,), None)
        value = rows.spread(result.outputs[0])

    def vjp(upstream: Any) -> Any:
        cotangent = upstream_entries(function, upstream, rows)
        with backend.untracked():
            return rows.spread(
                reference.vjp(op, (rows.logits,), result.residuals, (cotangent,), None)
            )

    return value, vjp


def _reduce(
    loss: Loss, outputs: tuple, rows: Rows, spec: Spec, backend: ModuleType
) -> tuple[Any, Any, Any]:
    """The result, and the row weights and the denominator that made it."""
    xp = rows.xp
    weight = reduction.row_weight(xp, rows)
    explicit = normalizer(spec.function, spec.normalizer, rows.logits)
    total = backend.total
    divisor = reduction.denominator(rows, weight, spec.reduction, explicit, total)
    losses = loss.value(outputs, weight, spec)
    value = reduction.reduce(xp, losses, divisor, spec.reduction, total)
    return rows.per_row(value, backend.result_dtype(rows)), weight, divisor
