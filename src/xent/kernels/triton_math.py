"""Elementary functions inside a Triton kernel, where the compiler's own lose digits.

None calls a library of the device's, so that Triton's interpreter runs them too, and all hold where
the compiler fuses a product with a sum.
"""
# What a function decorated with triton.jit means, no checker of types for Python knows:
# pyright: basic, reportOperatorIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2_HIGH = tl.constexpr(0.693145751953125)  # 15 bits: its product with |n| < 512 is exact
LN2_LOW = tl.constexpr(1.4286068203094173e-06)
ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2^23: a float added to it is rounded to an integer
ROUNDER_BITS = tl.constexpr(0x4B400000)
LEAST = tl.constexpr(-87.33654022216797)  # exp of it is just above the smallest normal float32
INFINITY = tl.constexpr(float("inf"))
UPPER_BITS = tl.constexpr(-(1 << 27))  # of a float64: 26 digits


@triton.jit
def double(bits):
    """The float64 of some bits: Triton passes a Python float as a float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def difference(left, right):
    """left - right rounded, and the rounding error (Knuth's TwoSum); NaN for an infinite one."""
    high = left - right
    shadow = high - left
    return high, (left - (high - shadow)) - (right + shadow)


@triton.jit
def product(left, right):
    """The product of float64 rounded, and the rounding error (Dekker), 0 near overflow.

    The factors are cut by their bits, since Veltkamp's cut is wrong where products are fused.
    """
    high = left * right
    left_high = (left.to(tl.int64, bitcast=True) & UPPER_BITS).to(tl.float64, bitcast=True)
    right_high = (right.to(tl.int64, bitcast=True) & UPPER_BITS).to(tl.float64, bitcast=True)
    left_low = left - left_high
    right_low = right - right_high
    low = (left_high * right_high - high) + left_high * right_low + left_low * right_high
    low = low + left_low * right_low
    return high, tl.where(tl.abs(low) < float("inf"), low, 0.0)


@triton.jit
def exp32(high, low):
    """exp(high + low) of float32 numbers, high <= 0, to about 1 ULP; 0 below the normal range.

    high + low = n log 2 + r with |r| <= log(2) / 2, where the first 8 terms of the series of exp(r)
    are good to 2^-27.
    """
    rounded = high * LOG2E + ROUNDER
    n = rounded - ROUNDER
    r = (high - n * LN2_HIGH) + (low - n * LN2_LOW)
    p = r * (1 / 5040) + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    p = 1 + (r + r * r * p)
    exponent = rounded.to(tl.int32, bitcast=True) - ROUNDER_BITS + 127
    power = (exponent << 23).to(tl.float32, bitcast=True)
    return tl.where(high < LEAST, 0.0, p * power)


@triton.jit
def log1p(s):
    """log(1 + s) for s >= 0: what 1 + s is rounded to is made good for by the quotient."""
    u = 1 + s
    return tl.where(u == 1, s, tl.log(u) * (s / (u - 1)))


@triton.jit
def tanh(z):
    """tanh(z) = -q / (2 + q) for z >= 0, with q = exp(-2z) - 1 = (w - 1) log(w) / log(w).

    The rounding error of w = exp(-2z) drops out of (w - 1) / log(w) (Kahan).
    """
    y = -2 * tl.abs(z)
    w = tl.exp(y)
    near = tl.where(w == 1, y, (w - 1) * (y / tl.log(w)))
    q = tl.where(w < 0.5, w - 1, near)
    value = -q / (2 + q)
    return tl.where(z < 0, -value, value)


@triton.jit
def slope_of_tanh(z):
    """1 - tanh(z)^2 without cancellation."""
    small = tl.exp(-2 * tl.abs(z))
    return 4 * small / ((1 + small) * (1 + small))


@triton.jit
def weighted(measure, values):
    """measure * values, where a measure of 0 gives 0 even of an infinite value."""
    return measure * tl.where((measure == 0) & (tl.abs(values) == float("inf")), 0.0, values)


@triton.jit
def within(x, CAP: tl.constexpr):
    """Logits, the infinite ones finite where a softcap makes them so."""
    if CAP:
        most = 1.7976931348623157e308 if x.dtype == tl.float64 else 3.4028234663852886e38
        most = tl.full(x.shape, most, x.dtype)
        x = tl.where(x == INFINITY, most, tl.where(x == -INFINITY, -most, x))
    return x


@triton.jit
def squash(x, scale, cap, CAP: tl.constexpr, SCALE: tl.constexpr):
    """The transformed logit u."""
    if CAP:
        x = cap * tanh(x * (scale / cap))
    elif SCALE:
        x = x * scale
    return x


@triton.jit
def distance(x, m, scale, cap, CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr):
    """u - m as the number rounded, and what rounding lost; m is a logit too. 0 for m of -inf."""
    m = tl.where(m == -INFINITY, 0.0, m)
    if CAP:
        x = squash(x, scale, cap, CAP, SCALE)
        m = squash(m, scale, cap, CAP, SCALE)
    if EXACT:
        high, low = difference(x, m)
        if high.dtype == tl.float64:
            low = tl.where(tl.abs(high) < INFINITY, low, 0.0)
            if SCALE and not CAP:
                high, lost = product(high, scale + tl.zeros_like(high))
                low = low * scale + lost
    else:
        high = x - m
        if SCALE and not CAP:
            high = high * scale
        low = tl.zeros_like(high)
    return high, low


@triton.jit
def exponential(high, low, EXACT: tl.constexpr):
    """exp(high + low)."""
    if high.dtype == tl.float64:
        e = tl.exp(high)
        e = e + e * low if EXACT else e
    elif EXACT:
        e = exp32(high, low)
    else:
        e = tl.exp2(high * LOG2E)
    return e


@triton.jit
def gap_of(x, m, scale, cap, CAP: tl.constexpr, SCALE: tl.constexpr, EXACT: tl.constexpr):
    """m - u >= 0 of float64 numbers, 0 for x of -inf; and exp of its negative, 0 for x of -inf."""
    high, low = distance(x, m, scale, cap, CAP, SCALE, EXACT)
    bare = x == -INFINITY
    e = tl.where(bare, 0.0, exponential(high, low, EXACT))
    return tl.where(bare, 0.0, -(high + low)), e


@triton.jit
def slope_at(x, scale, cap, CAP: tl.constexpr, SCALE: tl.constexpr):
    """du/dx, without the factor of a scale where no softcap is."""
    slope = tl.zeros_like(x) + scale
    if CAP:
        slope = slope * slope_of_tanh(x * (scale / cap))
    return slope
