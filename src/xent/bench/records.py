"""What a run of the benchmark found, as JSON holds it. Other fields are another VERSION."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

VERSION = 1
OURS = "xent"  # beside a peer's name, in dictionaries by subject


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of the values of all rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True)
class Check:
    """How far a result is from a float64 computation; None where it is not finite, or not given.

    The error of the loss, and the largest error of an entry of the gradient (of a linear head, of a
    gradient in norm), are relative to the right value. `first_seconds` is the time of the first
    call, which compiles where anything does.
    """

    case: str
    peer: str
    threads: int
    quantity: str
    subject: str
    loss: float | None
    gradient: float | None
    passed: bool
    first_seconds: float


class Errors(NamedTuple):
    """Relative to the right value: of the loss, and of the gradient; and what they may be."""

    loss: float
    gradient: float | None
    limits: tuple[float, float]

    @property
    def within(self) -> bool:
        """Whether they are no larger than they may be; a NaN is."""
        loss, gradient = self.limits
        return self.loss <= loss and (self.gradient is None or self.gradient <= gradient)


@dataclass(frozen=True)
class Measurement:
    """Times of one peer, of xent and of the floors beside it, per call.

    `ratio` is the peer's time over xent's, taken in each round; `floors` is xent's time over each
    floor's. `cpu_seconds` is the processor time of all threads, where one was asked for.
    """

    case: str
    peer: str
    threads: int
    quantity: str
    rounds: int
    ratio: Spread
    floors: dict[str, Spread]
    seconds: dict[str, Spread]
    cpu_seconds: dict[str, Spread] | None
    calls: dict[str, int]  # that a sample is the mean of
    waited: float | None  # the share of the time that a thread waited for a processor, at most


@dataclass(frozen=True)
class Memory:
    """The peak of memory above what lay there before the call, in units of the logits."""

    case: str
    subject: str
    quantity: str
    logits: float | None  # None: this system does not tell


@dataclass(frozen=True)
class Omission:
    """What was not measured, and why; None is every case, and every number of threads."""

    peer: str
    case: str | None
    threads: int | None
    reason: str
    failed: bool


@dataclass
class Report:
    """One run."""

    date: str
    settings: dict[str, Any]
    machine: dict[str, Any]
    software: dict[str, Any]
    allocator: dict[str, Any]
    load: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    measurements: list[Measurement] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    omissions: list[Omission] = field(default_factory=list)
    version: int = VERSION

    @property
    def passed(self) -> bool:
        """Whether every check passed and nothing failed."""
        return all(c.passed for c in self.checks) and not any(o.failed for o in self.omissions)

    def add(self, kind: str, found: dict[str, Any]) -> None:
        """Take in what a worker found."""
        getattr(self, kind).append(made(kind, found))

    def as_json(self) -> str:
        """JSON with a record in a line."""

        def told(value: Any) -> str:
            if not isinstance(value, list):
                return json.dumps(value, allow_nan=False)
            lines = ",\n".join(f"  {json.dumps(one, allow_nan=False)}" for one in value)
            return f"[\n{lines}\n ]" if lines else "[]"

        fields = (f" {json.dumps(name)}: {told(value)}" for name, value in asdict(self).items())
        return "{\n" + ",\n".join(fields) + "\n}\n"


def made(kind: str, found: dict[str, Any]) -> Check | Measurement | Memory | Omission:
    """The record of a dictionary; `kind` is the name of its list in a Report."""
    if kind != "measurements":
        return {"checks": Check, "memory": Memory, "omissions": Omission}[kind](**found)
    found = found | {"ratio": Spread(**found["ratio"])}
    for name in ("floors", "seconds", "cpu_seconds"):
        values = found[name]
        found[name] = values and {key: Spread(**value) for key, value in values.items()}
    return Measurement(**found)


def read(text: str) -> Report | None:
    """The Report of its JSON; None where that is something else, or of another version."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        return None
    kinds = ("checks", "measurements", "memory", "omissions")
    report = Report(**{name: value for name, value in found.items() if name not in kinds})
    for kind in kinds:
        for one in found[kind]:
            report.add(kind, one)
    return report


def spread(values: Sequence[float]) -> Spread:
    """Of one or more values.

    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, min=1.0, max=3.0)
    """
    return Spread(rounded(statistics.median(values)), rounded(min(values)), rounded(max(values)))


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Of the quotients round by round.

    >>> ratios([2.0, 6.0, 4.0], [1.0, 2.0, 4.0])
    Spread(median=2.0, min=1.0, max=3.0)
    """
    return spread([a / b for a, b in zip(above, below, strict=True)])


def rounded(value: float) -> float:
    """To four digits: no time has more."""
    return float(f"{value:.4g}")
