"""calls: nothing passed is changed, calls do not see each other, and the same gives the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws, expect
from xent.conformance.checks.record import check
from xent.conformance.checks.value import natural
from xent.conformance.draws import Case, shown
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject

HANDS_OFF = "The caller's arrays are used again: by another loss, a metric, the next step."
AGAIN = "Two batches in flight, gradient accumulation, retain_graph: calls must not share state."


def case_of(subject: Subject, rng: Any, **more: Any) -> Case:
    (case,) = draws.plain(rng, ((3, 4),), reduction=natural(subject), **more)
    return replace(case, dtype=subject.best)


def torch_alone(subject: Subject) -> Any:
    """torch, where the subject computes with it."""
    if subject.library.name != "torch" or subject.adapter.kind not in ("function", "class"):
        raise NotOffered("torch tensors")
    return subject.library.torch


@check("calls.keeps_logits", 1, HANDS_OFF, "x -= max writes over the caller's array")
def keeps_logits(subject: Subject, rng: Any) -> None:
    _kept(subject, case_of(subject, rng), 0, "mutates_logits")


@check("calls.keeps_target", 1, HANDS_OFF, "labels are changed in place for the lookup")
def keeps_target(subject: Subject, rng: Any) -> None:
    case = case_of(subject, rng)
    if subject.offers("ignore_index"):
        case = replace(draws.ignoring(case, rng))
    _kept(subject, case, 1, "mutates_target")


def _kept(subject: Subject, case: Case, which: int, flaw: str) -> None:
    """The array is the same after forward and after backward."""
    arrays = subject.arrays(case)
    before = subject.library.values(arrays[which])
    _forward_backward(subject, case, arrays)
    after = subject.library.values(arrays[which])
    if not np.array_equal(before, after, equal_nan=True):
        name = ("logits", "target")[which]
        raise Fault(case.told(), f"{name} as they were, {shown(before)}", shown(after), (flaw,))


def _forward_backward(subject: Subject, case: Case, arrays: Any) -> Any:
    given = subject.keywords(case)
    try:
        if subject.adapter.kind in ("layer", "pair"):
            return subject.both(given, arrays[0], arrays[1], None)
        function = subject.native(given)
        if subject.library.name == "torch":
            logits = arrays[0].requires_grad_()
            loss = function(logits, arrays[1])
            if loss.requires_grad:
                loss.sum().backward()
            return loss.detach()
        return subject.library.vjp(lambda a: function(a, arrays[1]), [arrays[0]], None)[0]
    except NotOffered:
        raise
    except (SystemExit, Exception) as error:
        told = expect.raised(error)
        flaws = ("mutates_logits",) if "in-place" in told or "inplace" in told else ()
        raise Fault(case.told(), "a loss and its gradient", told, flaws) from error


@check("calls.keeps_hidden_view", 1, HANDS_OFF, "logits that are no leaf are written over silently")
def keeps_view(subject: Subject, rng: Any) -> None:
    """Logits computed by a layer, which another loss uses after this one."""
    torch = torch_alone(subject)
    case = case_of(subject, rng)
    function = subject.native(subject.keywords(case))
    leaf, target = subject.arrays(case)
    leaf.requires_grad_()
    logits = leaf * 1.0
    loss = _called(function, case, logits, target)
    values = subject.library.values(logits)
    if not np.array_equal(values, case.logits):
        flaw = ("mutates_logits",)
        raise Fault(case.told(), f"logits as they were, {shown(case.logits)}", shown(values), flaw)
    other = (logits * logits).sum()
    got = torch.autograd.grad(loss.sum() + other, leaf)[0].double().numpy()
    exact = expect.expected(case, ("dlogits",))["dlogits"] + 2 * case.logits
    if not expect.near(got, exact, expect.TOLERANCE[case.dtype]):
        told = f"with a second loss sum(logits^2), a gradient of {shown(exact)}"
        known = {"dlogits": got - 2 * case.logits}
        flaws = expect.causes.matching(case, known, ["dlogits"])
        raise Fault(case.told(), told, shown(got), flaws)


def _called(function: Any, case: Case, *arrays: Any) -> Any:
    try:
        return function(*arrays)
    except Exception as error:
        raise Fault(case.told(), "a loss", expect.raised(error)) from error


@check("calls.keeps_weight", 2, HANDS_OFF, "weights are normalised or zeroed in place")
def keeps_weight(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    case = draws.weighted(case_of(subject, rng), rng)
    given = subject.keywords(case)
    weight = given[subject.names["weight"]]
    function = subject.native(given)
    arrays = subject.arrays(case)
    _called(
        lambda *a: subject.library.vjp(lambda x: function(x, a[1]), [a[0]], None), case, *arrays
    )
    after = subject.library.values(weight)
    if not np.array_equal(after, np.asarray(case.weight)):
        told = f"weight as it was, {shown(case.weight)}"
        raise Fault(case.told(), told, shown(after), ("mutates_weight",))


@check("calls.keeps_upstream", 1, HANDS_OFF, "backward subtracts from its upstream in place")
def keeps_upstream(subject: Subject, rng: Any) -> None:
    torch = torch_alone(subject)
    case = case_of(subject, rng)
    logits, target = subject.arrays(case)
    logits.requires_grad_()
    loss = _called(subject.native(subject.keywords(case)), case, logits, target)
    if not loss.requires_grad:
        raise Fault(case.told(), "a gradient by the logits", "none", ("detached",))
    upstream = torch.full_like(loss, 2.0)
    try:
        torch.autograd.grad(loss, logits, upstream, retain_graph=True)
        same = bool((upstream == 2.0).all())
        expanded = torch.ones((), dtype=loss.dtype).expand(loss.shape)
        torch.autograd.grad(loss, logits, expanded)
    except RuntimeError as error:
        told = expect.raised(error)
        flaws = ("mutates_upstream",) if "single memory location" in told else ()
        raise Fault(f"{case.told()}, an expanded upstream", "a gradient", told, flaws) from error
    if not same:
        told = shown(upstream.double().numpy())
        raise Fault(case.told(), "an upstream of 2 as it was", told, ("mutates_upstream",))


@check("calls.two_in_flight", 1, AGAIN, "keep what backward needs per call, not on the object")
def two_in_flight(subject: Subject, rng: Any) -> None:
    """Two forwards, then both backwards; the same object where there is one."""
    first, second = case_of(subject, rng), case_of(subject, rng)
    torch = torch_alone(subject)
    function = subject.native(subject.keywords(first))
    made = []
    for case in (first, second):
        logits, target = subject.arrays(case)
        logits.requires_grad_()
        made.append((case, logits, _called(function, case, logits, target)))
    for case, logits, loss in made:
        if not loss.requires_grad:
            raise Fault(case.told(), "a gradient by the logits", "none", ("detached",))
        got = torch.autograd.grad(loss.sum(), logits)[0].double().numpy()
        _gradient(case, got, "two forwards, then both backwards", "keeps_one_call")


def _gradient(case: Case, got: Any, given: str, flaw: str) -> None:
    exact = expect.expected(case, ("dlogits",))["dlogits"]
    if not expect.near(got, exact, expect.TOLERANCE[case.dtype]):
        told = f"a gradient of {shown(exact)}"
        known = expect.causes.matching(case, {"dlogits": got}, ["dlogits"])
        raise Fault(f"{given}: {case.told()}", told, shown(got), known or (flaw,))


@check("calls.twice", 1, AGAIN, "an attribute has the name of a method, and replaces it")
def twice(subject: Subject, rng: Any) -> None:
    """The same object, forward and backward twice."""
    first, second = case_of(subject, rng), case_of(subject, rng)
    if subject.adapter.kind != "layer":
        expect.right(subject, [first, second, first])
        return
    layer = subject.found(**subject.keywords(first))
    for case in (first, second):
        try:
            layer.forward(*subject.arrays(case))
            taken = expect_backward(layer, case)
        except Exception as error:
            told = expect.raised(error)
            raise Fault("a second call of one object", "a loss", told, ("runs_once",)) from error
        _gradient(case, taken, "a second call of one object", "runs_once")


def expect_backward(layer: Any, case: Case) -> Any:
    """The layer's gradient for an upstream of 1, with or without one as its argument."""
    import inspect

    if not inspect.signature(layer.backward).parameters:
        return np.asarray(layer.backward(), float)
    ones = np.ones(len(case.target)) if case.reduction == "none" else 1.0
    return np.asarray(layer.backward(ones), float)


@check("calls.second_backward", 1, AGAIN, "a stored gradient is multiplied in place each time")
def second_backward(subject: Subject, rng: Any) -> None:
    torch = torch_alone(subject)
    reduction = "mean" if subject.offers("reduction") else subject.natural
    case = replace(case_of(subject, rng), reduction=reduction)
    logits, target = subject.arrays(case)
    logits.requires_grad_()
    loss = _called(subject.native(subject.keywords(case)), case, logits, target)
    if not loss.requires_grad:
        raise Fault(case.told(), "a gradient by the logits", "none", ("detached",))
    upstream = torch.full_like(loss, 3.0)
    found = []
    for _ in range(3):
        try:
            found.append(torch.autograd.grad(loss, logits, upstream, retain_graph=True)[0].clone())
        except RuntimeError as error:
            raise NotOffered(f"a second backward ({expect.raised(error)})") from error
    loose = {"rtol": 1e-9, "atol": 1e-12} if case.dtype == "float64" else {"rtol": 1e-5}
    if not all(torch.allclose(found[0], other, **loose) for other in found[1:]):
        told = "thrice the same gradient, upstream 3, retain_graph"
        got = shown(found[-1].double().numpy())
        raise Fault(case.told(), told, got, ("scaled_again",))


@check(
    "calls.deterministic",
    3,
    "Bits that differ from run to run hide every other cause.",
    "sum in a fixed order",
)
def deterministic(subject: Subject, rng: Any) -> None:
    (case,) = draws.plain(rng, ((200, 50),), reduction=natural(subject))
    case = replace(case, dtype=subject.best)
    one, other = expect.run(subject, case), expect.run(subject, case)
    for name in ("loss", "dlogits"):
        a, b = getattr(one, name), getattr(other, name)
        if a is not None and not np.array_equal(a, b, equal_nan=True):
            raise Fault(case.told(), f"twice the same {name}", "other bits", ("unseeded",))


@check(
    "calls.row_alone",
    2,
    "A loss must not depend on what else is in the batch.",
    "statistics of the batch enter a row",
)
def row_alone(subject: Subject, rng: Any) -> None:
    if not subject.offers("reduction") and subject.natural != "none":
        raise NotOffered("rows")
    (case,) = draws.plain(rng, ((6, 5),), reduction="none")
    case = replace(case, dtype=subject.best)
    whole = expect.run(subject, case).loss
    for row in range(6):
        logits, target = case.logits[row : row + 1], case.target[row : row + 1]
        alone = expect.run(subject, replace(case, logits=logits, target=target)).loss
        if not expect.near(alone[0], whole[row], (1e-7, 1e-9)):
            told = f"row {row} in its batch, {shown(whole[row])}"
            raise Fault(case.told(), told, shown(alone), ("rows_mix",))


@check(
    "calls.settings",
    3,
    "A seed or a default dtype that changes breaks what runs later.",
    "it draws numbers, or sets a default",
)
def settings(subject: Subject, rng: Any) -> None:
    torch = torch_alone(subject)
    case = case_of(subject, rng)
    mode = torch.is_grad_enabled()
    torch.rand(())  # else a seed set before would not show
    state = torch.random.get_rng_state()
    drawn = _numpy_state()
    before = (torch.get_default_dtype(), mode, torch.get_num_threads())
    expect.run(subject, case)
    after = (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads())
    same = torch.equal(state, torch.random.get_rng_state())
    same = same and np.array_equal(drawn[1], _numpy_state()[1])
    torch.set_grad_enabled(mode)
    torch.set_default_dtype(before[0])
    if before != after or not same:
        raise Fault(
            case.told(), "settings as they were", f"{after}, seed kept: {same}", ("global_state",)
        )


def _numpy_state() -> Any:
    return np.random.get_state()  # noqa: NPY002


@check("calls.no_grad", 2, "Validation runs under torch.no_grad().", "backward is assumed")
def no_grad(subject: Subject, rng: Any) -> None:
    torch = torch_alone(subject)
    case = case_of(subject, rng)
    logits, target = subject.arrays(case)
    with torch.no_grad():
        got = subject.library.values(
            _called(subject.native(subject.keywords(case)), case, logits, target)
        )
    exact = expect.expected(case, ("loss",))["loss"]
    if not expect.near(got, exact, expect.TOLERANCE[case.dtype]):
        known = expect.causes.matching(case, {"loss": got}, ["loss"])
        raise Fault(f"no_grad: {case.told()}", f"a loss of {shown(exact)}", shown(got), known)
