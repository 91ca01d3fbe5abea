"""bad: what is no valid call is refused, never answered with a number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws
from xent.conformance.checks.gradient import reductions
from xent.conformance.checks.record import BETTER, check
from xent.conformance.checks.value import PROBABILITIES, natural, soft
from xent.conformance.draws import Case
from xent.conformance.expect import LOSS, TOLERANCE, expected, near, refuses, right, run
from xent.conformance.findings import Fault, NotOffered, raised
from xent.conformance.subject import Subject

LABELS = "A label of another data set, or padding: the model learns from garbage and says nothing."
SHAPES = "A wrong shape broadcasts, and the loss falls all the same."


def labelled(subject: Subject, rng: Any, label: int, **more: Any) -> Case:
    """Two rows of three classes, one with that label."""
    if subject.one_hot:
        raise NotOffered("class indices")
    (case,) = draws.plain(rng, ((2, 3),), reduction=natural(subject), **more)
    return replace(case, target=np.array([1, label]))


@check("bad.target_too_large", 1, LABELS, "check target < V before looking it up")
def target_too_large(subject: Subject, rng: Any) -> None:
    for label in (3, 7):
        refuses(
            subject, labelled(subject, rng, label), f"a target of {label}", ("label_unchecked",)
        )


@check("bad.target_negative", 1, LABELS, "a negative index counts from the end")
def target_negative(subject: Subject, rng: Any) -> None:
    for label in (-1, -2):
        case = labelled(subject, rng, label)
        try:
            refuses(subject, case, f"a target of {label}", ("label_unchecked",))
        except Fault as fault:
            fault.flaws = taken_for(subject, case, label)
            raise


def taken_for(subject: Subject, case: Case, label: int) -> tuple[str, ...]:
    """What a negative label was answered with: another class, or a row that is ignored."""
    case = replace(case, dtype=subject.best)
    loss = subject.run(case).loss
    wrapped = expected(replace(case, target=case.target % 3), LOSS)["loss"]
    ignored = expected(replace(case, ignore_index=label), LOSS)["loss"]
    limit = TOLERANCE[subject.best]
    if near(loss, wrapped, limit):
        return ("label_wraps",)
    return ("stray_label",) if near(loss, ignored, limit) else ("label_unchecked",)


@check("bad.stray_ignored", 2, LABELS, "only the label ignore_index is ignored")
def stray_ignored(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    case = labelled(subject, rng, -100, ignore_index=-1)
    refuses(subject, case, "a target of -100 while ignore_index is -1", ("stray_label",))


@check("bad.error_names_label", 3, LABELS, "write the label into the error")
def error_names_label(subject: Subject, rng: Any) -> None:
    label = int(rng.integers(100, 1000))
    case = labelled(subject, rng, label)
    error = refuses(subject, case, f"a target of {label}", ("label_unchecked",))
    if str(label) not in str(error):
        raise Fault(case.told(), f"an error that names {label}", raised(error))


@check(
    "bad.error_names_row",
    4,
    "Among a million labels one is bad: its row is what one looks for.",
    "write the row into the error",
    BETTER,
)
def error_names_row(subject: Subject, rng: Any) -> None:
    if subject.one_hot:
        raise NotOffered("class indices")
    (case,) = draws.plain(rng, ((60, 3),), reduction=natural(subject))
    row = int(rng.integers(30, 60))
    target = case.target.copy()
    target[row] = 999
    error = refuses(subject, replace(case, target=target), "a target of 999", ("label_unchecked",))
    if str(row) not in str(error):
        raise Fault(
            f"60 rows, target[{row}] = 999", f"an error that names row {row}", raised(error)
        )


@check("bad.target_length", 1, SHAPES, "compare the number of targets with the number of rows")
def target_length(subject: Subject, rng: Any) -> None:
    for rows in (1, 3):
        case = replace(labelled(subject, rng, 0), target=np.ones(rows, int))
        refuses(subject, case, f"{rows} targets for 2 rows", ("broadcasts",))


@check("bad.target_column", 1, SHAPES, "a column of labels, (N, 1), broadcasts against the rows")
def target_column(subject: Subject, rng: Any) -> None:
    case = replace(labelled(subject, rng, 0), target=np.array([[1], [0]]))
    refuses(subject, case, "a target of shape (2, 1)", ("broadcasts",))


@check("bad.one_hot_integers", 2, SHAPES, "integers in the shape of the logits are no labels")
def one_hot_integers(subject: Subject, rng: Any) -> None:
    case = replace(labelled(subject, rng, 0), target=np.array([[0, 1, 0], [1, 0, 0]]))
    try:
        refuses(subject, case, "an integer one-hot target", ("broadcasts",))
    except Fault:
        soft = replace(case, target=case.target.astype(float), dtype=subject.best)
        right(subject, soft, LOSS)  # it may take them for probabilities
        value = subject.run(replace(case, dtype=subject.best)).loss
        if not np.allclose(value, subject.run(soft).loss):
            raise


@check("bad.float_labels", 2, LABELS, "1.7 is no class")
def float_labels(subject: Subject, rng: Any) -> None:
    case = replace(labelled(subject, rng, 0), target=np.array([1.7, 0.2]))
    refuses(subject, case, "a floating target of shape (2,)", ("truncates_labels",))


@check("bad.integer_logits", 3, SHAPES, "integer logits are a target in the wrong place")
def integer_logits(subject: Subject, rng: Any) -> None:
    case = replace(
        labelled(subject, rng, 0), dtype="int64", logits=np.array([[1, 2, 3], [3, 2, 1]])
    )
    if subject.library.name not in ("torch", "numpy") or subject.adapter.kind != "function":
        raise NotOffered("integer logits")
    try:
        loss = subject.native(subject.keywords(case))(*subject.arrays(case))
    except Exception:  # refused: that is right
        return
    exact = float(np.asarray(subject.library.values(loss)).reshape(-1)[0])
    floating = replace(case, dtype=subject.best, logits=case.logits * 1.0)
    meant = float(subject.run(floating).loss.reshape(-1)[0])
    if not np.isclose(exact, meant, rtol=1e-5):
        raise Fault(case.told(), f"an error, or {meant:g}", f"{exact:g}", ("another_dtype",))


@check("bad.reduction", 2, "A typing error must not train by another loss.", "raise ValueError")
def reduction(subject: Subject, rng: Any) -> None:
    subject.need("reduction")
    case = replace(labelled(subject, rng, 0), reduction="avg")
    refuses(subject, case, "a reduction named 'avg'", ("unknown_reduction",))


@check("bad.weight_length", 2, SHAPES, "one weight for each class")
def weight_length(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    for classes in (2, 4):
        case = replace(labelled(subject, rng, 0), weight=np.ones(classes))
        refuses(subject, case, f"{classes} weights for 3 classes", ("unchecked_weight",))


@check("bad.smoothing_above_1", 3, "A percentage taken for a share.", "check 0 <= s <= 1")
def smoothing_above_1(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing")
    case = replace(labelled(subject, rng, 0), label_smoothing=10.0)
    refuses(subject, case, "label_smoothing of 10", ("unchecked_smoothing",))


@check("bad.smoothing_below_0", 4, "A sign lost in a sweep.", "check 0 <= s <= 1", BETTER)
def smoothing_below_0(subject: Subject, rng: Any) -> None:
    subject.need("label_smoothing")
    for amount in (-0.1, float("nan")):
        case = replace(labelled(subject, rng, 0), label_smoothing=amount)
        error = refuses(subject, case, f"label_smoothing of {amount}", ("unchecked_smoothing",))
        if "smoothing" not in str(error):
            told = "an error that names label_smoothing"
            raise Fault(case.told(), told, raised(error), ("unchecked_smoothing",))


@check(
    "bad.ignored_probabilities",
    3,
    "ignore_index does nothing to a target of probabilities: what is meant to be left out is not.",
    "refuse an ignore_index that is a class with a target of probabilities",
)
def ignored_probabilities(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    for reduction in dict.fromkeys((natural(subject), *reductions(subject))):
        (case,) = soft(rng, ((2, 3),), reduction=reduction)
        run(subject, case, PROBABILITIES)
        refuses(subject, replace(case, ignore_index=1), "ignore_index 1 with probabilities")
