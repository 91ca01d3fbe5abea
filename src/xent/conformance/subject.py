"""The implementation that is graded, behind one face: a `Case` in, an `Outcome` out."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xent.conformance import draws, oracle
from xent.conformance.adapters import ADAPTERS, Adapter, candidates, signature_of
from xent.conformance.draws import MORE, Case
from xent.conformance.findings import NotOffered, raised
from xent.conformance.libraries import Library, library

NAMES = {  # what options are called elsewhere, the likeliest name first
    "weight": ("weight", "class_weight", "class_weights", "ce_weight"),
    "ignore_index": ("ignore_index", "ignore_class", "ignore_idx", "ignore_label"),
    "label_smoothing": ("label_smoothing", "smoothing"),
    "reduction": ("reduction", "reduce"),
    "z_loss": ("z_loss", "lse_square_scale"),
    "softcap": ("softcap", "logit_softcapping"),
    "logit_scale": ("logit_scale",),
    "normalizer": ("normalizer",),
    "linear_bias": ("linear_bias", "bias"),
}
WIDEST = 4096  # an identity matrix of more classes is too large to grade a linear head with


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a case, as float64; a gradient that the library cannot take is None."""

    loss: np.ndarray
    loss_dtype: str
    dlogits: np.ndarray | None = None
    dlogits_dtype: str = ""
    dtarget: np.ndarray | None = None


class Subject:
    """What is known of an implementation, and how it is called."""

    def __init__(self, found: Any, adapter: Adapter, arrays: Library, why: str) -> None:
        self.found, self.adapter, self.library, self.why = found, adapter, arrays, why
        self.constants: dict[str, Any] = {}
        self.names, self.by_trial = self._options()
        self.one_hot = False  # class indices are handed over as probabilities
        self.natural = "mean"  # the reduction where none is asked for
        self.best = "float64"

    @property
    def linear(self) -> bool:
        return self.adapter.order == "hidden"

    def _options(self) -> tuple[dict[str, str], bool]:
        taken, more = signature_of(self.found, self.adapter)
        if "from_logits" in taken:
            self.constants["from_logits"] = True
        names = {}
        for option, known in NAMES.items():
            here = [name for name in known if name in taken or (more and name == known[0])]
            if here:
                names[option] = here[0]
        return names, more

    def offers(self, option: str) -> bool:
        return option in self.names

    def need(self, *options: str) -> None:
        for option in options:
            if not self.offers(option):
                raise NotOffered(f"no {option}")

    def keywords(self, case: Case) -> dict[str, Any]:
        """The options of a case by the implementation's own names, as its own arrays."""
        given = dict(self.constants)
        for option, value in case.options.items():
            self.need(option)
            if option == "weight":
                value = self.library.array(value, case.dtype)
            given[self.names[option]] = value
        if self.offers("reduction"):
            given[self.names["reduction"]] = case.reduction
        elif case.reduction != self.natural:
            raise NotOffered(f"no reduction {case.reduction!r}")
        return given

    def called(self, given: dict[str, Any]) -> Callable[..., Any]:
        """A function of the implementation's own arrays, in its own order."""
        kind, found = self.adapter.kind, self.found
        if kind == "layer":
            return found(**given).forward
        if kind == "class":
            return found(**given)
        if kind == "pair":
            forward = found[0] if isinstance(found, (tuple, list)) else found.forward

            def call(*arrays: Any) -> Any:
                result = forward(*arrays, **given)
                return result[0] if isinstance(result, tuple) else result

        else:

            def call(*arrays: Any) -> Any:
                return found(*arrays, **given)

        return call

    def native(self, given: dict[str, Any]) -> Callable[[Any, Any], Any]:
        """A function of the library's own logits and target; of a linear head, through identity."""
        call, order = self.called(given), self.adapter.order
        if order == "target":
            return lambda logits, target: call(target, logits)
        if order == "hidden":
            return lambda logits, target: call(logits, self.identity(logits), target)
        return call

    def identity(self, logits: Any) -> Any:
        classes = logits.shape[-1]
        if classes > WIDEST:
            raise NotOffered(f"{classes} classes of a linear head")
        return self.library.array(np.eye(classes), self.library.dtype(logits))

    def arrays(self, case: Case) -> tuple[Any, Any]:
        """Logits and target in the implementation's own arrays."""
        if self.linear and not np.isfinite(case.logits).all():
            raise NotOffered("infinite logits of a linear head")
        if self.linear and case.logits.ndim != 2:
            raise NotOffered(f"logits of shape {case.logits.shape} of a linear head")
        logits = self.library.array(case.logits, case.dtype)
        if case.soft:
            return logits, self.library.array(case.target, case.dtype)
        if self.one_hot:
            hot = draws.one_hot(case.target, case.logits.shape[1 if case.logits.ndim > 1 else 0])
            return logits, self.library.array(hot, case.dtype)
        return logits, self.library.index(case.target, case.index_dtype)

    def run(self, case: Case, by_target: bool = False) -> Outcome:
        """The loss and its gradients; what the implementation raises comes through."""
        given = self.keywords(case)
        logits, target = self.arrays(case)
        if self.adapter.kind in ("layer", "pair"):
            loss, dlogits = self.both(given, logits, target, case.upstream)
            dtarget = None
        elif by_target:
            function = self.native(given)
            loss, (dlogits, dtarget) = self.library.vjp(function, [logits, target], case.upstream)
        else:
            function = self.native(given)
            loss, (dlogits,) = self.library.vjp(
                lambda array: function(array, target), [logits], case.upstream
            )
            dtarget = None
        values, dtype = self.library.values, self.library.dtype
        return Outcome(
            values(loss),
            dtype(loss),
            None if dlogits is None else values(dlogits),
            "" if dlogits is None else dtype(dlogits),
            None if dtarget is None else values(dtarget),
        )

    def both(self, given: dict[str, Any], logits: Any, target: Any, upstream: Any) -> Any:
        """Forward, then backward with the upstream where it takes one."""
        pair = isinstance(self.found, (tuple, list))
        if self.adapter.kind == "layer":
            layer = self.found(**given)
            forward, backward, given = layer.forward, layer.backward, {}
        elif pair:
            forward, backward = self.found
        else:
            forward, backward = self.found.forward, self.found.backward
        result = forward(logits, target, **given)
        loss, kept = result if isinstance(result, tuple) else (result, None)
        taken = list(inspect.signature(backward).parameters)
        arguments = [kept] if kept is not None else []
        if kept is None and pair and len(taken) >= 2 and _holds(taken):
            arguments = [logits, target]  # a backward that computes all anew
        if len(taken) > len(arguments):
            up = 1.0 if upstream is None else upstream
            arguments.append(np.broadcast_to(np.asarray(up, float), np.shape(loss)).copy()[()])
        elif upstream is not None:
            raise NotOffered("no upstream of backward")
        gradient = backward(*arguments)
        return loss, gradient[0] if isinstance(gradient, tuple) else gradient


def _holds(names: list[str]) -> bool:
    return any(word in names[1] for word in ("target", "label", "y"))


def prepare(found: Any, name: str | None = None) -> Subject:
    """The subject behind an object: the adapter given, or the first that fits, and what it takes.

    Raises:
        ValueError: no adapter fits; the text tells what each one met.
    """
    if name is not None:
        tried = [(ADAPTERS[name], "asked for")]
    else:
        tried = list(candidates(found))
    met, values_only = [], None
    for adapter, why in tried:
        try:
            subject = Subject(found, adapter, library(adapter.library or _keras_library()), why)
            works, differentiated = probe(subject)
        except Exception as error:
            met.append(f"{adapter.name}: {raised(error)}")
            continue
        if not works:
            met.append(f"{adapter.name}: {differentiated}")
        elif differentiated is True:
            return subject
        else:
            values_only = values_only or subject
    if values_only is not None:
        return values_only
    text = "; ".join(met) or "nothing that can be called"
    raise ValueError(f"no adapter fits: {text}")


def _keras_library() -> str:
    import importlib

    return importlib.import_module("keras").backend.backend()


def probe(subject: Subject) -> tuple[bool, Any]:
    """Find out dtype, form of the target and reduction; whether it runs, and has a gradient."""
    case = Case(np.array([[1.0, 2.0, 0.5], [0.25, -1.0, 3.0]]), np.array([1, 0]))
    message, outcome = "", None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for one_hot in (False, True):
            for dtype in ("float32", "float64"):
                subject.one_hot, tried = one_hot, replace(case, dtype=dtype)
                try:
                    outcome = _bare(subject, tried)
                except (SystemExit, Exception) as error:
                    message = message or raised(error)
                    continue
                break
            if outcome is not None:
                break
        if outcome is None:
            return False, message
        subject.natural = _reduction_of(outcome.loss, case)
        if subject.by_trial:
            _try_options(subject, replace(case, dtype=outcome.loss_dtype))
        subject.best = _best(subject, case)
    return True, outcome.dlogits is not None


def _bare(subject: Subject, case: Case) -> Outcome:
    """A call with no option at all."""
    names, subject.names = subject.names, {}
    subject.natural = case.reduction
    try:
        try:
            return subject.run(case)
        except Exception:
            # what fails in backward alone is a finding of a check, not a reason to refuse
            logits, target = subject.arrays(case)
            loss = subject.native(dict(subject.constants))(logits, target)
            return Outcome(subject.library.values(loss), subject.library.dtype(loss))
    finally:
        subject.names = names


def _reduction_of(loss: np.ndarray, case: Case) -> str:
    if loss.size == len(case.logits):
        return "none"
    total = float(oracle.cross_entropy(case.logits, case.target, reduction="sum"))
    return "sum" if abs(float(loss.sum()) - total) < 0.01 else "mean"


TRIAL: dict[str, dict[str, Any]] = {
    "weight": {"weight": np.array([1.0, 2.0, 0.5])},
    "ignore_index": {"ignore_index": -1},
    "label_smoothing": {"label_smoothing": 0.1},
    "reduction": {"reduction": "sum"},
    "z_loss": {"z_loss": 0.5},
    "softcap": {"softcap": 1.5},
    "logit_scale": {"logit_scale": 0.5},
    "normalizer": {"normalizer": 7.0},
}


def _try_options(subject: Subject, case: Case) -> None:
    """Forget options that a signature of **options only seems to take."""
    natural, plain = subject.natural, _run_naturally(subject, case).loss
    for option in [name for name in subject.names if name in TRIAL]:
        tried = replace(case, **TRIAL[option])
        names = subject.names
        subject.names = {option: names[option]}
        subject.natural = tried.reduction
        try:
            found = subject.run(tried).loss
            taken = option not in MORE or not np.array_equal(found, plain)
        except TypeError:
            taken = False
        except Exception:
            taken = True
        subject.names = {n: value for n, value in names.items() if taken or n != option}
    subject.natural = natural


def _best(subject: Subject, case: Case) -> str:
    """The widest format in which a plain call works, so that another's failure masks nothing."""
    for dtype in ("float64", "float32"):
        try:
            outcome = _run_naturally(subject, replace(case, dtype=dtype))
        except (SystemExit, Exception):
            continue
        if outcome.loss_dtype == dtype and not _float32_inside(subject, case, outcome, dtype):
            return dtype
    return "float32"


def _float32_inside(subject: Subject, case: Case, outcome: Outcome, dtype: str) -> bool:
    """Right to float32's digits alone; one check tells it, the others are not to repeat it."""
    right = oracle.cross_entropy(case.logits, case.target, reduction=subject.natural)
    error = max(
        abs(float(e) / float(r) - 1)
        for e, r in zip(np.ravel(outcome.loss), np.ravel(np.asarray(right)), strict=False)
    )
    return dtype == "float64" and 1e-10 < error < 1e-5


def _run_naturally(subject: Subject, case: Case) -> Outcome:
    natural, names = subject.natural, subject.names
    try:
        subject.names = {}
        return subject.run(replace(case, reduction=natural))
    finally:
        subject.natural, subject.names = natural, names
