"""The rows that accuracy is measured on, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from accuracy_reference import CANCEL

from xent.conformance.exact import FORMATS

Draw = Callable[[np.random.Generator, int, int, str], np.ndarray]


@dataclass(frozen=True)
class Case:
    """Rows of logits of one kind, and the options of the loss."""

    name: str
    rows: int
    classes: int
    draw: Draw  # generator, rows, classes, format -> logits in float64, to be rounded to the format
    target: str = "any"  # any class, the first one, or probabilities
    options: dict[str, Any] = field(default_factory=dict)
    strided: bool = False  # the entries of a class side by side, as in images

    @property
    def title(self) -> str:
        """The name in the table."""
        return f"{self.name}, V = {self.classes}"

    @property
    def cancels(self) -> bool:
        """Whether entries of the gradient are differences of numbers that may be nearly equal."""
        return self.target == "probabilities" or not self.options.keys().isdisjoint(CANCEL)

    def small(self) -> Case:
        """The same with less to compute."""
        classes = min(self.classes, 1000)
        return replace(self, rows=min(self.rows, 4000 // classes), classes=classes)

    def draw_target(self, rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
        """Class indices (N,), or probabilities (N, V) in float64."""
        if self.target == "first":
            return np.zeros(len(logits), np.int64)
        if self.target == "any":
            return rng.integers(0, logits.shape[1], len(logits))
        powers = np.exp(rng.normal(0, 2, logits.shape))
        return powers / powers.sum(axis=1, keepdims=True)


def normal(deviation: float, mean: float = 0.0) -> Draw:
    """Independent normal logits."""
    return lambda rng, n, v, _: rng.normal(mean, deviation, (n, v))


def uniform(low: float, high: float) -> Draw:
    """Independent uniform logits."""
    return lambda rng, n, v, _: rng.uniform(low, high, (n, v))


def near_ties(rng: np.random.Generator, n: int, v: int, dtype: str) -> np.ndarray:
    """Logits a few units in the last place apart."""
    spacing = 2.0 ** (1 - FORMATS[dtype][0])
    return 1 + spacing * rng.integers(0, 5, (n, v))


def confident(least: float, most: float, offset: float = 0.0) -> Draw:
    """The first class ahead of all others by a gap, which differs from row to row."""

    def draw(rng: np.random.Generator, n: int, v: int, _: str) -> np.ndarray:
        logits = np.minimum(rng.normal(0, 1, (n, v)), 0)
        logits[:, 0] = rng.uniform(least, most, n)
        return logits + offset

    return draw


def deep_tail(rng: np.random.Generator, n: int, v: int, dtype: str) -> np.ndarray:
    """All probabilities but the first below the smallest normal number."""
    bits, smallest, _ = FORMATS[dtype]
    normal, subnormal = -smallest * np.log(2), (bits - 1 - smallest) * np.log(2)
    logits = -rng.uniform(normal, subnormal, (n, v))
    logits[:, 0] = 0
    return logits


# The native kernel takes rows of at most 64 classes, or with entries of a class side by side, as
# tiles; others in pieces of 4096 float32, 8192 half-precision and 2048 float64 logits, and those of
# 65536 classes by several threads; probabilities, a scale, a softcap and the entropy in double.
# Without it, torch's rows of 64 classes are taken piece by piece, others side by side, from 16384
# logits on.
CASES = (
    Case("randn", 64, 1000, normal(1)),
    Case("3 randn", 4, 50257, normal(3)),
    Case("3 randn, images", 1000, 21, normal(3), strided=True),
    Case("randn, images", 64, 1000, normal(1), strided=True),
    Case("U(-1e4, 1e4)", 64, 1000, uniform(-1e4, 1e4)),
    Case("U(-50, 50)", 64, 1000, uniform(-50, 50)),
    Case("near ties", 2000, 16, near_ties),
    Case("1e4 + randn", 64, 1000, normal(1, 1e4)),
    Case("confident, gap 1..40", 2000, 10, confident(1, 40), "first"),
    Case("confident, gap 1..40", 200, 100, confident(1, 40), "first"),
    Case("confident, gap 1..40", 8, 20000, confident(1, 40), "first"),
    Case("the same at 5000", 2000, 10, confident(1, 40, 5000), "first"),
    Case("deep tail", 300, 64, deep_tail),
    Case("deep tail, sure", 300, 64, deep_tail, "first"),
    Case("deep tail, sure", 64, 300, deep_tail, "first"),
    Case("randn", 1, 10**6, normal(1)),
    Case("U(0, 0.001)", 1, 10**6, uniform(0, 1e-3)),
    Case("0.02 randn", 2, 128256, normal(0.02)),
    Case("smoothing 0.1", 64, 1000, normal(2), options={"label_smoothing": 0.1}),
    Case("smoothing 1e-10", 2000, 10, confident(1, 40), "first", {"label_smoothing": 1e-10}),
    Case("probabilities", 64, 1000, normal(2), "probabilities"),
    Case("z-loss 1e-4", 64, 1000, normal(2), options={"z_loss": 1e-4}),
    Case("scale 0.7", 64, 1000, normal(3), options={"logit_scale": 0.7}),
    Case("softcap 30", 64, 1000, normal(20), options={"softcap": 30.0}),
    Case("softcap 30, sure", 2000, 10, confident(1, 40), "first", {"softcap": 30.0}),
)

MEANS = tuple(Case(f"{rows} rows", rows, 10, normal(2)) for rows in (1_000, 30_000, 1_000_000))
