"""Faster ways to compute an op, each for what it serves; the op itself is what is right.

A kernel is a module with `why_not(op, arrays, wanted)`, the reason why it cannot serve or None, and
the op's `forward` and `vjp`, here of (op, arrays, ..., plan).
"""

from __future__ import annotations

from typing import Any

from xent.inputs import is_torch, no_kernel
from xent.ops import Op
from xent.spec import Plan

ONLY_FIRST = (True, False, False)  # the gradient by the logits alone is wanted


def choose(op: Op, arrays: tuple, plan: Plan | None, wanted: tuple = ONLY_FIRST) -> Any:
    """The kernel for an op on these arrays; None where it is the op's own array code."""
    from xent.kernels import cpu

    asked = None if plan is None else plan.kernel
    if asked == "reference":
        return None
    if is_torch(arrays[0]):
        from xent.kernels import triton_rows

        if triton_rows.on_device(arrays[0]):
            reason = triton_rows.why_not(op, arrays, wanted)
            if reason is None:
                return triton_rows
            return no_kernel(reason) if asked == "native" else None
    reason = cpu.why_not(op, arrays, wanted)
    if reason is None:
        return cpu
    if asked == "native":
        return no_kernel(reason)
    return _chunks(op, arrays, plan, wanted)


def _chunks(op: Op, arrays: tuple, plan: Plan | None, wanted: tuple) -> Any:
    """torch's own operations on chunks of rows, where they serve; they are good to 3 or 4 ULP."""
    if not is_torch(arrays[0]) or (plan is not None and plan.accurate):
        return None
    from xent.kernels import torch_chunks

    return None if torch_chunks.why_not(op, arrays, wanted) else torch_chunks
