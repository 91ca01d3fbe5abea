"""Predictions, their targets, and the files that hold them, for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def drawn(
    rng: np.random.Generator, rows: int, classes: int, dtype: str = "float32", right: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, V), and targets of which a share is the likeliest class."""
    logits = (3 * rng.standard_normal((rows, classes))).astype(dtype)
    target = rng.integers(0, classes, rows)
    sure = rng.random(rows) < right
    target[sure] = np.argmax(logits[sure], axis=1)
    return logits, target


def softmax(logits: np.ndarray) -> np.ndarray:
    """In float64, by definition."""
    wide = logits.astype(np.float64)
    p = np.exp(wide - wide.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def saved(folder: Path, **arrays: np.ndarray) -> dict[str, str]:
    """Each array as a .npy file of its name."""
    names = {}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
        names[name] = str(folder / f"{name}.npy")
    return names
