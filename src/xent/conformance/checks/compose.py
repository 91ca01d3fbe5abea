"""compose: derivatives of the derivative, forward mode, vmap and compilers, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import draws, expect, oracle
from xent.conformance.checks.calls import torch_alone
from xent.conformance.checks.gradient import reductions
from xent.conformance.checks.record import BETTER, check
from xent.conformance.draws import Case, shown
from xent.conformance.expect import floats
from xent.conformance.findings import Fault, NotOffered, raised
from xent.conformance.subject import Subject

SECOND = "Gradient penalties, influence functions and Hessian products need the second derivative."
FORWARD = "Forward mode gives directional derivatives at the price of one pass."


def prepared(subject: Subject, rng: Any, rows: int = 3, classes: int = 4) -> tuple:
    """A torch function of logits, the case, its arrays."""
    torch = torch_alone(subject)
    (case,) = draws.plain(rng, ((rows, classes),), reduction=reductions(subject)[0])
    case = replace(case, dtype=subject.best)
    logits, target = subject.arrays(case)
    function = subject.native(subject.keywords(case))
    return torch, case, logits, lambda x: function(x, target).sum()


def tried(case: Case, what: str, work: Callable[[], Any], flaw: str = "not_transformable") -> Any:
    """What it gives; what it raises is a fault."""
    try:
        return work()
    except NotOffered:
        raise
    except Exception as error:
        raise Fault(f"{what}: {case.told()}", "what torch gives", raised(error), (flaw,)) from error


def same(case: Case, what: str, got: Any, exact: np.ndarray, flaws: tuple[str, ...]) -> None:
    got = got.detach().double().numpy() if hasattr(got, "detach") else np.asarray(got)
    loose = (1e-7, 1e-9) if case.dtype == "float64" else (1e-4, 1e-5)
    if not expect.near(got, exact, loose):
        raise Fault(f"{what}: {case.told()}", shown(exact), shown(got), flaws)


def hessian_of(case: Case) -> np.ndarray:
    """The second derivative of the mean or sum, (N, V, N, V)."""
    rows, classes = case.logits.shape
    scale = 1 / rows if case.reduction == "mean" else 1.0
    p = floats(oracle.softmax(case.logits))
    exact = np.zeros((rows, classes, rows, classes))
    for row in range(rows):
        exact[row, :, row] = scale * (np.diag(p[row]) - np.outer(p[row], p[row]))
    return exact


@check("compose.double_backward", 2, SECOND, "save the logits, not softmax, and recompute")
def double_backward(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng)
    what = "the gradient of a gradient"
    leaf = logits.requires_grad_()

    def work() -> Any:
        (first,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
        return first

    first = tried(case, what, work, "second_derivative_zero")
    direction = rng.standard_normal(case.logits.shape)
    exact = np.einsum("abcd,cd->ab", hessian_of(case), direction)
    if not first.requires_grad:
        raise Fault(
            f"{what}: {case.told()}", shown(exact), "a detached gradient", ("gradient_detached",)
        )
    given = torch.tensor(direction, dtype=first.dtype)
    try:
        (second,) = torch.autograd.grad(first, leaf, given, allow_unused=True)
    except RuntimeError as error:  # refused aloud: limited, not wrong
        raise Fault(f"{what}: {case.told()}", shown(exact), raised(error)) from error
    got = np.zeros(1) if second is None else second
    same(case, what, got, exact, ("second_derivative_zero",))


@check("compose.hessian", 3, SECOND, "a saved softmax is a constant for the second derivative")
def hessian(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng, 2, 3)
    work = lambda: torch.autograd.functional.hessian(function, logits)  # noqa: E731
    got = tried(case, "hessian", work, "second_derivative_zero")
    flaws = ("second_derivative_zero", "gradient_detached")
    same(case, "hessian", got, hessian_of(case), flaws)


@check(
    "compose.chain",
    2,
    "A loss is often a part of another function of it.",
    "backward assumes that its upstream is 1",
)
def chain(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng)
    leaf = logits.requires_grad_()

    def work() -> Any:
        return torch.autograd.grad(function(leaf * 2.0) ** 2, leaf)[0]

    got = tried(case, "loss(2 x)^2", work)
    doubled = replace(case, logits=case.logits * 2)
    exact = expect.expected(doubled, expect.BOTH)
    slope = 4 * exact["loss"] * exact["dlogits"]
    up = replace(doubled, upstream=4 * float(exact["loss"]))
    found = expect.causes.matching(up, {"dlogits": got.detach().double().numpy()}, ["dlogits"])
    same(case, "loss(2 x)^2", got, slope, found)


@check("compose.jvp", 2, FORWARD, "a Function without jvp must raise, not give 0")
def jvp(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng)
    direction = rng.standard_normal(case.logits.shape)
    given = torch.tensor(direction, dtype=logits.dtype)
    exact = np.sum(expect.expected(case, ("dlogits",))["dlogits"] * direction)
    work = lambda: torch.func.jvp(function, (logits,), (given,))[1]  # noqa: E731
    same(case, "jvp", tried(case, "jvp", work), exact, ("jvp_zero",))


@check("compose.dual", 2, FORWARD, "a path chosen by requires_grad forgets the tangent")
def dual(subject: Subject, rng: Any) -> None:
    """Forward mode by dual numbers, of logits that backward needs too."""
    torch, case, logits, function = prepared(subject, rng)
    direction = rng.standard_normal(case.logits.shape)
    given = torch.tensor(direction, dtype=logits.dtype)
    exact = np.sum(expect.expected(case, ("dlogits",))["dlogits"] * direction)

    def work() -> Any:
        with torch.autograd.forward_ad.dual_level():
            pair = torch.autograd.forward_ad.make_dual(logits.requires_grad_(), given)
            tangent = torch.autograd.forward_ad.unpack_dual(function(pair)).tangent
            return torch.zeros(()) if tangent is None else tangent.clone()

    same(case, "dual numbers", tried(case, "dual numbers", work), exact, ("jvp_zero",))


@check(
    "compose.nested_jvp",
    3,
    "Forward mode of forward mode is the cheapest second derivative along a direction.",
    "the inner tangent is dropped where the outer one is computed",
)
def nested_jvp(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng, 2, 3)
    direction = rng.standard_normal(case.logits.shape)
    given = torch.tensor(direction, dtype=logits.dtype)
    along = lambda x: torch.func.jvp(function, (x,), (given,))[1]  # noqa: E731
    work = lambda: torch.func.jvp(along, (logits,), (given,))[1]  # noqa: E731
    exact = np.einsum("ab,abcd,cd->", direction, hessian_of(case), direction)
    same(case, "jvp of jvp", tried(case, "jvp of jvp", work), exact, ("jvp_zero",))


@check(
    "compose.weight_gradient",
    3,
    "Class weights that are learnt, or that only seem to be.",
    "give the gradient by the weights, or refuse weights that need one",
)
def weight_gradient(subject: Subject, rng: Any) -> None:
    subject.need("weight")
    torch = torch_alone(subject)
    if subject.adapter.kind != "function":
        raise NotOffered("a function")
    if reductions(subject)[-1] == "mean":
        raise NotOffered("a sum")
    for case in draws.plain(rng, ((4, 3), (3, 3)), reduction=reductions(subject)[-1]):
        case = replace(draws.weighted(case, rng), dtype=subject.best)
        given = subject.keywords(case)
        weight = given[subject.names["weight"]].requires_grad_()
        logits, target = subject.arrays(case)
        try:
            loss = subject.native(given)(logits.requires_grad_(), target).sum()
            (got,) = torch.autograd.grad(loss, weight, allow_unused=True)
        except Exception:  # refused aloud
            continue
        nll = expect.expected(replace(case, weight=None, reduction="none"), ("loss",))["loss"]
        exact = np.array([nll[case.target == c].sum() for c in range(case.logits.shape[1])])
        what = "the gradient by the class weights"
        if got is None:
            raise Fault(f"{what}: {case.told()}", shown(exact), "none, without an error")
        same(case, what, got, exact, ())


@check(
    "compose.autocast",
    3,
    "Under autocast a loss of bfloat16 logits is float32: the scaler and the log rely on it.",
    "cast the logits to float32 where autocast is on",
)
def autocast(subject: Subject, rng: Any) -> None:
    torch = torch_alone(subject)
    if subject.linear:
        raise NotOffered("logits")
    (case,) = draws.plain(rng, ((3, 4),), reduction=reductions(subject)[0], dtype="bfloat16")
    logits, target = subject.arrays(case)
    function = subject.native(subject.keywords(case))
    with torch.autocast("cpu", torch.bfloat16):
        loss = tried(case, "autocast", lambda: function(logits.requires_grad_(), target))
    if loss.dtype != torch.float32:
        told = f"a loss in {subject.library.dtype(loss)}"
        raise Fault(f"autocast: {case.told()}", "a loss in float32", told, ("another_dtype",))
    exact = expect.expected(case, ("loss",))["loss"]
    if not expect.near(subject.library.values(loss), exact, expect.TOLERANCE["float32"]):
        told = shown(subject.library.values(loss))
        raise Fault(f"autocast: {case.told()}", shown(exact), told, ("low_precision_sum",))


@check(
    "compose.func_grad",
    3,
    "torch.func.grad is how per-sample and meta gradients are taken.",
    "an autograd.Function needs setup_context",
)
def func_grad(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng)
    got = tried(case, "torch.func.grad", lambda: torch.func.grad(function)(logits))
    exact = expect.expected(case, ("dlogits",))["dlogits"]
    found = expect.causes.matching(case, {"dlogits": got.double().numpy()}, ["dlogits"])
    same(case, "torch.func.grad", got, exact, found)


@check(
    "compose.vmap",
    3,
    "Per-sample gradients are vmap of grad.",
    "generate_vmap_rule, or operations that vmap knows",
)
def vmap(subject: Subject, rng: Any) -> None:
    _vmapped(subject, rng, {})


def _vmapped(subject: Subject, rng: Any, more: dict[str, Any]) -> None:
    """The gradient of each of three batches at once."""
    torch = torch_alone(subject)
    case = Case(draws.logits(rng, 3, 2, 4), rng.integers(0, 4, (3, 2)), **more)
    case = replace(case, dtype=subject.best, reduction=reductions(subject)[0])
    function = subject.native(subject.keywords(case))
    logits = subject.library.array(case.logits, case.dtype)
    if subject.one_hot or subject.linear:
        raise NotOffered("vmap over class indices")
    target = subject.library.index(case.target)
    work = lambda: torch.func.vmap(torch.func.grad(lambda x, y: function(x, y).sum()))(  # noqa: E731
        logits, target
    )
    got = tried(case, "vmap of grad", work, "masked_select" if more else "not_transformable")
    parts = [replace(case, logits=case.logits[i], target=case.target[i]) for i in range(3)]
    exact = np.stack([expect.expected(part, ("dlogits",))["dlogits"] for part in parts])
    same(case, "vmap of grad", got, exact, ())


@check(
    "compose.vmap_options",
    3,
    "vmap with weights and smoothing meets masked_select in torch.",
    "where instead of masked_select",
    BETTER,
)
def vmap_options(subject: Subject, rng: Any) -> None:
    subject.need("weight", "label_smoothing")
    _vmapped(subject, rng, {"weight": np.array([1.0, 0.5, 2.0, 0.25]), "label_smoothing": 0.25})


@check(
    "compose.gradcheck",
    2,
    "torch.autograd.gradcheck compares every entry with differences.",
    "float32 inside, or a gradient of another function",
)
def gradcheck(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng, 2, 3)
    if subject.best != "float64":
        raise NotOffered("float64")
    work = lambda: torch.autograd.gradcheck(function, (logits.requires_grad_(),))  # noqa: E731
    tried(case, "gradcheck", work, "own_difference")


@check(
    "compose.compile",
    3,
    "torch.compile without a graph break is a third of the step's time.",
    "sizes as tensors, .item() and autograd.Function without setup_context break graphs",
)
def compiled(subject: Subject, rng: Any) -> None:
    torch, case, logits, function = prepared(subject, rng)
    leaf = logits.requires_grad_()

    def work() -> Any:
        torch._dynamo.reset()
        made = torch.compile(function, fullgraph=True, backend="aot_eager")
        return torch.autograd.grad(made(leaf), leaf)[0]

    got = tried(case, "torch.compile(fullgraph=True)", work)
    exact = expect.expected(case, ("dlogits",))["dlogits"]
    found = expect.causes.matching(case, {"dlogits": got.double().numpy()}, ["dlogits"])
    same(case, "torch.compile", got, exact, found)


@check(
    "compose.compiled_label",
    3,
    "Compiled code cannot raise by value: a label that is no class must not look like a loss.",
    "an assertion in the graph, or nan for such a row",
)
def compiled_label(subject: Subject, rng: Any) -> None:
    torch, case, logits, _ = prepared(subject, rng)
    if subject.one_hot or subject.linear:
        raise NotOffered("class indices")
    target = case.target.copy()
    target[1] = 1000
    function, given = subject.native(subject.keywords(case)), subject.library.index(target)
    torch._dynamo.reset()
    try:
        loss = torch.compile(function, backend="aot_eager")(logits, given)
        got = float(loss.sum())
    except Exception:  # refused: that is right
        return
    if np.isfinite(got):
        case = replace(case, target=target)
        told = "an error or nan"
        raise Fault(f"torch.compile: {case.told()}", told, f"{got:g}", ("label_unchecked",))


@check(
    "compose.jax_transforms",
    2,
    "jit, vmap, jvp and hessian are what jax is used for.",
    "Python control flow on values, or a custom_vjp without a jvp",
)
def jax_transforms(subject: Subject, rng: Any) -> None:
    if subject.library.name != "jax":
        raise NotOffered("jax")
    jax = subject.library.jax
    (case,) = draws.plain(rng, ((2, 3),), reduction=reductions(subject)[0])
    case = replace(case, dtype=subject.best, reduction=subject.natural)
    case = replace(case, reduction="sum" if subject.natural == "none" else subject.natural)
    natural = replace(case, reduction=subject.natural)
    function = subject.native(subject.keywords(natural))
    logits, target = subject.arrays(case)
    total = lambda x: function(x, target).sum()  # noqa: E731
    got = tried(case, "jit of hessian", lambda: np.asarray(jax.jit(jax.hessian(total))(logits)))
    same(case, "hessian", got, hessian_of(case), ("second_derivative_zero",))
    direction = rng.standard_normal(case.logits.shape)
    given = jax.numpy.asarray(direction, dtype=logits.dtype)
    got = tried(case, "jvp", lambda: np.asarray(jax.jvp(total, (logits,), (given,))[1]))
    exact = np.sum(expect.expected(case, ("dlogits",))["dlogits"] * direction)
    same(case, "jvp", got, exact, ("jvp_zero",))
