"""The way in and out of every discrete measure.

In: the classes last and joined, in float64. Out: the shape, dtype and unit of the caller.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xent.info import checks
from xent.info.arrays import Array, is_torch
from xent.info.terms import Logits, Probabilities, Rows


@dataclass(frozen=True)
class Layout:
    """What turns nats over rows into the caller's result."""

    xp: Any
    dtype: Any
    axes: tuple[int, ...]  # of the classes, as the caller counts them
    sizes: tuple[int, ...]  # of these axes
    keepdims: bool
    log_base: float

    def result(self, nats: Array) -> Array:
        """`nats` (...) in the caller's unit, rounded once to the caller's dtype."""
        value = nats / self.log_base + 0.0  # no -0.0
        if self.keepdims:
            ndim = value.ndim + len(self.axes)
            for axis in sorted(a % ndim for a in self.axes):
                value = self.xp.expand_dims(value, axis=axis)
        return rounded(self.xp, value, self.dtype)


def read(
    function: str,
    axis: Any,
    base: float | None,
    from_logits: bool | tuple[bool, bool],
    keepdims: bool,
    pair: bool = False,
    **given: Any,
) -> tuple[Layout, list[Rows]]:
    """The arguments as checked rows of distributions, and the way back."""
    flags = checks.logit_flags(function, from_logits, len(given))
    log_base = checks.log_base(function, base)
    xp, arrays = checks.arrays(function, **given)
    axes = checks.class_axes(function, axis, pair, **dict(zip(given, arrays, strict=True)))
    sizes = tuple(arrays[0].shape[a] for a in axes)
    rows = []
    for name, array, flag in zip(given, arrays, flags, strict=True):
        values = classes_last(xp, widest(xp, array), axes)
        if flag:
            checks.logits(function, name, xp, values, sizes)
            rows.append(Logits.of(xp, values))
        else:
            checks.probabilities(function, name, xp, values, sizes, array.dtype)
            rows.append(Probabilities.of(xp, values))
    dtype = xp.result_type(*arrays)
    return Layout(xp, dtype, axes, sizes, keepdims, log_base), rows


def classes_last(xp: Any, array: Array, axes: tuple[int, ...]) -> Array:
    """(..., V): the axes of the classes moved to the end and joined to one."""
    axes = tuple(a % array.ndim for a in axes)
    others = tuple(a for a in range(array.ndim) if a not in axes)
    if others + axes != tuple(range(array.ndim)):
        array = xp.permute_dims(array, others + axes)
    split = len(others)
    return xp.reshape(array, (*array.shape[:split], math.prod(array.shape[split:])))


def widest(xp: Any, array: Array) -> Array:
    """`array` in float64, or in float32 on a device that has no float64 (Apple's GPU)."""
    mps = is_torch(array) and array.device.type == "mps"
    wide = xp.float32 if mps else xp.float64
    narrow = float(xp.finfo(array.dtype).eps) > float(xp.finfo(wide).eps)
    return xp.astype(array, wide) if narrow else array


def rounded(xp: Any, value: Array, dtype: Any) -> Array:
    """`value` in `dtype`; a NumPy scalar where it has no dimensions."""
    value = xp.astype(value, dtype, copy=False)
    return value[()] if isinstance(value, np.ndarray) else value
