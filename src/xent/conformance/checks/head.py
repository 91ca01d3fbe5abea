"""One call of a linear head: drawn, computed in float64, run, and its mistakes told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xent.conformance import draws
from xent.conformance.draws import Case, shown
from xent.conformance.expect import near, raised
from xent.conformance.findings import Fault, NotOffered
from xent.conformance.subject import Subject


@dataclass(frozen=True, eq=False)
class Head:
    """One call: arrays as float64 numbers that the format holds."""

    hidden: np.ndarray  # (N, D)
    weight: np.ndarray  # (V, D)
    target: np.ndarray
    bias: np.ndarray | None = None
    upstream: Any = None
    dtype: str = "float32"
    reduction: str = "mean"
    options: tuple[tuple[str, Any], ...] = ()

    def told(self) -> str:
        n, d = self.hidden.shape
        bias = ", bias" if self.bias is not None else ""
        more = "".join(f", {name} {shown(np.asarray(value))}" for name, value in self.options)
        up = "" if self.upstream is None else f", upstream {shown(np.asarray(self.upstream))}"
        v = len(self.weight)
        return f"N {n}, D {d}, V {v}{bias}, {self.reduction}{more}{up}, {self.dtype}"


def drawn(rng: Any, n: int, d: int, v: int, bias: bool = False, **more: Any) -> Head:
    dtype = more.get("dtype", "float32")
    hidden = draws.rounded(rng.standard_normal((n, d)), dtype)
    weight = draws.rounded(rng.standard_normal((v, d)) / np.sqrt(d), dtype)
    given = draws.rounded(rng.standard_normal(v), dtype) if bias else None
    return Head(hidden, weight, rng.integers(0, v, n), given, **more)


def exact(head: Head) -> dict[str, np.ndarray]:
    """Float64 numbers, good to 1e-13."""
    logits = head.hidden @ head.weight.T
    logits = logits if head.bias is None else logits + head.bias
    options = dict(head.options)
    ignore = options.get("ignore_index", -100)
    kept = (head.target != ignore).astype(float)
    hot = draws.one_hot(np.where(kept > 0, head.target, 0), logits.shape[1])
    w = np.asarray(options.get("weight", np.ones(logits.shape[1])))
    smoothing = options.get("label_smoothing", 0.0)
    q = (1 - smoothing) * hot + smoothing / logits.shape[1]
    t, row_weight = q * w, kept * (hot @ w)
    top = logits.max(1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    losses = -(t * log_p).sum(1) * kept
    scale = kept.copy()
    loss = losses
    if head.reduction != "none":
        divisor = row_weight.sum() if head.reduction == "mean" else 1.0
        with np.errstate(all="ignore"):
            loss = losses.sum() / divisor
            scale = scale / divisor if divisor else scale * 0
    up = np.asarray(1.0 if head.upstream is None else head.upstream, float)
    scale = scale * up
    dlogits = (t.sum(1, keepdims=True) * np.exp(log_p) - t) * scale[:, None]
    return {
        "loss": np.asarray(loss),
        "hidden": dlogits @ head.weight,
        "weight": dlogits.T @ head.hidden,
        "bias": dlogits.sum(0),
    }


def torch_of(subject: Subject) -> Any:
    if subject.library.name != "torch":
        raise NotOffered("torch tensors")
    return subject.library.torch


def keywords(subject: Subject, head: Head) -> dict[str, Any]:
    case = Case(
        head.hidden,
        head.target,
        reduction=head.reduction,
        dtype=head.dtype,
        **dict(head.options),
    )
    return subject.keywords(case)


def call(subject: Subject, head: Head, frozen: tuple[str, ...] = ()) -> tuple[Any, dict[str, Any]]:
    """The loss, and the leaves it depends on."""
    torch_of(subject)
    array = subject.library.array
    leaves = {"hidden": array(head.hidden, head.dtype), "weight": array(head.weight, head.dtype)}
    given = keywords(subject, head)
    if head.bias is not None:
        subject.need("linear_bias")
        leaves["bias"] = array(head.bias, head.dtype)
        given[subject.names["linear_bias"]] = leaves["bias"]
    for name, leaf in leaves.items():
        leaf.requires_grad_(name not in frozen)
    function, target = subject.called(given), subject.library.index(head.target)
    return function(leaves["hidden"], leaves["weight"], target), leaves


def run(subject: Subject, head: Head, frozen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Loss and gradients as float64."""
    try:
        loss, leaves = call(subject, head, frozen)
        wanted = {name: leaf for name, leaf in leaves.items() if name not in frozen}
        up = None if head.upstream is None else subject.library.array(head.upstream, "float64")
        up = None if up is None else up.to(loss.dtype).expand(loss.shape).clone()
        if not loss.requires_grad:
            raise Fault(head.told(), "a gradient", "none", _frozen_flaw(frozen))
        found = torch_of(subject).autograd.grad(
            loss if up is not None else loss.sum(), list(wanted.values()), up, allow_unused=True
        )
    except (Fault, NotOffered):
        raise
    except Exception as error:
        raise Fault(head.told(), "a loss and its gradients", raised(error)) from error
    values = subject.library.values
    result = {n: None if g is None else values(g) for n, g in zip(wanted, found, strict=True)}
    return {"loss": values(loss), **result}


def _frozen_flaw(frozen: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"frozen_{name}" for name in frozen if name != "bias") or ("detached",)


def right(
    subject: Subject,
    head: Head,
    quantities: tuple[str, ...],
    flaws: tuple[str, ...] = (),
    frozen: tuple[str, ...] = (),
    tolerance: tuple[float, float] = (2e-4, 2e-5),
) -> None:
    got, true = run(subject, head, frozen), exact(head)
    for name in quantities:
        if got[name] is None:
            raise Fault(head.told(), f"a gradient of {name}", "none", flaws or ("detached",))
        limit = (tolerance[0], tolerance[1] * (np.nanmax(np.abs(true[name]), initial=0) + 1e-9))
        if not near(got[name], true[name], limit):
            what = "loss" if name == "loss" else f"gradient of {name}"
            found = flaws or mistakes(head, name, got[name])
            told = f"a {what} of {shown(true[name])}"
            raise Fault(head.told(), told, shown(got[name]), found)


def mistakes(head: Head, name: str, got: np.ndarray) -> tuple[str, ...]:
    """A bias that is counted several times, and the scales of a gradient."""
    found = []
    if head.bias is not None:
        for times in (0, 2, 3, 4, 5, 8):
            other = Head(**{**vars(head), "bias": head.bias * times})
            if near(got, exact(other)[name], (1e-3, 1e-4)):
                found.append("bias_dropped" if times == 0 else "bias_again")
    true = exact(head)[name]
    kept = (head.target != dict(head.options).get("ignore_index", -100)).sum()
    given = np.asarray(1.0 if head.upstream is None else head.upstream, float)
    up = 1.0 if given.ndim else float(given)
    for flaw, factor in (
        ("sum_for_mean" if name == "loss" else "gradient_sum", kept),
        ("gradient_divided_twice", 1 / max(kept, 1)),
        ("divided_by_rows", kept / len(head.target)),
        ("upstream_ignored", 1 / up),
        ("upstream_twice", up),
    ):
        if factor != 1 and near(got, true * factor, (1e-3, 1e-4)):
            found.append(flaw)
    if given.ndim:
        mean = Head(**{**vars(head), "upstream": float(given.mean())})
        if near(got, exact(mean)[name], (1e-3, 1e-4)):
            found.append("upstream_averaged")
    return tuple(found)


def reduction_of(subject: Subject) -> str:
    return "mean" if subject.offers("reduction") else subject.natural
