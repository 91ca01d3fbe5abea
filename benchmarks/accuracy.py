"""How many units in the last place each library is away from the exact value.

    python benchmarks/accuracy.py [--quick] [--format FORMAT] [--seed SEED] [--json FILE]

Draws the rows of accuracy_cases.py afresh, prints the largest error of each quantity for every
subject of accuracy_subjects.py, and exits with status 1 where xent is outside its contract.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_cases import CASES, MEANS, Case
from accuracy_reference import EXTENDED, answer, disagreement, losses, ulp_errors
from accuracy_report import NOTES, Error, Figure, as_record, show, summarise, versions
from accuracy_subjects import SUBJECTS

from xent.conformance.exact import FORMATS

REFERENCE_LIMIT = 0.05 if EXTENDED else 8.0  # ULP of float64


def largest_error(got: Any, right: np.ndarray, dtype: str, unit: Any, deep: np.ndarray) -> Error:
    """Of one subject's result: that of deep entries apart."""
    errors = ulp_errors(got.detach().double().numpy(), right, dtype, unit)
    return Error(*(float(errors.max(where=part, initial=0)) for part in (~deep, deep)))


def results(method: str, dtype: str, *arguments: Any) -> dict[str, Any]:
    """What every subject gives; None where it does not compute that."""
    return {
        subject.name: getattr(subject, method)(*arguments) if dtype in subject.formats else None
        for subject in SUBJECTS
    }


def figure(
    dtype: str, case: Case, quantity: str, found: dict, right: np.ndarray, unit: Any = 0.0
) -> Figure:
    """The errors of every subject's result; `unit` is the least number to take the ULP of."""
    deep_limit = case.classes if dtype == "float64" else 1
    deep = np.maximum(np.abs(right), unit) < math.ldexp(deep_limit, FORMATS[dtype][1])
    errors = {
        name: None if got is None else largest_error(got, right, dtype, unit, deep)
        for name, got in found.items()
    }
    return Figure(dtype, case.title, quantity, deep_limit, case.cancels, errors)


def measure(case: Case, dtype: str, rng: np.random.Generator) -> Iterator[Figure]:
    """The errors of all subjects on one case."""
    drawn = case.draw(rng, case.rows, case.classes, dtype)
    logits = torch.from_numpy(drawn).to(getattr(torch, dtype))
    target = torch.from_numpy(case.draw_target(rng, drawn))
    if target.is_floating_point():
        target = target.to(logits.dtype)
    exact_target = target.double() if target.is_floating_point() else target
    right = answer(logits.double().numpy(), exact_target.numpy(), **case.options)
    unit = right.terms if case.cancels else np.zeros(logits.shape)

    found = results("loss", dtype, logits, target, case.options)
    yield figure(dtype, case, "loss", found, right.loss)
    found = results("dlogits", dtype, logits, target, case.options)
    yield figure(dtype, case, "gradient", found, right.dlogits, unit)
    if target.ndim == 1:
        index = target[:, None]
        found = {name: None if got is None else got.gather(1, index) for name, got in found.items()}
        right_there, unit_there = (
            np.take_along_axis(array, index.numpy(), axis=1) for array in (right.dlogits, unit)
        )
        yield figure(dtype, case, "at the target", found, right_there, unit_there)
    if not case.cancels:
        found = results("log_softmax", dtype, logits)
        yield figure(dtype, case, "log_softmax", found, right.log_softmax)


def measure_mean(case: Case, dtype: str, rng: np.random.Generator) -> Figure:
    """The errors of the mean of many rows."""
    drawn = case.draw(rng, case.rows, case.classes, dtype)
    logits = torch.from_numpy(drawn).to(getattr(torch, dtype))
    target = torch.from_numpy(case.draw_target(rng, drawn))
    right = np.mean(losses(logits.double().numpy(), target.numpy()), keepdims=True)
    return figure(dtype, case, "mean", results("mean", dtype, logits, target), right)


def check_reference(rng: np.random.Generator, classes: int) -> float:
    """The largest distance of the reference from the oracle, on a row of every case."""
    worst = 0.0
    for case in CASES:
        drawn = case.draw(rng, 1, min(case.classes, classes), "float64")
        worst = max(worst, disagreement(drawn, case.draw_target(rng, drawn), **case.options))
    return worst


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description="Errors in units in the last place.")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rows")
    parser.add_argument("--format", choices=FORMATS, action="append", help="only this format")
    parser.add_argument("--seed", type=int, help="repeat the run that printed this seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    options = parser.parse_args(arguments)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}; " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):  # the formulas of the documents overflow
        return run(options, seed, rng)


def run(options: argparse.Namespace, seed: int, rng: np.random.Generator) -> int:
    """Check the reference, then measure every case in every format."""
    worst = check_reference(rng, 100 if options.quick else 50257)
    print(f"reference: at most {worst:.3f} ULP of float64 from the oracle, on a row of every case")
    print(f"\n{NOTES}")
    figures = []
    for dtype in options.format or FORMATS:
        if dtype == "float64" and not EXTENDED:
            print("float64: not measured, as NumPy's longdouble has no more digits here\n")
            continue
        found = []
        for case in CASES:
            found += measure(case.small() if options.quick else case, dtype, rng)
        for case in MEANS[: 1 if options.quick else None]:
            found.append(measure_mean(case, dtype, rng))
        show(dtype, found)
        figures += found
    passed = summarise(figures) and worst <= REFERENCE_LIMIT
    if options.json:
        record = as_record(figures) | {"seed": seed, "reference_ulp": worst, "passed": passed}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
