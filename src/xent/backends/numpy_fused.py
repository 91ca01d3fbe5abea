"""A loss of NumPy arrays and its gradient in one call of the compiled kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xent.inputs import class_rows, dtype_name, upstream_rows, written_over
from xent.kernels import cpu, memory
from xent.kernels import loss as kernel
from xent.spec import Plan

run = cpu.function("xent_loss")


def loss(
    logits: Any, target: Any, weight: Any, prepared: kernel.Prepared, plan: Plan | None
) -> Any:
    """The loss of NumPy arrays; None where it is not for this way."""
    weights = _weights(logits, weight)
    form = _form(logits, target, weight, prepared, plan)
    return None if form is None else _result(form, logits, target, weights)


def loss_and_vjp(
    logits: Any, target: Any, weight: Any, prepared: kernel.Prepared, plan: Plan | None
) -> tuple[Any, Callable[..., Any]] | None:
    """The loss, with its gradient for an upstream of 1, and the function to any other."""
    if prepared.recipe.keeps_rows or (plan is not None and plan.gradient == "recompute"):
        return None
    in_place = plan is not None and plan.inplace
    if in_place:
        shared = cpu.overlaps(logits.shape, cpu.strides(logits))
        if shared or not logits.flags.writeable:
            return None
    form = _form(logits, target, weight, prepared, plan)
    if form is None:
        return None
    weights, kept = _weights(logits, weight), [logits if in_place else memory.fresh(logits, plan)]
    value = _result(form, logits, target, weights, kept[0])
    if value is None:
        return None
    spec = prepared.spec
    rows = class_rows(logits, target, weight, spec)

    def vjp(upstream: Any = 1.0) -> Any:
        factor = float(upstream_rows(spec, upstream, rows))
        gradient = kept.pop() if kept else None
        if gradient is not None and factor == 1:
            return gradient
        if not in_place:
            gradient = memory.fresh(logits, plan) if gradient is None else gradient
            _result(form, logits, target, weights, gradient, factor)
            return gradient
        if gradient is None:
            return written_over(spec.function)
        return np.multiply(gradient, factor, out=gradient)

    return value, vjp


def _result(
    form: kernel.Form,
    logits: Any,
    target: Any,
    weights: Any,
    gradient: Any = None,
    upstream: float = 1.0,
) -> Any:
    """The loss, and the gradient where there is an array for it; None where an index is wrong."""
    result = np.empty(form.lead, dtype=form.dtype)
    addresses = (cpu.address(a) for a in (logits, target, weights, gradient, result))
    done = run(kernel.pack(*addresses, upstream), form.record) == -1
    return result[()] if done else None


def _weights(logits: Any, weight: Any) -> Any:
    if type(weight) is not np.ndarray or weight.dtype != logits.dtype:
        return None
    return np.ascontiguousarray(weight, dtype=np.float64)


def _form(
    logits: Any, target: Any, weight: Any, prepared: kernel.Prepared, plan: Plan | None
) -> kernel.Form | None:
    arrays = (logits, target) if weight is None else (logits, target, weight)
    if any(type(array) is not np.ndarray for array in arrays):
        return None
    key = (plan, *((array.dtype, array.shape, array.strides) for array in arrays))
    if key not in prepared.forms:
        if len(prepared.forms) >= kernel.MOST_FORMS:
            prepared.forms.clear()
        prepared.forms[key] = _new_form(logits, target, weight, prepared, plan)
    return prepared.forms[key]


def _new_form(
    logits: Any, target: Any, weight: Any, prepared: kernel.Prepared, plan: Plan | None
) -> kernel.Form | None:
    for array in (logits, target):
        # Unaligned is a field of records, between whose elements others lie.
        if not array.dtype.isnative or not array.flags.aligned:
            return None
    if dtype_name(target) == "int64":
        if not target.flags.c_contiguous:
            return None
    elif dtype_name(target) not in cpu.DTYPES:
        return None
    classes = None
    if weight is not None:
        if weight.dtype != logits.dtype or weight.ndim != 1:
            return None
        classes = weight.shape[0]
    in_place = plan is not None and plan.inplace
    # Untouched memory costs nothing: this is only asked how it would lie.
    strides = cpu.strides(logits if in_place else np.empty_like(logits))
    return kernel.form(
        prepared.recipe,
        plan,
        _array(logits),
        _array(target),
        classes,
        strides,
        (logits.dtype, cpu.DTYPES.get(dtype_name(logits), 0)),
        cpu.parallel(logits),
    )


def _array(array: Any) -> kernel.Array:
    return kernel.Array(cpu.DTYPES.get(dtype_name(array)), array.shape, cpu.strides(array))
