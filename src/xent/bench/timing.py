"""Times of several subjects, in rounds: one sample of each, in an order that turns around."""

from __future__ import annotations

import gc
import math
import time
from pathlib import Path

from xent.bench.work import Work

SAMPLE_SECONDS = 1e-3  # a shorter call is repeated until a sample lasts this long
LEAST_ROUNDS, MOST_ROUNDS = 5, 200
LONG, LEAST_LONG_ROUNDS = 4.0, 3  # seconds of a round, of which fewer have to do
TASKS = Path("/proc/self/task")  # Linux


class Times:
    """The wall-clock and processor seconds of each subject's call, round by round."""

    def __init__(self, calls: dict[str, int]) -> None:
        self.calls = calls
        self.waited: float | None = None  # the share of the time that a thread had no processor
        self.wall: dict[str, list[float]] = {name: [] for name in calls}
        self.cpu: dict[str, list[float]] = {name: [] for name in calls}

    @property
    def rounds(self) -> int:
        """How many were done."""
        return min(map(len, self.wall.values()))


def interleaved(subjects: dict[str, Work], seconds: float) -> Times:
    """Rounds for that many seconds, LEAST_ROUNDS of them at least, or LEAST_LONG_ROUNDS of long
    ones, after a warm-up.

    A call that a sample repeats is made once more before it, not timed: it finds the caches and the
    threads as it leaves them, not as the subject before did.
    """
    times = Times({name: _enough(work) for name, work in subjects.items()})
    order = list(subjects)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begin, waits = time.perf_counter(), _waits()
        end = begin + seconds
        while times.rounds < _least(times) or (
            times.rounds < MOST_ROUNDS and time.perf_counter() < end
        ):
            for name in order:
                if times.calls[name] > 1:
                    subjects[name].once()
                wall, cpu = sample(subjects[name], times.calls[name])
                times.wall[name].append(wall)
                times.cpu[name].append(cpu)
            order.reverse()
        times.waited = _share(waits, _waits(), time.perf_counter() - begin)
    finally:
        if collecting:
            gc.enable()
    return times


def _least(times: Times) -> int:
    """How many rounds there have to be."""
    long = times.rounds and sum(wall[0] for wall in times.wall.values()) > LONG
    return LEAST_LONG_ROUNDS if long else LEAST_ROUNDS


def sample(work: Work, calls: int) -> tuple[float, float]:
    """Mean wall-clock and processor seconds of a call; what is prepared is not counted."""
    wall = cpu = 0
    call, prepare = work.call, work.prepare
    for count in [calls] if prepare is None else [1] * calls:
        given = () if prepare is None else (prepare(),)
        cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
        for _ in range(count):
            call(*given)
        wall += time.perf_counter_ns() - start
        cpu += time.process_time_ns() - cpu_start
        del given  # before the next is made
    return wall / calls / 1e9, cpu / calls / 1e9


def _waits() -> dict[str, int] | None:
    """The nanoseconds that each thread of this process was ready and waited; None if not told."""
    try:
        return {
            task.name: int((task / "schedstat").read_text().split()[1]) for task in TASKS.iterdir()
        }
    except (OSError, IndexError, ValueError):
        return None


def _share(
    before: dict[str, int] | None, after: dict[str, int] | None, lasted: float
) -> float | None:
    """Of the longest wait of a thread in the time that passed."""
    if not before or not after or lasted <= 0:
        return None
    return max(waited - before.get(task, 0) for task, waited in after.items()) / 1e9 / lasted


def _enough(work: Work) -> int:
    """How many calls a sample takes, found while warming up."""
    if sample(work, 1)[0] > 1:  # second: warm enough
        return 1
    calls = 1
    while True:
        lasted = sample(work, calls)[0] * calls
        if lasted >= SAMPLE_SECONDS or calls >= 10_000:
            return calls
        calls = min(10_000, max(2 * calls, math.ceil(calls * SAMPLE_SECONDS / max(lasted, 1e-9))))
