"""What may be asked: `Spec` (what; it changes the answer) and `Plan` (how; time, memory, rounding).

Options are checked here, once, when the record is made, and nowhere else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from xent.errors import bad
from xent.reduction import REDUCTIONS, divides


@dataclass(frozen=True, kw_only=True)
class Spec:
    """The options of one loss. Unset options have the value under which they do nothing."""

    function: str = "cross_entropy"  # the public name, for error texts
    ignore_index: int = -100
    reduction: str = "mean"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    softcap: float | None = None
    logit_scale: float = 1.0
    normalizer: Any = None  # a number, or a 0-d array checked with the other arrays
    axis: int | None = None

    @staticmethod
    def of(*values: Any) -> Spec:
        """The record with the values of its fields in order."""
        return Spec(**dict(zip(FIELDS, values, strict=True)))

    def __post_init__(self) -> None:
        _require(self, "ignore_index", _is_integer(self.ignore_index), "an integer", TypeError)
        fits = -(2**63) <= self.ignore_index < 2**63
        _require(self, "ignore_index", fits, "an integer of 64 bits")
        names = "'none', 'sum' or 'mean'"
        _require(self, "reduction", isinstance(self.reduction, str), names, TypeError)
        _require(self, "reduction", self.reduction in REDUCTIONS, names)
        _number(self, "label_smoothing", lambda v: 0 <= v <= 1, "a number in [0, 1]")
        _number(self, "z_loss", lambda v: 0 <= v < math.inf, "a finite number >= 0")
        if self.softcap is not None:
            _number(self, "softcap", lambda v: 0 < v < math.inf, "a finite number > 0, or None")
        _number(self, "logit_scale", lambda v: 0 < v < math.inf, "a finite number > 0")
        if self.axis is not None:
            _require(self, "axis", _is_integer(self.axis), "an integer or None", TypeError)
        if self.normalizer is not None:
            self._check_normalizer()

    def _check_normalizer(self) -> None:
        if not divides(self.reduction):
            has = f"a value with reduction {self.reduction!r}"
            raise bad(ValueError, self.function, "normalizer", has, "reduction 'mean'")
        if isinstance(self.normalizer, Real) or not hasattr(self.normalizer, "shape"):
            _number(self, "normalizer", lambda v: 0 <= v < math.inf, "a finite number >= 0")


FIELDS = tuple(field.name for field in fields(Spec))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to compute: no field changes the answer beyond the accuracy contract.

    Attributes:
        kernel: "native" asks for the compiled kernel, "reference" for the array code of `xent.ops`;
            None lets the library choose.
        inplace: lets the gradient be written over the logits. Where that is done, they must not be
            used again, and a use of them raises.
        reuse: lets the memory of a gradient be kept, for the next of its size once nothing holds
            the first any more: to get memory for a large one takes longer than to compute it.
        accurate: asks for the 0.51 ULP of float32 results. The reference always gives them.
        gradient: "forward" asks for the gradient to be computed with the loss, in one pass, and
            kept until backward; "recompute" for nothing to be kept of the size of the logits; None
            is "forward" where the loss is one number.
        chunk_bytes: the most memory that a block of temporary rows takes, at least one row.
        chunk_over: "rows" or "classes", what the logits of a linear head are cut along; None lets
            the shapes decide (`xent.ops.tiles.tile`).
        compact: takes the ignored rows of a linear head of half precision out of its products on a
            GPU, by products of xent's own that read how many there are on the device. None is
            False: the device library's products of all rows are faster where few are ignored.
        check_targets: whether class indices are checked; None checks them on a CPU only, because
            the check waits for the device. An unchecked index out of range gives a NaN loss.

    >>> Plan(accurate=True, chunk_bytes=2**20) == Plan(chunk_bytes=2**20, accurate=True)
    True
    """

    kernel: str | None = None
    inplace: bool = False
    reuse: bool = False
    accurate: bool = False
    gradient: str | None = None
    chunk_bytes: int | None = None
    chunk_over: str | None = None
    compact: bool | None = None
    check_targets: bool | None = None

    function = "Plan"  # for error texts; not a field

    def __post_init__(self) -> None:
        known = "'native', 'reference' or None"
        _require(self, "kernel", self.kernel in (None, "native", "reference"), known)
        known = "'forward', 'recompute' or None"
        _require(self, "gradient", self.gradient in (None, "forward", "recompute"), known)
        known = "'rows', 'classes' or None"
        _require(self, "chunk_over", self.chunk_over in (None, "rows", "classes"), known)
        for name in ("inplace", "reuse", "accurate"):
            told = isinstance(getattr(self, name), bool)
            _require(self, name, told, "True or False", TypeError)
        if self.chunk_bytes is not None:
            whole = _is_integer(self.chunk_bytes)
            _require(self, "chunk_bytes", whole, "an integer > 0, or None", TypeError)
            _require(self, "chunk_bytes", self.chunk_bytes > 0, "an integer > 0, or None")
        for name in ("compact", "check_targets"):
            value = getattr(self, name)
            told = value is None or isinstance(value, bool)
            _require(self, name, told, "True, False or None", TypeError)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _number(record: Any, name: str, fits: Any, expected: str) -> None:
    """Check a real number; the comparison in `fits` is false for NaN."""
    value = getattr(record, name)
    real = isinstance(value, Real) and not isinstance(value, bool)
    _require(record, name, real, expected, TypeError)
    _require(record, name, fits(value), expected)
    # NumPy's float32 would take what is computed with it down to its own precision.
    object.__setattr__(record, name, float(value))


def _require(
    record: Any, name: str, holds: bool, expected: str, kind: type[Exception] = ValueError
) -> None:
    if holds:
        return
    value = getattr(record, name)
    if kind is TypeError:
        has = f"type {type(value).__name__}"
    else:
        has = f"value {value!r}"
    raise bad(kind, record.function, name, has, expected)
