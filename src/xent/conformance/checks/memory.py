"""memory: peaks of the process, read from Linux, in units of the logits."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xent.conformance.checks.record import BETTER, check
from xent.conformance.checks.value import natural
from xent.conformance.draws import Case
from xent.conformance.expect import raised
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

FULL = "The logits are the largest array of a training step; each copy halves the batch."
MIB = 2.0**20


def peak(work: Callable[[], Any]) -> float:
    """Bytes by which the process grew at most while the work was done."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if sys.platform != "linux" or not clear.exists():
        raise NotOffered("a reading of memory, which is Linux's")
    gc.collect()
    try:
        clear.write_text("5")
    except OSError as error:
        raise NotOffered("a reading of memory, which is forbidden here") from error
    before = _field(status, "VmRSS")
    kept = work()
    most = _field(status, "VmHWM")
    del kept
    return most - before


def _field(status: Path, name: str) -> float:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name + ":"))
    return float(line.split()[1]) * 1024


def work_on(subject: Subject, rows: int, classes: int, rng: Any) -> Callable[[], Any]:
    """Forward and backward in float32, after a small call that loads what is loaded once."""
    reduction = "mean" if subject.offers("reduction") else subject.natural
    if subject.linear:
        raise NotOffered("logits")

    def call(n: int, v: int) -> Callable[[], Any]:
        drawn = rng.standard_normal((n, v), np.float32)
        case = Case(drawn, rng.integers(0, v, n), reduction=reduction, dtype="float32")
        given = subject.keywords(case)
        if subject.library.name == "torch":
            logits = subject.library.torch.from_numpy(drawn)
            _, target = subject.arrays(_without(case))
        else:
            logits, target = subject.arrays(case)
        if subject.one_hot:
            raise NotOffered("class indices")
        if subject.adapter.kind in ("layer", "pair"):
            return lambda: subject.both(given, logits, target, None)
        function = subject.native(given)
        return lambda: subject.library.vjp(lambda x: function(x, target), [logits], None)

    try:
        call(4, 4)()
    except NotOffered:
        raise
    except Exception as error:
        raise NotOffered(f"float32 ({raised(error)})") from error
    return call(rows, classes)


def _without(case: Case) -> Case:
    return Case(case.logits[:1], case.target, reduction=case.reduction, dtype=case.dtype)


@check(
    "memory.square",
    2,
    "4 GiB at 32,768 rows: a diagonal matrix for what is a product of rows.",
    "diag(upstream) @ one_hot is upstream[:, None] * one_hot",
)
def square(subject: Subject, rng: Any) -> None:
    rows = 5000
    grown = peak(work_on(subject, rows, 4, rng))
    if grown > 0.5 * rows * rows * 4:
        told = f"{grown / MIB:.0f} MiB"
        given = f"{rows} rows of 4 logits, float32"
        raise Fault(given, "less than 5 MiB", told, ("square",))


def units(subject: Subject, rng: Any) -> float:
    rows, classes = 512, 32768
    return peak(work_on(subject, rows, classes, rng)) / (rows * classes * 4)


@check("memory.copies", 3, FULL, "keep logits and lse, not softmax, log-softmax and one-hot")
def copies(subject: Subject, rng: Any) -> None:
    grown = units(subject, rng)
    if grown > 5.5:
        told = "64 MiB of logits, float32, forward and backward"
        raise Fault(told, "at most 5.5 times the logits", f"{grown:.1f} times", ("copies",))


@check("memory.one_gradient", 4, FULL, "the gradient is the only array that must be made", BETTER)
def one_gradient(subject: Subject, rng: Any) -> None:
    grown = units(subject, rng)
    if grown > 1.6:
        told = "64 MiB of logits, float32, forward and backward"
        raise Fault(told, "at most 1.6 times the logits", f"{grown:.1f} times", ("copies",))


@check(
    "memory.released",
    2,
    "An object that keeps its last graph keeps the logits of a step.",
    "store no tensors with a graph on the module",
)
def released(subject: Subject, rng: Any) -> None:
    if subject.library.name != "torch" or subject.adapter.kind != "class":
        raise NotOffered("a torch module")
    case = Case(np.eye(3), np.arange(3), reduction=natural(subject), dtype=subject.best)
    module = subject.found(**subject.keywords(case))
    logits, target = subject.arrays(case)
    classes = subject.identity(logits) if subject.linear else None
    given = (logits.requires_grad_(), target) if classes is None else (logits, classes, target)
    module(*given).sum().backward()
    kept = [name for name, value in vars(module).items() if _graphs(value)]
    if kept:
        told = f"tensors with a graph in {', '.join(kept)}"
        raise Fault(case.told(), "a module without a graph after backward", told, ("keeps_graph",))


def _graphs(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(_graphs(part) for part in value)
    return getattr(value, "grad_fn", None) is not None
