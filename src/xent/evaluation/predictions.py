"""Predictions as rows of logits, a piece at a time; targets and weights, a number for each row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xent.evaluation import checks, files
from xent.evaluation.files import Numbers

IGNORED = -1
LOWEST = -1e30  # stands for -inf where 0 times it is to be 0
TOLERANCE = {"float16": 1e-2, "bfloat16": 1e-2}  # of the sum of a row's probabilities
TAKEN = 8  # rows from all over a file that are in memory at once, each in up to 2 MiB of it
LOOKED_AT = 256  # rows that the kind is told from
HINT = "; logits are read with --kind logits"


@dataclass(frozen=True)
class Predictions:
    """Rows of V classes of a file: row n is (n // inner, :, n % inner) of (outer, V, inner)."""

    numbers: Numbers
    cube: np.ndarray  # (outer, V, inner)
    lead: tuple[int, ...]  # the shape without the class axis
    kind: str
    detected: bool

    @property
    def name(self) -> str:
        return self.numbers.name

    @property
    def classes(self) -> int:
        return self.cube.shape[1]

    @property
    def count(self) -> int:
        return self.cube.shape[0] * self.cube.shape[2]

    @property
    def tolerance(self) -> float:
        return TOLERANCE.get(self.numbers.dtype, 1e-3)

    def raw(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as they are in the file, (n, V)."""
        inner = self.cube.shape[2]
        if inner == 1:
            return self.cube[start:stop, :, 0]
        first, last = start // inner, (stop - 1) // inner
        if first == last:
            return self.cube[first, :, start % inner : (stop - 1) % inner + 1].T
        parts = [self.cube[first, :, start % inner :].T]
        if last > first + 1:
            whole = self.cube[first + 1 : last]
            parts.append(np.moveaxis(whole, 1, 2).reshape(-1, self.classes))
        parts.append(self.cube[last, :, : (stop - 1) % inner + 1].T)
        return np.concatenate(parts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Some rows as logits, (n, V)."""
        inner, parts = self.cube.shape[2], []
        for first in range(0, len(rows), TAKEN):
            some = rows[first : first + TAKEN]
            parts.append(self.logits(self.cube[some // inner, :, some % inner]))
            self.numbers.release(None)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def stored(self, raw: np.ndarray) -> tuple[np.ndarray, bool]:
        """Rows of the file as the kernel takes them: as they lie, where it can read that.

        And whether they are the bits of bfloat16.
        """
        fine = self.numbers.bfloat16 or raw.dtype.char in "efd"
        if self.kind == "probabilities" or not fine or not raw.dtype.isnative:
            return self.logits(raw), False
        return np.require(raw, requirements=["C", "A"]), self.numbers.bfloat16

    @property
    def is_stored(self) -> bool:
        """Whether the kernel reads rows where they lie."""
        rows = self.raw(0, min(2, self.count))
        return np.shares_memory(self.stored(rows)[0], rows)

    def logits(self, raw: np.ndarray) -> np.ndarray:
        """Rows of the file as float32 or float64 logits, without gaps between their numbers."""
        wide = numbers_of(raw, self.numbers.bfloat16)
        if self.kind == "probabilities":
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.log(wide)
        return wide

    def release(self, start: int, stop: int) -> None:
        """Let go of the memory of rows that have been read."""
        if self.cube.shape[2] == 1:
            part = self.cube[start:stop]
            if part.flags.c_contiguous:
                self.numbers.release(part)
        elif stop % self.cube.shape[2] == 0:
            self.numbers.release(
                self.cube[start // self.cube.shape[2] : stop // self.cube.shape[2]]
            )


def numbers_of(raw: np.ndarray, bfloat16: bool = False) -> np.ndarray:
    """Any numbers as float32 where that holds them, else as float64."""
    if bfloat16:
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if raw.dtype == np.float16:
        return _of_half(np.ascontiguousarray(raw))
    dtype = np.float32 if raw.dtype == np.float32 else np.float64
    return np.ascontiguousarray(raw, dtype=dtype)


def _of_half(raw: np.ndarray) -> np.ndarray:
    """float16 as float32, in a third of the time that NumPy's own conversion takes.

    The bits of exponent and mantissa are put where float32 has them, which makes every number 2^112
    times too small. So made, inf and NaN would be finite: NumPy converts them.
    """
    wide = np.left_shift(raw.view(np.int16), 13, dtype=np.int32)
    np.bitwise_and(wide, np.int32(-0x70002000), out=wide)  # the sign, and 15 bits
    numbers = wide.view(np.float32)
    np.multiply(numbers, np.float32(2.0**112), out=numbers)
    far = numbers.size and max(numbers.max(), -numbers.min()) >= 2.0**16
    return raw.astype(np.float32) if far else numbers


def predictions(function: str, given: Any, axis: int, kind: str) -> Predictions:
    """A file or an array of predictions, and of which kind they are."""
    checks.option(function, "kind", kind, kind in checks.KINDS, f"one of {', '.join(checks.KINDS)}")
    numbers = files.opened(function, given)
    array = numbers.array
    axis = checks.class_axis(function, numbers.name, array.shape, axis)
    if not numbers.bfloat16:
        checks.numeric(function, numbers.name, array.dtype, "fiu", "numbers for each class")
    lead = array.shape[:axis] + array.shape[axis + 1 :]
    if array.ndim == 2:
        cube = (array if axis == 1 else array.T)[:, :, None]
    else:
        if not array.flags.c_contiguous:
            checks.unreadable(
                function, numbers.name, "Fortran's order", "C order for 3 axes or more"
            )
        outer, classes = int(np.prod(array.shape[:axis])), array.shape[axis]
        cube = array.reshape(outer, classes, -1)
    found = Predictions(numbers, cube, lead, kind, False)
    return replace(found, kind=_kind(found), detected=True) if kind == "auto" else found


def _kind(found: Predictions) -> str:
    """What rows from all over the file are: probabilities, their logarithms, or logits."""
    count = min(found.count, LOOKED_AT, max(TAKEN, (1 << 19) // found.classes))
    rows = np.arange(count) * found.count // count
    some = replace(found, kind="logits").take(rows).astype(np.float64)
    tolerance = found.tolerance
    with np.errstate(over="ignore", invalid="ignore"):
        chances = (some >= 0).all(axis=1) & (np.abs(some.sum(axis=1) - 1) <= tolerance)
        logs = (some <= tolerance).all(axis=1) & (np.abs(np.exp(some).sum(1) - 1) <= tolerance)
    # Most rows and not all: a broken one is to be found as such.
    if np.mean(chances) > 0.5:
        return "probabilities"
    if np.mean(logs) > 0.5:
        return "log-probabilities"
    return "logits"


@dataclass(frozen=True)
class Column:
    """A number for each row."""

    numbers: Numbers
    flat: np.ndarray  # (N,)
    ignore_index: int = -100

    @property
    def name(self) -> str:
        return self.numbers.name

    def weights(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as float64."""
        return self.flat[start:stop].astype(np.float64)

    def targets(self, start: int, stop: int, classes: int) -> tuple[np.ndarray, list[checks.Bad]]:
        """Class indices, -1 for rows to ignore or broken ones, and the broken ones."""
        raw = self.flat[start:stop]
        plain = raw.dtype == np.int64 and not 0 <= self.ignore_index < classes
        if plain and raw.min() >= 0 and raw.max() < classes:  # as nearly always
            return np.array(raw), []
        with np.errstate(invalid="ignore"):
            target = raw.astype(np.int64)
            whole = (target == raw) if raw.dtype.kind == "f" else np.ones(len(raw), bool)
        ignored = target == self.ignore_index
        wrong = ~(whole & (((target >= 0) & (target < classes)) | ignored))
        target[ignored | wrong] = IGNORED
        return target, [self._bad(start + int(i), raw[i], classes) for i in np.flatnonzero(wrong)]

    def _bad(self, row: int, value: Any, classes: int) -> checks.Bad:
        expected = f"a class in [0, {classes}) or ignore_index {self.ignore_index}"
        return checks.Bad(
            row,
            -1,
            self.name,
            f"target {value:.17g}" if isinstance(value, np.floating) else f"target {value}",
            expected,
        )


def column(function: str, given: Any, like: Predictions, kinds: str, ignore_index: int) -> Column:
    """A file or an array with one number for each row of predictions."""
    numbers = files.opened(function, given, column=True)
    checks.numeric(function, numbers.name, numbers.array.dtype, kinds, "one number for each row")
    checks.same_rows(function, numbers.name, numbers.shape, like.name, like.lead)
    return Column(numbers, numbers.array.reshape(-1), ignore_index)


def broken_rows(found: Predictions, start: int, lse: np.ndarray) -> list[checks.Bad]:
    """The rows whose numbers cannot be a prediction, from what their log-sum-exp is."""
    wrong = ~np.isfinite(lse)
    if found.kind != "logits":
        with np.errstate(over="ignore", invalid="ignore"):
            wrong |= np.abs(np.expm1(lse)) > found.tolerance
    return [_broken(found, start + int(i), float(lse[i])) for i in np.flatnonzero(wrong)]


def _broken(found: Predictions, row: int, lse: float) -> checks.Bad:
    if found.kind == "top-k":
        has, expected = "no distribution", "different classes, probabilities that sum to 1 or less"
        return checks.Bad(row, -1, found.name, has, expected)
    raw = numbers_of(found.raw(row, row + 1), found.numbers.bfloat16)[0].astype(np.float64)
    chances = found.kind == "probabilities"
    wrong = np.isnan(raw) | (raw < 0 if chances else False) | np.isposinf(raw)
    if wrong.any():
        at = int(np.argmax(wrong))
        expected = "a probability" + HINT if chances else "a number"
        return checks.Bad(row, at, found.name, f"value {raw[at]:.9g}", expected)
    if found.kind == "logits":
        return checks.Bad(row, -1, found.name, "no value but -inf", "a finite logit")
    total = float(raw.sum() if chances else np.exp(raw).sum())
    expected = f"1 within {found.tolerance:g}{HINT}"
    return checks.Bad(row, -1, found.name, f"probabilities that sum to {total:.9g}", expected)
