"""What is measured, as data: a case is its name, the shape of the logits and their dtype."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

AXIS = 1  # the class axis of every case
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}  # bytes of a number
SMALL = 2**20  # bytes of logits: what --quick measures

FORWARD, BOTH = "forward", "forward and backward"
REUSED, IN_PLACE = "into memory of the last gradient", "in place"
QUANTITIES = (FORWARD, BOTH, REUSED, IN_PLACE)


@dataclass(frozen=True)
class Case:
    """Logits of a shape (N, V, ...) and a dtype, with class indices for target."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """The name that `named` reads: 128x1000-float32."""
        return f"{'x'.join(map(str, self.shape))}-{self.dtype}"

    @property
    def bytes(self) -> int:
        """The size of the logits."""
        return math.prod(self.shape) * SIZES[self.dtype]

    @property
    def rows(self) -> int:
        """How many rows the loss is the mean of."""
        return math.prod(self.shape) // self.shape[AXIS]


def named(name: str) -> Case | None:
    """The case of a name; None where it names none.

    >>> named("128x1000-float32")
    Case(shape=(128, 1000), dtype='float32')
    """
    shape, _, dtype = name.partition("-")
    if dtype not in SIZES or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", shape):
        return None
    return Case(tuple(map(int, shape.split("x"))), dtype)


CASES = (
    Case((2048, 32000), "float32"),  # a language model's batch of tokens
    Case((2048, 32000), "bfloat16"),
    Case((1024, 128256), "bfloat16"),
    Case((1, 256000), "float32"),  # one token of a large vocabulary
    Case((256, 32000), "float64"),
    Case((8, 21, 256, 256), "float32"),  # segmented images: the classes are not adjacent in memory
    Case((4096, 10), "float32"),  # few classes
    Case((128, 1000), "float32"),
    Case((8, 3000), "float32"),
    Case((8, 10), "float32"),  # nothing but the cost of a call
)
