"""A linear head on a GPU: products of only some rows, and what rounding dlogits loses.

dlogits of half precision are rounded for the products. What that loses of a row's entry at the
target and of its largest other one counts for more than what it loses of all the rest: `largest`
finds it, and `add` adds its products with weights or hidden states to a gradient's float32 sums,
in the order of rows, before these are scaled and rounded themselves. No program waits for another,
and none adds to what another adds to.
"""
# What a function decorated with triton.jit means, no checker of types for Python knows:
# pyright: basic, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from xent.kernels.triton_math import distance, double, exponential, slope_at, weighted, within
from xent.kernels.triton_rows import _bits, _flags, _launch, _on, _power
from xent.kernels.triton_statistics import NUMBERS
from xent.ops.stats import RowStats

PER_ROW = 2  # entries of a row whose rounding is made good
ROWS, COLUMNS = 8, 256  # of a gradient, that a program finishes


class Few(NamedTuple):
    """So many of the rows, the first ones: a number that only the device knows."""

    count: Tensor
    before: int = 0  # rows that come before those of a product

    def after(self, rows: int) -> Few:
        return Few(self.count, self.before + rows)


class Lost(NamedTuple):
    """What rounding lost of entries of dlogits, by the row or class that it is added to."""

    starts: Tensor  # of the entries of each, and the end
    items: Tensor  # the class or row of each entry
    lost: Tensor


def multiply(
    out: Tensor, left: Tensor, right: Tensor, add: bool, few: Few, inner: bool = False
) -> None:
    """out = left @ right, or out += left @ right, of only some of the rows; out is float32.

    They are the rows of `left`, whose other products are not written, or where `inner` its columns.
    """
    (m, k), n = left.shape, right.shape[1]
    block = _block(m, n)
    with _on(out):
        _launch(
            *(product, -(-m // block[0]) * -(-n // block[1]), 8),
            *(out, left, right, few.count, few.before, m, n, k),
            *(*left.stride(), *right.stride(), out.stride(0)),
            **dict(zip(("M", "N", "K"), block, strict=True)),
            **{"ADD": add, "INNER": inner, "num_stages": 3},
        )


def _block(m: int, n: int) -> tuple[int, int, int]:
    """Rows, columns and terms that a program multiplies at a time."""
    return min(128, max(16, _power(m))), min(128, max(16, _power(n))), 64


def lost_of(
    dlogits: Tensor,
    op: RowStats,
    arrays: tuple,
    argmax: Tensor,
    found: Tensor,
    at: Tensor,
    lost: Tensor,
) -> None:
    """Write the classes (R, 2) of a row's largest entries, V where there is none, and their losses.

    `found` is what the gradient kernel knows of rows, `dlogits` (R, 1, V) what it wrote.
    """
    logits, target, weight = arrays
    rows, _, classes = logits.shape
    codes = target if target is not None and target.ndim == 2 else None
    flags = _flags(op, (logits, codes, weight))
    with _on(logits):
        _launch(
            *(largest, rows, 4),
            *(dlogits, logits, None if codes is None else codes.contiguous()),
            *(None if weight is None else weight.contiguous(), argmax.contiguous(), found),
            *(at, lost, dlogits.stride(0), logits.stride(0), classes, *_bits(op)),
            **flags,
            **{"SMOOTH": op.smooth, "B": min(2048, _power(classes))},
        )


def by_row(at: Tensor, lost: Tensor) -> Lost:
    """Lost entries (R, 2) as they are added to rows."""
    starts = torch.arange(0, at.numel() + 1, PER_ROW, device=at.device)
    return Lost(starts, at.reshape(-1), lost.reshape(-1))


def by_class(at: Tensor, lost: Tensor, classes: int) -> Lost:
    """The same as they are added to classes, in the order of rows."""
    ordered, order = torch.sort(at.reshape(-1), stable=True)
    each = torch.arange(classes + 1, device=at.device)
    return Lost(torch.searchsorted(ordered, each), order // PER_ROW, lost.reshape(-1)[order])


def finish(
    out: Tensor,
    sums: Tensor,
    other: Tensor,
    lost: Lost,
    first: int,
    factor: Tensor | None = None,
    few: Few | None = None,
) -> None:
    """out = factor (sums + what was lost, times rows of `other`), for rows from the `first` on.

    Rows that are not among the few are 0. `out` may be `sums`.
    """
    rows, width = sums.shape
    block = min(ROWS, _power(rows)), min(COLUMNS, _power(width))
    with _on(out):
        _launch(
            *(add, -(-rows // block[0]) * -(-width // block[1]), 8),
            *(out, sums, other, *lost, factor, None if few is None else few.count),
            *(first, 0 if few is None else few.before, rows, width),
            *(out.stride(0), sums.stride(0), *other.stride()),
            **dict(zip("RB", block, strict=True)),
            **{"K": 4, "FACTOR": factor is not None, "FEW": few is not None},
        )


@triton.jit(do_not_specialize=["before"])
def product(
    out, left, right, count, before, m, n, k, left_m, left_k, right_k, right_n, out_m,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, ADD: tl.constexpr, INNER: tl.constexpr,
):  # fmt: skip
    """A tile of a product; programs that follow each other share what they read."""
    pid = tl.program_id(0)
    down, across = tl.cdiv(m, M), tl.cdiv(n, N)
    group = pid // (8 * across)
    height = tl.minimum(down - group * 8, 8)
    row = (group * 8 + (pid % (8 * across)) % height) * M
    column = ((pid % (8 * across)) // height) * N
    some = tl.load(count) - before
    end = k
    if INNER:
        end = tl.minimum(tl.maximum(some, 0), k).to(tl.int32)
        some = m
    if row < some:
        i, j, each = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
        high, wide = (i < m - row)[:, None], (j < n - column)[None, :]
        # Within a block 32 bits hold every distance: only blocks are far apart.
        a = left + row.to(tl.int64) * left_m
        b = right + column.to(tl.int64) * right_n
        a_at = i[:, None] * left_m + each[None, :] * left_k
        b_at = each[:, None] * right_k + j[None, :] * right_n
        sums = tl.zeros([M, N], tl.float32)
        for start in range(0, end, K):
            x = tl.load(a + a_at, mask=high & (each < end - start)[None, :], other=0.0)
            y = tl.load(b + b_at, mask=(each < end - start)[:, None] & wide, other=0.0)
            sums = tl.dot(x, y, sums, input_precision="ieee")
            a += K * left_k
            b += K * right_k
        place = out + row.to(tl.int64) * out_m + column
        place += i[:, None].to(tl.int64) * out_m + j[None, :]
        if ADD:
            sums += tl.load(place, mask=high & wide, other=0.0)
        tl.store(place, sums, mask=high & wide)


@triton.jit(do_not_specialize=["scale_bits", "cap_bits"])
def largest(
    dlogits, logits, target, weight, argmax, found, classes_at, lost, d_row, x_row, classes,
    scale_bits, cap_bits,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, CAP: tl.constexpr, SCALE: tl.constexpr,
    SMOOTH: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """The entries at the argmax and at the target; where these are one, at the next largest."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.load(argmax + row)
    numbers = found + row * NUMBERS
    exact = tl.load(numbers + 2)
    stored = tl.load(dlogits + row * d_row + k).to(tl.float64)
    code = k * 0 - 2
    if TARGET == 1:
        code = tl.load(target + row)
    silent = code == -1
    tl.store(classes_at + row * 2, tl.where(silent, classes, k))
    tl.store(lost + row * 2, tl.where(silent, 0.0, exact - stored).to(tl.float32))
    other = tl.zeros_like(k) + classes
    more = tl.zeros_like(exact)
    if code >= 0:
        if code != k:
            other = code
            more = tl.load(numbers + 3) - tl.load(dlogits + row * d_row + code).to(tl.float64)
        else:
            best = tl.full([B], -float("inf"), tl.float32)
            place = tl.full([B], 0, tl.int64) + classes
            for start in range(0, classes, B):
                c = start + tl.arange(0, B).to(tl.int64)
                on = (c < classes) & (c != k)
                d = tl.load(dlogits + row * d_row + c, mask=on, other=-float("inf"))
                d = d.to(tl.float32)
                place = tl.where(d > best, c, place)
                best = tl.maximum(d, best)
            top = tl.max(best, 0)
            other = tl.min(tl.where(best == top, place, classes), 0)
            if other < classes:
                x = tl.load(logits + row * x_row + other).to(tl.float64)
                x = within(x, CAP)
                scale, cap = double(scale_bits), double(cap_bits)
                high, low = distance(x, tl.load(numbers), scale, cap, CAP, SCALE, True)
                e = exponential(high, low, True)
                away = -(high + low) - tl.load(numbers + 7)
                d = tl.load(numbers + 1) * e + tl.load(numbers + 6) * weighted(e, away)
                if SMOOTH:
                    w = 1.0
                    if WEIGHT:
                        w = tl.load(weight + other).to(tl.float64)
                    d -= tl.load(numbers + 5) * w
                if CAP:
                    d *= slope_at(x, scale, cap, CAP, SCALE)
                more = d - tl.load(dlogits + row * d_row + other).to(tl.float64)
    tl.store(classes_at + row * 2 + 1, other)
    tl.store(lost + row * 2 + 1, more.to(tl.float32))


@triton.jit(do_not_specialize=["first", "before"])
def add(
    out, sums, other, starts, items, lost, factor, count, first, before, rows, width,
    out_row, sums_row, other_row, other_column,
    R: tl.constexpr, K: tl.constexpr, B: tl.constexpr, FACTOR: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Some columns of some rows, K entries of each at a time."""
    pid = tl.program_id(0).to(tl.int64)
    columns = tl.cdiv(width, B)
    row = (pid // columns) * R + tl.arange(0, R)
    c = (pid % columns) * B + tl.arange(0, B)
    live = row < rows
    inside = live[:, None] & (c < width)[None, :]
    total = tl.load(sums + row[:, None] * sums_row + c[None, :], mask=inside, other=0.0)
    begin = tl.load(starts + first + row, mask=live, other=0)
    size = tl.load(starts + first + row + 1, mask=live, other=0) - begin
    for start in range(0, tl.max(size, 0), K):
        each = start + tl.arange(0, K)
        at = begin[:, None] + each[None, :]
        on = each[None, :] < size[:, None]
        share = tl.load(lost + at, mask=on, other=0.0)
        item = tl.load(items + at, mask=on, other=0)
        there = (share != 0)[:, :, None] & inside[:, None, :]
        place = other + item[:, :, None] * other_row + c[None, None, :] * other_column
        terms = share[:, :, None] * tl.load(place, mask=there, other=0.0).to(tl.float32)
        total += tl.sum(terms, 1)
    if FACTOR:
        total = total * tl.load(factor)
    if FEW:
        here = first + row < tl.load(count) - before
        total = tl.where(here[:, None], total, 0.0)
    tl.store(out + row[:, None] * out_row + c[None, :], total.to(out.dtype.element_ty), mask=inside)
