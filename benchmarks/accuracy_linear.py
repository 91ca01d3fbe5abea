"""How far each linear head's loss and gradients are from the exact ones: a part of accuracy.py.

Hidden states and weights are drawn and rounded to a format; what is exact is computed of them in
float64. An error is the norm of the difference from the exact array over the norm of that array.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accuracy_report import number, print_table

import xent
from xent.bench.report import placed

Tensor = torch.Tensor
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]  # the loss, dhidden and dlinear_weight
Subject = Callable[[Tensor, Tensor, Tensor, float], Any]

QUANTITIES = ("loss", "dhidden", "dlinear_weight")
# Times the error of the exact gradient rounded to the format (docs/accuracy.md). Products in
# float32 are farther off than that: there xent must be no farther than eager either, give or take
# SLACK, as sums are cut elsewhere.
TIMES = {"float16": 1.05, "bfloat16": 1.05, "float32": 20.0}
SLACK = 1.15
LOSS = 1e-6  # the relative error of a loss: it is float32 in every format
# Times a logit: how far off it is as a float32 sum; and so, relative to them, are a loss near 0 and
# its gradients.
LOGIT = 8 * 2.0**-24
ENTRIES = 1 << 22  # logits of the exact answer that are made at a time
CHUNKS = 32  # of the plans that say what to cut along
MARKS = "benchmarks/accuracy.py"  # on the page

NOTES = """\
Linear head: relative error in norm of the mean loss and its gradients, against float64 on the same
rounded inputs. "rounded" is the exact answer rounded to the format. ! marks xent outside its
contract, and inf a result that is infinite or no number.
"""


@dataclass(frozen=True)
class Case:
    """Hidden states and the weights of a head."""

    rows: int
    width: int
    classes: int
    sure: tuple[float, float] | None = None  # between what the logits of the targets are
    upstream: float = 1.0

    @property
    def title(self) -> str:
        """The name in the table."""
        shape = f"N = {self.rows}, D = {self.width}, V = {self.classes}"
        return f"confident, {shape}" if self.sure else shape

    def small(self) -> Case:
        """The same with less to compute; few rows are less sure, lest one has most of the norm."""
        sure = self.sure and (14.0, 16.0)
        return replace(self, rows=min(self.rows, 64), classes=min(self.classes, 256), sure=sure)

    def draw(self, rng: np.random.Generator, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states, weights and targets: logits of standard deviation 2, or sure ones.

        A hidden state that is sure is its target's weights, times what gives that logit.
        """
        weight = rng.normal(0, 2 / math.sqrt(self.width), (self.classes, self.width))
        target = rng.integers(0, self.classes, self.rows)
        hidden = rng.normal(0, 1, (self.rows, self.width))
        if self.sure:
            right = weight[target]
            hidden = right / (right**2).sum(1, keepdims=True)
            hidden *= rng.uniform(*self.sure, (self.rows, 1))
        hidden, weight = (torch.from_numpy(a).to(getattr(torch, dtype)) for a in (hidden, weight))
        return hidden, weight, torch.from_numpy(target)


# The last has 1 - p of about 1e-5, of which a difference from 1 in float32 has three digits; its
# upstream is a loss scale, without which float16 has no room for the gradients.
CASES = (
    Case(1024, 64, 8192),
    Case(16384, 16, 1024),
    Case(1024, 64, 8192, (24.0, 28.0), 2.0**15),
)


def exact(hidden: Tensor, linear_weight: Tensor, target: Tensor, upstream: float) -> Arrays:
    """The right answer in float64, some rows at a time.

    Relative to the target's logit: with odds = sum exp(x - x_t) of the others, the loss is
    log1p(odds) and the target's entry of the gradient is -odds / (1 + odds); nothing cancels.
    """
    h, w, t = hidden.double().numpy(), linear_weight.double().numpy(), target.numpy()
    losses, dhidden, dweight = np.empty(len(h)), np.empty(h.shape), np.zeros(w.shape)
    step = max(1, ENTRIES // len(w))
    for at in range(0, len(h), step):
        cut = slice(at, at + step)
        x = h[cut] @ w.T
        index = np.arange(len(x)), t[cut]
        powers = np.exp(x - x[index][:, None])
        powers[index] = 0
        odds = powers.sum(1)
        losses[cut] = np.log1p(odds)
        dlogits = powers / (1 + odds)[:, None]
        dlogits[index] = -odds / (1 + odds)
        dhidden[cut] = dlogits @ w
        dweight += dlogits.T @ h[cut]
    scale = upstream / len(h)
    return losses.mean(), dhidden * scale, dweight * scale


def by_autograd(loss: Callable[..., Tensor]) -> Subject:
    """The loss and the gradients that autograd gives of it."""

    def compute(hidden: Tensor, linear_weight: Tensor, target: Tensor, upstream: float) -> tuple:
        leaves = tuple(a.detach().requires_grad_() for a in (hidden, linear_weight))
        value = loss(*leaves, target)
        scale = torch.full_like(value, upstream)
        return value.detach(), *torch.autograd.grad(value, leaves, scale)

    return compute


def eager(hidden: Tensor, linear_weight: Tensor, target: Tensor) -> Tensor:
    """All logits, then torch's loss of them."""
    return F.cross_entropy(hidden @ linear_weight.T, target)


def planned(over: str | None, hidden: Tensor, linear_weight: Tensor, target: Tensor) -> Tensor:
    """xent's loss; cut along rows or classes into about CHUNKS pieces."""
    logits = 4 * len(hidden) * len(linear_weight)
    plan = xent.Plan(chunk_over=over, chunk_bytes=max(1, logits // CHUNKS)) if over else None
    return xent.linear_cross_entropy(hidden, linear_weight, target, plan=plan)


def by_numpy(hidden: Tensor, linear_weight: Tensor, target: Tensor, upstream: float) -> Any:
    """xent on NumPy arrays, which have no bfloat16."""
    if hidden.dtype == torch.bfloat16:
        return None
    arrays = (a.numpy() for a in (hidden, linear_weight, target))
    loss, vjp = xent.linear_cross_entropy_vjp(*arrays)
    found = vjp(upstream)
    return loss, found.hidden, found.linear_weight


def subjects() -> dict[str, Subject]:
    """The columns. torch's chunked way, which 2.13 brought, with its own options and the compact
    ones, which are its own on a GPU."""
    found: dict[str, Subject] = {"eager": by_autograd(eager)}
    if options := getattr(torch.nn, "LinearCrossEntropyOptions", None):
        for name, given in {
            "torch chunked": {},
            "torch compact": {"acc_policy": "compact"},
        }.items():
            loss = partial(F.linear_cross_entropy, options=options(**given))
            found[name] = by_autograd(loss)
    for name, over in {"xent": None, "xent rows": "rows", "xent classes": "classes"}.items():
        found[name] = by_autograd(partial(planned, over))
    return {**found, "xent NumPy": by_numpy}


SUBJECTS = subjects()


def is_ours(name: str) -> bool:
    """Whether a column is xent."""
    return name.startswith("xent")


@dataclass(frozen=True)
class Figure:
    """One line of the table: the errors of one array of one case in one format."""

    format: str
    case: str
    quantity: str
    rounded: float  # of the exact answer in the format
    logits: float  # what the error of sure logits is allowed to be in float32
    errors: dict[str, float | None]  # by subject; None: not computed

    @property
    def limit(self) -> float:
        """The contract of xent."""
        if self.quantity == "loss":
            return max(LOSS, self.logits)
        limit, others = TIMES[self.format] * self.rounded, self.errors.get("eager")
        if self.format != "float32" or others is None:
            return limit
        return min(max(limit, self.logits), SLACK * others)

    def outside(self, name: str) -> bool:
        """Whether a subject is xent and breaks its contract."""
        error = self.errors[name]
        return is_ours(name) and error is not None and not error <= self.limit

    def cells(self) -> list[str]:
        """The line as text."""
        errors = (write(e) + "!" * self.outside(name) for name, e in self.errors.items())
        return [self.quantity, write(self.limit), write(self.rounded), *errors]


def write(error: float | None) -> str:
    """An error as text."""
    if error is None:
        return "-"
    return f"{error:.2e}".replace("e-0", "e-") if math.isfinite(error) else "inf"


def distance(got: Any, right: np.ndarray) -> float:
    """The norm of the difference over that of what is right; infinite for no number."""
    found = got.double().numpy() if isinstance(got, Tensor) else np.asarray(got, np.float64)
    error = float(np.linalg.norm(found - right) / np.linalg.norm(right))
    return error if math.isfinite(error) else math.inf


def measure(case: Case, dtype: str, rng: np.random.Generator) -> list[Figure]:
    """The errors of all subjects on one case."""
    given = (*case.draw(rng, dtype), case.upstream)
    right = exact(*given)
    found = {name: subject(*given) for name, subject in SUBJECTS.items()}
    figures, logits = [], LOGIT * max(case.sure or (0.0,))
    for i, quantity in enumerate(QUANTITIES):
        best = torch.from_numpy(np.asarray(right[i])).to(getattr(torch, dtype))
        errors = {n: None if f is None else distance(f[i], right[i]) for n, f in found.items()}
        rounded = distance(best, right[i])
        figures.append(Figure(dtype, case.title, quantity, rounded, logits, errors))
    return figures


def run(formats: list[str], quick: bool, seed: int) -> list[Figure]:
    """Measure every case in every format, and print it. Formats and cases do not change a draw."""
    figures = []
    formats = [dtype for dtype in formats if dtype in TIMES]
    if formats:
        print(f"\n{NOTES}")
    for dtype in formats:
        found = []
        for i, case in enumerate(CASES):
            rng = np.random.default_rng([seed, i])
            found += measure(case.small() if quick else case, dtype, rng)
        head = columns(found)
        print_table(head, lines(found), [name for name in head if is_ours(name)])
        figures += found
    return figures


def columns(figures: list[Figure]) -> list[str]:
    """The names of the columns of a table."""
    return [figures[0].format, "of", "contract", "rounded", *figures[0].errors]


def lines(figures: list[Figure]) -> list[list[str]]:
    """The table of some figures, which names each case once."""
    cases = [None, *(f.case for f in figures)]
    return [
        ["" if f.case == before else f.case, *f.cells()]
        for f, before in zip(figures, cases, strict=False)
    ]


def summarise(figures: list[Figure]) -> bool:
    """Print where xent is outside its contract, and how near it is; whether it passes."""
    mine = [(f, n) for f in figures for n, e in f.errors.items() if is_ours(n) and e is not None]
    failures = [(f, name) for f, name in mine if f.outside(name)]
    print(f"linear head: {len(mine) - len(failures)} of {len(mine)} figures within the contract")
    for f, name in failures:
        told = f"{name} {write(f.errors[name])}, contract {write(f.limit)}"
        print(f"  outside: {f.format}, {f.case}, {f.quantity}: {told}")
    for dtype in dict.fromkeys(f.format for f in figures):
        print(f"  {dtype}: {farthest([f for f in figures if f.format == dtype])}")
    return not failures


def farthest(figures: list[Figure]) -> str:
    """How many times the correctly rounded answer's the largest errors of gradients are."""
    ratios = {}
    for f in (f for f in figures if f.quantity != "loss"):
        for name, error in f.errors.items():
            if error is not None:
                ratios[name] = max(ratios.get(name, 0.0), error / f.rounded)
    told = ", ".join(f"{name} {ratio:.4g}" for name, ratio in ratios.items())
    return f"gradients, times the error of the correctly rounded answer: {told}"


def as_record(figures: list[Figure]) -> list[dict[str, Any]]:
    """All figures for JSON."""
    return [
        {
            "format": f.format,
            "case": f.case,
            "quantity": f.quantity,
            "contract": f.limit,
            "rounded": f.rounded,
            "logits": f.logits,
            "errors": {n: number(e) for n, e in f.errors.items() if e is not None},
        }
        for f in figures
    ]


def worst(runs: list[dict[str, Any]]) -> list[Figure]:
    """The figures of all runs as one: the largest error of each."""
    figures, names = [], {name: None for line in runs[0]["linear"] for name in line["errors"]}
    for every in zip(*(run["linear"] for run in runs), strict=True):
        errors: dict[str, float | None] = dict(names)
        for name in every[0]["errors"]:
            errors[name] = max(float(f["errors"][name]) for f in every)
        first = every[0]
        known = {k: first[k] for k in ("format", "case", "quantity", "rounded", "logits")}
        figures.append(Figure(**known, errors=errors))
    return figures


def write_page(path: Path, record: dict[str, Any]) -> None:
    """Put the figures of all runs between the marks of a page."""
    runs = [run for run in record["runs"] if run["linear"]]
    if not runs:
        return
    versions = ", ".join(f"{k} {v}" for k, v in runs[0]["versions"].items())
    kernels = ", ".join(run["instructions"] or "none" for run in runs)
    parts = [f"- {versions}", f"- the largest error of the kernels: {kernels}"]
    parts.append(f"- seed {record['seed']}")
    figures = worst(runs)
    for dtype in dict.fromkeys(f.format for f in figures):
        found = [f for f in figures if f.format == dtype]
        head = columns(found)
        rule = ["---", "---", *["---:"] * (len(head) - 2)]
        table = [head, rule, *lines(found)]
        parts += ["", *("| " + " | ".join(line) + " |" for line in table), "", farthest(found)]
    page = placed(path.read_text(encoding="utf-8"), "\n".join(parts), MARKS)
    assert page, f"{path}: no marks of {MARKS}"
    path.write_text(page, encoding="utf-8")
