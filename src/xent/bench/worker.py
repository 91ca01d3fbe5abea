"""One process of the benchmark: a job as JSON on stdin, what it finds as lines of JSON on stdout.

A line is a list of two: the name of a list in `records.Report` and one of its records, or "tick"
and what begins now.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from xent.bench import check
from xent.bench.cases import BOTH, FORWARD, IN_PLACE, LINEAR, QUANTITIES, Case, Head, named
from xent.bench.memory import extra_bytes
from xent.bench.peers import PEERS, drawn, floors, work_of
from xent.bench.records import OURS, Check, Measurement, Memory, Omission, ratios, rounded, spread
from xent.bench.timing import interleaved
from xent.bench.work import Work

Line = tuple[str, Any]


@dataclass(frozen=True)
class Job:
    """What a process measures: a peer beside xent, or the memory of one implementation."""

    task: str  # "time" or "memory"
    subject: str  # a peer; for memory, xent too
    case: str
    threads: int
    seconds: float
    seed: int


def run(job: Job) -> Iterator[Line]:
    """What is found; what an implementation raises is found too."""
    case = named(job.case)
    if case is None:
        return
    peer = PEERS.get(job.subject)
    if peer is not None and peer.pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job.threads])
    try:
        yield from {"time": timed, "memory": remembered}[job.task](job, case)
    except Exception as error:  # anything: a compiler missing, no memory
        yield failure(job, reason(error))


def timed(job: Job, case: Case | Head) -> Iterator[Line]:
    """A check of each quantity, and times of those that pass."""
    import torch

    torch.set_num_threads(job.threads)
    arrays = drawn(case, job.seed)
    theirs = work_of(job.subject, case, arrays)
    ours = work_of(PEERS[job.subject].ours, case, arrays)
    for quantity in QUANTITIES:
        beside = quantity if quantity == FORWARD else BOTH
        if quantity not in ours or beside not in theirs:
            continue
        pair = {OURS: ours[quantity], job.subject: theirs[beside]}
        yield "tick", f"{quantity}: check"
        right = True
        for kind, found in checked(job, case, quantity, pair, arrays):
            right = right and kind == "checks" and found["passed"]
            yield kind, found
        if right:
            yield "tick", quantity
            floor = floors(case, arrays, quantity)
            yield "measurements", asdict(measured(job, quantity, pair, floor))


def checked(
    job: Job, case: Case | Head, quantity: str, pair: dict[str, Work], arrays: tuple
) -> Iterator[Line]:
    """The first call of each subject, timed, and how far its result is off."""
    results, first = {}, {}
    for subject, work in pair.items():
        start = time.perf_counter()
        try:
            results[subject] = work.once()
        except Exception as error:
            yield failure(job, f"{quantity}: {subject}: {reason(error)}")
        first[subject] = time.perf_counter() - start
    for subject, found in check.errors(case, arrays, results).items():
        made = Check(
            job.case,
            job.subject,
            job.threads,
            quantity,
            subject,
            check.finite(found.loss),
            check.finite(found.gradient),
            found.within,
            rounded(first[subject]),
        )
        yield "checks", asdict(made)


def measured(job: Job, quantity: str, pair: dict[str, Work], floor: dict[str, Work]) -> Measurement:
    """Times of xent, the peer and the floors, round by round."""
    times = interleaved(pair | floor, job.seconds)
    wall, cpu = times.wall, times.cpu
    return Measurement(
        job.case,
        job.subject,
        job.threads,
        quantity,
        times.rounds,
        ratio=ratios(wall[job.subject], wall[OURS]),
        floors={name: ratios(wall[OURS], wall[name]) for name in floor},
        seconds={name: spread(values) for name, values in wall.items()},
        cpu_seconds={n: spread(v) for n, v in cpu.items()} if job.threads == 1 else None,
        calls=times.calls,
        waited=None if times.waited is None else rounded(times.waited),
    )


def remembered(job: Job, case: Case | Head) -> Iterator[Line]:
    """The peak of memory of forward and backward, in place where that is the job; or of forward.

    Code is loaded at a small size before, but compiled at its own.
    """
    import torch

    torch.set_num_threads(job.threads)
    compiles = job.subject in PEERS and PEERS[job.subject].compiles
    if not compiles:
        small = replace(case, shape=(2, 3, 5)[: 2 + (case.suite == LINEAR)])
        for work in work_of(job.subject, small, drawn(small, job.seed)).values():
            work.once()
    works = work_of(job.subject, case, drawn(case, job.seed))
    quantity = next(name for name in (BOTH, IN_PLACE, FORWARD) if name in works)
    work = works[quantity]
    if compiles:
        work.once()
    given = () if work.prepare is None else (work.prepare(),)
    extra = extra_bytes(lambda: work.call(*given))
    peak = None if extra is None else rounded(extra / case.bytes)
    yield "memory", asdict(Memory(job.case, job.subject, quantity, peak))


def failure(job: Job, why: str) -> Line:
    """A job, or a part of it, that could not be done."""
    return "omissions", asdict(Omission(job.subject, job.case, job.threads, why, failed=True))


def reason(error: Exception) -> str:
    """The type and first line of an error, without the paths in it."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r"\S*[/\\]\S*", "...", f"{type(error).__name__}: {first}")[:200]


def main() -> None:
    """Read the job, write the lines; what others print to stdout goes to stderr."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in run(Job(**json.load(sys.stdin))):
        print(json.dumps(line, allow_nan=False), file=lines, flush=True)


if __name__ == "__main__":
    main()
