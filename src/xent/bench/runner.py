"""A whole run: which jobs there are, a process for each, and what they find as one Report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from xent.bench import machine
from xent.bench.cases import LOGITS, Case, Head
from xent.bench.peers import OURS_IN_PLACE, PEERS
from xent.bench.peers import able as computes
from xent.bench.records import OURS, Omission, Report
from xent.bench.worker import Job, Line, failure

Tick = Callable[[str, int, int], object]  # what begins, jobs done, jobs in all
WORKER = [sys.executable, "-m", "xent.bench.worker"]
MEMORY_BYTES = 2**24  # of logits; below, pages and buffers of a library count for more
# A freed block goes back at once: a peak is that of one call, not of what calls before left.
MEMORY_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}


def benchmark(
    cases: Sequence[Case | Head],
    peers: Sequence[str],
    threads: Sequence[int],
    seconds: float,
    seed: int,
    tick: Tick = lambda *_: None,
) -> Report:
    """Measure xent beside each peer that is installed, on each case that it can compute.

    Args:
        cases: what to compute.
        peers: names in `peers.PEERS`.
        threads: each number of threads to measure with.
        seconds: for the rounds of one quantity, beside one peer.
        seed: of the logits.
        tick: called before each step with what it is, and the jobs done and in all.

    Returns:
        What was found; no error of an implementation is raised.
    """
    report = Report(
        datetime.now(UTC).strftime("%Y-%m-%d"),
        {"threads": list(threads), "seconds": seconds, "seed": seed},
        machine.machine(),
        machine.software(),
        machine.allocator(),
        {"before": machine.load()},
    )
    here = []
    for name in peers:
        missing = PEERS[name].missing()
        if missing:
            told = f"{' and '.join(missing)} not installed"
            report.omissions.append(Omission(name, None, None, told, failed=False))
        else:
            here.append(name)
    todo = list(jobs(cases, here, threads, seconds, seed))
    # torch compiles into a folder of this run: nothing compiled before is found, nothing stays.
    with tempfile.TemporaryDirectory() as folder:
        for done, job in enumerate(todo):
            what = f"{job.case}, {job.subject}"
            tick(what, done, len(todo))
            for kind, found in lines_of(job, folder):
                if kind == "tick":
                    tick(f"{what}, {found}", done, len(todo))
                else:
                    report.add(kind, found)
    report.load["after"] = machine.load()
    return report


def jobs(
    cases: Sequence[Case | Head],
    peers: Sequence[str],
    threads: Sequence[int],
    seconds: float,
    seed: int,
) -> Iterator[Job]:
    """The times of every peer on every case, and the memory of every implementation."""
    for case in cases:
        able = [name for name in peers if computes(name, case)]
        for number in threads:
            for name in able:
                yield Job("time", name, case.name, number, seconds, seed)
        if case.bytes < MEMORY_BYTES or not able:
            continue
        own = dict.fromkeys(PEERS[name].ours for name in able)
        in_place = [OURS_IN_PLACE] if OURS in own and case.suite == LOGITS else []
        for name in (*own, *in_place, *able):
            yield Job("memory", name, case.name, threads[0], seconds, seed)


def lines_of(job: Job, folder: str) -> Iterator[Line]:
    """What the job's process finds; an omission more where it ends in an error."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(job, folder),
            text=True,
        ) as process,
    ):
        if process.stdin is None or process.stdout is None:
            return
        process.stdin.write(json.dumps(asdict(job)))
        process.stdin.close()
        for line in process.stdout:
            yield tuple(json.loads(line))
        status = process.wait()
        if status:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            last = re.sub(r"\S*[/\\]\S*", "...", last)[:200]
            told = f"ended with status {status}" + (f": {last}" if last else "")
            yield failure(job, told)


def environment(job: Job, folder: str) -> dict[str, str]:
    """That of the job's process: its threads, and where torch compiles."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = dict.fromkeys(names, str(job.threads)) | {"TORCHINDUCTOR_CACHE_DIR": folder}
    settings["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes beside what is timed
    if job.task == "memory":
        settings |= MEMORY_ALLOCATOR
    return {**os.environ, **settings}
