"""Runs ops on arrays of NumPy and every other array-API library: the reference.

These libraries have no derivatives of their own, or are not asked for them: `differentiate` keeps
what an op's vjp reuses.
"""

from __future__ import annotations

from typing import Any

import array_api_compat
import numpy as np

from xent import kernels
from xent.inputs import Rows, namespace
from xent.ops import Op, Result, exact
from xent.ops.blocks import BLOCK_BYTES, Blocks
from xent.spec import Plan, Spec


def quiet() -> Any:
    """Overflow to inf and inf - inf are results here, as in torch, and no accidents."""
    return np.errstate(all="ignore")


untracked = quiet


def apply(op: Op, arrays: tuple, plan: Plan | None) -> Result:
    """The outputs of an op, and what its vjp reuses."""
    if kernel := kernels.choose(op, arrays, plan):
        return kernel.forward(op, arrays, plan)
    with quiet():
        return op.forward(namespace(arrays[0]), arrays, _blocks(arrays[0], plan))


def vjp(op: Op, arrays: tuple, residuals: tuple, cotangents: tuple, plan: Plan | None) -> Any:
    """The gradient of an op by its first array."""
    wanted = (True,) + (False,) * (len(arrays) - 1)
    if kernel := kernels.choose(op, arrays, plan, wanted):
        return kernel.vjp(op, arrays, residuals, cotangents, plan)
    with quiet():
        xp, blocks = namespace(arrays[0]), _blocks(arrays[0], plan)
        return op.vjp(xp, arrays, residuals, cotangents, wanted, blocks)[0]


def coded(rows: Rows, spec: Spec, plan: Plan | None) -> Rows:
    """Class indices checked and replaced by codes."""
    return rows.coded(spec, check=plan is None or plan.check_targets is not False)


def total(terms: Any) -> Any:
    """The sum of all elements."""
    return exact.total(namespace(terms), terms)


def result_dtype(rows: Rows) -> Any:
    """The dtype of a loss."""
    return rows.dtype


def _blocks(array: Any, plan: Plan | None) -> Blocks:
    size = BLOCK_BYTES if plan is None or plan.chunk_bytes is None else plan.chunk_bytes
    # A read-only NumPy array still makes writable ones; an array library may have none at all.
    write = array_api_compat.is_numpy_array(array) or array_api_compat.is_writeable_array(array)
    return Blocks(size, write)
