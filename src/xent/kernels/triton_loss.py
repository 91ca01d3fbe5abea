"""A whole loss on a GPU: its value and, in the same launch, its gradient.

A call is `begin`, `value` and, for an upstream that the gradient was not made for, `heed` with
`anew` or `rescale`. Nothing waits for the device: numbers that depend on what arrays hold, like the
denominator of a mean and the upstream, stay there. The mathematics is in `triton_fused`.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import torch
from torch import Tensor

from xent.kernels import triton_rows as of_rows
from xent.kernels.loss import Recipe
from xent.kernels.triton_rows import _bits, _compact, _flags, _launch, _numbers, _on, _triton
from xent.ops.stats import RowStats
from xent.reduction import NOTHING, ROW_WEIGHT
from xent.spec import Plan

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SPAN, BLOCK = 1 << 14, 1 << 10  # numbers that a program sums, and how many at a time
EXPECTED, NEVER, GIVEN = 1, 2, 3  # the upstreams among the shared numbers of `triton_fused`


class Loss(NamedTuple):
    """A loss under way."""

    op: RowStats
    recipe: Recipe
    plan: Plan | None
    codes: Tensor | None  # (N, D), where the target is class indices
    numbers: Tensor  # (4,) float64, that the kernels share
    kept: Split | None  # where rows are split over programs


class Split(NamedTuple):
    """What is known of rows that several programs worked on."""

    outputs: tuple
    residuals: tuple
    totals: Tensor | None


def begin(
    op: RowStats, recipe: Recipe, arrays: tuple, plan: Plan | None, expected: Tensor | None
) -> Loss:
    """The codes of class indices (N, D), what the sum over rows is divided by, and the upstream.

    The upstream that the gradient is made for is `expected`, a float64 number on the device, or 1.
    """
    logits, target, weight = arrays
    n, d, classes = logits.shape
    numbers = torch.empty(4, dtype=torch.float64, device=logits.device)
    indexed = target.ndim == 2
    codes = torch.empty((n, d), dtype=torch.int64, device=logits.device) if indexed else None
    counted = indexed and recipe.denominator == ROW_WEIGHT
    divisor = recipe.divisor
    if recipe.denominator == NOTHING:
        divisor = 1.0
    elif recipe.denominator == ROW_WEIGHT:
        divisor = float(n * d)
    rows = n * d if indexed else 0
    programs, span = _spans(rows)
    sums = numbers if programs == 1 or not counted else numbers.new_empty(programs)
    with _on(logits):
        from xent.kernels.triton_fused import prepare

        _launch(
            *(prepare, programs, 4, _compact(target) if indexed else numbers, _compact(weight)),
            *(codes if indexed else numbers, sums, numbers, expected, rows, span, classes),
            *(recipe.ignore_index, *_bits_of(divisor)),
            **{"B": BLOCK, "COUNT": counted},
        )
        if sums is not numbers:
            _sum(sums, numbers, numbers, False)
    return Loss(op, recipe, plan, codes, numbers, None)


def value(loss: Loss, arrays: tuple, out: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Loss]:
    """The loss, reduced to one number or (N, D), and into `out` its gradient (N, D, V).

    `out` may be the logits.
    """
    arrays = _coded(loss, arrays)
    losses = arrays[0].new_empty(arrays[0].shape[:2], dtype=torch.float64)
    if _parts(loss, arrays) > 1:
        loss = _split(loss, arrays, out is not None)
        cotangents = _combined(loss, arrays, losses, EXPECTED)
        if out is not None:
            _gradient(loss, arrays, out, cotangents, ())
    else:
        _fused(loss, arrays, losses, out, EXPECTED, NEVER)
    if loss.recipe.keeps_rows:
        return losses.to(dtype), loss
    result = losses.new_empty((), dtype=dtype)
    with _on(losses):
        _sum(losses, result, loss.numbers, True)
    return result, loss


def heed(loss: Loss, upstream: Tensor, expected: Tensor) -> None:
    """Note the upstream of a backward, and expect it of the next."""
    from xent.kernels.triton_fused import heed as kernel

    with _on(loss.numbers):
        _launch(kernel, 1, 1, upstream, loss.numbers, expected)


def anew(loss: Loss, arrays: tuple, out: Tensor, made: bool) -> None:
    """The gradient for the upstream that was noted; `made` where it is there for the expected one.

    Where it is there already, nothing is done.
    """
    arrays, done = _coded(loss, arrays), EXPECTED if made else NEVER
    losses = arrays[0].new_empty(arrays[0].shape[:2], dtype=torch.float64)
    if loss.kept is None:
        _fused(loss, arrays, losses, out, GIVEN, done)
    else:
        cotangents = _combined(loss, arrays, losses, GIVEN)
        _gradient(loss, arrays, out, cotangents, (loss.numbers, GIVEN, done))


def rescale(loss: Loss, out: Tensor) -> None:
    """A gradient made for the expected upstream, as that for the one that was noted."""
    from xent.kernels.triton_fused import scaled

    rows = of_rows.rows_of(out)
    work = torch.float64 if out.dtype == torch.float64 else torch.float32
    tile = of_rows.tile_of(rows, out.shape[2], work)
    columns = -(-out.shape[2] // tile.classes)
    programs = rows.outer * -(-rows.inner // tile.rows) * columns
    with _on(out):
        _launch(
            *(scaled, programs, tile.warps, out, loss.numbers, *rows.steps, rows.inner),
            *(out.shape[2], columns, GIVEN, EXPECTED),
            **{"R": tile.rows, "B": tile.classes, "WORK": _triton(work)},
        )


def _fused(
    loss: Loss, arrays: tuple, losses: Tensor, out: Tensor | None, asked: int, done: int
) -> None:
    from xent.kernels.triton_fused import fused

    logits, target, weight = arrays
    rows, work = of_rows.rows_of(logits), of_rows.working(loss.op, arrays, loss.plan)
    tile = of_rows.tile_of(rows, logits.shape[2], work)
    kind = target.ndim - 1
    steps = of_rows._target_steps(rows, target, kind)
    to = logits if out is None else out
    with _on(logits):
        _launch(
            *(fused, rows.outer * -(-rows.inner // tile.rows), tile.warps),
            *(logits, target, _compact(weight), losses, loss.numbers, to),
            *(*rows.steps, *steps, *rows.row_steps, *rows.of(to), rows.inner, logits.shape[2]),
            *(asked, done, *_bits(loss.op), *_bits_of(*loss.recipe.coefficients)),
            **(_flags(loss.op, arrays) | _terms(loss) | of_rows.types_of(logits, work)),
            **{"R": tile.rows, "B": tile.classes, "GRADIENT": out is not None},
        )


def _split(loss: Loss, arrays: tuple, gradient: bool) -> Loss:
    """The statistics of rows that several programs work on."""
    from xent.kernels.triton_statistics import TOTALS

    totals = None
    if gradient and of_rows.needs_totals(arrays, loss.op.smooth, False):
        totals = _numbers(arrays[0], TOTALS.value)
    found = of_rows._statistics(loss.op, arrays, loss.plan, totals)
    return loss._replace(kept=Split(found.outputs, found.residuals, totals))


def _combined(loss: Loss, arrays: tuple, losses: Tensor, asked: int) -> tuple:
    """Write the losses; the cotangents of the statistics of split rows."""
    from xent.kernels.triton_fused import combine

    _, target, weight = arrays
    lse, nll, smooth, _ = loss.kept.outputs if loss.kept else (None,) * 4
    terms = _terms(loss)
    asked_of = terms["LSE"], True, terms["SMOOTH"]
    by = [torch.empty_like(losses) if wanted else None for wanted in asked_of]
    with _on(losses):
        _launch(
            *(combine, -(-losses.numel() // 128), 4, target, _compact(weight), lse, nll, smooth),
            *(losses, *by, loss.numbers, losses.numel(), asked),
            *_bits_of(*loss.recipe.coefficients),
            **{"B": 128, "TARGET": target.ndim - 1, "WEIGHT": weight is not None, **terms},
        )
    return (*by, None)


def _gradient(loss: Loss, arrays: tuple, out: Tensor, cotangents: tuple, gate: tuple) -> None:
    _, residuals, totals = loss.kept or ((), (), None)
    of_rows.gradient_into(out, loss.op, arrays, residuals, cotangents, loss.plan, totals, gate)


def _coded(loss: Loss, arrays: tuple) -> tuple:
    """The arrays with codes in the place of class indices."""
    logits, target, weight = arrays
    return logits, target if loss.codes is None else loss.codes, weight


def _parts(loss: Loss, arrays: tuple) -> int:
    """Programs for each row."""
    logits, rows = arrays[0], of_rows.rows_of(arrays[0])
    work = of_rows.working(loss.op, arrays, loss.plan)
    tile = of_rows.tile_of(rows, logits.shape[2], work)
    return of_rows.parts_of(rows, logits.shape[2], tile, of_rows.processors(logits))[0]


def _terms(loss: Loss) -> dict[str, bool]:
    """Which statistics the loss is made of."""
    of_nll, _, of_lse2 = loss.recipe.coefficients
    return {"NLL": of_nll != 0, "SMOOTH": loss.op.smooth, "LSE": of_lse2 != 0}


def _sum(values: Tensor, out: Tensor, numbers: Tensor, divide: bool) -> None:
    """The sum of all values, or where it is divided their mean; their number fixes the order."""
    from xent.kernels.triton_fused import summed

    count = values.numel()
    programs, span = _spans(count)
    if programs > 1:
        sums = values.new_empty(programs)
        _launch(summed, programs, 4, values, sums, numbers, count, span, B=BLOCK, DIVIDE=False)
        values, count, span = sums, programs, _whole(programs)
    _launch(summed, 1, 4, values, out, numbers, count, span, B=BLOCK, DIVIDE=divide)


def _spans(count: int) -> tuple[int, int]:
    """Programs that sum so many numbers, and how many each."""
    return max(1, -(-count // SPAN)), min(SPAN, max(BLOCK, _whole(count)))


def _whole(count: int) -> int:
    """The least multiple of a block that is no less."""
    return -(-count // BLOCK) * BLOCK


def _bits_of(*numbers: float) -> tuple[int, ...]:
    """The bits of float64 numbers: Triton passes a Python float as a float32."""
    return struct.unpack(f"{len(numbers)}q", struct.pack(f"{len(numbers)}d", *numbers))
