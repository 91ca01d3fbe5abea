r"""The Triton kernels of row statistics: what `triton_rows` launches.

Rows have two indices, outer and inner; a program works on R rows that lie side by side in the inner
one, B classes at a time. With m the largest logit so far, u - m as in `ops/rows.py` and gap =
m' - m when a block has a larger one, m', what is kept of a row moves with it:

    s = sum of exp(u - m) but for the largest          s' = (s + 1) exp(-gap)
    Q = sum of exp(u - m) (m - u)                      Q' = (Q + (s + 1) gap) exp(-gap)
    A = sum of w t (m - u)                             A' = A + gap sum of w t
    D = sum of w (m - u)                               D' = D + gap sum of w

The sums of w t and of w are kept without the largest's own too. A sum is a vector of a number for
each class of a block, and a number for each row, `rest`, for the largest entries that were.
"""
# What a function decorated with triton.jit means, no checker of types for Python knows:
# pyright: basic, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false, reportAssignmentType=false

from __future__ import annotations

import triton
import triton.language as tl

from xent.kernels.triton_math import (
    INFINITY,
    difference,
    distance,
    double,
    exponential,
    gap_of,
    log1p,
    squash,
    weighted,
    within,
)

NUMBERS = tl.constexpr(8)  # of a part of a row, and of the gradient of a row
TOTALS = tl.constexpr(3)  # of a row: those of w t and w without the argmax, and Q / (1 + s)


@triton.jit
def own_of(target, weight, t_row, k, t_class, live, TARGET: tl.constexpr, WEIGHT: tl.constexpr):
    """w t and w of one class of each row, 0 for class -1."""
    on = live & (k >= 0)
    w = tl.where(on, 1.0, 0.0).to(tl.float64)
    if WEIGHT:
        w = tl.load(weight + k, mask=on, other=0.0).to(tl.float64)
    wt = w
    if TARGET == 2:
        wt = w * tl.load(target + t_row + k * t_class, mask=on, other=0.0).to(tl.float64)
    return wt, w


@triton.jit
def first_nan(row, active, begin, end, class_step, classes, R: tl.constexpr, B: tl.constexpr):
    """The first class of each row whose logit is NaN; the number of classes where none is."""
    found = tl.full([R], 0, tl.int64) + classes
    for start in range(begin, end, B):
        c = start + tl.arange(0, B).to(tl.int64)
        place = row[:, None] + c[None, :] * class_step
        x = tl.load(place, mask=active[:, None] & (c < classes)[None, :], other=0.0).to(tl.float32)
        found = tl.minimum(found, tl.min(tl.where(x != x, c[None, :], classes), 1))
    return found


@triton.jit
def values_of(
    logits, target, weight, x_row, t_row, code, live, class_step, t_class, classes,
    m, k, s, distances, others, spread, shares, scale, cap,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, SMOOTH: tl.constexpr,
    CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """s, log(1 + s), and lse, nll and smooth of rows, from float64 numbers of each."""
    s = tl.where(tl.abs(m) < INFINITY, s, float("nan"))
    top = squash(m, scale, cap, CAP, SCALE)
    log_sum = log1p(s)
    own, w_own = own_of(target, weight, t_row, k, t_class, live, TARGET, WEIGHT)
    void = tl.zeros_like(s)
    if TARGET == 1:
        void = tl.where(code == -2, float("nan"), void)
    silent = live & (code == -1) if TARGET == 1 else (live & False)
    lse = tl.where(tl.abs(top) == INFINITY, top, top + log_sum)
    lse = tl.where(silent, 0.0, lse + void)
    nll, smooth = tl.zeros_like(s), tl.zeros_like(s)
    if TARGET == 1:
        on = live & (code >= 0)
        t = tl.where(on, code, 0)
        x_t = tl.load(logits + x_row + t * class_step, mask=on, other=0.0).to(tl.float64)
        high, low = distance(within(x_t, CAP), m, scale, cap, CAP, SCALE, EXACT)
        nll = (log_sum - low) - high
        if WEIGHT:
            nll = weighted(tl.load(weight + t, mask=on, other=0.0).to(tl.float64), nll)
        nll = tl.where(silent, 0.0, nll + void)
    if TARGET == 2:
        nll = distances + (others + own) * log_sum
    if SMOOTH:
        share = shares + w_own if WEIGHT else tl.zeros_like(s) + classes
        smooth = tl.where(silent, 0.0, (spread + share * log_sum) / classes + void)
    return s, log_sum, lse, nll, smooth


@triton.jit
def finish(
    logits, target, weight, x_row, t_row, rows, code, live, class_step, t_class, classes,
    lse, nll, smooth, entropy, argmax, tails, totals,
    m, k, s, distances, others, spread, shares, center, scale, cap,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, SMOOTH: tl.constexpr, ENTROPY: tl.constexpr,
    CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Write the statistics of rows, from float64 numbers of each."""
    k = tl.where(k < 0, 0, k)
    s, log_sum, lse_, nll_, smooth_ = values_of(
        logits, target, weight, x_row, t_row, code, live, class_step, t_class, classes,
        m, k, s, distances, others, spread, shares, scale, cap,
        TARGET, WEIGHT, SMOOTH, CAP, SCALE, EXACT,
    )  # fmt: skip
    tl.store(lse + rows, lse_, mask=live)
    if TARGET > 0:
        tl.store(nll + rows, nll_, mask=live)
    if SMOOTH:
        tl.store(smooth + rows, smooth_, mask=live)
    center = center / (1 + s)
    if ENTROPY:
        value = log_sum + center
        if TARGET == 1:
            value = tl.where(code == -1, 0.0, tl.where(code == -2, float("nan"), value))
        tl.store(entropy + rows, value, mask=live)
    if KEEP:
        tl.store(totals + rows * TOTALS, others, mask=live)
        tl.store(totals + rows * TOTALS + 1, shares, mask=live)
        tl.store(totals + rows * TOTALS + 2, center, mask=live)
    tl.store(argmax + rows, k, mask=live)
    tl.store(tails + rows, s, mask=live)


@triton.jit
def scan(
    logits, target, weight, x_row, t_row, live, active, class_step, t_class, classes,
    begin, end, scale, cap, R: tl.constexpr, B: tl.constexpr, WORK: tl.constexpr,
    SUM: tl.constexpr, TARGET: tl.constexpr, WEIGHT: tl.constexpr, SMOOTH: tl.constexpr,
    ENTROPY: tl.constexpr, CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The largest logit of rows, its class, s, A, the sum of w t, D, the sum of w, and Q."""
    scale_w, cap_w = scale.to(WORK), cap.to(WORK)
    LONG: tl.constexpr = EXACT and tl.float64 == WORK

    m = tl.full([R], -INFINITY, WORK)
    k = tl.full([R], -1, tl.int64)
    none = tl.zeros([R], tl.float64)
    zero = tl.zeros([R, B], SUM)
    acc, lost, rest = zero, zero, none
    far, far_rest, mean, mean_rest, spread, spread_rest = zero, none, zero, none, zero, none
    others, others_rest, shares, shares_rest, own, w_own = zero, none, zero, none, none, none
    for start in tl.range(begin, end, B, num_stages=4):
        c = start + tl.arange(0, B).to(tl.int64)
        inside = (c < classes)[None, :]
        place = logits + x_row[:, None] + c[None, :] * class_step
        x = tl.load(place, mask=active[:, None] & inside, other=0.0).to(WORK)
        x = tl.where(inside, within(x, CAP), -INFINITY)
        key = tl.where(x != x, -INFINITY, x)
        top = tl.max(key, 1)
        rise = top > m
        if tl.max(rise.to(tl.int32), 0) > 0:
            first = tl.min(tl.where(key == top[:, None], c[None, :], classes), 1)
            gap, f = gap_of(m.to(tl.float64), top.to(tl.float64), scale, cap, CAP, SCALE, LONG)
            gap = tl.where(rise, gap, 0.0)
            f = tl.where(rise, f, 1.0)
            one = tl.where(rise, rest + 1, rest)
            if ENTROPY:
                mean = (mean + acc * gap[:, None]) * f[:, None]
                mean_rest = (mean_rest + one * gap) * f
            acc = acc * f[:, None].to(SUM)
            if LONG:
                lost = lost * f[:, None]
            rest = one * f
            k = tl.where(rise, first, k)
            m = tl.where(rise, top, m)
            if TARGET == 2 or (SMOOTH and WEIGHT):
                others_rest += tl.where(rise, own, 0.0)
                shares_rest += tl.where(rise, w_own, 0.0)
                new, w_new = own_of(target, weight, t_row, k, t_class, live, TARGET, WEIGHT)
                own, w_own = tl.where(rise, new, own), tl.where(rise, w_new, w_own)
            if TARGET == 2:
                far += weighted(others, gap[:, None] + zero)
                far_rest += weighted(others_rest, gap)
            if SMOOTH:
                if WEIGHT:
                    spread += weighted(shares, gap[:, None] + zero)
                    spread_rest += weighted(shares_rest, gap)
                else:
                    spread_rest += weighted(none + (start - begin), gap)
        high, low = distance(x, m[:, None], scale_w, cap_w, CAP, SCALE, EXACT)
        at_k = c[None, :] == k[:, None]
        e = exponential(high, low, EXACT)
        e = tl.where(at_k | (inside == 0), 0.0, e).to(SUM)
        if LONG:
            more, error = difference(acc, -e)
            acc = more
            lost += error
        else:
            acc += e
        away = -(high + low) if LONG else -high
        if ENTROPY:
            mean += weighted(e, away.to(SUM))
        if TARGET == 2 or (SMOOTH and WEIGHT):
            w = tl.where(inside, 1.0, zero)
            if WEIGHT:
                w = tl.load(weight + c[None, :], mask=inside, other=0.0).to(SUM) + zero
            shares += tl.where(at_k, 0.0, w)
            if SMOOTH and WEIGHT:
                spread += weighted(w, away.to(SUM))
            if TARGET == 2:
                place = target + t_row[:, None] + c[None, :] * t_class
                t = w * tl.load(place, mask=live[:, None] & inside, other=0.0).to(SUM)
                others += tl.where(at_k, 0.0, t)
                far += weighted(t, away.to(SUM))
        if SMOOTH and not WEIGHT:
            spread += tl.where(inside, away, 0.0).to(SUM)

    s = tl.sum(acc, 1).to(tl.float64) + tl.sum(lost, 1).to(tl.float64) + rest
    if tl.max((s != s).to(tl.int32), 0) > 0:  # the first NaN is the argmax
        found = first_nan(logits + x_row, active, begin, end, class_step, classes, R, B)
        k = tl.where(found < classes, found, k)
        m = tl.where(found < classes, float("nan"), m)
    return (
        m.to(tl.float64), k, s,
        tl.sum(far, 1).to(tl.float64) + far_rest,
        tl.sum(others, 1).to(tl.float64) + others_rest,
        tl.sum(spread, 1).to(tl.float64) + spread_rest,
        tl.sum(shares, 1).to(tl.float64) + shares_rest,
        tl.sum(mean, 1).to(tl.float64) + mean_rest,
    )  # fmt: skip


@triton.jit(do_not_specialize=["scale_bits", "cap_bits"])
def statistics(
    logits, target, weight, lse, nll, smooth, entropy, argmax, tails, totals, partial,
    outer_step, inner_step, class_step, t_outer, t_inner, t_class, r_outer, r_inner,
    inner, classes, parts, chunk, scale_bits, cap_bits,
    R: tl.constexpr, B: tl.constexpr, WORK: tl.constexpr, SUM: tl.constexpr,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, SMOOTH: tl.constexpr, ENTROPY: tl.constexpr,
    CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr, KEEP: tl.constexpr,
    SPLIT: tl.constexpr,
):  # fmt: skip
    """The statistics of rows, or where these are split those of one of their parts."""
    pid = tl.program_id(0).to(tl.int64)
    part, block = pid % parts, pid // parts
    blocks = tl.cdiv(inner, R)
    i = (block % blocks) * R + tl.arange(0, R)
    o = block // blocks
    live = i < inner
    rows = o * r_outer + i * r_inner
    x_row = o * outer_step + i * inner_step
    t_row = o * t_outer + i * t_inner
    code = tl.zeros_like(i)
    if TARGET == 1:
        code = tl.load(target + rows, mask=live, other=-1)
    active = live & (code != -1)
    scale, cap = double(scale_bits), double(cap_bits)
    begin = part * chunk
    end = tl.minimum(begin + chunk, classes)
    top, k, s, far, others, spread, shares, mean = scan(
        logits, target, weight, x_row, t_row, live, active, class_step, t_class, classes,
        begin, end, scale, cap, R, B, WORK, SUM,
        TARGET, WEIGHT, SMOOTH, ENTROPY, CAP, SCALE, EXACT,
    )  # fmt: skip
    if SPLIT:
        numbers = (far, others, spread, shares, mean)
        at = partial + (rows * parts + part) * NUMBERS
        tl.store(at, top, mask=live)
        tl.store(at + 1, k.to(tl.float64), mask=live)
        tl.store(at + 2, s, mask=live)
        for n in tl.static_range(5):
            tl.store(at + 3 + n, numbers[n], mask=live)
    else:
        LONG: tl.constexpr = EXACT and tl.float64 == WORK
        finish(
            logits, target, weight, x_row, t_row, rows, code, live, class_step, t_class, classes,
            lse, nll, smooth, entropy, argmax, tails, totals, top, k, s,
            far, others, spread, shares, mean, scale, cap,
            TARGET, WEIGHT, SMOOTH, ENTROPY, CAP, SCALE, LONG, KEEP,
        )  # fmt: skip


@triton.jit(do_not_specialize=["scale_bits", "cap_bits"])
def merge(
    logits, target, weight, lse, nll, smooth, entropy, argmax, tails, totals, partial,
    outer_step, inner_step, class_step, t_outer, t_inner, t_class, r_outer, r_inner,
    inner, classes, parts, chunk, scale_bits, cap_bits,
    TARGET: tl.constexpr, WEIGHT: tl.constexpr, SMOOTH: tl.constexpr, ENTROPY: tl.constexpr,
    CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """The statistics of one row for each program, of those of its parts in order.

    A row's lower part moves to the largest logit of the other as when a block has a larger one.
    """
    pid = tl.program_id(0).to(tl.int64)
    i = pid % inner + tl.zeros([1], tl.int64)
    o = pid // inner
    live = i < inner
    rows = o * r_outer + i * r_inner
    x_row = o * outer_step + i * inner_step
    t_row = o * t_outer + i * t_inner
    scale, cap = double(scale_bits), double(cap_bits)
    code = tl.zeros_like(i)
    if TARGET == 1:
        code = tl.load(target + rows)
    m = tl.full([1], -INFINITY, tl.float64)
    k = tl.full([1], -1, tl.int64)
    s = tl.zeros([1], tl.float64)
    far, others, spread, shares, mean, seen = s, s, s, s, s, s
    for part in range(0, parts):
        at = partial + (rows * parts + part) * NUMBERS
        m_i, k_i, s_i = tl.load(at), tl.load(at + 1).to(tl.int64), tl.load(at + 2)
        far_i, others_i, spread_i = tl.load(at + 3), tl.load(at + 4), tl.load(at + 5)
        shares_i, mean_i = tl.load(at + 6), tl.load(at + 7)
        size = tl.minimum(part * chunk + chunk, classes) - part * chunk + tl.zeros_like(s)
        first = (m >= m_i) | (m != m)
        top, lower = tl.where(first, m, m_i), tl.where(first, m_i, m)
        gap, f = gap_of(lower, top, scale, cap, CAP, SCALE, EXACT)
        k_low = tl.where(first, k_i, k)
        own, w_own = own_of(target, weight, t_row, k_low, t_class, live, TARGET, WEIGHT)
        s_low = tl.where(first, s_i, s)
        mean = tl.where(first, mean, mean_i) + f * (
            tl.where(first, mean_i, mean) + (1 + s_low) * gap
        )
        s = tl.where(first, s, s_i) + (1 + s_low) * f
        far = far + far_i + weighted(tl.where(first, others_i, others) + own, gap)
        others = others + others_i + own
        if WEIGHT:
            spread += spread_i + weighted(tl.where(first, shares_i, shares) + w_own, gap)
        else:
            spread += spread_i + weighted(tl.where(first, size, seen), gap)
        shares = shares + shares_i + w_own
        seen += size
        k, m = tl.where(first, k, k_i), top
    finish(
        logits, target, weight, x_row, t_row, rows, code, live, class_step, t_class, classes,
        lse, nll, smooth, entropy, argmax, tails, totals, m, k, s,
        far, others, spread, shares, mean, scale, cap,
        TARGET, WEIGHT, SMOOTH, ENTROPY, CAP, SCALE, EXACT, KEEP,
    )  # fmt: skip
