"""shape: batches of any shape, and results of the shape that goes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws, expect
from xent.conformance.checks.gradient import positions, reductions
from xent.conformance.checks.record import check
from xent.conformance.checks.value import natural
from xent.conformance.draws import Case
from xent.conformance.expect import BOTH, LOSS, right
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

AXES = "Segmentation and sequences have (N, V, d): the wrong axis gives a number all the same."


@check("shape.extra_axes", 1, AXES, "softmax over axis 1, and a mean over all positions")
def extra_axes(subject: Subject, rng: Any) -> None:
    for case in positions(rng, reductions(subject)[0]):
        right(subject, case, decline="logits of shape (N, V, d)")


@check("shape.image", 2, AXES, "softmax over axis 1 of (N, V, d, e)")
def image(subject: Subject, rng: Any) -> None:
    target = rng.integers(0, 3, (2, 2, 3))
    case = Case(draws.logits(rng, 2, 3, 2, 3), target, reduction=natural(subject))
    right(subject, case, decline="logits of shape (N, V, d, e)")


@check("shape.one_example", 3, "One example is (V,), its target a number.", "the class axis is 0")
def one_example(subject: Subject, rng: Any) -> None:
    for classes in (2, 5):
        case = Case(draws.logits(rng, classes), np.asarray(rng.integers(classes)))
        case = replace(case, reduction=natural(subject))
        right(subject, case, decline="logits of shape (V,)")


@check("shape.one_row", 2, "The last batch of an epoch may have one row.", "do not squeeze")
def one_row(subject: Subject, rng: Any) -> None:
    quantities = BOTH if subject.library.differentiates else LOSS
    right(subject, draws.plain(rng, ((1, 5),), reduction=natural(subject)), quantities)


@check("shape.one_class", 3, "A filter may leave one class.", "the loss of a single class is 0")
def one_class(subject: Subject, rng: Any) -> None:
    case = Case(draws.logits(rng, 3, 1), np.zeros(3, int), reduction=natural(subject))
    right(subject, case, decline="one class")


@check(
    "shape.no_rows",
    3,
    "A shard or a filter may leave no rows: a sum of 0 lets the others go on.",
    "the sum of no rows is 0, their mean nan",
)
def no_rows(subject: Subject, rng: Any) -> None:
    for reduction in reductions(subject):
        case = Case(np.zeros((0, 3)), np.zeros(0, int), reduction=reduction)
        right(subject, case, decline="no rows", flaws=("empty_mean",))


@check(
    "shape.result",
    3,
    "A loss of shape (1,) or (N, 1) broadcasts where it is added to another one.",
    "a mean or a sum has shape (), rows have the target's",
)
def result(subject: Subject, rng: Any) -> None:
    for reduction in (*reductions(subject), *(["none"] if subject.offers("reduction") else [])):
        for case in draws.plain(rng, ((3, 4),), reduction=reduction):
            outcome = expect.run(subject, replace(case, dtype=subject.best))
            shape = (3,) if reduction == "none" else ()
            if outcome.loss.shape != shape:
                told = f"a loss of shape {shape}"
                raise Fault(case.told(), told, str(outcome.loss.shape), ("not_a_scalar",))
            gradient = outcome.dlogits
            if gradient is not None and gradient.shape != (3, 4):
                told = "a gradient of shape (3, 4)"
                raise Fault(case.told(), told, str(gradient.shape), ("not_a_scalar",))


@check(
    "shape.layout",
    1,
    "Logits arrive transposed, sliced or expanded; memory order is not the caller's concern.",
    "strides are not what you take them for",
)
def layout(subject: Subject, rng: Any) -> None:
    if subject.library.name not in ("torch", "numpy") or subject.adapter.kind in ("layer", "pair"):
        raise NotOffered("arrays with strides")
    for rows, classes in ((2, 3), (5, 33)):
        (case,) = draws.plain(rng, ((rows, classes),), reduction=natural(subject))
        case = replace(case, dtype=subject.best)
        given = subject.keywords(case)
        logits, target = subject.arrays(case)
        wide = subject.library.array(np.repeat(np.repeat(case.logits, 2, 1), 2, 0), case.dtype)
        columns = logits.T.copy() if subject.library.name == "numpy" else logits.t().contiguous()
        exact = expect.expected(case, LOSS)["loss"]
        for name, view in (("transposed", columns.T), ("strided", wide[::2, ::2])):
            try:
                loss = subject.library.values(subject.native(given)(view, target))
            except Exception as error:
                told = expect.raised(error)
                raise Fault(f"{name} {case.told()}", "a loss", told) from error
            if not expect.near(loss, exact, expect.TOLERANCE[case.dtype]):
                told = f"a loss of {draws.shown(exact)}"
                raise Fault(f"{name} {case.told()}", told, draws.shown(loss))
