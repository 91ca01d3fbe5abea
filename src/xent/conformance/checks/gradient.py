"""gradient: what flows back is the derivative of the loss, for every option and upstream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws, expect
from xent.conformance.checks.record import check
from xent.conformance.checks.value import PROBABILITIES, natural, soft
from xent.conformance.draws import Case
from xent.conformance.expect import GRADIENT, right
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

WRONG = "The model is trained by the gradient alone: a wrong one is not seen in the loss."
UPSTREAM = "A loss scaler, gradient accumulation and a sum of losses all have an upstream that is "
UPSTREAM += "not 1."


def up(case: Case, rng: Any) -> Case:
    """With an upstream: a number, or one for each row."""
    if case.reduction != "none":
        return replace(case, upstream=float(rng.choice([2.5, -0.75, 0.375])))
    return replace(case, upstream=rng.permutation(np.arange(1, len(case.logits) + 1)) * 0.75 - 2.5)


@check("gradient.mean", 1, WRONG, "(softmax - one_hot) / N")
def mean(subject: Subject, rng: Any) -> None:
    right(subject, draws.plain(rng), GRADIENT)


@check("gradient.sum", 1, WRONG, "softmax - one_hot")
def total(subject: Subject, rng: Any) -> None:
    right(subject, draws.plain(rng, reduction="sum"), GRADIENT)


@check("gradient.upstream", 1, UPSTREAM, "multiply by the upstream")
def upstream(subject: Subject, rng: Any) -> None:
    reduction = "mean" if subject.offers("reduction") else subject.natural
    for case in draws.plain(rng, draws.SIZES[1:], reduction=reduction):
        right(subject, up(case, rng), GRADIENT)


@check("gradient.upstream_rows", 1, UPSTREAM, "row i is times upstream[i]")
def upstream_rows(subject: Subject, rng: Any) -> None:
    for case in draws.plain(rng, reduction="none"):
        right(subject, up(case, rng), GRADIENT)


@check(
    "gradient.square_batch",
    1,
    "As many rows as classes, and an (N,) array broadcasts along the wrong axis without an error.",
    "(N,) * (N, V) multiplies columns: write upstream[:, None]",
)
def square_batch(subject: Subject, rng: Any) -> None:
    reduction = natural(subject)
    for case in draws.plain(rng, ((2, 2), (3, 3), (5, 5)), reduction=reduction):
        right(subject, up(case, rng), GRADIENT)


@check(
    "gradient.absent_class",
    1,
    "A small batch lacks classes, the last one among them.",
    "one_hot(target) without the number of classes has too few columns",
)
def absent_class(subject: Subject, rng: Any) -> None:
    for case in draws.plain(rng, ((2, 3), (4, 5)), reduction=natural(subject)):
        for label in (0, 1):
            right(subject, replace(case, target=np.full(len(case.target), label)), GRADIENT)


@check("gradient.weight", 1, WRONG, "each row is times weight[target], over the weights used")
def weight(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    for reduction in reductions(subject):
        for case in draws.plain(rng, draws.SIZES[1:], reduction=reduction):
            right(subject, draws.weighted(case, rng), GRADIENT)


def reductions(subject: Subject) -> tuple[str, ...]:
    return ("mean", "sum") if subject.offers("reduction") else (subject.natural,)


@check(
    "gradient.ignore", 1, "Padding must not move the model.", "the gradient of ignored rows is 0"
)
def ignore(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for reduction in reductions(subject):
        for value in (-100, 1):
            for case in draws.plain(rng, draws.SIZES[1:], reduction=reduction):
                right(subject, draws.ignoring(case, rng, value), GRADIENT)


@check(
    "gradient.ignored_column",
    1,
    "The rows of one class get no gradient at all, and that class is never learnt.",
    "zero the ignored rows, not the column of class ignore_index",
)
def ignored_column(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for rows, classes, value in ((2, 3, -1), (3, 4, -2), (2, 101, -100), (2, 102, -100)):
        for case in draws.plain(rng, ((rows, classes),), reduction=reductions(subject)[0]):
            target = case.target.copy()
            target[0] = classes + value if classes + value >= 0 else 0
            right(subject, replace(case, target=target, ignore_index=value), GRADIENT)


@check(
    "gradient.all_ignored",
    1,
    "A batch that is all padding must not turn every weight into nan.",
    "0 / 0 in backward: the gradient of no rows is 0",
)
def all_ignored(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for reduction in reductions(subject):
        for case in draws.plain(rng, ((2, 3),), reduction=reduction):
            case = replace(case, target=np.full(2, -100), ignore_index=-100)
            right(subject, case, GRADIENT, flaws=("empty_gradient",))


@check("gradient.smoothing", 2, WRONG, "softmax - ((1 - label_smoothing) one_hot + smoothing / V)")
def smoothing(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing")
    for case in draws.plain(rng, draws.SIZES[1:], reduction=reductions(subject)[0]):
        right(subject, replace(case, label_smoothing=0.25), GRADIENT)


@check("gradient.smoothing_weight", 2, WRONG, "sum(w q) softmax - w q, over sum w[target]")
def smoothing_weight(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing", "weight")
    for case in draws.plain(rng, draws.SIZES[1:], reduction=reductions(subject)[0]):
        case = draws.weighted(case, rng)
        if subject.offers("ignore_index") and len(case.target) > 2:
            case = draws.ignoring(case, rng)
        right(subject, replace(case, label_smoothing=0.25), GRADIENT)


@check("gradient.soft_target", 2, WRONG, "softmax - target")
def soft_target(subject: Subject, rng: Any) -> None:
    for case in soft(rng, reduction=natural(subject)):
        right(subject, case, GRADIENT, decline=PROBABILITIES)


@check("gradient.soft_mass", 2, WRONG, "sum(target) softmax - target")
def soft_mass(subject: Subject, rng: Any) -> None:
    for case in soft(rng, reduction=natural(subject)):
        case = replace(case, target=case.target * 2)
        right(subject, case, GRADIENT, decline=PROBABILITIES)


@check(
    "gradient.by_target",
    3,
    "Learnt targets (distillation, meta-learning) need the derivative by the probabilities.",
    "d loss / d target = -log softmax",
)
def by_target(subject: Subject, rng: Any) -> None:
    if not subject.library.differentiates:
        raise NotOffered("no gradient")
    for case in soft(rng, reduction=natural(subject)):
        case = replace(case, dtype=subject.best)
        outcome = expect.run(subject, case, "a gradient by the target", by_target=True)
        if outcome.dtarget is None:
            raise NotOffered("a gradient by the target")
        exact = expect.expected(case, ("dtarget",))["dtarget"]
        if not expect.near(outcome.dtarget, exact, expect.TOLERANCE[case.dtype]):
            told = f"a target gradient of {draws.shown(exact)}"
            raise Fault(case.told(), told, draws.shown(outcome.dtarget))


@check("gradient.extra_axes", 2, WRONG, "the classes are axis 1 in backward too")
def extra_axes(subject: Subject, rng: Any) -> None:
    for case in positions(rng, reductions(subject)[0]):
        right(subject, case, GRADIENT, decline="logits of shape (N, V, d)")


def positions(rng: Any, reduction: str) -> Iterator[Case]:
    """Logits (N, V, d): a class for each position."""
    for rows, classes, places in ((2, 2, 2), (2, 3, 2), (2, 3, 3), (3, 4, 5)):
        target = rng.integers(0, classes, (rows, places))
        yield Case(draws.logits(rng, rows, classes, places), target, reduction=reduction)


@check(
    "gradient.of_own_loss",
    1,
    "A hand-written backward and a forward that drift apart train towards another loss.",
    "backward is not the derivative of what forward computes",
)
def of_own_loss(subject: Subject, rng: Any) -> None:
    """Against differences of the implementation's own loss, whatever that is."""
    if subject.best != "float64":
        raise NotOffered("float64, which differences need")
    reduction = reductions(subject)[0]
    for case in draws.plain(rng, ((2, 3), (3, 4)), reduction=reduction):
        outcome = expect.run(subject, case)
        if outcome.dlogits is None:
            expect.without_gradient(subject, case)
            return
        step, slopes = 2.0**-17, np.empty(case.logits.shape)
        for place in np.ndindex(*case.logits.shape):
            ends = []
            for move in (step, -step):
                moved = case.logits.copy()
                moved[place] += move
                ends.append(subject.run(replace(case, logits=moved)).loss.sum())
            slopes[place] = (ends[0] - ends[1]) / (2 * step)
        if not expect.near(outcome.dlogits, slopes, (1e-6, 1e-7)):
            exact = expect.expected(case, ("loss", "dlogits"))
            known = {"loss": outcome.loss, "dlogits": outcome.dlogits}
            wrong = [n for n in exact if not expect.near(known[n], exact[n], (1e-9, 1e-12))]
            flaws = expect.causes.matching(case, known, wrong) or ("own_difference",)
            told = f"the slopes of its own loss, {draws.shown(slopes)}"
            raise Fault(case.told(), told, draws.shown(outcome.dlogits), flaws)
