"""options: z-loss, softcap, logit scale and a given divisor, which torch has not, by definition.

With z = softcap tanh(logit_scale x / softcap) in place of the logits x, the loss of a row is
-log softmax(z)[target] + z_loss w[target] lse(z)^2; `normalizer` divides the sum of the rows in
place of the mean's own divisor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from xent.conformance import draws, expect
from xent.conformance.checks.accuracy import of_rows, within
from xent.conformance.checks.calls import torch_alone
from xent.conformance.checks.gradient import positions, reductions, up
from xent.conformance.checks.record import BETTER, check
from xent.conformance.checks.value import PROBABILITIES, natural, soft
from xent.conformance.draws import MORE, SIZES, Case
from xent.conformance.expect import BOTH, LOSS, refuses, right
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

DRIFT = "A z-loss keeps lse near 0; wrong, it pulls the model somewhere else."
CAP = "A model trained with capped logits is another model without them."
SCALE = "The scale is the inverse temperature: it is in the loss, and once more in the gradient."
DIVISOR = "Gradient accumulation divides by the tokens of all parts: with another divisor short "
DIVISOR += "parts weigh more."
TOGETHER = "Options that are right one by one can be put together in the wrong order."


def with_each(case: Case, subject: Subject, names: tuple[str, ...] = MORE) -> Case:
    """With those of the options that it takes."""
    values = {"z_loss": 0.125, "softcap": 2.5, "logit_scale": 0.75, "normalizer": 5.5}
    asked = [n for n in names if subject.offers(n) and (n != "normalizer" or means(case))]
    return replace(case, **{name: values[name] for name in asked})


def means(case: Case) -> bool:
    return case.reduction == "mean"


def two_or_more(subject: Subject) -> None:
    taken = [name for name in MORE if subject.offers(name)]
    if len(taken) < 2:
        raise NotOffered("two of z_loss, softcap, logit_scale and normalizer")


def drawn(subject: Subject, rng: Any, option: str, *values: float) -> Iterator[Case]:
    """Rows with an option, smoothed and with ignored rows where it takes these too."""
    subject.need(option)
    for value in values:
        for reduction in reductions(subject):
            for case in draws.plain(rng, ((2, 3), (4, 3)), reduction=reduction):
                case = replace(case, **{option: value})
                yield up(case, rng)
                if subject.offers("label_smoothing"):
                    yield replace(case, label_smoothing=0.25)
                if subject.offers("ignore_index"):
                    yield draws.ignoring(case, rng)


@check("options.z_loss", 1, DRIFT, "loss + z_loss * lse^2 for every row that takes part")
def z_loss(subject: Subject, rng: Any) -> None:
    right(subject, drawn(subject, rng, "z_loss", 0.25, 1e-3))


@check("options.z_loss_gradient", 1, DRIFT, "2 z_loss lse softmax is added to the row's gradient")
def z_loss_gradient(subject: Subject, rng: Any) -> None:
    right(subject, drawn(subject, rng, "z_loss", 0.25, 1e-3), BOTH)


@check(
    "options.z_loss_weight",
    4,
    "With class weights a mean divides by them: a z-loss without its row's is scaled by the batch.",
    "z_loss * weight[target] * lse^2",
    BETTER,
)
def z_loss_weight(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    for case in drawn(subject, rng, "z_loss", 0.25):
        right(subject, draws.weighted(case, rng), BOTH)


@check("options.softcap", 1, CAP, "softcap * tanh(x / softcap), before the softmax")
def softcap(subject: Subject, rng: Any) -> None:
    right(subject, drawn(subject, rng, "softcap", 1.5, 30.0))


@check("options.softcap_gradient", 1, CAP, "times 1 - tanh(x / softcap)^2")
def softcap_gradient(subject: Subject, rng: Any) -> None:
    right(subject, drawn(subject, rng, "softcap", 1.5, 30.0), BOTH)


@check(
    "options.softcap_large",
    2,
    "What is far beyond the cap is why there is one.",
    "exp(-2 |x|) instead of cosh: 1 / cosh(1e4)^2 overflows",
)
def softcap_large(subject: Subject, rng: Any) -> None:
    subject.need("softcap")
    for size in (100.0, 1e4):
        logits = np.array([[size, -size, 1.0 + float(rng.integers(8)) / 8]])
        for target in (0, 1, 2):
            case = Case(logits, np.array([target]), reduction=natural(subject), softcap=30.0)
            right(subject, case, BOTH)


@check("options.logit_scale", 1, SCALE, "softmax(logit_scale * x)")
def logit_scale(subject: Subject, rng: Any) -> None:
    right(subject, drawn(subject, rng, "logit_scale", 0.625, 3.0))


@check("options.logit_scale_gradient", 1, SCALE, "times logit_scale")
def logit_scale_gradient(subject: Subject, rng: Any) -> None:
    right(subject, drawn(subject, rng, "logit_scale", 0.625, 3.0), BOTH)


@check(
    "options.capped_scale",
    1,
    TOGETHER,
    "softcap * tanh(logit_scale * x / softcap): scaled, then capped",
)
def capped_scale(subject: Subject, rng: Any) -> None:
    subject.need("softcap", "logit_scale")
    for case in drawn(subject, rng, "softcap", 1.5):
        right(subject, replace(case, logit_scale=0.625), BOTH)


@check(
    "options.scale_accuracy",
    3,
    "A scaled logit is rounded again: half a unit of a logit of 50 is 16 of its exponential.",
    "scale the difference from the maximum, and keep what rounding takes of it",
    BETTER,
)
def scale_accuracy(subject: Subject, rng: Any) -> None:
    subject.need("logit_scale")
    for dtype in ("float32", subject.best):
        logits = draws.rounded(rng.uniform(-50, 50, (3, 100)), dtype)
        case = Case(logits, rng.integers(0, 100, 3), reduction="none", dtype=dtype, logit_scale=0.7)
        within(subject, of_rows(subject, case), gradient=16, flaws=("low_precision_exp",))


@check("options.normalizer", 1, DIVISOR, "the sum over the rows / normalizer")
def normalizer(subject: Subject, rng: Any) -> None:
    if not subject.offers("reduction") and subject.natural != "mean":
        raise NotOffered("a mean")
    for case in drawn(subject, rng, "normalizer", 5.5, 64.0):
        if means(case):
            right(subject, case, BOTH)
            if subject.offers("weight"):
                right(subject, draws.weighted(case, rng), BOTH)


@check(
    "options.normalizer_ignored",
    3,
    "A part of a batch may be all padding: its share of the sum is 0, not nan.",
    "0 / normalizer is 0",
)
def normalizer_ignored(subject: Subject, rng: Any) -> None:
    subject.need("normalizer", "ignore_index")
    for case in draws.plain(rng, ((2, 3),)):
        case = replace(case, target=np.full(2, -100), ignore_index=-100, normalizer=8.0)
        right(subject, case, BOTH, flaws=("empty_mean",))


@check(
    "options.normalizer_refused",
    4,
    "A divisor that is passed and not used is a mean that is not there.",
    "a sum and a loss of rows have no divisor: refuse normalizer with them",
    BETTER,
)
def normalizer_refused(subject: Subject, rng: Any) -> None:
    subject.need("normalizer", "reduction")
    (case,) = draws.plain(rng, ((2, 3),))
    for reduction in ("sum", "none"):
        refused = replace(case, reduction=reduction, normalizer=4.0)
        refuses(subject, refused, f"a normalizer of a {reduction}", ("normalizer_not_used",))


@check("options.together", 2, TOGETHER, "one formula: scale, cap, loss, z-loss, divisor")
def together(subject: Subject, rng: Any) -> None:
    two_or_more(subject)
    for reduction in reductions(subject):
        for case in draws.plain(rng, SIZES[1:], reduction=reduction):
            case = with_each(case, subject)
            if subject.offers("label_smoothing"):
                case = replace(case, label_smoothing=0.25)
            if subject.offers("ignore_index"):
                case = draws.ignoring(case, rng)
            right(subject, up(case, rng), BOTH)


@check("options.rows", 2, TOGETHER, "a row's upstream is a factor of all that its loss is made of")
def rows(subject: Subject, rng: Any) -> None:
    two_or_more(subject)
    for case in draws.plain(rng, SIZES[1:], reduction="none"):
        right(subject, up(with_each(case, subject), rng), BOTH)


@check("options.axes", 2, TOGETHER, "options of (N, V, d) act at every position")
def axes(subject: Subject, rng: Any) -> None:
    two_or_more(subject)
    for case in positions(rng, reductions(subject)[0]):
        right(subject, with_each(case, subject), BOTH, decline="logits of shape (N, V, d)")


@check("options.soft_target", 3, TOGETHER, "probabilities take the same options as classes")
def soft_target(subject: Subject, rng: Any) -> None:
    two_or_more(subject)
    for case in soft(rng, reduction=reductions(subject)[0]):
        case = with_each(case, subject)
        if subject.offers("label_smoothing"):
            case = replace(case, label_smoothing=0.25)
        right(subject, case, BOTH, decline=PROBABILITIES)


@check("options.half", 2, "Options run in mixed precision.", "compute in float32, round once")
def half(subject: Subject, rng: Any) -> None:
    two_or_more(subject)
    quantities = BOTH if subject.library.differentiates else LOSS
    for dtype in ("float16", "bfloat16"):
        for case in draws.plain(rng, ((3, 5),), reduction=natural(subject), dtype=dtype):
            right(subject, with_each(case, subject), quantities, decline=dtype)


@check(
    "options.derivatives",
    3,
    "A penalty on the gradient needs the options in the second derivative and in forward mode.",
    "derivatives of the options are left out, or refused",
    BETTER,
)
def derivatives(subject: Subject, rng: Any) -> None:
    torch = torch_alone(subject)
    two_or_more(subject)
    if subject.best != "float64":
        raise NotOffered("float64")
    (case,) = draws.plain(rng, ((2, 3),), reduction=reductions(subject)[0])
    case = with_each(case, subject)
    logits, target = subject.arrays(case)
    function = subject.native(subject.keywords(case))
    loss = lambda x: function(x, target).sum()  # noqa: E731
    # The second backward may recompute what the first was handed: its last digit is another.
    again = {"nondet_tol": 1e-12}
    gradcheck = partial(torch.autograd.gradcheck, **again)
    gradgradcheck = partial(torch.autograd.gradgradcheck, **again)
    leaf = (logits.requires_grad_(),)
    for name, flaw, work in (
        ("gradcheck", "own_difference", lambda: gradcheck(loss, leaf, check_forward_ad=True)),
        ("gradgradcheck", "second_derivative_zero", lambda: gradgradcheck(loss, leaf)),
    ):
        try:
            work()
        except Exception as error:
            told = expect.raised(error)
            raise Fault(f"{name}: {case.told()}", "the same slopes", told, (flaw,)) from error
