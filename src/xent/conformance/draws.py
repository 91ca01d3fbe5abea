"""What implementations are asked: cases, drawn from a seed, of numbers that every format holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray
SIGNIFICAND = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}
MORE = ("z_loss", "softcap", "logit_scale", "normalizer")  # torch has none of them
OPTIONS = ("weight", "ignore_index", "label_smoothing", *MORE)
EPS = {name: 2.0 ** (1 - bits) for name, bits in SIGNIFICAND.items()}


@dataclass(frozen=True, eq=False)
class Case:
    """One call: logits (N, V, ...) or (V,), what goes with them, and what flows back."""

    logits: Array  # float64 numbers that dtype holds
    target: Array  # integers, or probabilities in the shape of the logits
    weight: Array | None = None  # (V,)
    ignore_index: int | None = None  # None: not passed, and -100 where the implementation has one
    reduction: str = "mean"
    label_smoothing: float | None = None
    upstream: Any = None  # a number, or numbers in the shape of the loss; None is 1
    dtype: str = "float64"
    index_dtype: str = "int64"
    z_loss: float | None = None
    softcap: float | None = None
    logit_scale: float | None = None
    normalizer: float | None = None

    @property
    def soft(self) -> bool:
        return self.target.dtype.kind == "f"

    @property
    def options(self) -> dict[str, Any]:
        """What is passed beside the arrays; the weight among it."""
        given = {name: getattr(self, name) for name in OPTIONS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def transformed(self) -> bool:
        """Whether an option that torch has not got is passed."""
        return any(getattr(self, name) is not None for name in MORE)

    def told(self) -> str:
        """The call in words, arrays in full where they are small."""
        parts = [f"logits {shown(self.logits)}", f"target {shown(self.target)}"]
        parts += [f"{n} {shown(np.asarray(v))}" for n, v in self.options.items()]
        parts.append(f"reduction {self.reduction!r}")
        if self.upstream is not None:
            parts.append(f"upstream {shown(np.asarray(self.upstream))}")
        return ", ".join([*parts, self.dtype])


def shown(array: Any) -> str:
    """Numbers as one would type them; of a large array, its shape."""
    array = np.asarray(array)
    if array.size > 24:
        first = ", ".join(_number(v) for v in array.reshape(-1)[:4])
        return f"of shape {array.shape}: {first}, ..."
    if array.ndim == 0:
        return _number(array[()])
    return "[" + ", ".join(shown(part) for part in array) + "]"


def _number(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        short = f"{value:g}"
        return short if float(short) == float(value) else f"{value:.9g}"
    return str(value)


def generator(seed: int, name: str) -> np.random.Generator:
    """Numbers for one check: the same whichever other checks run."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def rounded(values: Any, dtype: str) -> Array:
    """The nearest numbers of a format, as float64."""
    values = np.asarray(values, np.float64)
    if dtype != "bfloat16":
        return values.astype(dtype).astype(np.float64)
    bits = np.atleast_1d(values.astype(np.float32)).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    kept = (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64)
    return np.where(np.isfinite(values), kept.reshape(values.shape), values)


def logits(rng: np.random.Generator, *shape: int) -> Array:
    """Eighths between -3 and 3, no two of a row's classes alike where 49 are enough."""
    return rng.integers(-24, 25, shape) / 8.0


def weights(rng: np.random.Generator, classes: int) -> Array:
    """Quarters between 1/4 and 4, not all alike."""
    drawn = rng.integers(1, 17, classes) / 4.0
    if classes > 1 and (drawn == drawn[0]).all():
        drawn[0] += 1.0
    return drawn


def probabilities(rng: np.random.Generator, *shape: int) -> Array:
    """Sixty-fourths that add up to 1 along axis 1."""
    rows = rng.multinomial(64, np.full(shape[1], 1 / shape[1]), size=(shape[0], *shape[2:]))
    return np.moveaxis(rows, -1, 1) / 64.0


SIZES = ((1, 2), (2, 3), (3, 5), (4, 3), (7, 4))  # small first: the smallest that fails is told


def plain(rng: np.random.Generator, sizes: Any = SIZES, **more: Any) -> Iterator[Case]:
    """Rows of logits and class indices; the targets differ where they can."""
    for rows, classes in sizes:
        target = rng.integers(0, classes, rows)
        if rows > 1 and (target == target[0]).all():
            target[0] = (target[0] + 1) % classes
        yield Case(logits(rng, rows, classes), target, **more)


def weighted(case: Case, rng: np.random.Generator) -> Case:
    return replace(case, weight=weights(rng, case.logits.shape[1]))


def ignoring(case: Case, rng: np.random.Generator, value: int = -100) -> Case:
    """With one row ignored, and no other row of that class."""
    target = case.target.copy()
    classes = case.logits.shape[1]
    target[target == value] = (value + 1) % classes
    target[rng.integers(len(target))] = value
    return replace(case, target=target, ignore_index=value)


def one_hot(target: Array, classes: int) -> Array:
    """Probabilities 0 and 1 along axis 1; of an index that is no class, none."""
    wanted = np.expand_dims(target, 1 if target.ndim else 0)
    shape = [1] * (target.ndim + 1)
    shape[1 if target.ndim else 0] = classes
    return (wanted == np.arange(classes).reshape(shape)).astype(np.float64)
