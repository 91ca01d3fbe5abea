"""bench/runner.py: which jobs there are, and what their processes find."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
import torch

from xent.bench import peers, runner, worker
from xent.bench.cases import Case, named
from xent.bench.records import Omission

TOY = Case((6, 11), "float32")


def test_a_run_is_reported_and_ticks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes; tests/test_cli_bench.py has a run with them."""
    monkeypatch.setattr(runner, "lines_of", lambda job, folder: worker.run(job))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    ticks: list[tuple[str, int, int]] = []
    report = runner.benchmark([TOY], ["numpy"], [1], 0.0, seed, lambda *t: ticks.append(t))
    assert report.passed
    assert [m.quantity for m in report.measurements] == ["forward", "forward and backward"]
    assert report.settings == {"threads": [1], "seconds": 0.0, "seed": seed}
    assert list(report.load) == ["before", "after"]
    assert ticks[0] == ("6x11-float32, numpy", 0, 1)
    assert ("6x11-float32, numpy, forward", 0, 1) in ticks


def listed(cases: list[str], *names: str, threads: tuple[int, ...] = (1,)) -> list[Any]:
    given = [case for case in map(named, cases) if case]
    found = runner.jobs(given, names, threads, 1.0, 0)
    return [(job.task, job.subject, job.case, job.threads) for job in found]


def test_every_peer_has_a_process_for_each_case_and_number_of_threads() -> None:
    found = listed(["6x11-float32", "8x10-float32"], "torch", "scipy", threads=(1, 2))
    assert found == [
        ("time", peer, case, threads)
        for case in ("6x11-float32", "8x10-float32")
        for threads in (1, 2)
        for peer in ("torch", "scipy")
    ]


def test_a_peer_is_asked_for_its_dtypes_only() -> None:
    subjects = {subject for _, subject, _, _ in listed(["6x11-bfloat16"], *peers.PEERS)}
    assert subjects == {"torch", "torch-upcast", "torch-compile", "optax"}
    assert listed(["6x11-bfloat16"], "numpy") == []


def test_memory_is_measured_where_it_is_large() -> None:
    large = "2048x32000-float32"
    found = listed([large], "torch", "numpy", threads=(2, 1))
    subjects = [subject for task, subject, _, _ in found if task == "memory"]
    assert subjects == ["xent", "xent on NumPy", "xent in place", "torch", "numpy"]
    assert {threads for task, _, _, threads in found if task == "memory"} == {2}
    assert all(task == "time" for task, *_ in listed(["8x10-float32"], "torch"))


def test_a_missing_library_is_told_and_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = dataclasses.replace(peers.PEERS["scipy"], needs=("no_such_module", "scipy"))
    monkeypatch.setitem(peers.PEERS, "scipy", lacking)
    report = runner.benchmark([TOY], ["scipy"], [1], 0.0, 0)
    expected = Omission("scipy", None, None, "no_such_module not installed", failed=False)
    assert report.omissions == [expected]
    assert report.passed


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended with status -9"),
        ("raise OSError('no /home/someone/lib')", "ended with status 1: OSError: no ..."),
    ],
)
def test_a_process_that_dies_is_told(
    code: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = [sys.executable, "-c", f"import sys; sys.stdin.read(); {code}"]
    monkeypatch.setattr(runner, "WORKER", dying)
    report = runner.benchmark([TOY], ["torch"], [1], 0.0, 0)
    assert report.omissions == [Omission("torch", "6x11-float32", 1, reason, failed=True)]
    assert not report.passed


def test_a_process_has_its_threads_and_its_own_compilations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOMETHING", "kept")
    time = worker.Job("time", "torch", TOY.name, 3, 1.0, 0)
    given = runner.environment(time, "a folder")
    assert {given[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"3"}
    assert given["TORCHINDUCTOR_CACHE_DIR"] == "a folder"
    assert given["SOMETHING"] == "kept"
    assert given["TORCHINDUCTOR_COMPILE_THREADS"] == "1"
    assert "MALLOC_TRIM_THRESHOLD_" not in given
    memory = runner.environment(dataclasses.replace(time, task="memory"), "a folder")
    assert memory.items() >= runner.MEMORY_ALLOCATOR.items()
