"""How checks compare: run a case, ask the oracle, and tell the first number that is off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xent.conformance import causes, oracle
from xent.conformance.draws import MORE, Case, shown
from xent.conformance.findings import Fault, NotOffered, raised
from xent.conformance.subject import Outcome, Subject

LOSS, GRADIENT = ("loss",), ("dlogits",)
BOTH = ("loss", "dlogits")
TOLERANCE = {  # relative, and absolute; torch's own results are within them
    "float64": (1e-9, 1e-12),
    "float32": (1e-5, 2e-6),
    "bfloat16": (1.6e-2, 8e-3),
    "float16": (4e-3, 1e-3),
}
SLOPES = {"bfloat16": (0.1, 4e-3), "float16": (2e-2, 1e-3)}  # torch's gradients are this far off


def right(
    subject: Subject,
    cases: Case | Iterable[Case],
    quantities: Sequence[str] = LOSS,
    *,
    decline: str = "",
    tolerance: tuple[float, float] | None = None,
    flaws: tuple[str, ...] = (),
    note: str = "",
) -> None:
    """Every case gives what the oracle says, within the tolerance of its format.

    Args:
        subject: the implementation.
        cases: small ones first: the first that fails is told.
        quantities: "loss", "dlogits" or both.
        decline: what the implementation may refuse, by any exception, without being wrong.
        tolerance: relative and absolute, in place of the format's.
        flaws: the causes, where it is known before what a wrong number means.
        note: what to say beside the numbers.
    """
    for case in [cases] if isinstance(cases, Case) else cases:
        case = replace(case, dtype=subject.best) if case.dtype == "float64" else case
        outcome = run(subject, case, decline)
        check_outcome(subject, case, outcome, quantities, tolerance, flaws, note)


def run(subject: Subject, case: Case, decline: str = "", by_target: bool = False) -> Outcome:
    """The outcome of a case; what is raised is a fault, or what the subject may refuse."""
    try:
        return subject.run(case, by_target)
    except NotOffered:
        raise
    except (SystemExit, Exception) as error:
        if decline and not isinstance(error, SystemExit):
            told = f"{decline} ({raised(error)})"
            raise NotOffered(told) from error
        flaws = ("exits",) if isinstance(error, SystemExit) else ()
        raise Fault(case.told(), "a loss and its gradient", raised(error), flaws) from error


def check_outcome(
    subject: Subject,
    case: Case,
    outcome: Outcome,
    quantities: Sequence[str],
    tolerance: tuple[float, float] | None = None,
    flaws: tuple[str, ...] = (),
    note: str = "",
) -> None:
    exact = expected(case, quantities)
    obtained: dict[str, Any] = {"loss": outcome.loss, "dlogits": outcome.dlogits}
    if "dlogits" in quantities and outcome.dlogits is None:
        without_gradient(subject, case)
    wrong = []
    for quantity in quantities:
        if not near(obtained[quantity], exact[quantity], limits(case, quantity, tolerance)):
            wrong.append(quantity)
    if not wrong:
        return
    key = wrong[0]
    known = {name: value for name, value in obtained.items() if value is not None}
    found = flaws or causes.matching(case, known, wrong, exact)
    raise Fault(
        case.told(),
        f"{TITLES[key]} {shown(exact[key])}",
        shown(obtained[key]),
        found,
        note or first_off(exact[key], obtained[key], limits(case, key, tolerance)),
    )


def without_gradient(subject: Subject, case: Case) -> None:
    """A library that has none, or a graph that was cut."""
    if not subject.library.differentiates:
        raise NotOffered("no gradient")
    raise Fault(case.told(), "a gradient by the logits", "none", ("detached",))


TITLES = {"loss": "a loss of", "dlogits": "a gradient of", "dtarget": "a target gradient of"}


def expected(case: Case, quantities: Sequence[str]) -> dict[str, np.ndarray]:
    options: dict[str, Any] = {
        "ignore_index": -100 if case.ignore_index is None else case.ignore_index,
        "reduction": case.reduction,
        "label_smoothing": case.label_smoothing or 0.0,
        **{name: getattr(case, name) for name in MORE if getattr(case, name) is not None},
    }
    arguments = (case.logits, case.target, case.weight)
    found = {}
    if "loss" in quantities:
        found["loss"] = floats(oracle.cross_entropy(*arguments, **options))
    if "dlogits" in quantities or "dtarget" in quantities:
        upstream = 1 if case.upstream is None else case.upstream
        gradient = oracle.cross_entropy_grad(*arguments, upstream=upstream, **options)
        found["dlogits"] = floats(gradient.dlogits)
        if gradient.dtarget is not None:
            found["dtarget"] = floats(gradient.dtarget)
    if not np.size(case.target) or _all_ignored(case, options["ignore_index"]):
        found["dlogits"] = np.zeros(case.logits.shape)
    return found


def _all_ignored(case: Case, ignore_index: int) -> bool:
    return not case.soft and bool((case.target == ignore_index).all())


def floats(exact: Any) -> np.ndarray:
    """Exact numbers rounded to float64."""
    array = np.asarray(exact)
    return np.array([float(v) for v in array.reshape(-1)], np.float64).reshape(array.shape)


def limits(case: Case, quantity: str, tolerance: tuple[float, float] | None) -> tuple[float, float]:
    if tolerance is not None:
        return tolerance
    usual = TOLERANCE[case.dtype]
    return usual if quantity == "loss" else SLOPES.get(case.dtype, usual)


def near(got: Any, exact: np.ndarray, tolerance: tuple[float, float]) -> bool:
    if got is None or np.size(got) != np.size(exact):
        return False
    got = np.reshape(got, np.shape(exact))
    return bool(np.allclose(got, exact, rtol=tolerance[0], atol=tolerance[1], equal_nan=True))


def first_off(exact: np.ndarray, got: Any, tolerance: tuple[float, float]) -> str:
    """Which row is the first that is off."""
    if got is None:
        return "there is no gradient: the result is not connected to the logits"
    if np.size(got) != np.size(exact):
        return f"shape {np.shape(got)}, expected {np.shape(exact)}"
    if exact.ndim == 0:
        return ""
    off = ~np.isclose(got, exact, rtol=tolerance[0], atol=tolerance[1], equal_nan=True)
    return f"row {int(np.argwhere(off)[0][0])} is the first that is off"


def refuses(
    subject: Subject, case: Case, what: str, flaws: tuple[str, ...] = (), kinds: str = ""
) -> BaseException:
    """The call raises; a result, whatever it is, is the fault."""
    case = replace(case, dtype=subject.best) if case.dtype == "float64" else case
    try:
        outcome = subject.run(case)
    except NotOffered:
        raise
    except SystemExit as error:
        raise Fault(case.told(), f"{what} is refused", raised(error), ("exits",)) from error
    except Exception as error:
        return error
    raise Fault(case.told(), f"an error: {what}", f"the loss {shown(outcome.loss)}", flaws)
