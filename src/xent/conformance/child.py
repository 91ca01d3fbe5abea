"""The process that an implementation runs in: lines of JSON out, one for each thing that happens.

{"subject": {...}}   it is loaded, and how it is called
{"start": name}      a check begins: if nothing follows, it hung or crashed
{"record": {...}}    what the check found
{"trouble": text}    it could not be loaded
{"done": true}
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xent.conformance import draws
from xent.conformance.adapters import load
from xent.conformance.checks import CHECKS, Check
from xent.conformance.findings import Fault, NotOffered, raised
from xent.conformance.report import FAILED, NOT_OFFERED, PASSED, Record
from xent.conformance.subject import Subject, prepare

Emit = Callable[[dict[str, Any]], None]
LIBRARIES = ("torch", "numpy", "jax", "optax", "keras", "tinygrad", "mlx", "triton")


@dataclass(frozen=True)
class Job:
    """What to grade, by which adapter, on which checks."""

    target: str
    adapter: str | None
    seed: int
    checks: tuple[str, ...]


def serve(found: Any, job: Job, emit: Emit) -> None:
    """Run the checks of a job on an object; None is loaded by the job's name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject = prepare(load(job.target) if found is None else found, job.adapter)
    except (SystemExit, Exception) as error:
        emit({"trouble": str(error) if type(error) is ValueError else raised(error)})
        return
    emit({"subject": about(subject)})
    for name in job.checks:
        if name in CHECKS:
            emit({"start": name})
            emit({"record": asdict(examined(CHECKS[name], subject, job.seed))})
    emit({"done": True})


def about(subject: Subject) -> dict[str, Any]:
    """How the subject is called, and what it takes."""
    versions = {"xent": "xent", **{name: name for name in LIBRARIES if name in sys.modules}}
    told = {}
    for name in versions:
        try:
            told[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    takes = [subject.names[option] for option in subject.names]
    more = "one-hot targets" if subject.one_hot else ""
    why = subject.why + (f", {more}" if more else "")
    why += f", {subject.natural} of the rows" if not subject.offers("reduction") else ""
    return {
        "adapter": subject.adapter.name,
        "why": why,
        "offered": takes,
        "versions": told,
        "linear": subject.linear,
    }


def examined(check: Check, subject: Subject, seed: int) -> Record:
    """What one check finds; nothing that the implementation raises comes out."""
    fields: dict[str, Any] = {"status": PASSED}
    start = time.perf_counter()
    try:
        if check.linear and not subject.linear:
            raise NotOffered("a linear head")
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            check.run(subject, draws.generator(seed, check.name))
    except NotOffered as absent:
        fields = {"status": NOT_OFFERED, "note": str(absent)}
    except Fault as fault:
        fields = {
            "status": FAILED,
            "given": fault.given,
            "expected": fault.expected,
            "obtained": fault.obtained,
            "note": fault.note,
            "flaws": fault.flaws,
        }
    except (SystemExit, Exception) as error:
        fields = {
            "status": FAILED,
            "given": "a call of this check",
            "expected": "a result",
            "obtained": raised(error),
            "flaws": ("exits",) if isinstance(error, SystemExit) else (),
        }
    return Record(
        check.name,
        check.tier,
        check.severity,
        why=check.why,
        hint=check.hint,
        seconds=round(time.perf_counter() - start, 4),
        **fields,
    )


def emitter(descriptor: int) -> Emit:
    """Lines to a descriptor, each written at once."""

    def emit(line: dict[str, Any]) -> None:
        data = (json.dumps(line, default=str) + "\n").encode()
        while data:
            data = data[os.write(descriptor, data) :]

    return emit


def main(arguments: Sequence[str] | None = None) -> None:
    """Read a job from stdin, write to stdout what comes of it; what others print goes to stderr."""
    lines = os.dup(1)
    os.dup2(2, 1)
    given = json.loads(sys.stdin.readline())
    sys.path[:0] = given.pop("path")
    sys.argv = [given["target"], *(arguments or [])]
    job = Job(**{**given, "checks": tuple(given["checks"])})
    serve(None, job, emitter(lines))
    sys.stdout.flush()
    os._exit(0)  # threads of the implementation are not waited for


if __name__ == "__main__":
    main()
