"""Rows from all over a file, evenly spaced, kept in memory as a pass comes by them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from xent.evaluation import processes
from xent.evaluation.predictions import Predictions

KEPT, MOST_ROWS = 1 << 22, 1 << 14  # logits, and rows


@dataclass(frozen=True)
class Sample:
    """Which rows, in order, and room for their logits as the kernel takes them."""

    rows: np.ndarray  # (n,)
    logits: np.ndarray  # (n, V), or the bits of bfloat16
    bfloat16: bool

    def keep(self, start: int, stop: int, logits: np.ndarray) -> None:
        """Keep what is asked for of rows [start, stop)."""
        first, last = np.searchsorted(self.rows, (start, stop))
        places = self.rows[first:last] - start
        np.take(logits, places, axis=0, out=self.logits[first:last], mode="clip")

    def share(self, step: int) -> None:
        """Give every process the rows that others came by in their blocks of `step` rows."""
        rank, size = processes.world()
        if size == 1:
            return
        of = self.rows // step % size
        file = io.BytesIO()
        np.save(file, self.logits[of == rank])
        for other, data in enumerate(processes.gathered(file.getvalue())):
            self.logits[of == other] = np.load(io.BytesIO(data), allow_pickle=False)


def evenly(found: Predictions) -> Sample:
    """Room for all rows of a small file, evenly spaced ones of a larger."""
    count = min(found.count, MOST_ROWS, max(1, KEPT // found.classes))
    like, bfloat16 = found.stored(found.raw(0, 1))
    rows = np.arange(count) * found.count // count
    return Sample(rows, np.empty((count, found.classes), like.dtype), bfloat16)
