"""Which arrays are legal, and the rows that ops and kernels see.

Shapes and dtypes are checked from what an array says of itself, on every device. The values of
class indices are checked by `target_codes`, where they can be read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from math import prod
from numbers import Real
from typing import Any, NoReturn

import array_api_compat
import numpy as np

from xent.errors import bad
from xent.ops.exact import widest, working_dtype
from xent.ops.stats import IGNORED, INVALID
from xent.reduction import keeps_rows
from xent.spec import Spec

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATING = "a floating dtype (float16, bfloat16, float32 or float64)"


@dataclass(frozen=True)
class Rows:
    """Logits and target with the class axis last, and what is needed to give a result back."""

    xp: Any  # the array namespace
    logits: Any  # (N, D, V), a view where the layout in memory allows
    target: Any  # (N, D) class indices or codes, (N, D, V) probabilities, or None
    weight: Any  # (V,), or None
    shape: tuple[int, ...]  # of a result per row
    axis: int | None  # of the classes in the caller's logits; None where each row is an element
    dtype: Any  # of the result
    more: tuple = ()  # further arrays that the op takes
    origin: tuple[int, ...] = ()  # where the target begins in the caller's
    source = "the logits"  # what the other arrays are to fit

    @property
    def indexed(self) -> bool:
        """Whether the target is class indices."""
        return self.target is not None and self.target.ndim == 2

    @property
    def device(self) -> Any:
        return self.logits.device

    @property
    def work(self) -> Any:
        """The dtype to compute in."""
        return working_dtype(self.xp, self.logits)

    @property
    def arrays(self) -> tuple:
        """What the op takes."""
        return self.logits, self.target, self.weight, *self.more

    def coded(self, spec: Spec, check: bool = True) -> Rows:
        """The same rows with class indices replaced by codes, after checking them."""
        if not self.indexed:
            return self
        classes, shape = self.logits.shape[-1], self.shape if check else None
        codes = target_codes(self.xp, self.target, classes, spec, shape, self.origin)
        return replace(self, target=codes)

    def per_row(self, values: Any, dtype: Any) -> Any:
        """(N, D), or 0-d after a reduction -> the shape of the caller's result, in `dtype`."""
        shape = self.shape if values.ndim else ()
        result = self.xp.astype(self.xp.reshape(values, shape), dtype)
        # NumPy's own functions return scalars for arrays without axes.
        return result[()] if isinstance(result, np.ndarray) else result

    def spread(self, entries: Any) -> Any:
        """(N, D, V) -> the shape and the axes of the caller's logits."""
        if self.axis is None:
            return self.xp.reshape(entries, self.shape)
        before, after = self.shape[: self.axis], self.shape[self.axis :]
        moved = self.xp.permute_dims(entries, (0, 2, 1))
        return self.xp.reshape(moved, (*before, entries.shape[-1], *after))


def namespace(array: Any) -> Any:
    """The array-API namespace of an array."""
    if is_torch(array):
        import array_api_compat.torch as xp

        return xp
    return array_api_compat.array_namespace(array)


def is_torch(array: Any) -> bool:
    """Whether an array is a torch tensor; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def as_array(
    function: str, name: str, value: Any, like: Any = None, source: str = "the logits"
) -> Any:
    """`value` as an array: itself, or a number or list made one like `like`, the `source`."""
    if isinstance(value, (list, tuple, int, float)) and not isinstance(value, bool):
        try:
            made = np.asarray(value)
        except ValueError:
            raise bad(ValueError, function, name, "rows of unequal length", "an array") from None
        if like is None:
            made = made.astype(np.float64) if made.dtype.kind in "iuf" else made
            return made if made.dtype.kind == "f" else _not_an_array(function, name, value)
        if made.dtype.kind == "f":
            return namespace(like).asarray(value, dtype=like.dtype, device=like.device)
        if made.dtype.kind in "iu":
            return namespace(like).asarray(value, device=like.device)
        return _not_an_array(function, name, value)
    known = is_torch(value) or bool(array_api_compat.is_array_api_obj(value))
    if not known or isinstance(value, np.ma.MaskedArray):  # a mask would be passed over
        return _not_an_array(function, name, value)
    if like is not None and namespace(value) is not namespace(like):
        has, wanted = (f"type {_type_name(a)}" for a in (value, like))
        raise bad(TypeError, function, name, has, f"{wanted[5:]}, as {source}")
    where = getattr(value, "device", None)
    if like is not None and where != like.device:
        has = f"device {where}"
        raise bad(ValueError, function, name, has, f"{like.device}, as {source}")
    return value


def floating(function: str, name: str, array: Any) -> Any:
    """`array`, whose dtype must be a floating one that xent knows."""
    if dtype_name(array) not in FLOATS:
        raise bad(TypeError, function, name, f"dtype {dtype_name(array)}", FLOATING)
    return array


def is_half(array: Any) -> bool:
    """Whether an array is float16 or bfloat16."""
    return dtype_name(array) in FLOATS[:2]


def dtype_name(array: Any) -> str:
    """The name of an array's dtype, whatever its library.

    >>> dtype_name(np.zeros(2, dtype=np.float32))
    'float32'
    """
    return str(array.dtype).rsplit(".", 1)[-1]


def class_rows(
    logits: Any, target: Any, weight: Any, spec: Spec, name: str = "logits", soft: bool = True
) -> Rows:
    """Logits (under their public name), a target and class weights, as rows.

    The target is class indices or, where `soft` says so, may be class probabilities.
    """
    function = spec.function
    logits = floating(function, name, as_array(function, name, logits))
    axis = class_axis(function, name, logits, spec.axis)
    target = as_array(function, "target", target, logits)
    soft = _is_probabilities(function, logits, target, axis, spec, soft)
    classes = logits.shape[axis]
    if weight is not None:
        weight = floating(function, "weight", as_array(function, "weight", weight, logits))
        if tuple(weight.shape) != (classes,):
            raise bad(ValueError, function, "weight", _shape(weight), f"({classes},)")
    if soft and spec.ignore_index >= 0:
        has = f"value {spec.ignore_index} with class probabilities"
        raise bad(ValueError, function, "ignore_index", has, "a negative one, as none is ignored")
    xp = namespace(logits)
    dtype = logits.dtype
    if soft:
        dtype = widest(xp, (logits, target, weight))
    rows = rows_of(logits, axis, dtype)
    lead = rows.logits.shape[:2]
    moved = _class_last(xp, target, axis) if soft else xp.reshape(target, lead)
    return replace(rows, target=moved, weight=weight)


def element_rows(logits: Any, target: Any, weight: Any, pos_weight: Any, spec: Spec) -> Rows:
    """Logits, probabilities and weights of one class each, as rows of one element."""
    function = spec.function
    logits = floating(function, "logits", as_array(function, "logits", logits))
    xp, shape = namespace(logits), tuple(logits.shape)
    arrays = [logits]
    for name, value in (("target", target), ("weight", weight), ("pos_weight", pos_weight)):
        if value is None and name != "target":
            arrays.append(None)
            continue
        array = floating(function, name, as_array(function, name, value, logits))
        if name == "target" and tuple(array.shape) != shape:
            raise bad(ValueError, function, name, _shape(array), f"{shape}, that of the logits")
        arrays.append(_broadcast(xp, function, name, array, shape))
    dtype = widest(xp, arrays)
    first, second, third, fourth = (
        None if a is None else xp.reshape(a, (prod(shape), 1, 1)) for a in arrays
    )
    return Rows(xp, first, second, third, shape, None, dtype, (fourth,))


def plain_rows(function: str, array: Any, axis: int, dtype: Any) -> Rows:
    """An array alone, cast to `dtype` where it is given, as rows along `axis`."""
    spec = Spec(function=function, axis=axis)
    array = as_array(function, "x", array)
    if dtype is not None:
        try:
            array = namespace(array).astype(array, dtype)
        except TypeError:
            has = f"value {dtype!r}"
            raise bad(TypeError, function, "dtype", has, "a dtype of the library of x") from None
    floating(function, "x", array)
    if axis is None:
        raise bad(TypeError, function, "axis", "type NoneType", "an integer")
    return rows_of(array, class_axis(function, "x", array, spec.axis), array.dtype)


def rows_of(array: Any, axis: int, dtype: Any) -> Rows:
    """An array without a target, as rows along `axis`."""
    xp, shape = namespace(array), tuple(array.shape)
    return Rows(xp, _class_last(xp, array, axis), None, None, _without(shape, axis), axis, dtype)


def class_axis(function: str, name: str, array: Any, axis: int | None) -> int:
    """The class axis as a number >= 0; None is torch's rule: 1, or 0 for a single row."""
    if array.ndim == 0:
        raise bad(ValueError, function, name, "shape ()", "at least one axis, that of the classes")
    if axis is None:
        return 1 if array.ndim > 1 else 0
    if not -array.ndim <= axis < array.ndim:
        bounds = f"one in [{-array.ndim}, {array.ndim}) for {name} of {_shape(array)}"
        raise bad(ValueError, function, "axis", f"value {axis}", bounds)
    return axis % array.ndim


def normalizer(function: str, value: Any, like: Any) -> Any:
    """An explicit denominator: a number, or a 0-d array of the logits' library."""
    if value is None or isinstance(value, Real):
        return value if value is None else float(value)
    if namespace(value) is not namespace(like):
        has = f"type {_type_name(value)}"
        raise bad(TypeError, function, "normalizer", has, f"a number or {_type_name(like)}")
    if tuple(value.shape) != ():
        raise bad(ValueError, function, "normalizer", _shape(value), "()")
    if dtype_name(value) not in FLOATS + INTEGERS:
        raise bad(TypeError, function, "normalizer", f"dtype {dtype_name(value)}", "a real number")
    return value


def upstream_rows(spec: Spec, upstream: Any, rows: Rows) -> Any:
    """The cotangent of a loss: a number, or an array of the loss's shape; -> 0-d or (N, D)."""
    xp, work = rows.xp, rows.work
    shape = rows.shape if keeps_rows(spec.reduction) else ()
    if not hasattr(upstream, "shape") and not isinstance(upstream, (list, tuple)):
        if not isinstance(upstream, Real) or isinstance(upstream, bool):
            return _not_an_array(spec.function, "upstream", upstream)
        return xp.asarray(float(upstream), dtype=work, device=rows.device)
    upstream = as_array(spec.function, "upstream", upstream, rows.logits, rows.source)
    if dtype_name(upstream) not in FLOATS + INTEGERS:
        has = f"dtype {dtype_name(upstream)}"
        raise bad(TypeError, spec.function, "upstream", has, "a real number or an array of them")
    if tuple(upstream.shape) not in ((), shape):
        expected = f"{shape}, that of the loss" if shape else "(), that of the loss"
        raise bad(ValueError, spec.function, "upstream", _shape(upstream), expected)
    upstream = xp.astype(upstream, work)
    return xp.reshape(upstream, rows.logits.shape[:2]) if upstream.ndim else upstream


def upstream_entries(function: str, upstream: Any, rows: Rows) -> Any:
    """The cotangent of an array of the rows' own shape -> (N, D, V)."""
    upstream = floating(function, "upstream", as_array(function, "upstream", upstream, rows.logits))
    shape = (*rows.shape[: rows.axis], rows.logits.shape[-1], *rows.shape[rows.axis :])
    if tuple(upstream.shape) != shape:
        raise bad(ValueError, function, "upstream", _shape(upstream), f"{shape}, that of forward's")
    return _class_last(rows.xp, upstream, len(rows.shape[: rows.axis]))


def no_weight_gradient(function: str) -> None:
    """Raise: as in torch, a loss of class indices has no derivative by the class weights."""
    has = "requires_grad=True with class indices"
    raise bad(RuntimeError, function, "weight", has, "one that needs no gradient")


def leaf_in_place(function: str) -> NoReturn:
    """Raise: a leaf of autograd's graph, a parameter, is not for a gradient to be written over."""
    has = "requires_grad=True and no operation before it, with Plan(inplace=True)"
    raise bad(ValueError, function, "logits", has, "the result of an operation")


def written_over(function: str) -> NoReturn:
    """Raise: what a plan let be written over is used again."""
    has = "its gradient in its place, as Plan(inplace=True) allows,"
    raise bad(RuntimeError, function, "logits", has[:-1], "no use after the loss and one backward")


def no_kernel(reason: str) -> NoReturn:
    """Raise: the plan asks for a kernel that cannot serve."""
    raise bad(ValueError, "Plan", "kernel", "value 'native'", f"None or 'reference': {reason}")


def target_codes(
    xp: Any,
    target: Any,
    classes: int,
    spec: Spec,
    shape: tuple[int, ...] | None,
    origin: tuple[int, ...] = (),
) -> Any:
    """(N, D) class indices as int64: IGNORED and INVALID stand for rows without a class.

    Raises IndexError for one out of range where `shape`, that of the caller's target, is given.
    Without it nothing is read and no device is waited for.
    """
    wide = xp.astype(target, xp.int64)
    unsigned = dtype_name(target) == "uint64"  # a value that int64 cannot hold is negative in it
    ignored = wide == spec.ignore_index
    if unsigned:
        ignored = ignored & (wide >= 0)
    inside = (wide >= 0) & (wide < classes)
    if shape is not None:
        wrong = ~(inside | ignored)
        if bool(xp.any(wrong)):
            flat = int(xp.argmax(xp.astype(xp.reshape(wrong, (-1,)), xp.int64)))
            value = int(xp.reshape(wide, (-1,))[flat])
            value = value % 2**64 if unsigned else value
            raise bad(
                IndexError,
                spec.function,
                "target",
                f"value {value}{_place(flat, shape, origin)}",
                f"a class in [0, {classes}) or ignore_index {spec.ignore_index}",
            )
    return xp.where(ignored, IGNORED, xp.where(inside, wide, INVALID))


def _is_probabilities(
    function: str, logits: Any, target: Any, axis: int, spec: Spec, soft: bool
) -> bool:
    """Torch's rule: a target of the logits' shape is probabilities, any other is indices."""
    shape, per_row = tuple(logits.shape), _without(tuple(logits.shape), axis)
    given, dtype = tuple(target.shape), dtype_name(target)
    or_soft = f", or class probabilities of shape {shape}" if soft else ""
    if given == shape and soft:
        if dtype in FLOATS:
            return True
        expected = f"floating class probabilities, or class indices of shape {per_row}"
        has = f"dtype {dtype} and the shape of the logits {shape}"
        raise bad(TypeError, function, "target", has, expected)
    if given == per_row or (len(shape) == 1 and given == (1,)):
        if dtype in INTEGERS:
            return False
        expected = f"integer class indices{or_soft}"
        raise bad(TypeError, function, "target", f"dtype {dtype} and shape {given}", expected)
    where = f"for logits of shape {shape} with classes on axis {axis}"
    if spec.axis is None and given == shape[:-1]:
        where += "; axis=-1 takes the last axis for the classes"
    kinds = f"{per_row} (class indices) or {shape} (class probabilities)" if soft else per_row
    expected = f"{kinds} {where}"
    raise bad(ValueError, function, "target", f"shape {given}", expected)


def _class_last(xp: Any, array: Any, axis: int) -> Any:
    shape = tuple(array.shape)
    split = xp.reshape(array, (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])))
    return xp.permute_dims(split, (0, 2, 1))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _broadcast(xp: Any, function: str, name: str, array: Any, shape: tuple[int, ...]) -> Any:
    try:
        return xp.broadcast_to(array, shape)
    except (ValueError, RuntimeError):
        expected = f"one that broadcasts to {shape}, that of the logits"
        raise bad(ValueError, function, name, _shape(array), expected) from None


def _place(flat: int, shape: tuple[int, ...], origin: tuple[int, ...]) -> str:
    if len(shape) == 0:
        return ""
    place = tuple(int(i) for i in np.add(np.unravel_index(flat, shape), origin or 0))
    return f" at row {place[0]}" if len(shape) == 1 else f" at {place}"


def _shape(array: Any) -> str:
    return f"shape {tuple(array.shape)}"


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _not_an_array(function: str, name: str, value: Any) -> Any:
    expected = "an array of numbers (NumPy, torch or another array-API library)"
    raise bad(TypeError, function, name, f"type {_type_name(value)}", expected)
