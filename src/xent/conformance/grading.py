"""Grade an implementation: its checks in a child process with a time limit, as one Report."""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xent.conformance.adapters import ADAPTERS
from xent.conformance.checks import CHECKS
from xent.conformance.child import Job, emitter, serve
from xent.conformance.report import FAILED, NOT_RUN, Record, Report
from xent.errors import bad

LOADING = 120.0  # seconds to import an implementation and its libraries
DEATHS = 6  # of the child, after which the rest is not run
Tick = Callable[[str, int, int], object]  # what begins, checks done, checks in all


def grade(
    target: Any,
    *,
    adapter: str | None = None,
    seed: int | None = None,
    checks: Sequence[str] | None = None,
    timeout: float = 20.0,
    isolate: bool = True,
    tick: Tick = lambda *_: None,
) -> Report:
    """Whether an implementation of cross entropy is right, and what is wrong with it.

    Args:
        target: a function, class or pair of functions, or where one is: "module:function",
            "file.py:function".
        adapter: a name in `adapters.ADAPTERS`; None: the one that fits.
        seed: of the numbers that are asked; None: drawn, and told in the report.
        checks: names of checks or of families; None: all.
        timeout: seconds for one check; a check that takes longer is a failure.
        isolate: in a child process, so that a crash is a finding; False is faster.
        tick: called before each check with its name, and the checks done and in all.

    Returns:
        The report. What the implementation raises, or does to its process, is in there.

    Raises:
        ValueError: an adapter or a check that there is none of.

    >>> import numpy as np
    >>> def wrong(logits, target):
    ...     p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ...     return -np.log2(p[np.arange(len(p)), target]).mean()
    >>> report = grade(wrong, adapter="numpy", seed=1, checks=["value"], isolate=False)
    >>> report.lead.text
    'you took log2; the loss is in nats, the natural logarithm'
    """
    start = time.perf_counter()
    if adapter is not None and adapter not in ADAPTERS:
        raise bad(ValueError, "grade", "adapter", f"value {adapter!r}", f"one of {list(ADAPTERS)}")
    seed = secrets.randbits(32) if seed is None else seed
    names = chosen(checks)
    name = target if isinstance(target, str) else name_of(target)
    by_name = isinstance(target, str) or (name is not None and isolate)
    found = None if by_name else target
    told = name or repr(target)
    job = Job(name or "", adapter, seed, names)
    lines = _Lines(job.checks, tick)
    if not isolate:
        serve(found, job, lines.take)
    else:
        _isolated(found, job, timeout, lines)
    subject = lines.subject
    if not subject.get("linear"):
        # what only a linear head has is no part of what another loss does not offer
        lines.records = {n: r for n, r in lines.records.items() if not CHECKS[n].linear}
    return Report(
        told,
        subject.get("adapter", ""),
        subject.get("why", ""),
        seed,
        subject.get("versions", {}),
        tuple(lines.records.values()),
        tuple(subject.get("offered", ())),
        lines.trouble,
        round(time.perf_counter() - start, 2),
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    )


def chosen(checks: Sequence[str] | None) -> tuple[str, ...]:
    """The names of checks, in their order; a family stands for all of its own."""
    if checks is None:
        return tuple(CHECKS)
    families = {check.family for check in CHECKS.values()}
    for name in checks:
        if name not in CHECKS and name not in families:
            known = f"a check or one of {', '.join(sorted(families))}"
            raise bad(ValueError, "grade", "checks", f"value {name!r}", known)
    return tuple(n for n, c in CHECKS.items() if n in checks or c.family in checks)


def name_of(target: Any) -> str | None:
    """Where a child can import the object from; None where it cannot."""
    module = getattr(target, "__module__", None)
    path = getattr(target, "__qualname__", None)
    if not module or not path or "<" in path:
        return None
    if module == "__main__":
        file = getattr(sys.modules["__main__"], "__file__", None)
        return f"{file}:{path}" if file and file.endswith(".py") else None
    found: Any = sys.modules.get(module)
    if found is None or getattr(found, "__spec__", None) is None:
        return None
    for part in path.split("."):
        found = getattr(found, part, None)
    return f"{module}:{path}" if found is target else None


class _Lines:
    """What the child has told so far."""

    def __init__(self, checks: Sequence[str], tick: Tick) -> None:
        self.subject: dict[str, Any] = {}
        self.records: dict[str, Record] = {}
        self.trouble, self.running, self.done = "", "", False
        self.total, self.tick = len(checks), tick

    def take(self, line: dict[str, Any]) -> None:
        if "subject" in line:
            self.subject = line["subject"]
        elif "start" in line:
            self.running = line["start"]
            self.tick(self.running, len(self.records), self.total)
        elif "record" in line:
            given = line["record"]
            self.records[given["name"]] = Record(**{**given, "flaws": tuple(given["flaws"])})
            self.running = ""
        elif "trouble" in line:
            self.trouble = line["trouble"]
        else:
            self.done = True

    def ended(self, how: str, flaw: str, status: str = FAILED) -> None:
        """The running check did not come back."""
        check = CHECKS[self.running]
        self.records[check.name] = Record(
            check.name,
            check.tier,
            1 if status == FAILED else check.severity,
            status,
            check.why,
            check.hint,
            given="a call of this check" if status == FAILED else "",
            expected="a result" if status == FAILED else "",
            obtained=how if status == FAILED else "",
            note="" if status == FAILED else how,
            flaws=(flaw,) if flaw else (),
        )
        self.running = ""


def _isolated(found: Any, job: Job, timeout: float, lines: _Lines) -> None:
    """Children, one after another, until every check has been run or too many have died."""
    deaths = 0
    while True:
        left = tuple(name for name in job.checks if name not in lines.records)
        lines.done, lines.running = False, ""
        part = Job(job.target, job.adapter, job.seed, left)
        child = _Forked(found, part) if found is not None else _Spawned(part)
        how, flaw = _listen(child, timeout, lines)
        if lines.done or lines.trouble:
            return
        if not lines.running:
            lines.trouble = f"{how} while it was loaded and first called"
            return
        lines.ended(how, flaw)
        deaths += 1
        if deaths >= DEATHS:
            for name in [n for n in job.checks if n not in lines.records]:
                lines.running = name
                lines.ended(f"not run after {deaths} ends of the process", "", NOT_RUN)
            return


def _listen(child: _Child, timeout: float, lines: _Lines) -> tuple[str, str]:
    """Take lines until the child ends or hangs; how it ended, and the cause by that name."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.output, selectors.EVENT_READ)
        while not lines.done:
            loading = not lines.subject or not lines.running
            if not selector.select(LOADING if loading else timeout):
                child.kill()
                return f"no answer in {timeout:g} s", "hangs"
            data = os.read(child.output, 65536)
            if not data:
                return child.ended(), "crashes"
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                lines.take(json.loads(line))
                if lines.trouble:
                    child.kill()
                    return "", ""
    child.kill()
    return "", ""


class _Child:
    """A process, the end of a pipe that it writes to, and how it ended."""

    output: int

    def kill(self) -> None:
        raise NotImplementedError

    def ended(self) -> str:
        raise NotImplementedError


class _Spawned(_Child):
    """A fresh Python that imports the implementation by name."""

    def __init__(self, job: Job) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "xent.conformance.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            start_new_session=True,
            env={
                **os.environ,
                "MALLOC_TRIM_THRESHOLD_": "131072",
                "MALLOC_MMAP_THRESHOLD_": "131072",
            },
        )
        given = {**vars(job), "path": [entry for entry in sys.path if entry]}
        if self.process.stdin is not None and self.process.stdout is not None:
            self.process.stdin.write((json.dumps(given) + "\n").encode())
            self.process.stdin.close()
            self.output = self.process.stdout.fileno()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.ended()

    def ended(self) -> str:
        status = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.errors.seek(0)
        last = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2][:200]
        self.errors.close()
        return _how(status, last)


class _Forked(_Child):
    """A copy of this process, for an object that has no name to import it by."""

    def __init__(self, found: Any, job: Job) -> None:
        self.output, inner = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads: the copy uses one
            self.pid = os.fork()
        if not self.pid:
            _in_the_copy(found, job, inner)
        os.close(inner)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.ended()

    def ended(self) -> str:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.output)
        return _how(os.waitstatus_to_exitcode(status), "")


def _in_the_copy(found: Any, job: Job, inner: int) -> None:
    try:
        faulthandler.disable()  # a test runner's would write a crash, which is expected, to its log
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        if "torch" in sys.modules:  # the threads of the other process are not in this one
            sys.modules["torch"].set_num_threads(1)
        serve(found, job, emitter(inner))
    finally:
        os._exit(0)


def _how(status: int, last: str) -> str:
    if status < 0:
        return f"the process was ended by {signal.Signals(-status).name}"
    return f"the process ended with status {status}" + (f": {last}" if last else "")


def here(name: str) -> str:
    """A target with its file's path made absolute, so that it means the same elsewhere."""
    place, colon, path = name.rpartition(":")
    return f"{Path(place).resolve()}{colon}{path}" if place.endswith(".py") else name
