"""What accuracy.py prints and writes: the contract, the figures against it, tables."""

from __future__ import annotations

import functools
import math
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from accuracy_subjects import OURS

import xent
from xent import doctor
from xent.conformance.exact import FORMATS

# ULP of the format (docs/design.md); "accurate" is float32 with Plan(accurate=True).
CONTRACT = {
    "loss": {"float16": 0.51, "bfloat16": 0.51, "float32": 3, "accurate": 0.51, "float64": 3},
    "gradient": {"float16": 0.51, "bfloat16": 0.51, "float32": 4, "accurate": 0.51, "float64": 5},
    "log_softmax": {"float16": 0.51, "bfloat16": 0.51, "float32": 0.51, "float64": 3},
    "mean": {"float16": 1, "bfloat16": 1, "float32": 1.5, "accurate": 1, "float64": 2},
}
CONTRACT |= {"at the target": CONTRACT["gradient"], "gradient of mean": CONTRACT["gradient"]}
CONTRACT |= {"entropy": CONTRACT["log_softmax"] | {"float64": 5}}  # no kernel, or one in float64
# More in float64, where options add terms, each rounded, and nothing wider holds their sum; and of
# softcap: each of the two logits of a difference is good to softcap times 2^-52.
OPTIONS, SOFTCAP = 1.0, 4.0
NEVER_FARTHER = 1.0  # ULP more than torch, but in float32, where torch's are float32 sums too

NOTES = """\
Largest error over all rows and entries, in units in the last place (ULP) of the format at the exact
value. ! marks xent outside its contract, and inf a result that is infinite or no number where the
exact one is neither. Where an entry of the gradient is the difference of two numbers that may be
nearly equal (label smoothing, probabilities, z-loss), the unit is that of the larger of the two.
Below the smallest normal number the unit is the spacing there. ~ marks xent where more than that
was allowed, and taken off: where exponentials below the smallest normal number are 0 in a kernel,
or in float64, whose sums have no wider type to be held in.
"""


def more(dtype: str, options: dict[str, Any], probabilities: bool) -> float:
    """ULP that options add to the contract."""
    if dtype != "float64" or not (options or probabilities):
        return 0.0
    return OPTIONS + SOFTCAP * options.get("softcap", 0.0)


@functools.cache
def kernels() -> dict[str, str]:
    """What computes the losses of each library's arrays."""
    facts = doctor.examine()
    native = f"native {facts['native']['instructions']}"
    return {
        name: native if kernel == "native" else kernel for name, kernel in facts["kernels"].items()
    }


def allowance(subject: str, quantity: str, dtype: str, classes: int) -> float:
    """What a result may be off besides its ULP, as a number; for an upstream of 1."""
    if subject not in OURS:
        return 0.0
    bits, smallest, _ = FORMATS[dtype]
    spacing, normal = math.ldexp(1, smallest + 1 - bits), math.ldexp(1, smallest)
    kernel = kernels()[OURS[subject]]
    terms = classes
    if quantity == "entropy":  # of probabilities times surprisals
        terms = classes * -smallest
    if quantity == "log_softmax" or not kernel.startswith("native"):
        return terms * spacing if dtype == "float64" else 2 * spacing * (kernel == "chunks")
    if dtype == "float16":
        return 0.0
    return normal if subject.startswith("accurate") else terms * normal


@dataclass(frozen=True)
class Error:
    """The largest error of the results, and of those with an allowance, from which it is taken."""

    normal: float
    deep: float
    allowed: bool = False  # whether the allowance was needed

    @property
    def largest(self) -> float:
        return max(self.normal, self.deep)


@dataclass(frozen=True)
class Figure:
    """One line of the table: one quantity of one case in one format."""

    format: str
    case: str
    quantity: str
    more: float  # ULP that options add to the contract
    errors: dict[str, Error | None]  # by subject; None: not computed

    def limit(self, subject: str = "") -> float:
        """The contract of xent in this format, as this subject."""
        limits = CONTRACT[self.quantity]
        return limits["accurate" if self.is_accurate(subject) else self.format] + self.more

    def is_accurate(self, subject: str) -> bool:
        """Whether more is promised of a subject."""
        return subject.startswith("accurate") and "accurate" in CONTRACT[self.quantity]

    def outside(self, subject: str) -> bool:
        """Whether xent, as this subject, breaks its contract."""
        error, others = self.errors[subject], self.errors["torch"]
        if subject not in OURS or error is None:
            return False
        too_far = error.largest > self.limit(subject)
        if others is None or self.quantity == "mean" or self.format == "float32":
            return too_far
        return too_far or error.normal > others.normal + NEVER_FARTHER + self.more


def versions() -> dict[str, str]:
    """Of what is measured, and on what."""
    return {
        "xent": xent.__version__,
        "torch": torch.__version__,
        "NumPy": np.__version__,
        "SciPy": scipy.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.machine()} ({torch.backends.cpu.get_cpu_capability()})",
    }


def show(dtype: str, figures: list[Figure]) -> None:
    """Print the table of one format."""
    subjects = [
        name for name in figures[0].errors if any(f.errors[name] is not None for f in figures)
    ]
    head = [dtype, "quantity", "contract", *subjects]
    lines = []
    for previous, f in zip([None, *figures], figures, strict=False):
        repeats = previous is not None and previous.case == f.case
        cells = [cell(f, name) for name in subjects]
        lines.append(["" if repeats else f.case, f.quantity, f"{f.limit():g}", *cells])
    print_table(head, lines, OURS)


def print_table(head: list[str], lines: list[list[str]], ours: Iterable[str]) -> None:
    """Print a table, by rich on a terminal; `ours` are the columns that are xent."""
    if sys.stdout.isatty():
        show_in_colour(head, lines, ours)
        return
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        left = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
        print("  ".join([*left, *right]).rstrip())
    print()


def show_in_colour(head: list[str], lines: list[list[str]], ours: Iterable[str]) -> None:
    """Print a table with rich: xent's errors green within the contract, and red outside."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=True)
    for line in lines:
        colours = ["red" if text.endswith("!") else "green" for text in line]
        table.add_row(
            *(
                f"[{colour}]{text}[/]" if name in ours and text != "-" else text
                for name, text, colour in zip(head, line, colours, strict=True)
            )
        )
    console = Console()
    # A figure that a narrow terminal wraps can be read; one that is cut off is wrong.
    wide = console.options.update(width=10_000)
    needed = Measurement.get(console, wide, table).maximum
    Console(width=max(console.width, needed)).print(table)


def cell(f: Figure, name: str) -> str:
    """One error as text."""
    error = f.errors[name]
    if error is None:
        return "-"
    value = error.largest
    text = f"{value:.2f}" if value < 100 else f"{value:.1e}" if math.isfinite(value) else "inf"
    return text + "~" * error.allowed + "!" * f.outside(name)


def summarise(figures: list[Figure]) -> bool:
    """Print where xent is outside its contract and where others are closer; whether it passes."""
    mine = [(f, name) for f in figures for name in OURS if f.errors[name] is not None]
    failures = [(f, name) for f, name in mine if f.outside(name)]
    print(f"xent: {len(mine) - len(failures)} of {len(mine)} figures within the contract")
    for f, name in failures:
        print(f"  outside: {f.format}, {f.case}, {f.quantity}: {name} {cell(f, name)}")
    closer = list(filter(None, map(closer_subjects, figures)))
    print(f"others closer to the exact value than xent, by 0.01 ULP or more: {len(closer)} figures")
    for line in closer:
        print(f"  {line}")
    return not failures


def closer_subjects(f: Figure) -> str:
    """A line that names the subjects whose error is less than xent's largest, if there are any."""
    worst = max((name for name in OURS if f.errors[name]), key=lambda name: size(f, name))
    below = size(f, worst) - 0.01
    closer = [name for name in f.errors if name not in OURS and size(f, name) <= below]
    if not closer:
        return ""
    others = ", ".join(f"{name} {cell(f, name)}" for name in closer)
    return f"{f.format}, {f.case}, {f.quantity}: {worst} {cell(f, worst)}; {others}"


def size(f: Figure, name: str) -> float:
    """The error of a subject, infinite where it does not compute the quantity."""
    error = f.errors[name]
    return math.inf if error is None else error.largest


def number(value: float) -> float | str:
    """An error for JSON, which has no inf: it is written as a string."""
    return value if math.isfinite(value) else "inf"


def as_record(figures: list[Figure]) -> dict[str, Any]:
    """All figures for JSON."""
    lines = []
    for f in figures:
        errors = {
            name: {"normal": number(e.normal), "deep": number(e.deep)}
            for name, e in f.errors.items()
            if e is not None
        }
        lines.append(
            {
                "format": f.format,
                "case": f.case,
                "quantity": f.quantity,
                "contract": f.limit(),
                "ulp": errors,
            }
        )
    native = doctor.examine()["native"]["instructions"]
    record = {"versions": versions(), "kernels": kernels(), "instructions": native}
    return record | {"figures": lines}
