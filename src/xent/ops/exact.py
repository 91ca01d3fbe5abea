"""Floating-point sums and differences that keep their digits.

A sum is taken by halves, in an order that depends on its length alone: the same bits for any number
of threads, for a row alone and in a batch. Its error grows with log2 of the length.
"""

from __future__ import annotations

from typing import Any


def working_dtype(xp: Any, array: Any) -> Any:
    """The type to compute in: float64, or float32 on a device that has nothing wider."""
    return xp.float32 if str(array.device).startswith("mps") else xp.float64


def widest(xp: Any, arrays: Any) -> Any:
    """The dtype of floating arrays together, each of which may be None."""
    dtypes = [a.dtype for a in arrays if a is not None]
    # A compiler cannot trace torch's rule, which is asked where there is something to ask.
    same = all(dtype == dtypes[0] for dtype in dtypes)
    return dtypes[0] if same else xp.result_type(*dtypes)


def row_sum(xp: Any, terms: Any) -> Any:
    """(R, V) -> (R,) the sum of each row, by halves."""
    length = terms.shape[-1]
    if length == 0:
        return xp.sum(terms, axis=-1)
    odd = None
    while length > 1:
        if length % 2:
            last = terms[..., length - 1]
            odd = last if odd is None else odd + last
        length //= 2
        terms = terms[..., :length] + terms[..., length : 2 * length]
    return terms[..., 0] if odd is None else terms[..., 0] + odd


def total(xp: Any, terms: Any) -> Any:
    """The sum of all elements, by halves, as a 0-d array."""
    return row_sum(xp, xp.reshape(terms, (-1,)))


def difference(xp: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """left - right rounded, and the rounding error: their sum is exact (Knuth's TwoSum)."""
    high = left - right
    shadow = high - left
    low = (left - (high - shadow)) - (right + shadow)
    return high, xp.where(xp.isfinite(high), low, 0.0)


def product(xp: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """left * right rounded, and the rounding error (Dekker's product; 0 near overflow).

    `right` is an array or a number. In a narrower type than float64 the error is taken as 0.
    """
    high = left * right
    if left.dtype != xp.float64:
        return high, xp.zeros_like(high)
    splitter = 2.0**27 + 1
    big = splitter * left
    left_high = big - (big - left)
    left_low = left - left_high
    right_high = splitter * right - (splitter * right - right)
    right_low = right - right_high
    low = (left_high * right_high - high) + left_high * right_low + left_low * right_high
    low = low + left_low * right_low
    return high, xp.where(xp.isfinite(low), low, 0.0)


def take_last(xp: Any, rows: Any, index: Any) -> Any:
    """(R, V), (R,) -> (R,) one element of each row."""
    # take_along_axis does the same, but torch.compile would compile it for each number of rows.
    return rows[xp.arange(rows.shape[0], device=rows.device), index]
