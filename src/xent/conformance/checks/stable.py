"""stable: large, infinite and equal logits give the number that they should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws
from xent.conformance.checks.record import BETTER, check
from xent.conformance.checks.value import PROBABILITIES, natural
from xent.conformance.draws import Case
from xent.conformance.expect import BOTH, GRADIENT, LOSS, right
from xent.conformance.subject import Subject

BLOWS = "Logits of a few hundred are reached in any diverging or confident step: one nan ends it."
MASK = "Masked classes have a logit of -inf: constrained decoding, padded vocabularies."


def rows_of(subject: Subject, logits: Sequence[Any], target: Sequence[int], **more: Any) -> Case:
    return Case(np.array(logits, float), np.array(target), reduction=natural(subject), **more)


@check("stable.overflow", 1, BLOWS, "subtract the row's maximum before exp")
def overflow(subject: Subject, rng: Any) -> None:
    for size in (100.0, 1000.0, 5000.0):
        shift = float(rng.integers(0, 50))
        right(subject, rows_of(subject, [[size + shift, 0.0]], [1]))
        right(subject, rows_of(subject, [[size + shift, 0.0]], [0]))


@check("stable.underflow", 1, BLOWS, "log(softmax) is -inf where softmax underflows")
def underflow(subject: Subject, rng: Any) -> None:
    for gap in (200.0, 800.0, 2000.0):
        right(subject, rows_of(subject, [[0.0, gap + float(rng.integers(50))]], [0]))


@check("stable.underflow_float32", 1, BLOWS, "log(softmax) loses digits from a gap of 88 on")
def underflow_float32(subject: Subject, rng: Any) -> None:
    for gap in (95.0, 100.0, 103.0, 200.0):
        right(subject, rows_of(subject, [[0.0, gap]], [0], dtype="float32"), decline="float32")


@check("stable.underflow_gradient", 1, BLOWS, "0 * inf in backward: softmax - one_hot has neither")
def underflow_gradient(subject: Subject, rng: Any) -> None:
    for gap in (200.0, 800.0, 2000.0):
        right(subject, rows_of(subject, [[0.0, gap + float(rng.integers(50))]], [0]), GRADIENT)


@check("stable.very_negative", 1, BLOWS, "all exponentials are 0: subtract the row's maximum")
def very_negative(subject: Subject, rng: Any) -> None:
    for size in (200.0, 1000.0):
        low = -size - float(rng.integers(50))
        right(subject, rows_of(subject, [[low, low - 1.0]], [0]))


@check("stable.shift", 2, "A bias shared by all classes changes nothing.", "(max - x_t) + log(s)")
def shift(subject: Subject, rng: Any) -> None:
    for offset in (1e4, -1e7, 1e8):
        case = rows_of(subject, [[offset, offset + 1, offset + 2]], [int(rng.integers(3))])
        right(subject, case, tolerance=(1e-6, 1e-7))


@check("stable.shift_float32", 2, "In float32 an offset of 10,000 takes 4 digits.", "(max - x_t)")
def shift_float32(subject: Subject, rng: Any) -> None:
    for offset in (1e4, 1e6):
        case = rows_of(subject, [[offset, offset, offset]], [int(rng.integers(3))], dtype="float32")
        right(subject, case, decline="float32")


@check(
    "stable.rows_apart",
    1,
    "One row of large logits must not blind the rest of its batch.",
    "the maximum is the row's, not the batch's",
)
def rows_apart(subject: Subject, rng: Any) -> None:
    for size in (1000.0, 5000.0):
        logits = np.concatenate([[[size, size - 1]], draws.logits(rng, 2, 2)])
        right(subject, rows_of(subject, logits.tolist(), [1, 0, 1]))


@check("stable.masked_class", 1, MASK, "0 * -inf is nan: pick the target's entry instead")
def masked_class(subject: Subject, rng: Any) -> None:
    for logits in ([[1.0, 2.0, -np.inf]], [[-np.inf, 0.5, 1.0]]):
        right(subject, rows_of(subject, logits, [1]))


@check("stable.masked_gradient", 1, MASK, "the gradient of a masked class is 0, of others as ever")
def masked_gradient(subject: Subject, rng: Any) -> None:
    right(subject, rows_of(subject, [[1.0, 2.0, -np.inf]], [0]), GRADIENT)


@check("stable.masked_target", 3, MASK, "the loss of a masked target is inf")
def masked_target(subject: Subject, rng: Any) -> None:
    right(subject, rows_of(subject, [[1.0, 2.0, -np.inf]], [2]))


@check("stable.nan", 1, "nan must be seen where it arises.", "max and where can drop nan")
def nan(subject: Subject, rng: Any) -> None:
    for logits in ([[1.0, np.nan, 0.5]], [[np.nan, 1.0, 0.5]]):
        for target in (0, 1):
            right(subject, rows_of(subject, logits, [target]), flaws=("hides_nan",))


@check(
    "stable.infinite",
    2,
    "A logit that has overflowed is no certainty.",
    "inf - inf is nan: a row with a logit of +inf, or of -inf alone, has no softmax",
)
def infinite(subject: Subject, rng: Any) -> None:
    for logits in ([[np.inf, 1.0, 0.5]], [[1.0, np.inf, 0.5]], [[-np.inf, -np.inf]]):
        for target in (0, 1):
            right(subject, rows_of(subject, logits, [target]), flaws=("hides_nan",))


@check(
    "stable.ignored_nan",
    2,
    "Padded positions hold whatever was in memory.",
    "nan * 0 is nan: where, not a product",
)
def ignored_nan(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    case = rows_of(subject, [[np.nan, 1.0, np.inf], [1.0, 2.0, 0.5]], [-100, 1], ignore_index=-100)
    right(subject, case, LOSS, flaws=("ignored_nan",))


@check(
    "stable.ignored_nan_gradient",
    3,
    "An ignored row that holds nan turns every weight of the model into nan.",
    "zero the row's gradient by where, not by a product",
    BETTER,
)
def ignored_nan_gradient(subject: Subject, rng: Any) -> None:
    subject.need("ignore_index")
    case = rows_of(subject, [[np.nan, 1.0, np.inf], [1.0, 2.0, 0.5]], [-100, 1], ignore_index=-100)
    right(subject, case, GRADIENT, flaws=("ignored_nan",))


@check("stable.soft_masked", 3, MASK, "a probability of 0 contributes 0: 0 * -inf is nan", BETTER)
def soft_masked(subject: Subject, rng: Any) -> None:
    case = rows_of(subject, [[1.0, 2.0, -np.inf]], [0])
    case = replace(case, target=np.array([[0.5, 0.5, 0.0]]))
    right(subject, case, decline=PROBABILITIES, flaws=("zero_times_infinity",))


@check("stable.huge", 3, "Differences of huge logits stay finite.", "x - max, never x + lse")
def huge(subject: Subject, rng: Any) -> None:
    quantities = BOTH if subject.library.differentiates else LOSS
    right(
        subject,
        rows_of(subject, [[3e38, 3e38]], [0], dtype="float32"),
        quantities,
        decline="float32",
    )
