"""What is measured, as data: a case is its name, the shapes of its arrays and their dtype.

There are two suites of them: losses of logits, and of a linear head, whose logits are made of
hidden states and weights.
"""

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


LOGITS, LINEAR = SUITES = ("logits", "linear")


@dataclass(frozen=True)
class Case:
    """Logits of a shape (N, V, ...) and a dtype, with class indices for target."""

    shape: tuple[int, ...]
    dtype: str

    suite = LOGITS

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


@dataclass(frozen=True)
class Head:
    """Hidden states (N, D) and weights (V, D) of a dtype, with class indices for target.

    A share of the rows, in percent, is ignored.
    """

    shape: tuple[int, int, int]  # N, D, V
    dtype: str
    ignored: int = 0

    suite = LINEAR

    @property
    def name(self) -> str:
        """The name that `named` reads: 2048x1024x32000-float32-head, or with -ignored50."""
        ignored = f"-ignored{self.ignored}" if self.ignored else ""
        return f"{'x'.join(map(str, self.shape))}-{self.dtype}-head{ignored}"

    @property
    def bytes(self) -> int:
        """The size of the logits, which nobody has to store."""
        return self.shape[0] * self.shape[2] * SIZES[self.dtype]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.shape[0]


def named(name: str) -> Case | Head | None:
    """The case of a name; None where it names none.

    >>> named("128x1000-float32")
    Case(shape=(128, 1000), dtype='float32')
    >>> named("64x8x1000-bfloat16-head-ignored50")
    Head(shape=(64, 8, 1000), dtype='bfloat16', ignored=50)
    """
    lengths, _, rest = name.partition("-")
    dtype, _, head = rest.partition("-")
    if dtype not in SIZES or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", lengths):
        return None
    shape = tuple(map(int, lengths.split("x")))
    if not head:
        return Case(shape, dtype)
    found = re.fullmatch(r"head(-ignored([1-9]\d?))?", head)
    if not found or len(shape) != 3:
        return None
    return Head(shape, dtype, int(found[2] or 0))


HEADS = (
    Head((2048, 1024, 32000), "float32"),  # a language model's head
    Head((2048, 1024, 32000), "float32", ignored=50),
    Head((2048, 1024, 32000), "bfloat16"),
    Head((512, 2048, 128256), "bfloat16"),  # few tokens of a large vocabulary
    Head((512, 2048, 128256), "bfloat16", ignored=50),
    Head((256, 64, 1000), "float32"),
)
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
