"""The arithmetic under the oracle: exact numbers, rows of them, and distances in ULP.

A float becomes the mpmath number that it is. Infinities and nan follow IEEE 754, but for `times`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mpmath
import numpy as np
from mpmath import inf, mpf, nan

Numbers = Any  # a number, a NumPy array or a nested list
Exact = Any  # an mpmath number, or an object array of them

FORMATS = {  # bits of the significand; exponents of the smallest and of the largest normal number
    "float16": (11, -14, 15),
    "bfloat16": (8, -126, 127),
    "float32": (24, -126, 127),
    "float64": (53, -1022, 1023),
}


def ulp_error(got: Numbers, exact: Exact, dtype: Any) -> Any:
    """The distance between two numbers in units in the last place of a format, entry by entry.

    The unit is the spacing of the format's numbers in the binade of the exact value; below the
    smallest normal number, and at 0, it is the smallest subnormal number.

    Args:
        got: Any shape. What was computed, in any format that holds it.
        exact: The shape of got. What is right.
        dtype: float16, bfloat16, float32 or float64, as a name or as a NumPy or torch dtype.

    Returns:
        A float or a float64 array in the shape of got: 0 where both are nan or the same infinity or
        where got is the infinity that exact rounds to, inf where just one is finite.

    >>> ulp_error(1.0000002384185791, 1, "float32")
    2.0
    """
    name = getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
    bits, smallest, largest = FORMATS[name]

    def distance(value: Any, right: Any) -> float:
        if value == right or (mpmath.isnan(value) and mpmath.isnan(right)):
            return 0.0
        if not mpmath.isfinite(right) or mpmath.isnan(value):
            return math.inf
        if mpmath.isinf(value):
            overflow = mpmath.ldexp(2 - mpmath.ldexp(1, -bits), largest)
            return 0.0 if right * mpmath.sign(value) >= overflow else math.inf
        binade = smallest if right == 0 else int(mpmath.mag(right)) - 1
        exponent = min(max(binade, smallest), largest)
        return float(mpmath.ldexp(abs(value - right), bits - 1 - exponent))

    with mpmath.workprec(200):
        errors = by_entry(distance, exactly(got), exactly(exact))
    return errors if isinstance(errors, float) else np.asarray(errors, float)


def exactly(numbers: Numbers) -> Exact:
    """The same numbers for mpmath: one of them, or an object array."""
    return by_entry(mpmath.mpmathify, np.asarray(numbers))


def by_entry(function: Callable[..., Any], *arrays: Any, outputs: int = 1) -> Any:
    """A function of numbers on arrays that broadcast; an object array for each output."""
    with np.errstate(all="ignore"):  # Python's own comparisons with nan raise NumPy's flags
        return np.frompyfunc(function, len(arrays), outputs)(*arrays)


def precision(numbers: Numbers, scale: float = 1.0) -> Any:
    """A context with digits enough for sums and differences of exponentials of scale * numbers.

    60 digits, and what the range takes away from them: 1 - p is as small as exp(-range). Beyond
    exp(-1500) nothing is left of a result in any format, even times the largest float.
    """
    values = [v for v in np.asarray(numbers, float).reshape(-1).tolist() if math.isfinite(v)]
    span = min(abs(scale) * (max(values) - min(values)), 1500.0) if values else 0.0
    size = max(map(abs, values), default=0.0)
    exponents = max(math.frexp(size)[1], 0) + max(math.frexp(scale)[1], 0)
    return mpmath.workprec(200 + math.ceil(span / math.log(2)) + exponents)


def times(masses: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """Products, where a mass of 0 times an infinite value is 0."""
    return [
        mpf(0) if mass == 0 and mpmath.isinf(value) else mass * value
        for mass, value in zip(masses, values, strict=True)
    ]


def divide(dividend: Any, divisor: Any) -> Any:
    """The quotient, where a divisor of 0 gives nan or an infinity."""
    if divisor != 0:
        return dividend / divisor
    return nan if dividend == 0 or mpmath.isnan(dividend) else mpmath.sign(dividend) * inf


def fold(numbers: Numbers, axis: int) -> tuple[list[list[Any]], tuple[int, ...]]:
    """The rows along an axis, and the shape that is left without it."""
    array = np.moveaxis(exactly(numbers), axis, -1)
    shape = array.shape[:-1]
    return array.reshape(math.prod(shape), array.shape[-1]).tolist(), shape


def unfold(rows: Sequence[Sequence[Any]], classes: int, axis: int, shape: tuple[int, ...]) -> Exact:
    """Rows back in their places."""
    flat = [value for row in rows for value in row]
    return np.moveaxis(shaped(flat, (*shape, classes)), -1, axis)


def shaped(values: Sequence[Any], shape: tuple[int, ...]) -> Exact:
    """An object array of a shape, or its only number where the shape is ()."""
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)[()]


def along(axis: int, function: Callable[..., list[Any]], *arrays: Numbers) -> Exact:
    """What a function of rows gives for the rows along an axis of arrays of one shape."""
    folded = [fold(array, axis) for array in arrays]
    rows = [function(*row) for row in zip(*(rows for rows, _ in folded), strict=True)]
    return unfold(rows, np.shape(arrays[0])[axis], axis, folded[0][1])


def differences(
    function: Callable[[Exact], Exact], numbers: Numbers, upstream: Numbers = 1
) -> Exact:
    """The gradient of sum(upstream * function) by central differences, good to 25 digits."""
    with mpmath.workprec(400):
        array, step = exactly(numbers), mpf(10) ** -30
        slopes = np.empty(array.shape, object)
        for place in np.ndindex(array.shape):
            ends = []
            for move in (step, -step):
                moved = array.copy()
                moved[place] += move
                ends.append(mpmath.fsum(np.ravel(exactly(function(moved)) * exactly(upstream))))
            slopes[place] = (ends[0] - ends[1]) / (2 * step)
        return slopes
