"""shape: batches of any shape, and results of the shape that goes with them."""

from __future__ import annotations

from collections.abc import Iterator
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
    "shape.no_classes",
    4,
    "A vocabulary that a filter has emptied.",
    "torch's mean of probabilities of no class is nan: it is divided by N V / V",
)
def no_classes(subject: Subject, rng: Any) -> None:
    case = Case(np.zeros((2, 0)), np.zeros((2, 0)))
    if not subject.offers("reduction") and subject.natural != "mean":
        raise NotOffered("a mean")
    right(subject, case, decline="no classes", flaws=("empty_mean",))


@check(
    "shape.layout",
    1,
    "Logits arrive transposed, sliced or expanded; memory order is not the caller's concern.",
    "strides are not what you take them for",
)
def layout(subject: Subject, rng: Any) -> None:
    if subject.library.name not in ("torch", "numpy") or subject.adapter.kind in ("layer", "pair"):
        raise NotOffered("arrays with strides")
    cases = []
    for reduction in dict.fromkeys((natural(subject), reductions(subject)[0])):
        cases += draws.plain(rng, ((2, 3), (5, 33)), reduction=reduction)
        if not subject.linear:
            target = rng.integers(0, 3, (2, 4, 3))
            cases.append(Case(draws.logits(rng, 2, 3, 4, 3), target, reduction=reduction))
    for case in cases:
        case = replace(case, dtype=subject.best)
        function = subject.native(subject.keywords(case))
        _, target = subject.arrays(case)
        for name, view in views(subject, case):
            try:
                found = subject.library.vjp(lambda x, f=function, t=target: f(x, t), [view], None)
            except Exception as error:
                if case.logits.ndim > 2:
                    continue  # shape.image tells whether it takes such logits at all
                told = expect.raised(error)
                raise Fault(f"{name} {case.told()}", "a loss", told) from error
            slope = None if found[1][0] is None else subject.library.values(found[1][0])
            got = {"loss": subject.library.values(found[0]), "dlogits": slope}
            unlike(case, name, got)


def views(subject: Subject, case: Case) -> Iterator[tuple[str, Any]]:
    """The logits of a case in other orders of memory."""
    last = tuple(reversed(range(case.logits.ndim)))
    turned = subject.library.array(np.ascontiguousarray(case.logits.transpose(last)), case.dtype)
    swapped = (0, *reversed(range(1, case.logits.ndim)))
    inner = subject.library.array(np.ascontiguousarray(case.logits.transpose(swapped)), case.dtype)
    wide = subject.library.array(np.repeat(np.repeat(case.logits, 2, 1), 2, 0), case.dtype)
    torch = subject.library.name == "torch"
    yield "transposed", turned.permute(last) if torch else turned.transpose(last)
    if case.logits.ndim > 2:
        yield "inner axes turned", inner.permute(swapped) if torch else inner.transpose(swapped)
    yield "strided", wide[::2, ::2]


def unlike(case: Case, name: str, got: dict[str, Any]) -> None:
    exact = expect.expected(case, BOTH)
    for quantity, value in got.items():
        if value is None:
            continue
        if not expect.near(value, exact[quantity], expect.TOLERANCE[case.dtype]):
            told = f"{expect.TITLES[quantity]} {draws.shown(exact[quantity])}"
            raise Fault(f"{name} {case.told()}", told, draws.shown(value))
