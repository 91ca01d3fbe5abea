"""Row statistics on a GPU: whom the Triton kernels serve, how rows are cut, and the launches.

Nothing here waits for the device, and no result depends on the order in which programs run: a loss
and its gradient can be recorded in a CUDA graph, and two runs give the same bits. The mathematics
is in `triton_statistics` and `triton_gradient`.
"""

from __future__ import annotations

import struct
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xent.inputs import is_torch
from xent.kernels.cpu import own
from xent.ops import Result
from xent.ops.stats import RowStats
from xent.spec import Plan

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (*HALVES, torch.float32, torch.float64)
PROCESSORS = 8  # what the interpreter makes believe to have
COTANGENTS = ("LSE", "NLL", "SMOOTH", "ENTROPY")
CAP = 100.0  # a larger softcap of float32 is not exact enough for 0.51 ULP of a bfloat16


class Tile(NamedTuple):
    """Rows and classes that one program holds at a time, and its warps."""

    rows: int
    classes: int
    warps: int


class Rows(NamedTuple):
    """Rows as outer x inner: sizes, the steps in the logits and in numbers of rows (N, D)."""

    outer: int
    inner: int
    steps: tuple[int, int, int]  # of the logits: outer, inner, class
    row_steps: tuple[int, int]
    swapped: bool  # outer is D

    def of(self, array: Tensor) -> tuple[int, int, int]:
        """The steps of another array (N, D, V)."""
        n, d, v = array.stride()
        return (d, n, v) if self.swapped else (n, d, v)


def why_not(op: Any, arrays: tuple, wanted: tuple = (True, False, False)) -> str | None:
    """Why the kernels cannot serve this op on these arrays; None where they can."""
    if type(op) is not RowStats:
        return "the op is not that of row statistics"
    if any(wanted[1:]):
        return "a derivative by the target or the class weights is wanted"
    logits, target, weight = arrays
    for array in arrays:
        if array is not None and not (is_torch(array) and own(array) and on_device(array)):
            return "an array is no plain tensor on a GPU"
    if any(a is not None and a.device != logits.device for a in arrays):
        return "the arrays are on several devices"
    if 0 in logits.shape:
        return "there are no rows or no classes"
    for array in (logits, weight, target if target is not None and target.ndim == 3 else None):
        if array is not None and array.dtype not in DTYPES:
            return f"the dtype {array.dtype} has no kernel"
    return None if installed() else "triton is not installed"


def on_device(tensor: Tensor) -> bool:
    """Whether a tensor is where the kernels run."""
    return tensor.is_cuda


@cache
def installed() -> bool:
    """Whether there is Triton."""
    return find_spec("triton") is not None


def forward(op: RowStats, arrays: tuple, plan: Plan | None) -> Result:
    """The outputs and residuals of `RowStats.forward`."""
    return _statistics(op, arrays, plan, None)


def vjp(
    op: RowStats, arrays: tuple, residuals: tuple, cotangents: tuple, plan: Plan | None
) -> Tensor:
    """The gradient by the logits that `RowStats.vjp` gives."""
    out = torch.empty_like(arrays[0])
    return gradient_into(out, op, arrays, residuals, cotangents, plan)


def gradient_into(
    out: Tensor,
    op: RowStats,
    arrays: tuple,
    residuals: tuple,
    cotangents: tuple,
    plan: Plan | None,
    totals: Tensor | None = None,
    gate: tuple = (),
    found: Tensor | None = None,
) -> Tensor:
    """The same, written into a tensor (N, D, V) of any floating dtype: it may be the logits.

    `totals` are those of the statistics, where they are known; a `gate` is what `gradient` is told
    to do nothing by; `found` (N, D, 8) is room for the numbers of rows that it reads.
    """
    from xent.kernels.triton_gradient import coefficients, gradient
    from xent.kernels.triton_statistics import NUMBERS, TOTALS

    logits, target, weight = arrays
    kind = _target(target)
    smooth, entropy = cotangents[2] is not None, cotangents[3] is not None
    if totals is None and needs_totals(arrays, smooth, entropy):
        totals = _numbers(logits, TOTALS.value)
        _statistics(op, arrays, plan, totals)
    rows = rows_of(logits)
    work = working(op, arrays, plan)
    tile = tile_of(rows, logits.shape[2], work)
    found = _numbers(logits, NUMBERS.value) if found is None else found
    k, tail = (_compact(r) for r in residuals)
    target = _compact(target) if kind == 1 else target
    weight = _compact(weight)
    g = [None if c is None else _compact(c.double()) for c in cotangents]
    places = (*rows.steps, *_target_steps(rows, target, kind), *rows.row_steps)
    classes, count = logits.shape[2], rows.outer * rows.inner
    flags = _flags(op, arrays)
    long = logits.dtype == torch.float64
    on = {name: c is not None for name, c in zip(COTANGENTS, g, strict=True)}
    columns = -(-classes // tile.classes)
    blocks = rows.outer * -(-rows.inner // tile.rows)
    with _on(logits):
        _launch(
            *(coefficients, -(-count // 128), 4),
            *(logits, target, weight, k, tail, *g, totals, found, *places),
            *(rows.inner, classes, count, *_bits(op)),
            **(flags | on | {"R": 128, "KEPT": totals is not None, "EXACT": long}),
        )
        _launch(
            *(gradient, blocks * columns, tile.warps),
            *(logits, target, weight, k, found, out, *places, *rows.of(out)),
            *(rows.inner, classes, columns, *_bits(op)),
            **dict(zip(("upstreams", "asked", "done"), gate, strict=False)),
            **(flags | {"R": tile.rows, "B": tile.classes, "WORK": _triton(work)}),
            **{"SMOOTH": smooth, "ENTROPY": entropy, "EXACT": logits.dtype == work},
        )
    return out


def _statistics(op: RowStats, arrays: tuple, plan: Plan | None, totals: Tensor | None) -> Result:
    """`RowStats.forward`; and into `totals`, what of it only the gradient needs."""
    from xent.kernels.triton_statistics import NUMBERS, merge, statistics

    logits, target, weight = arrays
    kind = _target(target)

    def make(asked: bool, dtype: torch.dtype = torch.float64) -> Tensor | None:
        made = logits.shape[:2]
        return torch.empty(made, dtype=dtype, device=logits.device) if asked else None

    outputs = make(True), make(kind > 0), make(op.smooth), make(op.entropy)
    residuals = make(True, torch.int64), make(True)
    rows = rows_of(logits)
    work = working(op, arrays, plan)
    classes = logits.shape[2]
    tile = tile_of(rows, classes, work)
    parts, chunk = parts_of(rows, classes, tile, processors(logits))
    partial = _numbers(logits, parts * NUMBERS.value) if parts > 1 else None
    target = _compact(target) if kind == 1 else target
    given = (logits, target, _compact(weight), *outputs, *residuals, totals, partial)
    places = (*rows.steps, *_target_steps(rows, target, kind), *rows.row_steps)
    given = (*given, *places, rows.inner, classes, parts, chunk, *_bits(op))
    flags = _flags(op, arrays) | {"SMOOTH": op.smooth, "ENTROPY": op.entropy}
    flags["KEEP"] = totals is not None
    cut = {"R": tile.rows, "B": tile.classes, "SPLIT": parts > 1}
    types = types_of(logits, work)
    long = {"EXACT": logits.dtype == torch.float64}
    blocks = rows.outer * -(-rows.inner // tile.rows)
    with _on(logits):
        _launch(statistics, blocks * parts, tile.warps, *given, **flags, **cut, **types)
        if parts > 1:
            _launch(merge, rows.outer * rows.inner, 1, *given, **flags, **long)
    return Result(outputs, residuals)


def needs_totals(arrays: tuple, smooth: bool, entropy: bool) -> bool:
    """Whether the gradient needs more of a row than its residuals."""
    _, target, weight = arrays
    return _target(target) == 2 or entropy or (smooth and weight is not None)


def rows_of(logits: Tensor) -> Rows:
    """Rows (N, D) with the axis inside along which a program's rows lie.

    That is the longer one, unless other rows lie between the classes of a row: then it is the one
    whose rows are next to each other.
    """
    n, d, _ = logits.shape
    step_n, step_d, step_v = logits.stride()
    within = d > n
    if step_v != 1 and min(n, d) > 1:
        within = abs(step_d) <= abs(step_n)
    if within:
        return Rows(n, d, (step_n, step_d, step_v), (d, 1), False)
    return Rows(d, n, (step_d, step_n, step_v), (1, d), True)


def tile_of(rows: Rows, classes: int, work: torch.dtype) -> Tile:
    """The tile of a program, by shapes and dtypes alone: the bits of a result depend on it.

    A lane of a program has 8 numbers (4 of float64), which 16 bytes of half precision hold: its
    sums then take about 80 registers (100 of float32), and several programs share a
    multiprocessor, each with the loads of three more blocks under way.
    Classes that lie apart are read as many rows of a few classes, so that a warp's loads are
    of whole lines.
    """
    most = 1024 if work == torch.float64 else 2048
    if rows.steps[2] != 1 and rows.inner > 1:
        count = min(64, _power(rows.inner))
        return Tile(count, min(_power(classes), most // 2 // count), 4)
    width = min(_power(classes), most)
    count = max(1, min(_power(rows.inner), most // 2 // width, 64))
    return Tile(count, width, 4 if count * width <= most // 2 else 8)


def parts_of(rows: Rows, classes: int, tile: Tile, count: int) -> tuple[int, int]:
    """Programs for each row, and the classes of each: several where rows are too few for a GPU."""
    blocks, total = -(-classes // tile.classes), rows.outer * rows.inner
    if total >= 2 * count or blocks < 8:
        return 1, classes
    chunk = -(-blocks // min(blocks // 4, -(-2 * count // total))) * tile.classes
    return -(-classes // chunk), chunk


def processors(logits: Tensor) -> int:
    """The multiprocessors of the device."""
    if not logits.is_cuda:
        return PROCESSORS
    return torch.cuda.get_device_properties(logits.device).multi_processor_count


def working(op: RowStats, arrays: tuple, plan: Plan | None) -> torch.dtype:
    """What is computed in: float64 where float32 would not hold the contract."""
    logits, target, weight = arrays
    wide = logits.dtype == torch.float64 or (plan is not None and plan.accurate)
    wide |= op.entropy or _target(target) == 2 or (op.smooth and weight is not None)
    if op.softcap is not None or op.logit_scale != 1:
        wide |= logits.dtype != torch.bfloat16 or (op.softcap is not None and op.softcap > CAP)
    return torch.float64 if wide else torch.float32


def types_of(logits: Tensor, work: torch.dtype) -> dict[str, Any]:
    """What is computed in, and what is summed in, as a kernel is told."""
    sums = torch.float32 if logits.dtype in HALVES and work == torch.float32 else torch.float64
    return {"WORK": _triton(work), "SUM": _triton(sums), "EXACT": logits.dtype == work}


def _launch(kernel: Any, programs: int, warps: int, *given: Any, **constants: Any) -> None:
    # What a product fused with a sum makes of the formulas is exact or better (`triton_math`);
    # not to say so is deprecated.
    kernel[(programs,)](*given, **constants, num_warps=warps, enable_fp_fusion=True)


def _flags(op: RowStats, arrays: tuple) -> dict[str, Any]:
    return {
        "TARGET": _target(arrays[1]),
        "WEIGHT": arrays[2] is not None,
        "CAP": op.softcap is not None,
        "SCALE": op.logit_scale != 1,
    }


def _target(target: Tensor | None) -> int:
    """0 for none, 1 for codes, 2 for probabilities."""
    return 0 if target is None else target.ndim - 1


def _target_steps(rows: Rows, target: Tensor | None, kind: int) -> tuple[int, int, int]:
    return (0, 0, 0) if kind < 2 or target is None else rows.of(target)


def _numbers(logits: Tensor, count: int) -> Tensor:
    """Room for so many float64 numbers of every row."""
    return torch.empty((*logits.shape[:2], count), dtype=torch.float64, device=logits.device)


def _compact(array: Tensor | None) -> Any:
    return None if array is None else array.contiguous()


def _bits(op: RowStats) -> tuple[int, int]:
    """The bits of scale and softcap."""
    cap = 1.0 if op.softcap is None else op.softcap
    return struct.unpack("qq", struct.pack("dd", op.logit_scale, cap))


def _power(number: int) -> int:
    """The least power of two that is no less."""
    return 1 << (number - 1).bit_length()


def _triton(dtype: torch.dtype) -> Any:
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32


def _on(logits: Tensor) -> AbstractContextManager:
    """Launch on the device of the logits."""
    return torch.cuda.device(logits.device) if logits.is_cuda else nullcontext()
