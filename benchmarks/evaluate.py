"""How fast `xent.evaluate` reads logits, beside reading and summing them and scikit-learn.

    .venv/bin/python benchmarks/evaluate.py [--quick] [--rounds N]

Each result is checked against scikit-learn's log_loss (and torchmetrics' calibration error) before
it is timed. All take turns on one file in the page cache; a ratio is of the same round. Beside the
time on the clock stands that of the CPU: where other work runs on the machine, cores x CPU time of
one thread that reads and sums / CPU time of all our threads is what the clock would tell alone. The
table goes into docs/evaluate.md between its marks, the numbers into results/evaluate.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from sklearn.metrics import log_loss
from torchmetrics.functional.classification import multiclass_calibration_error

import xent
from xent.bench.report import placed
from xent.kernels import cpu

HERE = Path(__file__).parent
PAGE, RESULTS = HERE.parent / "docs" / "evaluate.md", HERE / "results" / "evaluate.json"
MARKS = "benchmarks/evaluate.py"  # on the page
CASES = [(1_000_000, 100, "float32"), (100_000, 1000, "float32"), (8192, 32_000, "float32")]
CASES += [(rows, classes, "float16") for rows, classes, _ in CASES]
CHUNK = 64 * 2**20  # bytes that are read and summed at once
CHECKED = 20_000  # rows that the calibration error is checked on


def make(folder: Path, rows: int, classes: int, dtype: str) -> tuple[Path, Path]:
    """A file of logits, and one of targets of which 70 % are the likeliest class."""
    rng = np.random.default_rng(0)
    file, targets = folder / "logits.npy", folder / "target.npy"
    shape = rows, classes
    logits = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    target = rng.integers(0, classes, rows)
    for first in range(0, rows, step := max(1, CHUNK // (4 * classes))):
        part = 3 * rng.standard_normal((min(step, rows - first), classes), dtype=np.float32)
        logits[first : first + step] = part
        sure = rng.random(len(part)) < 0.7
        target[first : first + step][sure] = np.argmax(logits[first : first + step], axis=1)[sure]
    logits.flush()
    np.save(targets, target)
    return file, targets


def read_and_sum(file: Path) -> float:
    """np.sum over the memory map, a chunk at a time: one thread, as NumPy has."""
    logits = np.load(file, mmap_mode="r")
    step = max(1, CHUNK // (logits.shape[1] * logits.itemsize))
    return sum(float(np.sum(logits[i : i + step])) for i in range(0, len(logits), step))


def probabilities(file: Path, rows: int | None = None) -> np.ndarray:
    """What scikit-learn takes."""
    logits = np.load(file, mmap_mode="r")[:rows].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def check(file: Path, targets: Path, dtype: str) -> None:
    """Stop where a number differs from scikit-learn's or torchmetrics'."""
    logits, target = np.load(file, mmap_mode="r")[:CHECKED], np.load(targets)[:CHECKED]
    classes = logits.shape[1]
    rows = max(1, min(len(target), 10**8 // (8 * classes)))
    p, t = probabilities(file, rows), target[:rows]
    told = xent.evaluate(np.asarray(logits[:rows]), t)
    theirs = log_loss(t, p, labels=np.arange(classes))
    given = torch.from_numpy(p), torch.from_numpy(t), classes
    ece = float(multiclass_calibration_error(*given, n_bins=15))
    wrong = abs(told.loss / theirs - 1) > 1e-6 or abs(told.ece - ece) > 1e-5
    if wrong:
        raise SystemExit(f"{file}: {told.loss} {theirs}, ECE {told.ece} {ece}")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of all threads on CPUs."""
    begin, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - used


def measured(rows: int, classes: int, dtype: str, rounds: int) -> dict[str, object]:
    """Seconds of every round, in turns."""
    with TemporaryDirectory() as folder:
        file, targets = make(Path(folder), rows, classes, dtype)
        check(file, targets, dtype)
        work: dict[str, Callable[[], object]] = {
            "read and sum": lambda: read_and_sum(file),
            "no temperature": lambda: xent.evaluate(file, targets, temperature="none"),
            "all": lambda: xent.evaluate(file, targets),
        }
        if rows * classes <= 10**8 and classes <= 1000:
            target, labels = np.load(targets), np.arange(classes)
            p = probabilities(file)
            work["log_loss"] = lambda: log_loss(target, p, labels=labels)
        seconds: dict[str, list[float]] = {name: [] for name in work}
        cpu_seconds: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(rounds):
            for name, function in work.items():
                clock, used = timed(function)
                seconds[name].append(clock)
                cpu_seconds[name].append(used)
        return {
            "rows": rows,
            "classes": classes,
            "dtype": dtype,
            "bytes": file.stat().st_size,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
        }


def ratios(case: dict, over: str, under: str, of: str = "seconds", by: float = 1.0) -> str:
    """The median of the rounds' ratios, and their range."""
    pairs = zip(case[of][over], case[of][under], strict=True)
    found = sorted(by * a / b for a, b in pairs)
    return f"{median(found):.2f} ({found[0]:.2f} - {found[-1]:.2f})"


def table(cases: list[dict], machine: str) -> str:
    columns = "logits", "read and sum, GB/s", "no temperature", "all", "no temperature, CPU"
    head = f"| {' | '.join([*columns, 'all, CPU', 'log_loss / all'])} |"
    lines = [machine, "", head, "|---|---|---|---|---|---|---|"]
    for case in cases:
        rate = case["bytes"] / median(case["seconds"]["read and sum"]) / 1e9
        name = f"{case['rows']:,} x {case['classes']:,}, {case['dtype']}"
        ways, cores = ("no temperature", "all"), cpu.threads()
        rest = [ratios(case, "read and sum", way) for way in ways]
        rest += [ratios(case, "read and sum", way, "cpu_seconds", cores) for way in ways]
        rest.append(ratios(case, "log_loss", "all") if "log_loss" in case["seconds"] else "-")
        lines.append(f"| {name} | {rate:.2f} | {' | '.join(rest)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time xent.evaluate.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, print alone")
    asked = parser.parse_args()
    share = 10 if asked.quick else 1
    cases = [measured(rows // share, v, d, asked.rounds) for rows, v, d in CASES]
    machine = f"{platform.machine()}, {cpu.threads()} cores, numpy {np.__version__}"
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    told = f"{machine}, {asked.rounds} rounds, {load}; median ratio (least - largest)."
    text = table(cases, told)
    print(text)
    if asked.quick:
        return
    RESULTS.write_text(json.dumps({"machine": machine, "cases": cases}, indent=1) + "\n")
    page = placed(PAGE.read_text(encoding="utf-8"), text, MARKS)
    assert page, f"{PAGE}: no marks of {MARKS}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
