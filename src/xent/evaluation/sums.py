"""Sums over all rows: of blocks cut by the number of classes alone, added with what adding loses.

A block's sum is pairwise. Blocks are added as pairs of doubles (Knuth's TwoSum), good to 100 bits,
so that the order in which processes hand theirs in does not show in the 53 that are told.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np


class Totals:
    """Named arrays of float64 that grow by addition."""

    def __init__(self) -> None:
        self.high: dict[str, np.ndarray] = {}
        self.low: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """The sum, rounded once."""
        return self.high[name] + self.low[name]

    def __contains__(self, name: str) -> bool:
        return name in self.high

    def add(
        self, sums: Mapping[str, np.ndarray], lost: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Add arrays, each to the one of its name; `lost` is what they are short of."""
        for name, given in sums.items():
            value = np.asarray(given, dtype=np.float64)
            if name not in self.high:
                self.high[name], self.low[name] = np.zeros_like(value), np.zeros_like(value)
            self.high[name], rest = two_sum(self.high[name], value)
            self.low[name] = self.low[name] + rest
            if lost is not None:
                self.low[name] = self.low[name] + lost[name]

    def add_at(self, name: str, size: int, places: np.ndarray, values: np.ndarray) -> None:
        """Add values to different places of one array."""
        if name not in self.high:
            self.high[name], self.low[name] = np.zeros(size), np.zeros(size)
        high, low = self.high[name], self.low[name]
        high[places], rest = two_sum(high[places], values)
        low[places] += rest

    def put(self, name: str, size: int, places: np.ndarray, values: np.ndarray) -> None:
        """Put values where none were: nothing is added, so nothing is lost."""
        if name not in self.high:
            self.high[name], self.low[name] = np.zeros(size), np.zeros(())
        self.high[name][places] = values

    def as_bytes(self) -> bytes:
        """For another process."""
        file = io.BytesIO()
        arrays = {f"high {n}": a for n, a in self.high.items()}
        np.savez(file, **arrays, **{f"low {n}": a for n, a in self.low.items()})  # type: ignore
        return file.getvalue()

    def add_bytes(self, data: bytes) -> None:
        """Add another process's totals."""
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            names = [n.removeprefix("high ") for n in held.files if n.startswith("high ")]
            self.add({n: held[f"high {n}"] for n in names}, {n: held[f"low {n}"] for n in names})


def two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a + b, rounded, and what the rounding lost."""
    with np.errstate(invalid="ignore"):  # inf - inf, which is nothing lost
        total = a + b
        of_b = total - a
        lost = (a - (total - of_b)) + (b - of_b)
    return total, np.where(np.isfinite(total), lost, 0.0)


def block_rows(classes: int) -> int:
    """The rows of a block: by the number of classes alone, for the sake of the bits."""
    rows = max(1, (1 << 23) // classes)
    return min(1 << 16, 1 << (rows.bit_length() - 1))
