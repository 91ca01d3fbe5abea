"""Row statistics on a CPU in torch's own operations, on so many rows at a time as a cache holds.

It serves where no compiled kernel does. Exponentials are float32, numbers of a row float64. What
keeps a float32 loss within 3 units in the last place (ULP) and an entry of its gradient within 4:

- exp is taken of x - M for an M that makes the difference exact: half a unit of x - m, with m the
  largest logit, is up to 64 half units of its exponential. M is 0 for m in [0, 83], and floor(m)
  below 0 and from 176 on: where exp(x - M) is normal, |x - M| <= |x|, and M has no finer bits.
- The largest term is left out of the sum, and sums of some hundred terms are added in float64.
- The entries of the gradient at the target and at the argmax are computed in float64.

Rows for which that is not enough are computed anew in float64: 83 < m < 176 in float32, no finite
m, a tail or a factor of the gradient near the ends of the range of float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from xent.inputs import is_torch
from xent.kernels.cpu import plain
from xent.kernels.torch_rows import (
    class_second,
    count_of,
    cuts,
    empty,
    groups,
    is_long,
    like,
    shaped,
    some,
)
from xent.ops import Result
from xent.ops.stats import IGNORED, RowStats, silence
from xent.spec import Plan

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FEWEST = 1 << 14  # logits
PIECE = 128  # classes
LARGEST, FAR = 83.0, 176.0  # PIECE exp(83) is finite; exp(-FAR / 2) is below the smallest normal
TINY = 1e-30  # a sum below it may hold exponentials that are not normal
SMALLEST, HUGE = 2.0**-126, 3e38  # the ends of float32


class _Slope(NamedTuple):
    """The gradient of a row: rate p - constant, but for the entries `at` some classes."""

    rate: Tensor  # (N, D)
    constant: Tensor | None  # (N, D)
    at: list[Tensor]  # of (N, D)
    entries: list[Tensor]  # of (N, D)


def why_not(op: Any, arrays: tuple, wanted: tuple = (True, False, False)) -> str | None:
    """The reason why an op on arrays, with the gradients wanted of it, is not computed here."""
    if not isinstance(op, RowStats):
        return "only row statistics are computed in chunks"
    logits, target, weight = arrays
    if not all(a is None or (is_torch(a) and plain(a)) for a in arrays):
        return "only torch tensors on a CPU are computed in chunks"
    reasons = {
        f"{logits.dtype} logits": logits.dtype not in DTYPES,
        "no logits": 0 in logits.shape,
        "2^24 classes or more": logits.shape[-1] >= 1 << 24,
        "a softcap or a logit scale": op.softcap is not None or op.logit_scale != 1,
        "the entropy": op.entropy,
        "target probabilities": target is not None and target.ndim == 3,
        "label smoothing with class weights": op.smooth and weight is not None,
        "a gradient of target or weight": any(wanted[1:]),
        # Below, the array code takes less time than so many small operations.
        "too few logits": logits.numel() < FEWEST,
    }
    found = [what for what, holds in reasons.items() if holds]
    return f"{found[0]}: not computed in chunks" if found else None


def forward(op: RowStats, arrays: tuple, plan: Plan | None) -> Result:
    """What `RowStats.forward` gives."""
    logits, target, weight = arrays
    count = count_of(logits, plan)
    room = empty(2, min(logits.numel(), count))
    found = []
    for part in groups(logits, count):
        codes = None if target is None else target[part]
        found.append(_forward(op, (logits[part], codes, weight), room, count))
    lse, nll, smooth, k, tail = (
        None if each[0] is None else torch.cat([a.flatten() for a in each]).view(logits.shape[:2])
        for each in zip(*found, strict=True)
    )
    return Result((lse, nll, smooth, None), (k, tail))


def vjp(
    op: RowStats, arrays: tuple, residuals: tuple, cotangents: tuple, plan: Plan | None
) -> Tensor:
    """The gradient of the logits that `RowStats.vjp` gives."""
    logits, target, weight = arrays
    dlogits, count = torch.empty_like(logits), count_of(logits, plan)
    room = empty(min(logits.numel(), count)) if logits.dtype != torch.float32 else None
    given = (logits, target, *residuals, *cotangents)
    for part in groups(logits, count):
        x, codes, k, tail, *g = (None if a is None else a[part] for a in given)
        _vjp(dlogits[part], (x, codes, weight), (k, tail), tuple(g), room, count)
    return dlogits


def _forward(op: RowStats, arrays: tuple, room: Tensor, count: int) -> tuple:
    """lse, nll, smooth, argmax and tail of some rows."""
    logits, target, weight = arrays
    work = _long if is_long(logits) else _short
    top, k, sums, spread = work(logits, op.smooth, room, count)
    shift, exact = _shift(top)
    lead, top = logits.shape[:2], top.double()
    tail = sums.mul_(torch.exp(-top if shift is None else shift - top)).view(lead)
    top, k = top.view(lead), k.view(lead)
    spread = None if spread is None else spread.view(lead)
    ignored = _ignored(target)
    # The tail of a row without a finite largest logit is 0, infinite or NaN.
    doubt = tail if spread is None else torch.where(spread > HUGE, spread, tail)
    unsure = _unsure(doubt, TINY, HUGE, top, exact or logits.dtype != torch.float32)
    if unsure is not None:
        unsure = unsure if ignored is None else unsure & ~ignored
        _anew(logits, (top, k, tail, spread), unsure, count // 2)
    log_sum = torch.log1p(tail)
    lse = top + log_sum
    if unsure is not None:
        lse = torch.where(top.isinf(), top, lse)
    nll = None
    if target is not None:
        nll = log_sum - _at(logits, target.clamp(min=0)).sub_(top)
        if weight is not None:
            w = _weight_at(weight, target)
            nll = torch.where((w == 0) & nll.isinf(), 0.0, nll).mul_(w)
    outputs = (lse, nll, None if spread is None else spread + log_sum)
    if ignored is not None:
        outputs = _silence(target, outputs)
        k[ignored], tail[ignored] = 0, logits.shape[2] - 1
    return *outputs, k, tail


def _vjp(
    dlogits: Tensor, arrays: tuple, residuals: tuple, g: tuple, room: Tensor | None, count: int
) -> None:
    """Write the gradient of some rows."""
    logits, target, weight = arrays
    k, tail = residuals
    ignored, top = _ignored(target), _at(logits, k)
    if ignored is not None:
        g = _silence(target, g)
        top[ignored] = 0  # for their rate of 0 to remain one
    slope = _slope(logits, target, weight, (top, k, tail), g)
    shift, exact = _shift(top)
    scale = slope.rate / (1 + tail) * torch.exp(-top if shift is None else shift - top)

    x, dx = class_second(logits), class_second(dlogits)
    less, constant = (None if a is None else like(x, a.float()) for a in (shift, slope.constant))
    scales = like(x, scale.float())
    at = torch.cat([like(x, a) for a in slope.at], 1)
    entries = torch.cat([like(x, a) for a in slope.entries], 1).float()
    for part in cuts(x, count):
        block, out = x[part], dx[part]
        e = out
        if room is not None:
            e = block = shaped(room, block).copy_(block)
        _exponentials(block, None if less is None else less[part], e).mul_(scales[part])
        if constant is not None:
            e.sub_(constant[part])
        e.scatter_(1, at[part], entries[part])
        if room is not None:
            out.copy_(e)

    unsure = _unsure(scale.abs(), SMALLEST, 1.0, top, exact or room is not None)
    if unsure is not None:
        unsure &= slope.rate != 0
        _slope_anew(logits, dlogits, slope, (top, tail), unsure, count // 2)
    if ignored is not None:
        dlogits[ignored] = 0


def _long(logits: Tensor, spread: bool, room: Tensor, count: int) -> tuple:
    """Largest, argmax, sum and spread of rows (N, 1, V), each (N, 1), piece by piece of a row."""
    x = logits[:, 0]
    n, classes = x.shape
    size = min(PIECE, classes)
    pieces = -(-classes // size)
    largest, sums, *distances = empty(2 + spread, n, pieces).unbind()
    for part in cuts(x, count):
        block = x[part]
        e = shaped(room[0], block)
        if x.dtype != torch.float32:
            block = shaped(room[int(spread)], block).copy_(block)
        _by_piece(torch.amax, block, size, largest[part])
        top = largest[part].amax(1, keepdim=True)
        if distances:
            _by_piece(torch.sum, torch.sub(top, block, out=e), size, distances[0][part])
        _by_piece(torch.sum, _exponentials(block, _shift(top)[0], e), size, sums[part])

    top = largest.amax(1, keepdim=True)
    piece = _first(largest, top, empty(n, pieces))
    k = _leave_out(x, sums, piece, size, top)
    mean = distances[0].double().sum(1).div_(classes) if distances else None
    return top, k, sums.double().sum(1, keepdim=True), mean


def _by_piece(reduce: Any, block: Tensor, size: int, out: Tensor) -> None:
    """Reduce (R, V) to (R, pieces); the last piece may be shorter."""
    whole = block.shape[1] // size
    if whole == out.shape[1]:
        reduce(block.view(-1, whole, size), -1, out=out)
        return
    reduce(block[:, : whole * size].unflatten(1, (whole, size)), -1, out=out[:, :whole])
    reduce(block[:, whole * size :], -1, out=out[:, whole])


def _leave_out(x: Tensor, sums: Tensor, piece: Tensor, size: int, top: Tensor) -> Tensor:
    """The argmax (N, 1); the sum of the piece that it is in becomes one without it."""
    n, classes = x.shape
    begin = piece * size
    start = begin.clamp(max=classes - size)  # a window of full size, for a short last piece too
    inside = x.unfold(1, size, 1)[torch.arange(n, device="cpu"), start[:, 0]].float()
    e = torch.empty_like(inside)
    place = _first(inside, top, e)
    _exponentials(inside, _shift(top)[0], e)
    if classes % size:
        places = torch.arange(size, dtype=torch.float32, device="cpu")
        own = torch.ge(places, (begin - start).float(), out=inside)
        e.mul_(own)
    e.scatter_(1, place, 0.0)
    sums.scatter_(1, piece, e.sum(1, keepdim=True))
    return start.add_(place)


def _short(logits: Tensor, spread: bool, room: Tensor, _: int) -> tuple:
    """Largest, argmax, sum and spread of rows (N, D, V), each (n, 1, d), rows side by side."""
    x = logits.permute(1, 2, 0) if logits.shape[1] == 1 else logits.transpose(1, 2)
    e = shaped(room[0], x)
    if x.dtype != torch.float32 or x.stride(2) != 1:
        x = shaped(room[1], x).copy_(x)
    top = x.amax(1, keepdim=True)
    k = _first(x, top, e)
    mean = None
    if spread:
        mean = _halves(torch.sub(top, x, out=e)).double().div_(x.shape[1])
    _exponentials(x, _shift(top)[0], e).scatter_(1, k, 0.0)
    return top, k, _halves(e).double(), mean


def _halves(terms: Tensor) -> Tensor:
    """(R, V, ...) -> (R, 1, ...) the sum over classes by halves, in place."""
    length = terms.shape[1]
    while length > 1:
        half = length // 2
        terms[:, :half] += terms[:, length - half : length]
        length -= half
    return terms[:, :1]


def _first(x: Tensor, top: Tensor, room: Tensor) -> Tensor:
    """(R, 1, ...) where (R, V, ...) is first its largest (R, 1, ...); any place if that is NaN."""
    # torch.argmax takes ten times as long.
    classes = x.shape[1]
    rank = torch.arange(classes, 0, -1, dtype=torch.float32, device="cpu")
    rank = rank.view(-1, *(1 for _ in x.shape[2:]))
    rank = torch.eq(x, top, out=room).mul_(rank).amax(1, keepdim=True)
    return rank.neg_().add_(classes).clamp_(max=classes - 1).to(torch.int64)


def _shift(top: Tensor) -> tuple[Tensor | None, bool]:
    """M of every row, or None where it is 0 for all; and whether differences from it are exact."""
    low, high = (float(end) for end in top.aminmax())
    if high <= LARGEST:
        return (None if low >= 0 else top.clamp(max=0).floor_()), True
    return torch.where((top >= 0) & (top <= LARGEST), 0.0, top.floor()), low >= FAR


def _exponentials(x: Tensor, shift: Tensor | None, out: Tensor) -> Tensor:
    """exp(x - shift)."""
    return torch.exp(x, out=out) if shift is None else torch.sub(x, shift, out=out).exp_()


def _unsure(size: Tensor, least: float, most: float, top: Tensor, exact: bool) -> Tensor | None:
    """(N, D) for which rows float32 is not enough, or None."""
    low, high = (float(end) for end in size.aminmax())
    if exact and low >= least and high <= most:
        return None
    unsure = ~((size >= least) & (size <= most))
    return unsure if exact else unsure | ((top > LARGEST) & (top < FAR))


def _anew(logits: Tensor, rows: tuple, which: Tensor, count: int) -> None:
    """Compute the largest logit, argmax, tail and spread of some rows again in float64."""
    top, k, tail, spread = rows
    for at in some(logits, which, count):
        x = logits[at].double()
        first = x.argmax(1, keepdim=True)
        largest = x.gather(1, first)
        e = x.sub_(largest)
        if spread is not None:
            spread[at] = -x.mean(1)
        e = e.exp_().scatter_(1, first, 0.0)
        top[at], k[at] = largest[:, 0], first[:, 0]
        tail[at] = e.sum(1) + (largest - largest)[:, 0]  # NaN for an infinite one


def _slope(
    logits: Tensor, target: Tensor | None, weight: Tensor | None, rows: tuple, g: tuple
) -> _Slope:
    """The gradient of every row, from its largest logit, argmax and tail, and the cotangents."""
    top, k, tail = rows
    g_lse, g_nll, g_smooth, _ = (None if c is None else c.double() for c in g)
    p_k = 1 / (1 + tail)
    at, p, constant = [k], [p_k], None
    if target is not None:
        at.append(target.clamp(min=0))
        p.append(_at(logits, at[1]).sub_(top).exp_().mul_(p_k))
    rate, entries = torch.zeros_like(tail), [torch.zeros_like(tail) for _ in at]
    if g_nll is not None and target is not None:
        pull = g_nll if weight is None else g_nll * _weight_at(weight, target)
        hit = (at[1] == k).double()
        miss, rest = 1 - hit, hit * tail * p_k  # 1 - p_k is never formed from p_k
        rate += pull
        entries[0] += (miss * p_k - rest) * pull
        entries[1] += ((p[1] - 1) * miss - rest) * pull
    if g_lse is not None:
        rate += g_lse
        entries = [e.add_(g_lse * q) for e, q in zip(entries, p, strict=True)]
    if g_smooth is not None:
        rate += g_smooth
        constant = g_smooth / logits.shape[2]
        entries = [e.add_(g_smooth * q).sub_(constant) for e, q in zip(entries, p, strict=True)]
    return _Slope(rate, constant, at, entries)


def _slope_anew(
    logits: Tensor, dlogits: Tensor, slope: _Slope, rows: tuple, which: Tensor, count: int
) -> None:
    """Compute the gradient of some rows again in float64."""
    top, tail = rows
    for at in some(logits, which, count):
        e = logits[at].double().sub_(top[at][:, None]).exp_()
        e.mul_((slope.rate[at] / (1 + tail[at]))[:, None])
        if slope.constant is not None:
            e.sub_(slope.constant[at][:, None])
        for k, entry in zip(slope.at, slope.entries, strict=True):
            e.scatter_(1, k[at][:, None], entry[at][:, None])
        dlogits[at] = e.to(dlogits.dtype)


def _at(logits: Tensor, index: Tensor) -> Tensor:
    """(N, D) float64: the logit of one class of each row."""
    x = class_second(logits)
    return x.gather(1, like(x, index)).view(index.shape).double()


def _weight_at(weight: Tensor, target: Tensor) -> Tensor:
    """(N, D) float64 weight of the class of each row; 0 for a row of none."""
    return weight.double()[target.clamp(min=0)].masked_fill_(target < 0, 0.0)


def _ignored(target: Tensor | None) -> Tensor | None:
    """(N, D) which rows are ignored; None where every target is a class."""
    return None if target is None or int(target.amin()) >= 0 else target == IGNORED


def _silence(target: Any, values: tuple) -> tuple:
    """(N, D) values, 0 for ignored rows and NaN where the target is out of range."""
    flat = tuple(None if value is None else value.flatten() for value in values)
    flat = silence(torch, target.flatten(), flat)
    return tuple(None if value is None else value.view(target.shape) for value in flat)
