"""How many units in the last place each library is away from the exact value.

    python benchmarks/accuracy.py [--kernel KERNEL] [--quick] [--format FORMAT] [--seed SEED]
                                  [--only PART] [--json FILE] [--page FILE]

Draws the rows of accuracy_cases.py afresh, prints the largest error of each quantity for every
subject of accuracy_subjects.py and the errors of the linear heads of accuracy_linear.py, and exits
with status 1 where xent is outside its contract. It does so with every kernel that runs on this
CPU, each in a process of its own with XENT_CPU set: the native one for each instruction set, and
none.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import accuracy_linear
import numpy as np
import torch
from accuracy_cases import CASES, MEANS, Case
from accuracy_reference import EXTENDED, answer, disagreement, losses, ulp_errors
from accuracy_report import (
    NOTES,
    Error,
    Figure,
    allowance,
    as_record,
    kernels,
    more,
    show,
    summarise,
    versions,
)
from accuracy_subjects import SUBJECTS

from xent.conformance.exact import FORMATS
from xent.kernels import library

KERNELS = (*library.INSTRUCTIONS, library.OFF)
PARTS = ("logits", "linear")
REFERENCE_LIMIT = 0.05 if EXTENDED else 8.0  # ULP of float64


def largest_error(
    got: Any, right: np.ndarray, dtype: str, unit: Any, limit: float, allowed: Any
) -> Error:
    """Of one subject's result: with what it may be off besides taken off, where that counts."""
    got, bits = got.detach().double().numpy(), FORMATS[dtype][0]
    errors = ulp_errors(got, right, dtype, unit)
    deep = np.maximum(np.abs(right), unit) < np.ldexp(allowed, bits + 8)
    if not deep.any():
        return Error(float(errors.max()), 0.0)
    got, right, unit, allowed = (
        np.broadcast_to(array, errors.shape)[deep] for array in (got, right, unit, allowed)
    )
    off = np.maximum(np.abs(got - right) - allowed, 0)
    less = ulp_errors(right + off, right, dtype, unit)
    needed = bool((errors[deep] > limit).any())
    return Error(float(errors.max(where=~deep, initial=0)), float(less.max()), needed)


def results(method: str, dtype: str, *arguments: Any) -> dict[str, Any]:
    """What every subject gives; None where it does not compute that."""
    return {
        subject.name: getattr(subject, method)(*arguments) if dtype in subject.formats else None
        for subject in SUBJECTS
    }


def figure(
    dtype: str,
    case: Case,
    quantity: str,
    found: dict,
    right: np.ndarray,
    unit: Any = 0.0,
    upstream: Any = 1.0,
) -> Figure:
    """The errors of every subject's result; `unit` is the least number to take the ULP of."""
    added = more(dtype, case.options, case.target == "probabilities")
    blank = Figure(dtype, case.title, quantity, added, {})
    errors: dict[str, Error | None] = {}
    for name, got in found.items():
        allowed = allowance(name, quantity, dtype, case.classes)
        # What is allowed of a probability is so before and after it is multiplied.
        allowed = allowed * np.maximum(upstream, 1)
        limit = blank.limit(name)
        errors[name] = (
            None if got is None else largest_error(got, right, dtype, unit, limit, allowed)
        )
    return replace(blank, errors=errors)


def measure(case: Case, dtype: str, rng: np.random.Generator) -> Iterator[Figure]:
    """The errors of all subjects on one case."""
    logits, target = draw(case, dtype, rng)
    exact_target = target.double() if target.is_floating_point() else target
    right = answer(logits.double().numpy(), exact_target.numpy(), **case.options)
    unit = right.terms if case.cancels else np.zeros(logits.shape)
    given = logits, target, case.options

    yield figure(dtype, case, "loss", results("loss", dtype, *given), right.loss)

    upstream = torch.from_numpy(rng.uniform(1, 2, case.rows)).to(logits.dtype)
    each = upstream.double().numpy()[:, None].astype(np.longdouble)
    found = results("dlogits", dtype, *given, upstream)
    slopes, units = each * right.dlogits, each * unit
    yield figure(dtype, case, "gradient", found, slopes, units, each)
    if target.ndim == 1:
        index = target[:, None]
        found = {name: None if got is None else got.gather(1, index) for name, got in found.items()}
        slopes, units = (
            np.take_along_axis(array, index.numpy(), axis=1) for array in (slopes, units)
        )
        yield figure(dtype, case, "at the target", found, slopes, units, each)
    found = results("dmean", dtype, *given)
    slopes, units = right.dlogits / case.rows, unit / case.rows
    yield figure(dtype, case, "gradient of mean", found, slopes, units)

    if not case.options and target.ndim == 1:
        found = results("log_softmax", dtype, logits)
        yield figure(dtype, case, "log_softmax", found, right.log_softmax)
    if not case.cancels and dtype in ("float32", "float64"):  # that of half precision is float32
        yield figure(dtype, case, "entropy", results("entropy", dtype, *given), right.entropy)


def draw(case: Case, dtype: str, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and target of a case in a format."""
    drawn = case.draw(rng, case.rows, case.classes, dtype)
    logits = torch.from_numpy(drawn).to(getattr(torch, dtype))
    logits = logits.T.contiguous().T if case.strided else logits
    target = torch.from_numpy(case.draw_target(rng, drawn))
    return logits, target.to(logits.dtype) if target.is_floating_point() else target


def measure_mean(case: Case, dtype: str, rng: np.random.Generator) -> Figure:
    """The errors of the mean of many rows."""
    logits, target = draw(case, dtype, rng)
    right = np.mean(losses(logits.double().numpy(), target.numpy()), keepdims=True)
    return figure(dtype, case, "mean", results("mean", dtype, logits, target, {}), right)


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
    parser.add_argument("--kernel", choices=KERNELS, action="append", help="only this kernel")
    parser.add_argument(
        "--here", action="store_true", help="with the kernel in use, in this process"
    )
    parser.add_argument("--seed", type=int, help="repeat the run that printed this seed")
    parser.add_argument("--only", choices=PARTS, help="losses of logits, or linear heads")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write those of linear heads into FILE"
    )
    options = parser.parse_args(arguments)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    if not options.here:
        return run_each(options, seed)
    print(f"seed {seed}; " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    print("kernels: " + ", ".join(f"{k} {v}" for k, v in kernels().items()))
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):  # the formulas of the documents overflow
        return run(options, seed, rng)


def run_each(options: argparse.Namespace, seed: int) -> int:
    """Measure with every kernel that runs here, one process after the other, and tell all."""
    loaded, reason = library.find({k: v for k, v in os.environ.items() if k != "XENT_CPU"})
    here = (*(loaded.supported if loaded else ()), library.OFF)
    wanted = options.kernel or here
    told = {name: reason or "not on this CPU" for name in wanted if name not in here}
    runs = []
    formats = [part for name in options.format or () for part in ("--format", name)]
    quick = ["--quick"] if options.quick else []
    only = ["--only", options.only] if options.only else []
    with tempfile.TemporaryDirectory() as folder:
        for name in (name for name in wanted if name in here):
            file = Path(folder, name)
            command = [sys.executable, __file__, "--here", "--seed", str(seed), "--json", str(file)]
            environment = {**os.environ, "XENT_CPU": name}
            status = subprocess.call([*command, *quick, *formats, *only], env=environment)
            told[name] = "within the contract" if status == 0 else "OUTSIDE the contract"
            if file.exists():
                runs.append(json.loads(file.read_text()))
    print("XENT_CPU: " + "; ".join(f"{name} {what}" for name, what in told.items()))
    passed = set(told.values()) == {"within the contract"}
    record = {"seed": seed, "passed": passed, "runs": runs}
    if options.page:
        accuracy_linear.write_page(options.page, record)
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if passed else 1


def run(options: argparse.Namespace, seed: int, rng: np.random.Generator) -> int:
    """Measure the parts that are asked for."""
    wanted = (options.only,) if options.only else PARTS
    formats = options.format or list(FORMATS)
    figures, heads, worst, passed = [], [], None, True
    if "logits" in wanted:
        figures, worst = run_logits(formats, options.quick, rng)
        passed = summarise(figures) and worst <= REFERENCE_LIMIT
    if "linear" in wanted:
        heads = accuracy_linear.run(formats, options.quick, seed)
        passed = accuracy_linear.summarise(heads) and passed
    if options.json:
        record = as_record(figures) | {"seed": seed, "reference_ulp": worst, "passed": passed}
        record["linear"] = accuracy_linear.as_record(heads)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if passed else 1


def run_logits(
    formats: list[str], quick: bool, rng: np.random.Generator
) -> tuple[list[Figure], float]:
    """Check the reference, then measure every case of logits in every format, and print it."""
    worst = check_reference(rng, 20 if quick else 50257)
    print(f"reference: at most {worst:.3f} ULP of float64 from the oracle, on a row of every case")
    print(f"\n{NOTES}")
    figures = []
    for dtype in formats:
        if dtype == "float64" and not EXTENDED:
            print("float64: not measured, as NumPy's longdouble has no more digits here\n")
            continue
        found = []
        for case in CASES:
            found += measure(case.small() if quick else case, dtype, rng)
        for case in MEANS[: 1 if quick else None]:
            found.append(measure_mean(case, dtype, rng))
        show(dtype, found)
        figures += found
    return figures, worst


if __name__ == "__main__":
    sys.exit(main())
