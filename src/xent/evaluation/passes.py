"""A pass over all rows: blocks shared out over threads and processes, their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from xent.evaluation import processes
from xent.evaluation.sums import block_rows
from xent.kernels import cpu

Result = TypeVar("Result")
Tick = Callable[[int, int, int], object]  # rows done, rows in all, bytes of a row
IN_CACHE = 1 << 22  # bytes of the logits of a piece that is copied: the copies stay in the cache
COPIES = 4  # of a piece at one time: mapped, as float, its logarithm, in double


@dataclass(frozen=True)
class Way:
    """How rows are read: bytes in memory for all threads together, and what is told of progress."""

    chunk_bytes: int
    threads: int
    tick: Tick

    def piece_rows(self, classes: int, itemsize: int = 8, mapped: bool = False) -> int:
        """How many rows a thread reads at a time; `mapped` ones are read where they lie."""
        if mapped:
            return max(1, self.chunk_bytes // (2 * self.threads) // (classes * itemsize))
        room = min(IN_CACHE, self.chunk_bytes // (COPIES * self.threads))
        return max(1, room // (classes * max(4, itemsize)))


def way(chunk_mb: float, tick: Tick | None) -> Way:
    """The way for so many MiB."""
    return Way(int(chunk_mb * 2**20), cpu.threads(), tick or (lambda *_: None))


def over(
    rows: int, classes: int, row_bytes: int, way: Way, work: Callable[[int, int], Result]
) -> Iterator[Result]:
    """work(start, stop) of this process's blocks, in their order, some computed ahead."""
    rank, size = processes.world()
    step = block_rows(classes)
    starts = range(rank * step, rows, size * step)
    with ThreadPoolExecutor(way.threads) as pool:
        ahead: deque[Future[Result]] = deque()
        done = 0
        try:
            for start in starts:
                ahead.append(pool.submit(work, start, min(rows, start + step)))
                if len(ahead) > way.threads + 1:
                    yield ahead.popleft().result()
                    done += step * size
                    way.tick(min(done, rows), rows, row_bytes)
            while ahead:
                yield ahead.popleft().result()
                done += step * size
                way.tick(min(done, rows), rows, row_bytes)
        finally:
            for future in ahead:
                future.cancel()


def pieces(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """[start, stop) in ranges of at most `step` rows."""
    for first in range(start, stop, step):
        yield first, min(stop, first + step)
