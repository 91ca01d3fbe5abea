"""linear: forward mode, second derivatives and compilers of a linear head."""

from __future__ import annotations

from typing import Any

import numpy as np

from xent.conformance.checks.head import (
    Head,
    call,
    drawn,
    exact,
    keywords,
    reduction_of,
    torch_of,
)
from xent.conformance.checks.linear import linear
from xent.conformance.checks.record import BETTER
from xent.conformance.draws import shown
from xent.conformance.expect import near, raised
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject


@linear(
    "jvp",
    1,
    "torch's chunked operator gives a tangent of 0 without a word.",
    "a Function without jvp must raise, not give 0",
    BETTER,
)
def jvp(subject: Subject, rng: Any) -> None:
    torch, head = torch_of(subject), drawn(rng, 5, 4, 6, reduction=reduction_of(subject))
    direction = rng.standard_normal(head.hidden.shape)
    _, leaves = call(subject, head)
    function, target = subject.called(keywords(subject, head)), subject.library.index(head.target)
    weight = leaves["weight"].detach()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(
            leaves["hidden"].detach(), subject.library.array(direction, head.dtype)
        )
        try:
            loss = function(dual, weight, target).sum()
        except Exception as error:  # said aloud: limited, not wrong
            raise NotOffered(f"forward mode ({raised(error)})") from error
        tangent = torch.autograd.forward_ad.unpack_dual(loss).tangent
    true = float(np.sum(exact(head)["hidden"] * direction))
    got = 0.0 if tangent is None else float(tangent)
    if not abs(got - true) <= 1e-3 * abs(true) + 1e-5:
        raise Fault(f"jvp: {head.told()}", f"a tangent of {true:g}", f"{got:g}", ("jvp_zero",))


@linear(
    "create_graph",
    2,
    "A gradient penalty of 0 derivative trains nothing, and says nothing.",
    "a stored gradient is a constant: raise, or recompute",
    BETTER,
)
def create_graph(subject: Subject, rng: Any) -> None:
    head = drawn(rng, 5, 4, 6, reduction=reduction_of(subject))
    torch = torch_of(subject)
    loss, leaves = call(subject, head)
    try:
        (first,) = torch.autograd.grad(loss.sum(), leaves["hidden"], create_graph=True)
    except Exception as error:
        raise NotOffered(f"create_graph ({raised(error)})") from error
    if not first.requires_grad:
        raise Fault(
            f"create_graph: {head.told()}",
            "a gradient that can be differentiated",
            "a detached one, without an error",
            ("gradient_detached",),
        )
    try:
        (second,) = torch.autograd.grad(first.square().sum(), leaves["hidden"], allow_unused=True)
    except Exception as error:
        raise NotOffered(f"a second derivative ({raised(error)})") from error
    step, slopes = 1e-5, np.empty(head.hidden.shape)
    for place in np.ndindex(*head.hidden.shape):
        ends = []
        for move in (step, -step):
            moved = head.hidden.copy()
            moved[place] += move
            ends.append(np.square(exact(Head(**{**vars(head), "hidden": moved}))["hidden"]).sum())
        slopes[place] = (ends[0] - ends[1]) / (2 * step)
    got = np.zeros(1) if second is None else subject.library.values(second)
    if not near(got, slopes, (1e-3, 1e-4)):
        raise Fault(
            f"create_graph: {head.told()}", shown(slopes), shown(got), ("second_derivative_zero",)
        )


@linear(
    "compile",
    3,
    "torch.compile has made fused losses silently wrong where rows are ignored.",
    "host reads of a count inside the forward",
)
def compiled(subject: Subject, rng: Any) -> None:
    torch = torch_of(subject)
    head = drawn(rng, 12, 5, 7, reduction=reduction_of(subject))
    if subject.offers("ignore_index"):
        target = np.where(np.arange(12) % 3 == 0, -100, head.target)
        head = Head(**{**vars(head), "target": target, "options": (("ignore_index", -100),)})
    function = subject.called(keywords(subject, head))
    array, target = subject.library.array, subject.library.index(head.target)
    hidden = array(head.hidden, head.dtype).requires_grad_()
    weight = array(head.weight, head.dtype).requires_grad_()
    torch._dynamo.reset()
    try:
        made = torch.compile(lambda h, w: function(h, w, target), backend="aot_eager")
        loss = made(hidden, weight)
        got = torch.autograd.grad(loss.sum(), [hidden, weight])
    except Exception as error:
        raise Fault(
            f"torch.compile: {head.told()}", "a loss", raised(error), ("not_transformable",)
        ) from error
    true = exact(head)
    for name, value in (("loss", loss), ("hidden", got[0]), ("weight", got[1])):
        if not near(subject.library.values(value), true[name], (2e-4, 2e-5)):
            told = f"{name} {shown(true[name])}"
            raise Fault(f"torch.compile: {head.told()}", told, shown(subject.library.values(value)))
