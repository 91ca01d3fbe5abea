"""Sparse predictions: the log-probabilities of a row's k likeliest classes, and which they are.

What they leave of the row's probability is shared evenly by the other V - k classes: a target among
these has the probability rest / (V - k).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xent.evaluation import checks, files
from xent.evaluation.predictions import IGNORED, Predictions
from xent.evaluation.rows import RowNumbers


class Opened(NamedTuple):
    """The predictions as a file of (N, k) pairs, and what makes row numbers of them."""

    predictions: Predictions
    source: Any


@dataclass(frozen=True)
class Sparse(Predictions):
    """Rows of k log-probabilities among `of` classes; a raw row is k values and k indices."""

    indices: Any = None
    of: int = 0

    @property
    def classes(self) -> int:
        return self.of

    def raw(self, start: int, stop: int) -> np.ndarray:
        """(n, 2 k): values, then class indices."""
        values = np.float64(self.cube[start:stop, :, 0])
        return np.concatenate([values, np.float64(self.indices[start:stop])], axis=1)

    def logits(self, raw: np.ndarray) -> np.ndarray:
        """The same."""
        return raw


@dataclass(frozen=True)
class Source:
    """Row numbers of sparse rows."""

    of: int
    tolerance: float

    def row_numbers(
        self, logits: np.ndarray, target: np.ndarray, bfloat16: bool = False
    ) -> RowNumbers:
        """As `xent.evaluation.rows.row_numbers`; lse is NaN where the pairs are broken."""
        half = logits.shape[1] // 2
        values, places = logits[:, :half], logits[:, half:]
        p = np.exp(values)
        rest = 1 - p.sum(axis=1)
        broken = ~(rest >= -self.tolerance) | ~((places >= 0) & (places < self.of)).all(axis=1)
        broken |= (np.diff(np.sort(places, axis=1), axis=1) == 0).any(axis=1)
        rest = np.maximum(rest, 0.0)
        others = max(1, self.of - half)
        here = places == target[:, None]
        inside = here.any(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.log(rest / others)
            own = np.where(inside, np.where(here, values, 0.0).sum(axis=1), each)
            entropy = -np.where(p > 0, p * values, 0.0).sum(axis=1)
            entropy -= np.where(rest > 0, rest * each, 0.0)
        squares = (p * p).sum(axis=1) + rest * rest / others
        brier = squares - 2 * np.exp(own) + 1
        top = np.argmax(values, axis=1)
        at = np.arange(len(target))
        kept = target != IGNORED
        k = np.nan_to_num(places[at, top]).astype(np.int64)
        nll = np.where(kept, -own, 0.0)
        lse = np.where(broken & kept, np.nan, 0.0)
        above = np.count_nonzero(values > own[:, None], axis=1)
        slope = np.zeros(len(target))
        return RowNumbers(nll, lse, k, p[at, top], entropy, brier, above, slope)


def opened(function: str, asked: Any, members: set[str]) -> Opened:
    """The values and the indices, from two files or from the members of one .npz."""
    inside = members == {"indices", "values"}
    values = files.opened(function, f"{asked.predictions}:values" if inside else asked.predictions)
    given = f"{asked.predictions}:indices" if inside else asked.indices
    checks.option(
        function, "indices", given, given is not None, "the classes of the values, (N, k)"
    )
    indices = files.opened(function, given)
    checks.class_axis(function, values.name, values.shape, -1)
    checks.numeric(function, values.name, values.array.dtype, "f", "log-probabilities")
    checks.numeric(function, indices.name, indices.array.dtype, "iu", "class indices")
    checks.same_shape(function, indices.name, indices.shape, values.name, values.shape)
    count = asked.classes
    fine = isinstance(count, int) and count >= values.shape[-1]
    checks.option(function, "classes", count, fine, f"{values.shape[-1]} or more, V of the model")
    fine = not asked.label_smoothing
    checks.option(function, "label_smoothing", asked.label_smoothing, fine, "0 for top-k")
    k = values.shape[-1]
    flat = values.array.reshape(-1, k)
    found = Sparse(
        values,
        flat[:, :, None],
        values.shape[:-1],
        "top-k",
        inside and asked.kind == "auto",
        indices=indices.array.reshape(-1, k),
        of=count,
    )
    return Opened(found, Source(count, found.tolerance))
