"""Losses of rows and of a linear head on a GPU: time, memory and errors, beside who is installed.

    xent bench --device cuda [--quick] [--json FILE] [--seconds S]
    PYTHONPATH=src python -m xent.bench.gpu [--quick] [--json FILE] [--minutes M]

The second needs torch, Triton and a CUDA device, and nothing of the environment but these. A time
is the median of CUDA events around single calls, after one that is not timed, with the cache of the
device overwritten before each. Bytes and FLOP that no way can do without are told over the time
that a copy of 1 GiB and an 8192-cubed product take on the same device. Memory is the peak of
torch's allocator above what lay there before the call; errors are those of a smaller head of the
same kind against float64, in norm, over the errors of the correctly rounded gradients. Whatever an
implementation raises is written down in place of its numbers. `--device cpu` rehearses all of it on
tiny cases; those times say nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import xent

Loss = Callable[..., Tensor]
MINIMAL = xent.Plan(gradient="recompute", chunk_bytes=1 << 25)
IN_PLACE = "xent in place"


@dataclass(frozen=True)
class Case:
    """Logits N x V; or a linear head of width D, of whose rows a share is ignored."""

    name: str
    rows: int
    classes: int
    width: int = 0
    ignored: float = 0.0

    @property
    def least(self) -> tuple[str, float]:
        """What no way to the gradients can do without: bytes moved, or FLOP of three products."""
        if self.width:
            return "flop", 6.0 * self.rows * (1 - self.ignored) * self.classes * self.width
        return "bytes", 4.0 * self.rows * self.classes


CASES = (
    Case("rows", 8192, 131_072),
    Case("short rows", 16_384, 4096),
    Case("head", 8192, 131_072, 4096),
    Case("head, half ignored", 8192, 131_072, 4096, 0.5),
)
TINY = (Case("rows", 8, 40), Case("head", 8, 40, 16), Case("head, half ignored", 8, 40, 16, 0.5))


@dataclass
class Result:
    """What was found of one implementation on one case."""

    case: str
    subject: str
    forward_ms: float | None = None
    both_ms: float | None = None
    of_ceiling: float | None = None  # the least work over the time, over that of the ceiling
    extra_bytes: int | None = None  # of forward and backward, above what lay there
    errors: list[float] = field(default_factory=list)  # loss, then each gradient
    failure: str | None = None


def of_module(module: str, name: str) -> Loss:
    """A function of a module; an error where it is not installed."""
    return getattr(import_module(module), name)


def losses_of_rows() -> dict[str, Callable[[], Loss]]:
    """Each implementation of a loss of logits (N, V) and targets, to be made when asked."""

    def flash() -> Loss:
        cross_entropy = of_module("flash_attn.ops.triton.cross_entropy", "cross_entropy_loss")
        return lambda x, y: cross_entropy(x, y)[0].mean()

    return {
        "xent": lambda: xent.cross_entropy,
        IN_PLACE: lambda: lambda x, y: xent.cross_entropy(x, y, plan=xent.Plan(inplace=True)),
        "torch": lambda: F.cross_entropy,
        "torch.compile": lambda: torch.compile(lambda x, y: F.cross_entropy(x, y)),
        "liger-kernel": lambda: of_module(
            "liger_kernel.transformers.functional", "liger_cross_entropy"
        ),
        "quack-kernels": lambda: of_module("quack.cross_entropy", "cross_entropy"),
        "flash-attn": flash,
    }


def losses_of_heads() -> dict[str, Callable[[], Loss]]:
    """Each implementation of a loss of hidden states, weights and targets."""

    def liger() -> Loss:
        name = "liger_fused_linear_cross_entropy"
        return of_module("liger_kernel.transformers.functional", name)

    def chunked() -> Loss:
        options = torch.nn.LinearCrossEntropyOptions()
        return lambda h, w, y: F.linear_cross_entropy(h, w, y, options=options)

    def planned(plan: xent.Plan | None) -> Loss:
        return lambda h, w, y: xent.linear_cross_entropy(h, w, y, plan=plan)

    def plain(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(h @ w.T, y)

    return {
        "xent": lambda: planned(None),
        "xent compact": lambda: planned(xent.Plan(compact=True)),
        "xent minimal": lambda: planned(MINIMAL),
        "torch": lambda: plain,
        "torch.compile": lambda: torch.compile(lambda h, w, y: plain(h, w, y)),
        "torch chunked": chunked,
        "liger-kernel": liger,
        "cut-cross-entropy": lambda: of_module("cut_cross_entropy", "linear_cross_entropy"),
        "quack-kernels": lambda: of_module(
            "quack.linear_cross_entropy", "chunked_linear_cross_entropy"
        ),
    }


def drawn(case: Case, device: str, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """Leaves in bfloat16, and targets."""
    rng = torch.Generator(device).manual_seed(seed)
    shapes = [(case.rows, case.width), (case.classes, case.width)]
    shapes = shapes if case.width else [(case.rows, case.classes)]
    scale = 2.0 / max(1, case.width) ** 0.5
    leaves = []
    for i, shape in enumerate(shapes):
        made = torch.randn(shape, generator=rng, device=device, dtype=torch.bfloat16)
        leaves.append((made * scale if i or not case.width else made).requires_grad_())
    target = torch.randint(case.classes, (case.rows,), generator=rng, device=device)
    target[: int(case.rows * case.ignored)] = -100
    order = torch.randperm(case.rows, generator=rng, device=device)
    return leaves, target[order]


class Clock:
    """Times of calls in milliseconds: CUDA events, or on a CPU the wall clock."""

    def __init__(self, device: str, seconds: float) -> None:
        self.device, self.seconds = device, seconds
        large = 1 << (28 if device == "cuda" else 10)
        self.flushed = torch.empty(large, dtype=torch.int8, device=device)

    def once(self, call: Callable[..., Any], given: Callable[[], tuple]) -> float:
        """The time of one call on what is given, of which nothing is in the cache."""
        arrays = given()
        self.flushed.zero_()
        if self.device != "cuda":
            begin = time.perf_counter()
            call(*arrays)
            return (time.perf_counter() - begin) * 1e3
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call(*arrays)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def median(self, call: Callable[..., Any], given: Callable[[], tuple] = tuple) -> float:
        """The median of at least 3 calls and of as many as take the seconds."""
        call(*given())
        self.once(call, given)
        until, found = time.perf_counter() + self.seconds, []
        while len(found) < 3 or time.perf_counter() < until:
            found.append(self.once(call, given))
        return statistics.median(found)


def ceilings(clock: Clock, quick: bool) -> dict[str, float]:
    """Bytes a second of a copy and FLOP a second of a product, measured."""
    size = 1 << (12 if quick else 29)
    source = torch.zeros(size, dtype=torch.bfloat16, device=clock.device)
    out, n = torch.empty_like(source), 64 if quick else 8192
    left, right = torch.randn(2, n, n, device=clock.device).bfloat16()
    return {
        "bytes": 4.0 * size / clock.median(lambda: out.copy_(source)) * 1e3,
        "flop": 2.0 * n**3 / clock.median(lambda: left @ right) * 1e3,
    }


def extra_bytes(call: Callable[..., Any], given: Callable[[], tuple], device: str) -> int | None:
    """The peak of torch's allocator in a call, above what lay there before."""
    if device != "cuda":
        return None
    arrays = given()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call(*arrays)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def handed(subject: str, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """What a loss is called on: where it writes over logits, some that have been computed."""
    return tuple(leaf.clone() for leaf in leaves) if subject == IN_PLACE else tuple(leaves)


def errors(loss: Loss, subject: str, case: Case, device: str) -> list[float]:
    """The relative error of the loss, and those of gradients over rounding's, on a smaller case."""
    width = min(case.width, 256)
    small = Case(case.name, min(case.rows, 256), min(case.classes, 4096), width, case.ignored)
    leaves, target = drawn(small, device, seed=1)
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    logits = wide[0] @ wide[1].T if small.width else wide[0]
    right = F.cross_entropy(logits, target)
    exact = torch.autograd.grad(right, wide)
    value = loss(*handed(subject, leaves), target)
    found = [float((value.detach().double() - right.detach()).abs() / right.detach())]
    for made, best in zip(torch.autograd.grad(value, leaves), exact, strict=True):
        rounding = (best.bfloat16().double() - best).norm()
        found.append(float((made.double() - best).norm() / rounding))
    return found


def measured(case: Case, subject: str, make: Callable[[], Loss], clock: Clock, top: dict) -> Result:
    """Everything about one implementation on one case, or why not."""
    result = Result(case.name, subject)
    try:
        loss = make()
        result.errors = errors(loss, subject, case, clock.device)
        leaves, target = drawn(case, clock.device)

        def forward() -> None:
            with torch.no_grad():
                loss(*leaves, target)

        def both(*given: Tensor) -> None:
            torch.autograd.grad(loss(*given, target), leaves)

        def given() -> tuple[Tensor, ...]:
            return handed(subject, leaves)

        if subject != IN_PLACE:  # without a gradient nothing is written
            result.forward_ms = clock.median(forward)
        result.both_ms = clock.median(both, given)
        result.extra_bytes = extra_bytes(both, given, clock.device)
        kind, work = case.least
        result.of_ceiling = work / (result.both_ms * 1e-3) / top[kind]
    except Exception as error:  # anything: not installed, a shape it refuses, no memory
        result.failure = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}"
    return result


def run(cases: tuple[Case, ...], clock: Clock, quick: bool, until: float) -> Iterator[dict]:
    """The ceilings, then each implementation on each case while there is time."""
    top = ceilings(clock, quick)
    yield {"ceilings": top}
    for case in cases:
        subjects = losses_of_heads() if case.width else losses_of_rows()
        for subject, make in subjects.items():
            if time.monotonic() > until:
                yield asdict(Result(case.name, subject, failure="no time was left"))
                continue
            yield asdict(measured(case, subject, make, clock, top))
            if clock.device == "cuda":
                torch.cuda.empty_cache()


def line(found: dict) -> str:
    """A record as a person reads it."""
    if "ceilings" in found:
        top = found["ceilings"]
        return f"a copy {top['bytes'] / 1e12:.3f} TB/s, a product {top['flop'] / 1e12:.1f} TFLOP/s"
    head = f"{found['case']:20} {found['subject']:18}"
    if found["failure"]:
        return f"{head} {found['failure']}"
    ahead = f"{found['forward_ms']:9.3f}" if found["forward_ms"] is not None else " " * 9
    extra = "" if found["extra_bytes"] is None else f", {found['extra_bytes'] / 1e6:9.1f} MB more"
    worst = " ".join(f"{e:.3g}" for e in found["errors"])
    share = f"{100 * found['of_ceiling']:5.1f} %"
    return (
        f"{head} {ahead} {found['both_ms']:9.3f} ms, {share} of the ceiling{extra}; errors {worst}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write; the exit status is 2 where there is no device."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny cases")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--minutes", type=float, default=7.0, help="after which nothing begins")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print(
            "xent bench: torch sees no CUDA device, expected one for --device cuda",
            file=sys.stderr,
        )
        return 2
    quick = asked.quick or asked.device == "cpu"
    clock = Clock(asked.device, 0.0 if quick else asked.seconds)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "a rehearsal on a CPU"
    about = {"device": name, "torch": torch.__version__, "xent": xent.__version__, "results": []}
    print(f"{name}, torch {torch.__version__}: forward, forward and backward")
    until = time.monotonic() + 60 * asked.minutes
    for found in run(TINY if quick else CASES, clock, quick, until):
        about["results"].append(found)
        print(line(found), flush=True)
        if asked.json:  # after each, so that what ends early has written what it found
            asked.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
