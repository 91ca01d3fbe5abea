"""accuracy: distances in units in the last place (ULP) of the format, against exact arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws, expect
from xent.conformance.checks.record import BETTER, check
from xent.conformance.checks.value import PROBABILITIES, natural
from xent.conformance.draws import Case
from xent.conformance.exact import ulp_error
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

DIGITS = "Digits lost in the loss are noise in every curve, and in every comparison of two runs."
SLOPE = "The gradient's rounding adds up over a million steps."
CONFIDENT = "A model that has learnt a row stops learning, or never stops, by a loss that is 0."


def within(
    subject: Subject,
    case: Case,
    loss: float | None = None,
    gradient: float | None = None,
    flaws: tuple[str, ...] = (),
) -> None:
    """No entry farther off than so many ULP; below the smallest normal number, 0 will do."""
    outcome = expect.run(subject, case, case.dtype)
    exact = expect.expected(case, expect.BOTH if gradient is not None else expect.LOSS)
    pairs = [("loss", outcome.loss, loss), ("dlogits", outcome.dlogits, gradient)]
    for name, got, most in pairs:
        if most is None:
            continue
        if got is None:
            expect.without_gradient(subject, case)
            return
        if np.shape(got) != exact[name].shape:
            raise Fault(case.told(), f"shape {exact[name].shape}", f"shape {np.shape(got)}")
        right = exact[name]
        errors = np.asarray(ulp_error(got, right, case.dtype))
        flushed = np.abs(right) < SMALLEST[case.dtype] * 1.01
        errors = np.where(flushed & (np.asarray(got) == 0), 0.0, errors)
        if errors.size and not errors.max() <= most:
            place = np.unravel_index(int(np.argmax(errors)), errors.shape)
            known = {"loss": outcome.loss, "dlogits": outcome.dlogits}
            found = expect.causes.matching(case, known, [name], exact) if not flaws else ()
            raise Fault(
                case.told(),
                f"{right[place]:.9g} within {most:g} ULP",
                f"{np.asarray(got)[place]:.9g}, {errors.max():.3g} ULP off",
                found or flaws,
                f"entry {tuple(int(i) for i in place)}" if place else "",
            )


SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "bfloat16": 2.0**-126, "float16": 2.0**-14}


def normal(rng: Any, rows: int, classes: int, dtype: str, scale: float = 1.0) -> Case:
    drawn = draws.rounded(scale * rng.standard_normal((rows, classes)), dtype)
    return Case(drawn, rng.integers(0, classes, rows), reduction="none", dtype=dtype)


def of_rows(subject: Subject, case: Case) -> Case:
    """The rows' losses; one row where there is only their mean or sum."""
    if subject.offers("reduction") or subject.natural == "none":
        return case
    first = replace(case, logits=case.logits[:1], target=case.target[:1])
    return replace(first, reduction=subject.natural)


@check("accuracy.float32_loss", 2, DIGITS, "sum pairwise, or in float64")
def float32_loss(subject: Subject, rng: Any) -> None:
    for classes in (20, 300):
        within(subject, of_rows(subject, normal(rng, 4, classes, "float32")), loss=8)


@check("accuracy.float64_loss", 2, DIGITS, "a float32 constant inside")
def float64_loss(subject: Subject, rng: Any) -> None:
    if subject.best != "float64":
        raise NotOffered("float64")
    for classes in (20, 100):
        within(subject, of_rows(subject, normal(rng, 4, classes, "float64")), loss=16)


@check("accuracy.half_loss", 3, DIGITS, "compute in float32, round once")
def half_loss(subject: Subject, rng: Any) -> None:
    tried = 0
    for dtype in ("float16", "bfloat16"):
        try:
            case = of_rows(subject, normal(rng, 4, 50, dtype))
            within(subject, case, loss=2, flaws=("low_precision_sum",))
            tried += 1
        except NotOffered as refused:
            if dtype == "bfloat16" and not tried:
                raise NotOffered(str(refused)) from refused


@check("accuracy.float32_gradient", 3, SLOPE, "exp(x - max) / sum, not exp of a rounded log p")
def float32_gradient(subject: Subject, rng: Any) -> None:
    within(subject, of_rows(subject, normal(rng, 4, 100, "float32")), gradient=64)


@check(
    "accuracy.wide_gradient",
    3,
    SLOPE,
    "exponentiate x - max, never a rounded log-probability",
    BETTER,
)
def wide_gradient(subject: Subject, rng: Any) -> None:
    for classes in (50, 200):
        drawn = draws.rounded(rng.uniform(-50, 50, (6, classes)), "float32")
        case = Case(drawn, rng.integers(0, classes, 6), reduction="none", dtype="float32")
        within(subject, of_rows(subject, case), gradient=8, flaws=("low_precision_exp",))


@check(
    "accuracy.wide_gradient_float64",
    4,
    SLOPE,
    "x - max is rounded: keep what it loses, or accept a digit less",
    BETTER,
)
def wide_gradient_float64(subject: Subject, rng: Any) -> None:
    if subject.best != "float64":
        raise NotOffered("float64")
    case = Case(rng.uniform(-50, 50, (3, 150)), rng.integers(0, 150, 3), reduction="none")
    within(subject, of_rows(subject, case), gradient=12, flaws=("low_precision_exp",))


def half_gradient(subject: Subject, rng: Any, dtype: str) -> None:
    case = of_rows(subject, normal(rng, 6, 200, dtype, 2.0))
    within(subject, case, gradient=1, flaws=("low_precision_exp",))


HALF_SLOPE = "torch's bfloat16 gradients are up to 8 % off."


@check("accuracy.bfloat16_gradient", 3, HALF_SLOPE, "float32 inside, round once", BETTER)
def bfloat16_gradient(subject: Subject, rng: Any) -> None:
    half_gradient(subject, rng, "bfloat16")


@check("accuracy.float16_gradient", 3, HALF_SLOPE, "float32 inside, round once", BETTER)
def float16_gradient(subject: Subject, rng: Any) -> None:
    half_gradient(subject, rng, "float16")


def confident(subject: Subject, gaps: Any, dtype: str) -> Case:
    rows = np.array([[gap, 0.0, -1.0] for gap in gaps])
    case = Case(rows, np.zeros(len(rows), int), reduction="none", dtype=dtype)
    return of_rows(subject, case)


@check("accuracy.small_loss", 2, CONFIDENT, "log(1 + s) loses s below 1e-3 by and by")
def small_loss(subject: Subject, rng: Any) -> None:
    case = confident(subject, [2.0 + float(rng.integers(0, 8)) / 8], "float32")
    expect.right(subject, case, decline="float32", tolerance=(1e-5, 1e-8))


@check("accuracy.tiny_loss", 3, CONFIDENT, "log1p of the sum without its largest term", BETTER)
def tiny_loss(subject: Subject, rng: Any) -> None:
    for gap in (16.0, 20.0, 30.0, 60.0):
        case = confident(subject, [gap + float(rng.integers(0, 8)) / 8], "float32")
        within(subject, case, loss=64, flaws=("log_one_plus",))


@check("accuracy.tiny_loss_float64", 3, CONFIDENT, "log1p, without the largest term", BETTER)
def tiny_loss_float64(subject: Subject, rng: Any) -> None:
    if subject.best != "float64":
        raise NotOffered("float64")
    for gap in (30.0, 40.0, 200.0):
        case = confident(subject, [gap + float(rng.integers(0, 8)) / 8], "float64")
        within(subject, case, loss=64, flaws=("log_one_plus",))


@check("accuracy.tiny_gradient", 3, CONFIDENT, "expm1(-loss), not softmax - 1", BETTER)
def tiny_gradient(subject: Subject, rng: Any) -> None:
    for gap in (16.0, 20.0, 30.0):
        case = confident(subject, [gap + float(rng.integers(0, 8)) / 8], "float32")
        within(subject, case, gradient=64, flaws=("log_one_plus",))


@check(
    "accuracy.tiny_soft_target",
    4,
    "One-hot rows of a mixup batch are probabilities, and confident like any other.",
    "log1p for the loss; (others' probability) - mass * (1 - p) for the gradient",
    BETTER,
)
def tiny_soft_target(subject: Subject, rng: Any) -> None:
    for gap in (16.0, 20.0, 30.0):
        case = confident(subject, [gap + float(rng.integers(0, 8)) / 8], "float32")
        hot = replace(case, target=draws.one_hot(case.target, 3))
        expect.run(subject, hot, PROBABILITIES)
        within(subject, hot, loss=64, gradient=64, flaws=("log_one_plus",))


@check(
    "accuracy.million_classes",
    4,
    "Retrieval has a class for each item; 375 ULP are lost in a plain float32 sum of a million.",
    "sum the row in float64, or by halves",
    BETTER,
)
def million_classes(subject: Subject, rng: Any) -> None:
    if subject.linear or subject.one_hot:
        raise NotOffered("a million classes")
    drawn = draws.rounded(rng.uniform(0, 1e-3, (1, 1_000_000)), "float32")
    case = Case(drawn, np.array([3]), reduction=natural(subject), dtype="float32")
    outcome = expect.run(subject, case, "float32")
    total = np.sum(np.exp(drawn.astype(np.longdouble)))  # 64 bits, by halves: 1e-18 off
    exact = float(np.log(total) - np.longdouble(drawn[0, 3]))
    error = float(np.max(ulp_error(np.ravel(outcome.loss)[0], exact, "float32")))
    if not error <= 8:
        told = "a row of a million logits between 0 and 0.001, float32"
        got = f"{np.ravel(outcome.loss)[0]:.9g}, {error:.3g} ULP off"
        raise Fault(told, f"{exact:.9g} within 8 ULP", got, ("low_precision_sum",))


@check("accuracy.long_mean", 3, DIGITS, "a running float32 sum of 200,000 rows loses digits")
def long_mean(subject: Subject, rng: Any) -> None:
    if not subject.offers("reduction") and subject.natural != "mean":
        raise NotOffered("a mean")
    logits = draws.rounded(rng.standard_normal((200_000, 3)), "float32")
    case = Case(logits, rng.integers(0, 3, 200_000), dtype="float32")
    given, arrays = subject.keywords(case), subject.arrays(case)
    try:
        loss = subject.library.values(subject.native(given)(*arrays))
    except Exception as error:
        raise NotOffered(f"200000 rows ({expect.raised(error)})") from error
    picked = logits[np.arange(200_000), case.target]
    exact = float(np.mean(np.log(np.exp(logits).sum(1)) - picked))
    error = float(np.max(ulp_error(loss, exact, "float32")))
    if not error <= 16:
        told = f"{exact:.9g} within 16 ULP"
        raise Fault("200,000 rows of 3 logits, float32", told, f"{error:.3g} ULP off")
