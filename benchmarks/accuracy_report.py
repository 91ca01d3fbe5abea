"""What accuracy.py prints and writes: the contract, the figures against it, tables."""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch

import xent

# ULP of the format (docs/design.md); "accurate" is float32 with Plan(accurate=True).
CONTRACT = {
    "loss": {"float16": 0.51, "bfloat16": 0.51, "float32": 3, "accurate": 0.51, "float64": 3},
    "gradient": {"float16": 0.51, "bfloat16": 0.51, "float32": 4, "accurate": 0.51, "float64": 5},
    "mean": {"float16": 1, "bfloat16": 1, "float32": 1.5, "accurate": 1, "float64": 2},
}
CONTRACT |= {"log_softmax": CONTRACT["loss"], "at the target": CONTRACT["gradient"]}
FLOAT64_OPTIONS = 1.0  # more, where options add terms, each rounded: nothing wider holds their sum
NEVER_FARTHER = 1.0  # ULP more than torch; no rule for a mean, which is one number
OURS = ("xent NumPy", "xent torch", "accurate")

NOTES = """\
Largest error over all rows and entries, in units in the last place (ULP) of the format at the exact
value. ! marks xent outside its contract, and inf a result that is infinite or no number where the
exact one is neither. Where an entry of the gradient is the difference of two numbers that may be
nearly equal (label smoothing, probabilities, z-loss), the unit is that of the larger of the two.
Below the smallest normal number the unit is the spacing there, and one is within the contract; in
float64, whose sums have no wider type to be held in, one per class, up to V times that number.
"""


@dataclass(frozen=True)
class Error:
    """The largest error of the results, and of those that are deep: almost 0 in their format."""

    normal: float
    deep: float

    @property
    def largest(self) -> float:
        return max(self.normal, self.deep)


@dataclass(frozen=True)
class Figure:
    """One line of the table: one quantity of one case in one format."""

    format: str
    case: str
    quantity: str
    deep_limit: int  # spacings below the smallest normal number that a deep result may be off
    has_options: bool
    errors: dict[str, Error | None]  # by subject; None: not computed

    def limit(self, subject: str = "") -> float:
        """The contract of xent in this format, as this subject."""
        limit = CONTRACT[self.quantity]["accurate" if subject == "accurate" else self.format]
        return limit + FLOAT64_OPTIONS * (self.has_options and self.format == "float64")

    def outside(self, subject: str) -> bool:
        """Whether xent, as this subject, breaks its contract."""
        error, others = self.errors[subject], self.errors["torch"]
        if subject not in OURS or error is None:
            return False
        limit = self.limit(subject)
        too_far = error.normal > limit or error.deep > max(limit, self.deep_limit)
        if others is None or self.quantity == "mean":
            return too_far
        return too_far or error.normal > others.normal + NEVER_FARTHER


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
    """Print the table of one format: by rich on a terminal, in plain text elsewhere."""
    subjects = [
        name for name in figures[0].errors if any(f.errors[name] is not None for f in figures)
    ]
    head = [dtype, "quantity", "contract", *subjects]
    lines = []
    for previous, f in zip([None, *figures], figures, strict=False):
        repeats = previous is not None and previous.case == f.case
        cells = [cell(f, name) for name in subjects]
        lines.append(["" if repeats else f.case, f.quantity, f"{f.limit():g}", *cells])
    if sys.stdout.isatty():
        show_in_colour(head, lines)
        return
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    for line in [head, *lines]:
        left = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(line[2:], widths[2:], strict=True)]
        print("  ".join([*left, *right]).rstrip())
    print()


def show_in_colour(head: list[str], lines: list[list[str]]) -> None:
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
                f"[{colour}]{text}[/]" if name in OURS and text != "-" else text
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
    return text + "!" * f.outside(name)


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


def as_record(figures: list[Figure]) -> dict[str, Any]:
    """All figures for JSON, which has no inf: it is written as a string."""

    def number(value: float) -> float | str:
        return value if math.isfinite(value) else "inf"

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
    return {"versions": versions(), "figures": lines}
