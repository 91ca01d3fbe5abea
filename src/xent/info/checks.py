"""The checks of what callers of xent.info pass, and the only place in it that raises.

Types, shapes and options are always checked, values where `readable` says so.
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any

import array_api_compat as compat
import array_api_compat.numpy as numpy_namespace
import numpy as np

from xent.errors import bad
from xent.info.arrays import Array, device, is_array, is_torch, readable


def arrays(function: str, **given: Any) -> tuple[Any, list[Array]]:
    """The namespace of the arguments and the arguments as its arrays of a floating dtype.

    Numbers and lists become NumPy float64 arrays, or take library, dtype and device of the array
    beside them.
    """
    xp: Any
    found: list[Any] = [v for v in given.values() if is_array(v)]
    if not found:
        xp = numpy_namespace
    elif all(is_torch(v) for v in found):
        import array_api_compat.torch as xp  # array_namespace would warn under torch.compile
    else:
        try:
            xp = compat.array_namespace(*found)
        except TypeError:
            kinds = " and ".join(f"{type(v).__module__}.{type(v).__name__}" for v in found)
            names = " and ".join(given)
            expected = "arrays of one library"
            raise bad(TypeError, function, names, f"types {kinds}", expected) from None
    result = []
    for name, value in given.items():
        if not any(value is v for v in found):
            value = numpy_array(function, name, value)
            if found:
                like = found[0]
                value = xp.asarray(value, dtype=like.dtype, device=device(like))
        if not xp.isdtype(value.dtype, "real floating"):
            raise bad(TypeError, function, name, f"dtype {value.dtype}", "a real floating dtype")
        result.append(value)
    return xp, result


def numpy_array(function: str, argument: str, value: Any) -> np.ndarray:
    """Numbers, nested lists of them or a NumPy array, as a new float64 array."""
    try:
        array = np.asarray(None if is_torch(value) else value)
    except ValueError:
        expected = "lists of equal lengths"
        raise bad(ValueError, function, argument, "lists of unequal lengths", expected) from None
    if array.dtype.kind not in "biuf":
        kind = f"{type(value).__module__}.{type(value).__name__}".removeprefix("builtins.")
        expected = "real numbers, lists of them or an array"
        raise bad(TypeError, function, argument, f"type {kind}", expected)
    return array.astype(np.float64)


def class_axes(function: str, axis: Any, pair: bool, **given: Array) -> tuple[int, ...]:
    """The axes of the classes, two of them for a joint distribution, as the caller counts them."""
    axes: tuple[Any, ...] = tuple(axis) if isinstance(axis, Sequence) else (axis,)
    integers = len(axes) > 0 and all(isinstance(a, numbers.Integral) for a in axes)
    if not integers or (pair and len(axes) != 2):
        expected = "a pair of integers" if pair else "an integer or a tuple of them"
        raise bad(TypeError, function, "axis", f"value {axis!r}", expected)
    axes = tuple(int(a) for a in axes)
    for name, array in given.items():
        n = array.ndim
        if n < len(axes):
            raise bad(ValueError, function, name, f"{n} dimensions", f"at least {len(axes)}")
        if any(not -n <= a < n for a in axes):
            expected = f"{-n} to {n - 1} for the {n} dimensions of {name}"
            raise bad(ValueError, function, "axis", f"value {axis!r}", expected)
        if len({a % n for a in axes}) < len(axes):
            raise bad(ValueError, function, "axis", f"value {axis!r}", "different axes")
        if any(array.shape[a] == 0 for a in axes):
            expected = f"at least one class along axis {axis!r}"
            raise bad(ValueError, function, name, f"shape {tuple(array.shape)}", expected)
    (first_name, p), *others = given.items()
    for name, q in others:
        shape, found = tuple(p.shape), f"shape {tuple(q.shape)}"
        if q.ndim != p.ndim and any(a >= 0 for a in axes):
            expected = f"{p.ndim} dimensions as {first_name}, or a negative axis"
            raise bad(ValueError, function, name, found, expected)
        if any(q.shape[a] != p.shape[a] for a in axes):
            expected = f"the classes of {first_name}, of shape {shape}, along axis {axis!r}"
            raise bad(ValueError, function, name, found, expected)
        if not fit(shape, q.shape):
            expected = f"one that broadcasts with {shape} of {first_name}"
            raise bad(ValueError, function, name, found, expected)
    return axes


def fit(*shapes: Any) -> bool:
    """Whether the shapes broadcast."""
    try:
        np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        return False
    return True


def log_base(function: str, base: Any, above: float = 0.0) -> float:
    """The natural logarithm of the base; None is e."""
    if base is None:
        return 1.0
    if isinstance(base, bool) or not isinstance(base, numbers.Real):
        kind = f"type {type(base).__name__}"
        raise bad(TypeError, function, "base", kind, "a number, or None for nats")
    value = float(base)
    if not above < value < math.inf or value == 1:
        expected = "a number > 1" if above else "a number > 0 other than 1"
        raise bad(ValueError, function, "base", f"value {value!r}", expected)
    return math.log(value)


def logit_flags(function: str, from_logits: Any, count: int) -> tuple[bool, ...]:
    """For each of `count` arguments, whether it holds logits."""
    if isinstance(from_logits, bool):
        return (from_logits,) * count
    if (
        count == 2
        and isinstance(from_logits, Sequence)
        and len(from_logits) == 2
        and all(isinstance(flag, bool) for flag in from_logits)
    ):
        return tuple(from_logits)
    expected = "a bool" if count == 1 else "a bool or a pair of bools"
    raise bad(TypeError, function, "from_logits", f"value {from_logits!r}", expected)


def tolerance(xp: Any, dtype: Any, classes: int) -> float:
    """How far from 1 the sum of `classes` probabilities of `dtype` may be.

    eps for the rounding of the entries, 8 sqrt(V) eps (float32's where that is smaller) for the
    arithmetic that made them, V times the smallest number > 0 for entries below it.
    """
    info = xp.finfo(dtype)
    eps, smallest = float(info.eps), float(info.smallest_normal) * float(info.eps)
    return eps + 8 * math.sqrt(classes) * min(eps, 2.0**-23) + classes * smallest


def probabilities(
    function: str, name: str, xp: Any, rows: Array, sizes: tuple[int, ...], dtype: Any
) -> None:
    """Rows (..., V) of probabilities: entries finite and >= 0, sums 1 within `tolerance`."""
    if not readable(rows):
        return
    wrong = ~((rows >= 0) & (rows < math.inf))
    if bool(xp.any(wrong)):
        found = entry(xp, wrong, rows, sizes)
        raise bad(ValueError, function, name, found, "finite probabilities >= 0")
    sums, allowed = xp.sum(rows, axis=-1), tolerance(xp, dtype, rows.shape[-1])
    wrong = xp.abs(sums - 1) > allowed
    if bool(xp.any(wrong)):
        row, value = first(xp, wrong, sums)
        found = f"sum {value!r}{at('in row', row)}"
        raise bad(ValueError, function, name, found, f"1 within {allowed:.1e}")


def logits(function: str, name: str, xp: Any, rows: Array, sizes: tuple[int, ...]) -> None:
    """Rows (..., V) of logits: -inf, or finite with differences that are; and not all -inf."""
    if not readable(rows):
        return
    limit = float(xp.finfo(rows.dtype).max) / 4
    wrong = ~(xp.abs(rows) < limit) & (rows != -math.inf)
    if bool(xp.any(wrong)):
        expected = f"logits that are -inf or of a size below {limit:.1e}"
        raise bad(ValueError, function, name, entry(xp, wrong, rows, sizes), expected)
    largest = xp.max(rows, axis=-1)
    wrong = largest == -math.inf
    if bool(xp.any(wrong)):
        row, _ = first(xp, wrong, largest)
        found = f"only -inf{at('in row', row)}"
        raise bad(ValueError, function, name, found, "a finite logit in each row")


def entry(xp: Any, wrong: Array, rows: Array, sizes: tuple[int, ...]) -> str:
    """The first wrong entry of rows in words; `sizes` are those of the axes of the classes."""
    index, value = first(xp, wrong, rows)
    place = at("in class", tuple(np.unravel_index(index[-1], sizes)))
    return f"{value!r}{place}{at('of row', index[:-1])}"


def entries(function: str, name: str, xp: Any, values: Array, low: float, high: float) -> None:
    """Numbers in [low, high], each by itself; nan passes where high is inf."""
    if not readable(values):
        return
    wrong = (values < low) if high == math.inf else ~((values >= low) & (values <= high))
    if bool(xp.any(wrong)):
        index, value = first(xp, wrong, values)
        found = f"value {value!r}{at('at index', index)}"
        expected = f">= {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise bad(ValueError, function, name, found, expected)


def counts(function: str, name: str, xp: Any, value: Any, like: Array) -> Array:
    """Integers >= 1 that broadcast with `like`, in its dtype."""
    array: Any = value if is_array(value) else np.asarray(value)
    integral = compat.array_namespace(array).isdtype(array.dtype, "integral")
    if not integral:
        raise bad(TypeError, function, name, f"dtype {array.dtype}", "integers")
    counted = xp.asarray(array, dtype=like.dtype, device=device(like))
    entries(function, name, xp, counted, 1.0, math.inf)
    if not fit(counted.shape, like.shape):
        expected = f"one that broadcasts with {tuple(like.shape)}"
        raise bad(ValueError, function, name, f"shape {tuple(counted.shape)}", expected)
    return counted


def first(xp: Any, wrong: Array, values: Array) -> tuple[tuple[int, ...], float]:
    """The index of the first True and the value there."""
    flat = int(xp.argmax(xp.reshape(xp.astype(wrong, xp.int8), (-1,))))
    index = tuple(int(i) for i in np.unravel_index(flat, tuple(values.shape)))
    return index, float(values[index])


def at(words: str, index: tuple[Any, ...]) -> str:
    """An index in words: " in row 3", " in row (1, 3)", nothing where there is no index."""
    plain = tuple(int(i) for i in index)
    return f" {words} {plain[0] if len(plain) == 1 else plain}" if plain else ""


def parameters(family: str, positive: str, **given: Any) -> dict[str, Any]:
    """Parameters as read-only float64 of one shape: finite, those named in `positive` > 0."""
    result = {}
    for name, value in given.items():
        array = numpy_array(family, name, value)
        lower = 0.0 if name in positive.split() else -math.inf
        wrong = ~((array > lower) & (array < math.inf))
        if wrong.any():
            index, number = first(numpy_namespace, wrong, array)
            found = f"value {number!r}{at('at index', index)}"
            expected = "> 0 and finite" if lower == 0 else "a finite number"
            raise bad(ValueError, family, name, found, expected)
        result[name] = array
    shapes = [np.shape(v) for v in result.values()]
    if not fit(*shapes):
        names, found = " and ".join(given), f"shapes {' and '.join(map(str, shapes))}"
        raise bad(ValueError, family, names, found, "shapes that broadcast")
    same = np.broadcast_arrays(*result.values())
    return {name: fixed(array) for name, array in zip(result, same, strict=True)}


def fixed(array: np.ndarray) -> Any:
    """A read-only copy; a scalar where it has no dimensions."""
    array = array.copy()
    array.flags.writeable = False
    return array[()]


def bounds(family: str, low: Any, high: Any) -> dict[str, Any]:
    """Bounds of an interval of a finite width > 0."""
    result = parameters(family, "", low=low, high=high)
    with np.errstate(over="ignore"):
        width = np.asarray(result["high"] - result["low"])
    wrong = ~((width > 0) & (width < math.inf))
    if wrong.any():
        index, number = first(numpy_namespace, wrong, width)
        found = f"value {number!r}{at('at index', index)}"
        raise bad(ValueError, family, "high - low", found, "> 0 and finite")
    return result


def normal_parameters(family: str, mean: Any, covariance: Any) -> dict[str, Any]:
    """A mean (..., D) and a covariance (..., D, D), symmetric and positive definite."""
    mean = np.atleast_1d(parameters(family, "", mean=mean)["mean"])
    matrix = np.asarray(parameters(family, "", covariance=covariance)["covariance"])
    d = mean.shape[-1]
    square = matrix.ndim >= 2 and matrix.shape[-2:] == (d, d) and d > 0
    if not square or not fit(mean.shape[:-1], matrix.shape[:-2]):
        expected = f"(..., {d}, {d}) for a mean of shape {mean.shape}"
        raise bad(ValueError, family, "covariance", f"shape {matrix.shape}", expected)
    lopsided = np.max(np.abs(matrix - np.swapaxes(matrix, -1, -2)))
    if lopsided > 8 * np.finfo(float).eps * np.max(np.abs(matrix)):
        found = f"a difference of {lopsided:.3g} from its transpose"
        raise bad(ValueError, family, "covariance", found, "a symmetric matrix")
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        found = f"the eigenvalue {np.min(np.linalg.eigvalsh(matrix)):.3g}"
        raise bad(ValueError, family, "covariance", found, "a positive definite matrix") from None
    batch = np.broadcast_shapes(mean.shape[:-1], matrix.shape[:-2])
    mean, matrix = np.broadcast_to(mean, (*batch, d)), np.broadcast_to(matrix, (*batch, d, d))
    return {"mean": fixed(mean), "covariance": fixed(matrix)}


def same_family(function: str, one: Any, other: Any) -> None:
    """Both are of one family, and their parameters have shapes that broadcast."""
    if type(one) is not type(other):
        found = f"type {type(other).__name__}"
        raise bad(TypeError, function, "other", found, type(one).__name__)
    for name, value in vars(one).items():
        shape, expected = np.shape(getattr(other, name)), np.shape(value)
        lengths = (shape[-1:], expected[-1:]) if "covariance" in vars(one) else ((), ())
        if lengths[0] != lengths[1] or not fit(shape, expected):
            wanted = f"one that broadcasts with {expected}"
            raise bad(ValueError, function, f"other.{name}", f"shape {shape}", wanted)


def pieces(function: str, low: Any, high: Any, points: Any) -> list[tuple[float, float]]:
    """The intervals between the limits and the points between them."""
    try:
        edges = [float(low), *(float(v) for v in points), float(high)]
    except (TypeError, ValueError):
        found = f"values {low!r}, {high!r} and {points!r}"
        raise bad(TypeError, function, "low, high or points", found, "numbers") from None
    if not all(a < b for a, b in itertools.pairwise(edges)):
        raise bad(
            ValueError, function, "low, *points, high", f"values {edges}", "increasing numbers"
        )
    return list(itertools.pairwise(edges))


def callable_density(function: str, name: str, density: Any) -> None:
    """A density is a function."""
    if not callable(density):
        raise bad(TypeError, function, name, f"type {type(density).__name__}", "a function")


def density_value(function: str, name: str, x: float, value: Any, log: bool) -> float:
    """A density, or its logarithm, at one point."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        found = f"type {type(value).__name__} at {x!r}"
        raise bad(TypeError, function, name, found, "one number for one point") from None
    if not (-math.inf <= number < 709 if log else 0 <= number < math.inf):
        expected = "a logarithm < 709" if log else ">= 0 and finite"
        raise bad(ValueError, function, name, f"value {number!r} at {x!r}", expected)
    return number


def unit_mass(function: str, name: str, mass: float, low: float, high: float) -> None:
    """A density integrates to 1."""
    if abs(mass - 1) > 1e-8:
        found = f"integral {mass:.9g} from {low:g} to {high:g}"
        expected = "1 within 1e-08 (a narrow peak is found with points=)"
        raise bad(ValueError, function, name, found, expected)


def converged(
    function: str, what: str, value: float, error: float, low: float, high: float
) -> None:
    """The error estimate of an integral is small against it."""
    allowed = 1e-8 * max(1.0, abs(value))
    if not error <= allowed or not abs(value) < math.inf:
        found = f"integral {value:.9g} with error {error:.1g} from {low:g} to {high:g}"
        expected = f"an error of at most {allowed:.1g} (split the range with points=)"
        raise bad(ValueError, function, what, found, expected)


def not_covered(function: str, x: float, p: float) -> None:
    """q is 0 at x, where p is not."""
    expected = "> 0 wherever p is: else the result is inf (log=True if q underflows)"
    raise bad(ValueError, function, "q", f"value 0.0 at {x!r}, where p is {p:.3g}", expected)
