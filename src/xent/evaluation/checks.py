"""Which files, options and rows are legal: everything here that raises an error.

A broken row is a `Bad`: found by whoever reads it, raised here or counted by the one who asked for
`skip_bad`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xent.errors import bad

KINDS = ("auto", "logits", "probabilities", "log-probabilities", "top-k")
Shape = tuple[int, ...]


class Bad(NamedTuple):
    """A broken row: its number, the class (-1 for the row itself), the file, what is wrong."""

    row: int
    column: int
    file: str
    has: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file} has {self.has} at {self.place()}, expected {self.expected}"

    def place(self) -> str:
        """Where the row is."""
        return f"row {self.row}" + (f", class {self.column}" if self.column >= 0 else "")


def broken(function: str, row: Bad) -> None:
    """Raise for a broken row: IndexError for a target, ValueError for a prediction."""
    kind = IndexError if row.expected.startswith("a class") else ValueError
    raise kind(f"{function}: {row}")


def unreadable(function: str, file: str, has: str, expected: str) -> Any:
    """A file that cannot be used."""
    raise bad(ValueError, function, file, has, expected)


def missing(function: str, file: str) -> Any:
    """A file that is not there, or cannot be opened."""
    expected = "a file, or an array"
    raise FileNotFoundError(f"{function}: {file} has no file of its name, expected {expected}")


def library(function: str, name: str, file: str) -> Any:
    """An optional library, imported; told how to install it where it is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        told = f'{function}: {file} needs {package}, not installed: pip install "xent[evaluate]"'
        raise ModuleNotFoundError(told) from None


def same_rows(function: str, file: str, shape: Shape, like: str, expected: Shape) -> None:
    """Whether a file has a number for each row of another."""
    same = shape == expected or int(np.prod(shape)) == int(np.prod(expected)) == max(
        shape, default=1
    )
    if not same:
        raise bad(
            ValueError, function, file, f"shape {shape}", f"{expected}, a row for each of {like}"
        )


def same_shape(function: str, file: str, shape: Shape, like: str, expected: Shape) -> None:
    """Whether two sets of predictions are of the same rows and classes."""
    if shape != expected:
        raise bad(ValueError, function, file, f"shape {shape}", f"{expected}, that of {like}")


def class_axis(function: str, file: str, shape: Shape, axis: int) -> int:
    """The class axis, not negative."""
    if len(shape) < 2:
        raise bad(ValueError, function, file, f"shape {shape}", "rows and classes, (N, V)")
    if not -len(shape) <= axis < len(shape):
        expected = f"an axis of {file}, of shape {shape}"
        raise bad(ValueError, function, "axis", f"value {axis}", expected)
    if 0 in shape:
        raise bad(ValueError, function, file, f"shape {shape}", "at least one row and one class")
    return axis % len(shape)


def numeric(function: str, file: str, dtype: np.dtype, kinds: str, expected: str) -> None:
    """Whether the numbers of a file are of a kind that can be used."""
    if dtype.kind not in kinds:
        raise bad(TypeError, function, file, f"dtype {dtype}", expected)


def option(function: str, name: str, value: Any, fine: bool, expected: str) -> None:
    """Whether an option has a value that it can have."""
    if not fine:
        raise bad(ValueError, function, name, f"value {value!r}", expected)


def no_rows(function: str, file: str, ignored: int, skipped: int) -> None:
    """Raise where no row takes part."""
    has = f"{ignored} ignored and {skipped} broken rows and no other"
    raise bad(ValueError, function, file, has, "a row that takes part")


def class_weight(function: str, file: str, weight: np.ndarray, classes: int) -> np.ndarray:
    """Class weights, checked."""
    if weight.shape != (classes,):
        raise bad(
            ValueError, function, file, f"shape {weight.shape}", f"({classes},), one per class"
        )
    fine = np.isfinite(weight) & (weight >= 0)
    if not fine.all():
        value = float(weight[np.argmin(fine)])
        raise bad(ValueError, function, file, f"value {value:g}", "weights >= 0")
    return weight


def written(file: Path) -> None:
    """Raise where a file could not be put where it was asked for."""
    if not file.absolute().parent.is_dir():
        raise NotADirectoryError(f"{file.parent} is not a folder")
