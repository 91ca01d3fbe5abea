"""dtype: every format in, the same format out, and no number that the format could not hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws, expect
from xent.conformance.checks.record import BETTER, check
from xent.conformance.checks.value import natural
from xent.conformance.draws import Case
from xent.conformance.expect import BOTH, LOSS, check_outcome, run
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

MIXED = "Mixed precision runs the loss in every format that the logits may have."


def in_format(subject: Subject, rng: Any, dtype: str, tight: bool = False) -> None:
    """Right in the format; forward may refuse it, backward may not."""
    quantities = (
        BOTH if subject.library.differentiates or subject.adapter.kind != "function" else LOSS
    )
    for case in draws.plain(rng, ((2, 3), (5, 4)), dtype=dtype, reduction=natural(subject)):
        try:
            arrays = subject.arrays(case)
            subject.library.values(subject.native(subject.keywords(case))(*arrays))
        except NotOffered:
            raise
        except Exception as error:
            raise NotOffered(f"{dtype} ({expect.raised(error)})") from error
        outcome = run(subject, case)
        wide = {dtype, "float32"} if subject.linear or dtype.endswith("16") else {dtype}
        if outcome.loss_dtype not in wide:
            told = f"a loss in {dtype}"
            raise Fault(case.told(), told, outcome.loss_dtype, ("another_dtype",))
        if (
            outcome.dlogits_dtype
            and outcome.dlogits_dtype != dtype
            and subject.library.differentiates
        ):
            told = f"a gradient in {dtype}"
            raise Fault(case.told(), told, outcome.dlogits_dtype, ("another_dtype",))
        tolerance = (1e-12, 1e-15) if tight else None
        known = ("float32_inside",) if tight and close_only(case, outcome) else ()
        check_outcome(subject, case, outcome, quantities, tolerance, known)


def close_only(case: Case, outcome: Any) -> bool:
    """Right in float32 digits, which is wrong for float64."""
    exact = expect.expected(case, BOTH)
    pairs = [(outcome.loss, exact["loss"]), (outcome.dlogits, exact["dlogits"])]
    return all(got is None or expect.near(got, right, (1e-5, 1e-6)) for got, right in pairs)


@check(
    "dtype.float64",
    2,
    "float64 is what gradients are checked in.",
    "a float32 constant or zeros() inside",
)
def float64(subject: Subject, rng: Any) -> None:
    in_format(subject, rng, "float64", tight=True)


@check("dtype.float32", 1, MIXED, "float32 is the format of most losses")
def float32(subject: Subject, rng: Any) -> None:
    in_format(subject, rng, "float32")


@check("dtype.bfloat16", 2, MIXED, "compute in float32, round once")
def bfloat16(subject: Subject, rng: Any) -> None:
    in_format(subject, rng, "bfloat16")


@check("dtype.float16", 2, MIXED, "compute in float32, round once")
def float16(subject: Subject, rng: Any) -> None:
    in_format(subject, rng, "float16")


@check(
    "dtype.small_targets",
    2,
    "Labels are stored small: uint8 indexes as a mask in some libraries, without an error.",
    "convert labels to int64, or refuse them",
)
def small_targets(subject: Subject, rng: Any) -> None:
    if subject.one_hot:
        raise NotOffered("class indices")
    for dtype in ("uint8", "int16", "int32"):
        for case in draws.plain(rng, ((2, 3), (3, 3)), reduction=natural(subject)):
            target = np.minimum(case.target, 1)
            case = replace(case, dtype=subject.best, index_dtype=dtype, target=target)
            try:
                outcome = subject.run(case)
            except Exception:  # refused: that is right too
                continue
            check_outcome(subject, case, outcome, LOSS, note=f"the labels are {dtype}")


@check(
    "dtype.int32_targets",
    3,
    "Data loaders give int32; a copy to int64 for each batch is not needed.",
    "accept every integer dtype",
    BETTER,
)
def int32_targets(subject: Subject, rng: Any) -> None:
    if subject.one_hot:
        raise NotOffered("class indices")
    for case in draws.plain(rng, ((2, 3),), reduction=natural(subject), index_dtype="int32"):
        case = replace(case, dtype=subject.best)
        check_outcome(subject, case, run(subject, case), LOSS)


def halves(subject: Subject, rows: int, classes: int) -> Case:
    """Logits of 0 in float16: the loss is log V, whatever the number of rows."""
    reduction = "mean" if subject.offers("reduction") else subject.natural
    if reduction == "none" and rows > 1:
        raise NotOffered("a mean")
    return Case(
        np.zeros((rows, classes)), np.zeros(rows, int), reduction=reduction, dtype="float16"
    )


def offered_half(subject: Subject, case: Case) -> float:
    small = replace(case, logits=case.logits[:2, :2], target=case.target[:2])
    run(subject, small, "float16")
    outcome = run(subject, case)
    return float(np.asarray(outcome.loss).reshape(-1)[0])


@check(
    "dtype.half_mean",
    2,
    "70,000 tokens are one step of a language model: a float16 sum is inf from 65504 on.",
    "accumulate sum and count in float32",
    BETTER,
)
def half_mean(subject: Subject, rng: Any) -> None:
    case = halves(subject, 70_000, 4)
    _near(case, offered_half(subject, case), np.log(4))


@check(
    "dtype.half_classes",
    2,
    "Vocabularies have more than 65,504 entries: a float16 sum of exponentials is inf.",
    "accumulate the row's sum in float32",
    BETTER,
)
def half_classes(subject: Subject, rng: Any) -> None:
    if subject.linear or subject.one_hot:
        raise NotOffered("70000 classes")
    case = halves(subject, 1, 70_000)
    _near(case, offered_half(subject, case), np.log(70_000))


def _near(case: Case, got: float, exact: float) -> None:
    if not abs(got - exact) <= 2e-3 * exact:
        told = f"{case.logits.shape[0]} rows of {case.logits.shape[1]} zeros, {case.dtype}"
        raise Fault(told, f"a loss of {exact:.5g}", f"{got:g}", ("low_precision_sum",))
