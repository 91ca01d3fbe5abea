"""Grades of real implementations: torch, JAX's, Keras, the five sources' formulas, and xent.

    python benchmarks/grades.py --page docs/grades.md --seed 1
    python benchmarks/grades.py --json benchmarks/results/grades.json NAME ...

What is not installed, or does not run, is told with its reason. Without --json nothing is kept.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import secrets
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from xent.conformance.grading import grade
from xent.conformance.report import NOT_OFFERED, TIERS, Report

HERE = "grades_subjects"


class Subject(NamedTuple):
    """What is graded, the package whose version is told, and how it is called."""

    name: str
    target: str
    package: str
    adapter: str | None = None
    environment: tuple[tuple[str, str], ...] = ()


REFERENCE = (("XENT_CPU", "none"),)
KERAS = (("KERAS_BACKEND", "jax"),)
EMULATED = (("DEV", "PYTHON"),)  # tinygrad's CPU device needs clang
SUBJECTS = (
    Subject("torch `F.cross_entropy`", "torch.nn.functional:cross_entropy", "torch"),
    Subject("torch `nn.CrossEntropyLoss`", "torch.nn:CrossEntropyLoss", "torch"),
    Subject("torch `F.linear_cross_entropy`, chunked", f"{HERE}:torch_chunked", "torch", "linear"),
    Subject("blog post, NumPy", f"{HERE}:blog_numpy", "numpy"),
    Subject("blog post, torch", f"{HERE}:blog_torch", "torch"),
    Subject("blog post and notebook, autograd in parts", f"{HERE}:blog_parts", "torch"),
    Subject("blog post, put together", f"{HERE}:BlogTogether", "torch"),
    Subject("blog post, backward by hand", f"{HERE}:BlogBackwardParts", "numpy", "numpy-class"),
    Subject(
        "blog post, second backward by hand",
        f"{HERE}:BlogBackwardTogether",
        "numpy",
        "numpy-class",
    ),
    Subject("notebook, backward by hand", f"{HERE}:NotebookBackward", "numpy", "numpy-class"),
    Subject("breakdown, softmax then log", f"{HERE}:breakdown_softmax", "torch"),
    Subject("breakdown, x - log sum exp x", f"{HERE}:breakdown_log_softmax", "torch"),
    Subject("course notes", f"{HERE}:Notes", "numpy", "numpy-class"),
    Subject("forum, the question", f"{HERE}:forum", "torch"),
    Subject("forum, the answer", f"{HERE}:ForumAnswer", "torch", "numpy-class"),
    Subject("xent, torch, compiled kernel", "xent:cross_entropy", "xent"),
    Subject("xent, torch, no kernel", "xent:cross_entropy", "xent", None, REFERENCE),
    Subject("xent `nn.CrossEntropyLoss`", "xent.nn:CrossEntropyLoss", "xent"),
    Subject("xent, NumPy, compiled kernel", f"{HERE}:xent_forward,xent_backward", "xent"),
    Subject(
        "xent, NumPy, no kernel",
        f"{HERE}:xent_forward,xent_backward",
        "xent",
        None,
        REFERENCE,
    ),
    Subject(
        "xent `manual.CrossEntropyLoss`", "xent.manual:CrossEntropyLoss", "xent", "numpy-class"
    ),
    Subject("xent, linear head, compiled kernel", "xent:linear_cross_entropy", "xent"),
    Subject("xent, linear head, no kernel", "xent:linear_cross_entropy", "xent", None, REFERENCE),
    Subject(
        "Liger, Triton's interpreter",
        f"{HERE}:liger",
        "liger-kernel",
        "torch",
        (("TRITON_INTERPRET", "1"),),
    ),
    Subject(
        "tinygrad `Tensor.cross_entropy`",
        "tinygrad:Tensor.cross_entropy",
        "tinygrad",
        "tinygrad",
        EMULATED,
    ),
    Subject(
        "tinygrad `Tensor.sparse_categorical_crossentropy`",
        "tinygrad:Tensor.sparse_categorical_crossentropy",
        "tinygrad",
        "tinygrad",
        EMULATED,
    ),
    Subject("MLX `nn.losses.cross_entropy`", "mlx.nn.losses:cross_entropy", "mlx", "mlx"),
    Subject(
        "optax, integer labels", "optax:softmax_cross_entropy_with_integer_labels", "optax", "jax"
    ),
    Subject("optax, probabilities", "optax:softmax_cross_entropy", "optax", "jax"),
    Subject(
        "Keras, sparse, jax backend",
        "keras.losses:sparse_categorical_crossentropy",
        "keras",
        "keras",
        KERAS,
    ),
    Subject(
        "Keras, categorical, jax backend",
        "keras.losses:categorical_crossentropy",
        "keras",
        "keras",
        KERAS,
    ),
)


@contextmanager
def environment(settings: tuple[tuple[str, str], ...]) -> Any:
    before = dict(os.environ)
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def graded(subject: Subject, seed: int, checks: Sequence[str] | None = None) -> dict[str, Any]:
    """One line of the page."""
    try:
        version = importlib.metadata.version(subject.package)
    except importlib.metadata.PackageNotFoundError:
        return {"name": subject.name, "version": "", "trouble": f"{subject.package} not installed"}
    with environment(subject.environment):
        report = grade(
            subject.target, adapter=subject.adapter, seed=seed, checks=checks, timeout=60
        )
    return {"name": subject.name, "version": f"{subject.package} {version}", **line(report)}


def line(report: Report) -> dict[str, Any]:
    return {
        "trouble": report.trouble,
        "date": report.date,
        "seed": report.seed,
        "seconds": report.seconds,
        "adapter": report.adapter,
        "scores": [report.score(tier) for tier in TIERS],
        "absent": len(report.of(NOT_OFFERED)),
        "causes": [[cause.text, list(cause.checks)] for cause in report.causes],
    }


def page(lines: list[dict[str, Any]]) -> str:
    """The whole of docs/grades.md."""
    rows, details, untold = [], [], []
    for found in lines:
        if found["trouble"]:
            untold.append(f"- {found['name']}: {found['trouble']}")
            continue
        (agrees, of), (better, most) = found["scores"]
        lead = found["causes"][0][0] if found["causes"] else ""
        cells = (
            found["name"],
            found["version"],
            f"{agrees} of {of}",
            f"{better} of {most}",
            str(found["absent"]),
            lead.replace("|", "\\|"),
        )
        rows.append(f"| {' | '.join(cells)} |")
        if found["causes"]:
            told = "\n".join(f"- {text}: {', '.join(c)}" for text, c in found["causes"])
            details.append(f"### {found['name']}\n\n{told}")
    dates = sorted({found["date"] for found in lines if found.get("date")})
    return PAGE.format(
        dates=" to ".join(dict.fromkeys((dates[0], dates[-1]))) if dates else "",
        seeds=", ".join(sorted({str(found["seed"]) for found in lines if "seed" in found})),
        rows="\n".join(rows),
        details="\n\n".join(details),
        untold="\n".join([*untold, *TRIED]),
    )


TRIED = (  # by hand, on 2026-11-22
    "- cut-cross-entropy 25.1.1, `linear_cross_entropy` in Triton's interpreter: `InterpreterError"
    "(AttributeError(\"'NoneType' object has no attribute 'dtype'\"))`",
    "- flash-attn's `cross_entropy_loss`: there is no wheel, and the package is not built without "
    "CUDA: `OSError: CUDA_HOME environment variable is not set`",
)

PAGE = """# Grades

What `xent grade` finds in real implementations. Written by `benchmarks/grades.py`; run on {dates},
on the CPU, seed {seeds}.

A check belongs to one of two tiers. **Agrees with torch**: what torch 2.13 does right, on values,
gradients, shapes, formats, large and infinite logits, bad input, calls and derivatives, and the
definitions of z-loss, softcap, logit scale and a given divisor where they are taken. **Better than
torch**: what torch falls short in. An option that is not there is not offered, and no failure.
The last column is the cause that explains most of what is wrong.

| graded | version | agrees with torch | better than torch | not offered | leading cause |
|---|---|---|---|---|---|
{rows}

The formulas of the [five sources](sources.md) are graded in the shortest form that computes what
theirs do (`benchmarks/grades_subjects.py`). Losses of JAX, Keras, tinygrad and MLX have other
conventions than torch's (rows instead of a mean, no check of labels on a device): the grader tells
the differences, whoever is right. Liger runs in Triton's interpreter, tinygrad on its emulated
device (`DEV=PYTHON`), Keras on JAX: what they compute is theirs, how fast is not.

## Tried, and not graded

{untold}

## What is wrong, by cause

{details}
"""


def main(arguments: list[str]) -> int:
    """Grade, keep, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("names", nargs="*", help="words of names; without any, all")
    parser.add_argument("--json", type=Path, help="read what is there, and keep what is new")
    parser.add_argument("--page", type=Path, help="write this page")
    parser.add_argument("--seed", type=int, help="of the inputs; else it is drawn")
    parser.add_argument("--write", action="store_true", help="grade nothing, write the page")
    given = parser.parse_args(arguments)
    seed = secrets.randbits(32) if given.seed is None else given.seed
    kept: dict[str, Any] = {}
    if given.json and given.json.exists():
        kept = {found["name"]: found for found in json.loads(given.json.read_text())}
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    for subject in () if given.write else SUBJECTS:
        if given.names and not any(word in subject.name for word in given.names):
            continue
        found = kept[subject.name] = graded(subject, seed)
        print(
            found["name"], found.get("scores"), found["trouble"], found.get("seconds"), flush=True
        )
        if given.json:
            order = [s.name for s in SUBJECTS if s.name in kept]
            given.json.write_text(json.dumps([kept[n] for n in order], indent=1) + "\n")
    if given.page:
        order = [s.name for s in SUBJECTS if s.name in kept]
        given.page.write_text(page([kept[name] for name in order]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
