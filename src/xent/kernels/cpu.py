"""The compiled kernel on NumPy arrays and torch tensors: whom it serves, and the record it takes.

`forward` and `vjp` are those of `xent.ops.stats.RowStats`; `loss` is a whole loss in one call, with
its gradient where one is asked for. The mathematics is in cpu.cpp.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xent.inputs import dtype_name, is_torch, namespace
from xent.kernels import library
from xent.ops import Op, Result
from xent.ops.stats import IGNORED, RowStats
from xent.spec import Plan

DTYPES = {"float16": 0, "bfloat16": 1, "float32": 2, "float64": 3}
STATISTICS, GRADIENT, LOSS = range(3)  # modes
NO_TARGET, INDICES, PROBABILITIES = range(3)
SMOOTH, ENTROPY, ACCURATE, CHECK, MEASURES = 1, 2, 4, 8, 16  # flags

# The fields of `struct Call` in cpu.cpp, in order: q for integers and addresses, d for doubles.
FIELDS = {
    **dict.fromkeys(("mode", "flags", "logits", "dtype"), "q"),
    **dict.fromkeys(("n", "d", "v", "stride_n", "stride_d", "stride_v"), "q"),
    **dict.fromkeys(("target_kind", "target", "target_dtype"), "q"),
    **dict.fromkeys(("target_n", "target_d", "target_v", "ignore_index", "weight"), "q"),
    **dict.fromkeys(("logit_scale", "softcap"), "d"),
    **dict.fromkeys(("lse", "nll", "smooth", "entropy", "tail", "k"), "q"),
    **dict.fromkeys(("by_lse", "by_nll", "by_smooth", "by_entropy"), "q"),
    **dict.fromkeys(("gradient", "gradient_n", "gradient_d", "gradient_v"), "q"),
    **dict.fromkeys(("of_nll", "of_smooth", "of_lse2"), "d"),
    "denominator": "q",
    **dict.fromkeys(("divisor", "upstream"), "d"),
    **dict.fromkeys(("losses", "loss", "loss_dtype", "parallel"), "q"),
    **dict.fromkeys(("confidence", "brier", "slope", "curve", "above"), "q"),
}
RECORD = struct.Struct("@" + "".join(FIELDS.values()))
pack = RECORD.pack


class Layout(NamedTuple):
    """Sizes and strides, in elements, of rows (N, D, V)."""

    n: int
    d: int
    v: int
    stride_n: int
    stride_d: int
    stride_v: int


def layout(shape: tuple[int, ...], stride: tuple[int, ...], axis: int) -> Layout | None:
    """An array with its classes on an axis as rows; None where the other axes do not merge."""
    before = _merged(shape[:axis], stride[:axis])
    after = _merged(shape[axis + 1 :], stride[axis + 1 :])
    if before is None or after is None:
        return None
    return Layout(before[0], after[0], shape[axis], before[1], after[1], stride[axis])


def _merged(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, int] | None:
    """Axes as one: its length and stride."""
    length, step = 1, 0
    for size, apart in zip(reversed(shape), reversed(stride), strict=True):
        if size == 1:
            continue
        if length > 1 and apart != step * length:
            return None
        step = step if length > 1 else apart
        length *= size
    return length, step


def overlaps(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether elements of an array may share memory: one written would change another."""
    reach = 1
    for apart, size in sorted((abs(a), n) for a, n in zip(stride, shape, strict=True) if n > 1):
        if apart < reach:
            return True
        reach += apart * (size - 1)
    return False


def run(record: bytes) -> int:
    """The kernel on a record: -1, or the first row whose target is out of range."""
    return function("xent_rows")(record)


def why_not(op: Op, arrays: tuple, wanted: tuple = (True, False, False)) -> str | None:
    """Why the kernel cannot serve this op on these arrays; None where it can."""
    reason = library.why_not()
    if reason is not None:
        return reason
    if type(op) is not RowStats:
        return "the op is not that of row statistics"
    if any(wanted[1:]):
        return "a derivative by the target or the class weights is wanted"
    logits, target, weight = arrays
    for array in arrays:
        if array is None:
            continue
        if is_torch(array):
            if not plain(array):
                return "an array is no plain tensor in main memory"
        elif type(array) is not np.ndarray or not array.dtype.isnative:
            return "an array is neither NumPy's nor torch's"
        elif not array.flags.aligned:  # a field of records, between whose elements others lie
            return "an array's elements are not whole elements apart"
    if 0 in tuple(logits.shape):
        return "there are no rows or no classes"
    for array in (logits, weight, target if target is not None and target.ndim == 3 else None):
        if array is not None and dtype_name(array) not in DTYPES:
            return f"the dtype {dtype_name(array)} has no kernel"
    return None


def plain(tensor: Any) -> bool:
    """Whether a tensor is torch's own, with its numbers in main memory."""
    return own(tensor) and tensor.is_cpu


def own(tensor: Any) -> bool:
    """Whether a tensor is torch's own and no subclass."""
    return type(tensor).__module__ in ("torch", "torch.nn.parameter")


def forward(op: RowStats, arrays: tuple, plan: Plan | None) -> Result:
    """The outputs and residuals of `RowStats.forward`."""
    logits, target, _ = arrays
    xp, lead = namespace(logits), tuple(logits.shape[:2])

    def make(asked: bool, dtype: Any = xp.float64) -> Any:
        return xp.empty(lead, dtype=dtype, device=logits.device) if asked else None

    outputs = make(True), make(target is not None), make(op.smooth), make(op.entropy)
    k, tail = make(True, xp.int64), make(True)
    names = "lse", "nll", "smooth", "entropy", "k", "tail"
    written = {n: address(o) for n, o in zip(names, (*outputs, k, tail), strict=True)}
    _run(op, arrays, plan, mode=STATISTICS, **written)
    return Result(outputs, (k, tail))


def vjp(op: RowStats, arrays: tuple, residuals: tuple, cotangents: tuple, plan: Plan | None) -> Any:
    """The gradient by the logits that `RowStats.vjp` gives."""
    from xent.kernels.memory import fresh

    out = fresh(arrays[0], plan)
    names = "k", "tail", "by_lse", "by_nll", "by_smooth", "by_entropy"
    read = [None if r is None else compact(r) for r in (*residuals, *cotangents)]
    given = {n: address(r) for n, r in zip(names, read, strict=True)}
    to = dict(zip(("gradient_n", "gradient_d", "gradient_v"), strides(out), strict=True))
    _run(op, arrays, plan, mode=GRADIENT, gradient=address(out), **given, **to)
    return out


def measures(
    logits: np.ndarray,
    target: np.ndarray,
    scale: float | None = None,
    bfloat16: bool = False,
    threads: bool = False,
) -> dict[str, np.ndarray]:
    """What saved predictions are judged by, a number for each row (N, V): see `struct Call`.

    The rows are logits, or the bits of bfloat16, without gaps; the targets are class indices or
    `IGNORED`. `curve` comes where there is a scale, which the type computed in must hold.
    """
    names = "nll", "lse", "confidence", "entropy", "brier", "slope"
    names = names if scale is None else (*names, "curve")
    found: dict[str, Any] = dict(zip(names, np.empty((len(names), len(target))), strict=True))
    found.update(k=np.empty(len(target), np.int64), above=np.empty(len(target), np.int64))
    fields = {name: address(array) for name, array in found.items()}
    fields["parallel"] = parallel(logits) if threads else 0
    if bfloat16:
        fields["dtype"] = DTYPES["bfloat16"]
    op = RowStats() if scale is None else RowStats(logit_scale=scale)
    arrays = logits[:, None], target[:, None], None
    _run(op, arrays, None, mode=STATISTICS, flags=MEASURES, **fields)
    return found


def _run(op: RowStats, arrays: tuple, plan: Plan | None, **fields: Any) -> None:
    logits, target, weight = arrays
    rows = Layout(*(int(size) for size in logits.shape), *strides(logits))
    fields.update(rows._asdict(), logits=address(logits))
    fields.setdefault("dtype", DTYPES.get(dtype_name(logits)))
    flags = fields.get("flags", 0) | SMOOTH * op.smooth | ENTROPY * op.entropy
    fields["flags"] = flags | (ACCURATE if plan is not None and plan.accurate else 0)
    fields["logit_scale"], fields["softcap"] = op.logit_scale, op.softcap or 0.0
    if target is not None and target.ndim == 2:
        target = compact(target)
        fields.update(target_kind=INDICES, target=address(target), ignore_index=IGNORED)
    elif target is not None:
        fields.update(target_kind=PROBABILITIES, target=address(target))
        fields["target_dtype"] = DTYPES[dtype_name(target)]
        names = "target_n", "target_d", "target_v"
        fields.update(zip(names, strides(target), strict=True))
    weight = None if weight is None else in_double(weight)
    fields["weight"] = address(weight)
    fields.setdefault("parallel", parallel(logits))
    run(pack(*(fields.get(name, 0) for name in FIELDS)))


def ask_for_huge_pages(start: int, size: int) -> None:
    """Have memory that nothing has touched come in huge pages, where the system has them."""
    _handle().xent_huge_pages(start, size)


def in_double(weight: Any) -> Any:
    """Class weights as the kernel reads them."""
    xp = namespace(weight)
    return compact(xp.astype(weight, xp.float64))


def compact(array: Any) -> Any:
    """The same array, or a copy of it, without gaps."""
    return array.contiguous() if is_torch(array) else np.ascontiguousarray(array)


def address(array: Any) -> int:
    """Where an array begins; 0 for none."""
    if array is None:
        return 0
    return array.data_ptr() if is_torch(array) else array.__array_interface__["data"][0]


def strides(array: Any) -> tuple[int, ...]:
    """The strides of an array in elements."""
    if is_torch(array):
        return array.stride()
    return tuple(apart // array.itemsize for apart in array.strides)


def parallel(array: Any) -> int:
    """The address of the function that shares work out: torch's for torch, ours for NumPy."""
    if is_torch(array):
        return library.torch_threads() or 0
    return _pool()


@functools.cache
def function(name: str) -> Callable[..., int]:
    """A function of the library for the instruction set in use, of so many records."""
    found = _loaded().function(name)
    found.argtypes = [ctypes.c_char_p] * (2 if name == "xent_loss" else 1)
    found.restype = ctypes.c_int64
    return found


def _loaded() -> Any:
    """The library: there is one, or nothing of this file is called."""
    return library.load()


@functools.cache
def _handle() -> ctypes.CDLL:
    handle = _loaded().handle
    handle.xent_huge_pages.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    handle.xent_huge_pages.restype = None
    return handle


@functools.cache
def _pool() -> int:
    handle = _loaded().handle
    handle.xent_set_threads(threads())
    return ctypes.cast(handle.xent_parallel_for, ctypes.c_void_p).value or 0


def threads() -> int:
    """How many threads work on NumPy arrays: XENT_NUM_THREADS, or one for each CPU of ours."""
    asked = os.environ.get("XENT_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    can_tell = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1
