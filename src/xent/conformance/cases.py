"""The cases as data: inputs and the oracle's answers in one JSON file, for any language.

`cases.json` lies beside this file, and `cases.schema.json` says what is in it (docs/cases.md in
words). Numbers are decimal texts that round to the exact answer in float64; "nan", "inf" and
"-inf" are what they say.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from xent.conformance import draws, expect, oracle
from xent.conformance.draws import Case
from xent.conformance.report import FAILED, NOT_OFFERED, PASSED, Record, Report

FILE = Path(__file__).with_name("cases.json")
VERSION, SEED = 1, 2026
WHY = "The answer differs from exact arithmetic on the same numbers."


def made() -> Iterator[tuple[str, Case]]:
    """Every case with its name."""
    rng = draws.generator(SEED, "cases")
    for reduction in ("none", "sum", "mean"):
        for place, case in enumerate(draws.plain(rng, reduction=reduction)):
            yield f"value.{reduction}.{place}", case
            yield f"weight.{reduction}.{place}", draws.weighted(case, rng)
            smooth = replace(case, label_smoothing=0.125)
            yield f"smoothing.{reduction}.{place}", smooth
            yield f"smoothing_weight.{reduction}.{place}", draws.weighted(smooth, rng)
            soft = replace(case, target=draws.probabilities(rng, *case.logits.shape))
            yield f"soft.{reduction}.{place}", soft
            yield f"soft_weight.{reduction}.{place}", draws.weighted(soft, rng)
            if len(case.target) > 1:
                for value in (-100, 1):
                    ignored = draws.ignoring(case, rng, value)
                    yield f"ignore_{value}.{reduction}.{place}", ignored
                both = replace(draws.weighted(draws.ignoring(case, rng), rng), label_smoothing=0.25)
                yield f"all_options.{reduction}.{place}", both
    up = np.array([3.0, -0.5, 0.25])
    (case,) = draws.plain(rng, ((3, 4),), reduction="none")
    yield "upstream.none", replace(case, upstream=up)
    yield "upstream.mean", replace(case, reduction="mean", upstream=2.5)
    target = rng.integers(0, 3, (2, 4))
    yield "axes.mean", Case(draws.logits(rng, 2, 3, 4), target)
    yield "all_ignored.mean", Case(np.zeros((2, 3)), np.full(2, -100), ignore_index=-100)
    for name, logits, label in (
        ("overflow", [1000.0, 0.0], 1),
        ("underflow", [0.0, 200.0], 0),
        ("very_negative", [-1000.0, -1001.0], 0),
        ("offset", [1e8, 1e8 + 1, 1e8 + 2], 2),
        ("masked", [1.0, 2.0, -math.inf], 0),
        ("masked_target", [1.0, 2.0, -math.inf], 2),
        ("nan", [1.0, math.nan, 0.5], 0),
        ("tiny_20", [20.0, 0.0, -1.0], 0),
        ("tiny_40", [40.0, 0.0, -1.0], 0),
        ("tiny_300", [300.0, 0.0, -1.0], 0),
        ("deep_tail", [0.0, 700.0], 0),
    ):
        yield f"stable.{name}", Case(np.array([logits]), np.array([label]), reduction="none")


def document() -> dict[str, Any]:
    """What the file holds."""
    return {"version": VERSION, "cases": [_entry(name, case) for name, case in made()]}


def _entry(name: str, case: Case) -> dict[str, Any]:
    options: dict[str, Any] = {
        "ignore_index": -100 if case.ignore_index is None else case.ignore_index,
        "reduction": case.reduction,
        "label_smoothing": case.label_smoothing or 0.0,
    }
    up = 1.0 if case.upstream is None else case.upstream
    loss = oracle.cross_entropy(case.logits, case.target, case.weight, **options)
    gradient = oracle.cross_entropy_grad(
        case.logits, case.target, case.weight, upstream=up, **options
    ).dlogits
    if (
        case.reduction == "mean"
        and not case.soft
        and (case.target == options["ignore_index"]).all()
    ):
        gradient = np.zeros(case.logits.shape)
    return {
        "name": name,
        "logits": texts(case.logits),
        "target": texts(case.target) if case.soft else case.target.tolist(),
        "weight": None if case.weight is None else texts(case.weight),
        **options,
        "upstream": texts(np.asarray(up)),
        "loss": texts(loss),
        "dlogits": texts(gradient),
    }


def texts(numbers: Any) -> Any:
    """Nested lists of decimal texts, 17 digits at most."""
    array = np.asarray(numbers)
    if array.ndim:
        return [texts(part) for part in array]
    value = array[()]
    if isinstance(value, mpmath.mpf):
        value = float(value)  # rounded once, to the nearest
    return repr(float(value)).removesuffix(".0")


def numbers(written: Any) -> np.ndarray:
    """Decimal texts as float64.

    >>> numbers([["0.5", "-inf"]])
    array([[ 0.5, -inf]])
    """
    return np.vectorize(float, otypes=[float])(np.asarray(written, dtype=object))


def read(file: Path = FILE) -> list[dict[str, Any]]:
    """The cases of the file, as they are written there."""
    return json.loads(file.read_text(encoding="utf-8"))["cases"]


def judge(answers: dict[str, dict[str, Any]], target: str, rtol: float = 1e-9) -> Report:
    """Grade answers that another language computed.

    Args:
        answers: for the name of a case "loss" and, where there is one, "dlogits": numbers or
            decimal texts, nested as in the case. A case without an answer is not offered.
        target: what to call the implementation.
        rtol: relative distance that is allowed; 1e-5 for answers in float32.

    Returns:
        A report with a record for each case.
    """
    records = []
    for entry in read():
        fields: dict[str, Any] = {}
        given = answers.get(entry["name"])
        status = PASSED
        if given is None:
            status, fields = NOT_OFFERED, {"note": "no answer"}
        else:
            small = 0.0 if entry["name"].startswith("stable") else rtol * 1e-3
            fields = _fault(entry, given, (rtol, small))
            status = FAILED if fields else PASSED
        name, hint = entry["name"], "the row's loss is -sum(t log softmax(x))"
        records.append(Record(name, "agrees with torch", 1, status, WHY, hint, **fields))
    told = {"cases": str(VERSION)}
    return Report(target, "answers", "of cases.json", SEED, told, tuple(records))


def _fault(entry: dict[str, Any], given: dict[str, Any], tolerance: tuple[float, float]) -> dict:
    """What is wrong with an answer; nothing where it is right."""
    case, obtained, wrong, exact = case_of(entry), {}, [], {}
    for quantity in ("loss", "dlogits"):
        if given.get(quantity) is None:
            continue
        exact[quantity] = numbers(entry[quantity])
        obtained[quantity] = numbers(given[quantity])
        if not expect.near(obtained[quantity], exact[quantity], tolerance):
            wrong.append(quantity)
    if not wrong:
        return {}
    key = wrong[0]
    return {
        "given": case.told(),
        "expected": f"{expect.TITLES[key]} {draws.shown(exact[key])}",
        "obtained": draws.shown(obtained[key]),
        "note": expect.first_off(exact[key], obtained[key], tolerance),
        "flaws": expect.causes.matching(case, obtained, wrong, exact),
    }


def case_of(entry: dict[str, Any]) -> Case:
    """The case that an entry describes."""
    logits = numbers(entry["logits"])
    written = np.asarray(entry["target"], dtype=object)
    soft = written.shape == logits.shape
    return Case(
        logits,
        numbers(entry["target"]) if soft else written.astype(np.int64),
        None if entry["weight"] is None else numbers(entry["weight"]),
        entry["ignore_index"],
        entry["reduction"],
        entry["label_smoothing"],
        numbers(entry["upstream"])[()],
    )


def write(file: Path = FILE) -> None:
    """Compute every answer and write the file."""
    lines = ",\n".join(json.dumps(entry) for entry in document()["cases"])
    file.write_text(f'{{"version": {VERSION}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)
