"""value: the loss is the number that it is defined to be, for every option."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws
from xent.conformance.checks.record import check
from xent.conformance.expect import right
from xent.conformance.subject import Subject

WRONG = "A wrong loss trains another model than the one you think of."
DIVISOR = "The divisor of a mean is the learning rate's other half: a wrong one scales every step."
PADDING = "Padding is most of many batches; what it adds to the loss is noise that looks like data."


@check("value.rows", 1, WRONG, "the loss of a row is -log softmax(logits)[target]")
def rows(subject: Subject, rng: Any) -> None:
    right(subject, draws.plain(rng, reduction="none"))


@check("value.mean", 1, DIVISOR, "the mean is over the rows")
def mean(subject: Subject, rng: Any) -> None:
    right(subject, draws.plain(rng))


@check("value.sum", 1, DIVISOR, "the sum is over the rows, divided by nothing")
def total(subject: Subject, rng: Any) -> None:
    right(subject, draws.plain(rng, reduction="sum"))


@check("value.many_rows", 2, WRONG, "rows beyond a block's end are lost or counted twice")
def many_rows(subject: Subject, rng: Any) -> None:
    right(subject, draws.plain(rng, ((257, 3), (33, 67)), reduction=natural(subject)))


@check(
    "value.negative_logits",
    2,
    "Logits are unbounded scores; a late layer makes most of them negative.",
    "nothing in cross entropy depends on the logits' sign: no relu, clip or abs",
)
def negative(subject: Subject, rng: Any) -> None:
    for case in draws.plain(rng, reduction=natural(subject)):
        right(subject, replace(case, logits=case.logits - 9.0))


@check("value.weight_rows", 1, "Rare classes are weighted up.", "row i is times weight[target[i]]")
def weight_rows(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    for case in draws.plain(rng, reduction="none"):
        right(subject, draws.weighted(case, rng))


@check("value.weight_mean", 1, DIVISOR, "a weighted mean is divided by the weights used")
def weight_mean(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    for case in draws.plain(rng):
        right(subject, draws.weighted(case, rng))


@check("value.weight_sum", 2, DIVISOR, "a weighted sum is divided by nothing")
def weight_sum(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    for case in draws.plain(rng, reduction="sum"):
        right(subject, draws.weighted(case, rng))


@check("value.ignore_mean", 1, PADDING, "ignored rows are left out of the sum and of the divisor")
def ignore_mean(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for case in draws.plain(rng, draws.SIZES[1:]):
        right(subject, draws.ignoring(case, rng))


@check(
    "value.ignore_any",
    1,
    "Padding is marked by -1, by 255, or by a class that exists.",
    "ignore_index is any integer, inside the range of classes or not",
)
def ignore_any(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for value in (0, 1, -1, 255):
        for case in draws.plain(rng, ((3, 3), (5, 4))):
            right(subject, draws.ignoring(case, rng, value))


@check("value.ignore_rows", 2, PADDING, "the loss of an ignored row is 0")
def ignore_rows(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for case in draws.plain(rng, draws.SIZES[1:], reduction="none"):
        right(subject, draws.ignoring(case, rng))


@check(
    "value.all_ignored",
    2,
    "A batch that is all padding happens in every long run; torch's mean is nan, its sum 0.",
    "0 / 0 is nan: a mean of no rows is not 0",
)
def all_ignored(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for case in draws.plain(rng, ((2, 3),)):
        case = replace(case, target=np.full(2, -100), ignore_index=-100)
        for reduction in ("sum", "none", "mean"):
            if subject.offers("reduction") or reduction == subject.natural:
                right(subject, replace(case, reduction=reduction), flaws=("empty_mean",))


@check("value.weight_ignore", 1, PADDING, "the mean's divisor is the weight of the rows kept")
def weight_ignore(subject: Subject, rng: Any) -> None:
    subject.need("weight", "ignore_index")
    for case in draws.plain(rng, draws.SIZES[1:]):
        right(subject, draws.ignoring(draws.weighted(case, rng), rng))


def soft(rng: Any, sizes: Any = draws.SIZES[1:], **more: Any) -> Any:
    """Cases with class probabilities."""
    for case in draws.plain(rng, sizes, **more):
        yield replace(case, target=draws.probabilities(rng, *case.logits.shape))


PROBABILITIES = "class probabilities"


def natural(subject: Subject) -> str:
    """A reduction that it has."""
    return "none" if subject.offers("reduction") else subject.natural


@check(
    "value.soft_target",
    2,
    "Distillation and mixup have probabilities as targets.",
    "the loss of a row is -sum(target * log softmax)",
)
def soft_target(subject: Subject, rng: Any) -> None:
    for case in soft(rng, reduction=natural(subject)):
        right(subject, case, decline=PROBABILITIES)


@check(
    "value.soft_mass",
    3,
    "Weighted or truncated probabilities do not add up to 1.",
    "the loss is sum(target) * lse - sum(target * x): lse is not counted once",
)
def soft_mass(subject: Subject, rng: Any) -> None:
    for case in soft(rng, reduction=natural(subject)):
        right(subject, replace(case, target=case.target * 2), decline=PROBABILITIES)


@check(
    "value.soft_weight_mean",
    2,
    DIVISOR,
    "torch divides the mean of probabilities by N, weighted or not",
)
def soft_weight_mean(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    for case in soft(rng):
        right(subject, draws.weighted(case, rng), decline=PROBABILITIES)


SMOOTH = "Label smoothing that means another number than in the paper cannot be compared with it."


@check("value.smoothing", 2, SMOOTH, "q = (1 - label_smoothing) one_hot + label_smoothing / V")
def smoothing(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing")
    for amount in (0.125, 1.0):
        for case in draws.plain(rng, draws.SIZES[1:]):
            right(subject, replace(case, label_smoothing=amount))


@check("value.smoothing_rows", 2, SMOOTH, "smoothing acts on every row alike")
def smoothing_rows(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing")
    for case in draws.plain(rng, draws.SIZES[1:], reduction="none"):
        right(subject, replace(case, label_smoothing=0.25))


@check(
    "value.smoothing_weight", 2, SMOOTH, "each class's share has its own weight; / sum w[target]"
)
def smoothing_weight(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing", "weight")
    for case in draws.plain(rng, draws.SIZES[1:]):
        right(subject, replace(draws.weighted(case, rng), label_smoothing=0.25))


@check("value.smoothing_ignore", 2, PADDING, "an ignored row has no smoothed part either")
def smoothing_ignore(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing", "ignore_index")
    for case in draws.plain(rng, draws.SIZES[1:]):
        right(subject, replace(draws.ignoring(case, rng), label_smoothing=0.25))


@check("value.smoothing_soft", 3, SMOOTH, "probabilities are smoothed as a one-hot target is")
def smoothing_soft(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing")
    for case in soft(rng):
        right(subject, replace(case, label_smoothing=0.25), decline=PROBABILITIES)
