"""bench/worker.py: toy runs of every peer that compiles nothing, and what is wrong is not timed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
import torch

import xent
from xent.bench import peers, timing, worker
from xent.bench.cases import BOTH, FORWARD, LINEAR, LOGITS, QUANTITIES, named
from xent.bench.records import OURS, made

TOYS = ("8x10-float32", "6x11-bfloat16", "2x5x4x3-float32", "5x7-float64")
HEADS = ("12x5x70-float32-head", "12x5x70-bfloat16-head-ignored50", "9x4x30-float64-head")
BUILT = [name for name, peer in peers.PEERS.items() if not peer.compiles]


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch):
    """Two rounds of single calls, and torch's threads as they were."""
    monkeypatch.setattr(timing, "LEAST_ROUNDS", 2)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def found_by(job: worker.Job) -> dict[str, list[Any]]:
    """The records of a job, by kind, after a way through JSON."""
    found: dict[str, list[Any]] = {}
    for kind, record in worker.run(job):
        if kind != "tick":
            record = made(kind, json.loads(json.dumps(record, allow_nan=False)))
        found.setdefault(kind, []).append(record)
    return found


def job(subject: str, case: str, seed: int, threads: int = 1, task: str = "time") -> worker.Job:
    return worker.Job(task, subject, case, threads, 0.0, seed)


@pytest.mark.parametrize("case", [*TOYS, *HEADS])
@pytest.mark.parametrize("peer", BUILT)
def test_a_toy_run_of_every_peer(peer: str, case: str, seed: int) -> None:
    toy = named(case)
    assert toy is not None
    if not peers.able(peer, toy):
        pytest.skip(f"{peer} does not compute {case}")
    found = found_by(job(peer, case, seed))
    assert set(found) == {"tick", "checks", "measurements"}
    assert all(check.passed for check in found["checks"])
    theirs = peers.work_of(peer, toy, peers.drawn(toy, seed))
    ours = peers.work_of(peers.PEERS[peer].ours, toy, peers.drawn(toy, seed))
    expected = [q for q in QUANTITIES if q in ours and (q if q == FORWARD else BOTH) in theirs]
    assert [m.quantity for m in found["measurements"]] == expected
    for m in found["measurements"]:
        floors = {FORWARD: {"sum"}, BOTH: {"copy", "clone"}}.get(m.quantity, {"copy"})
        if toy.suite == LINEAR:
            floors = {"product"} if m.quantity == FORWARD else {"three products"}
        assert (m.case, m.peer, m.threads, m.rounds) == (case, peer, 1, 2)
        assert set(m.floors) == floors
        assert set(m.seconds) == set(m.calls) == set(m.cpu_seconds) == {OURS, peer, *floors}
        assert 0 < m.ratio.min <= m.ratio.median <= m.ratio.max
        assert all(s.min > 0 for s in m.seconds.values())


def test_with_two_threads_no_processor_time_is_told(seed: int) -> None:
    found = found_by(job("torch", "8x10-float32", seed, threads=2))
    assert [m.cpu_seconds for m in found["measurements"]] == [None] * len(found["measurements"])
    assert torch.get_num_threads() == 2


def test_a_wrong_xent_is_not_timed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is right, and its gradient is that of logits that are a little off."""
    right = xent.cross_entropy

    def wrong(logits: Any, target: Any, **options: Any) -> Any:
        off = right(logits * 1.001, target)
        return off + (right(logits, target) - off).detach()

    monkeypatch.setattr(xent, "cross_entropy", wrong)
    found = found_by(job("torch", "8x10-float32", seed))
    passed = {(c.quantity, c.subject): c.passed for c in found["checks"]}
    assert not passed[BOTH, OURS]
    assert passed[BOTH, "torch"]
    assert BOTH not in [m.quantity for m in found["measurements"]]


def test_a_wrong_peer_is_not_timed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda x, y: x.sum())
    found = found_by(job("torch", "8x10-float32", seed))
    assert {c.subject for c in found["checks"] if not c.passed} == {"torch"}
    assert "measurements" not in found


def test_what_is_raised_is_told_without_its_folders(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(x: Any, y: Any) -> Any:
        raise OSError("cannot open /home/someone/lib.so: no such file\nmore")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", broken)
    found = found_by(job("torch", "8x10-float32", seed))
    assert "measurements" not in found
    assert found["omissions"][0].reason == ("forward: torch: OSError: cannot open ... no such file")
    assert all(omission.failed for omission in found["omissions"])
    assert {(c.subject, c.passed) for c in found["checks"]} == {(OURS, True)}


def test_a_case_that_cannot_be_made_is_told(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(worker, "drawn", no_memory)
    (omission,) = found_by(job("torch", "8x10-float32", seed, threads=2))["omissions"]
    assert (omission.reason, omission.threads, omission.failed) == ("MemoryError: ", 2, True)


@pytest.mark.parametrize("subject", ["xent", "torch", "torch-chunked"])
def test_memory_is_told_of_a_linear_head(subject: str, seed: int) -> None:
    (memory,) = found_by(job(subject, HEADS[0], seed, task="memory"))["memory"]
    assert (memory.case, memory.subject, memory.quantity) == (HEADS[0], subject, BOTH)


OF_LOGITS = [name for name in BUILT if LOGITS in peers.PEERS[name].work]


@pytest.mark.parametrize("subject", [*OF_LOGITS, *peers.OWN])
def test_memory_is_told_of_every_implementation(subject: str, seed: int) -> None:
    case = "6x11-bfloat16" if subject == "torch-upcast" else "6x11-float32"
    (memory,) = found_by(job(subject, case, seed, task="memory"))["memory"]
    assert (memory.case, memory.subject) == (case, subject)
    assert memory.quantity == (FORWARD if subject == "scipy" else BOTH)


def test_a_process_reads_a_job_and_writes_lines(seed: int) -> None:
    given = json.dumps(dataclasses.asdict(job("numpy", "8x10-float32", seed)))
    command = [sys.executable, "-m", "xent.bench.worker"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {kind for kind, _ in lines} == {"tick", "checks", "measurements"}
    assert all(made(kind, record) for kind, record in lines if kind != "tick")


def test_a_job_of_no_case_finds_nothing() -> None:
    assert found_by(job("torch", "nonsense", 0)) == {}
