"""A Report with every kind of record, made up, for the tests of what reads one."""

from __future__ import annotations

from dataclasses import replace

from xent.bench.cases import BOTH, FORWARD, IN_PLACE
from xent.bench.records import Check, Measurement, Memory, Omission, Report, Spread

CASE, OTHER = "128x1000-float32", "6x11-bfloat16"


def spread(median: float) -> Spread:
    return Spread(median, median / 2, median * 4)


def timed(case: str, peer: str, quantity: str, ratio: float, **floors: float) -> Measurement:
    """xent takes 2 ms, the peer and the floors what the ratios say."""
    seconds = {"xent": spread(2e-3), peer: spread(2e-3 * ratio)}
    seconds |= {name: spread(2e-3 / over) for name, over in floors.items()}
    over = {name: spread(value) for name, value in floors.items()}
    calls = dict.fromkeys(seconds, 3)
    return Measurement(case, peer, 2, quantity, 7, spread(ratio), over, seconds, None, calls, 0.01)


def checked(
    case: str, peer: str, quantity: str, subject: str, error: float | None, passed: bool = True
) -> Check:
    gradient = None if quantity == FORWARD else error
    return Check(case, peer, 2, quantity, subject, error, gradient, passed, 0.25)


def report() -> Report:
    """Two threads; one peer that is slower, one that is faster, one that is wrong."""
    return Report(
        "2026-11-21",
        {"threads": [2], "seconds": 0.1, "seed": 5},
        {
            "processor": "Some Processor",
            "architecture": "x86_64",
            "cores": 2,
            "caches": {"L2 unified": "2048K"},
            "instructions": ["fma", "avx2"],
            "memory_bytes": 2**34,
            "virtual": True,
            "system": "Linux",
            "kernel": "6.1",
        },
        {
            "xent": "0.1.0",
            "kernels": {"numpy": "reference", "torch": "reference"},
            "commit": "c0ffee",
            "python": "3.11.7",
            "libraries": {"numpy": "2.4.6", "jax": None},
        },
        {
            "libc": "glibc 2.36",
            "preloaded": ["libjemalloc.so.2"],
            "huge_pages": "madvise",
            "environment": {"MALLOC_ARENA_MAX": "1"},
        },
        {"before": [0.5, 0.25, 0.125], "after": [2.0, 1.0, 0.5]},
        [
            checked(CASE, "torch", BOTH, "xent", 1e-7),
            checked(CASE, "torch", BOTH, "torch", 2e-6),
            checked(CASE, "torch-compile", FORWARD, "torch-compile", 3e-7),
            checked(CASE, "torch-compile", BOTH, "torch-compile", 3e-6),
            checked(OTHER, "torch", BOTH, "xent", 0.003),
            checked(OTHER, "torch", BOTH, "torch", None, passed=False),
        ],
        [
            timed(CASE, "torch", FORWARD, 8.0, sum=1.25),
            timed(CASE, "optax", FORWARD, 0.5, sum=1.5),
            timed(OTHER, "torch", FORWARD, 16.0, sum=3.0),
            timed(CASE, "torch", BOTH, 4.0, copy=1.75, clone=0.75),
            timed(CASE, "numpy", BOTH, 12.0, copy=2.5, clone=1.0),
            replace(timed(CASE, "torch", IN_PLACE, 20.0, copy=1.125), waited=0.4),
        ],
        [
            Memory(CASE, "xent", BOTH, 1.004),
            Memory(CASE, "torch", BOTH, 3.0),
            Memory(CASE, "scipy", FORWARD, None),
        ],
        [
            Omission("optax", None, None, "jax not installed", failed=False),
            Omission("torch-compile", OTHER, 2, "InvalidCxxCompiler: none", failed=True),
        ],
    )
