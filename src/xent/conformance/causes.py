"""Why an implementation is wrong: the mistake that explains each failure, and most of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xent.conformance import flaws, formats
from xent.conformance.draws import EPS, Array, Case

BEHAVIOUR = {  # what is seen, not computed; checks name these themselves
    "hangs": "it does not return: look for a loop or a lock that waits for ever",
    "crashes": "it ends the process: an index or a size that is not checked before memory is used",
    "exits": "it calls sys.exit: raise an exception that the caller can handle",
    "mutates_logits": "it writes over the caller's logits: work on a copy, or declare it",
    "mutates_target": "it writes over the caller's target: work on a copy",
    "mutates_weight": "it writes over the caller's weights: work on a copy",
    "mutates_upstream": "backward writes over its upstream (-=, mul_): make a new array",
    "keeps_one_call": "a second forward overwrites what backward needs: keep it per call, not on "
    "the object or the module",
    "runs_once": "it works once: an attribute takes the name of a method, or state is used up",
    "scaled_again": "a second backward returns another gradient: the stored one is scaled in place",
    "second_derivative_zero": "the second derivative is silently 0 or wrong: backward uses a saved "
    "intermediate as a constant; save the logits and recompute from them",
    "gradient_detached": "the gradient under create_graph is detached: nothing can be "
    "differentiated again; write backward in differentiable operations, or raise",
    "jvp_zero": "forward mode gives a tangent of 0: a jvp is missing, and none is raised",
    "detached": "the loss is not connected to the logits: a .detach(), .data, .item() or a NumPy "
    "round trip cuts the graph",
    "unseeded": "two calls give different bits: a sum in no fixed order, or a random draw",
    "global_state": "it changes a setting of the process: seed, dtype or gradient mode",
    "not_a_scalar": "the result has the wrong shape: a mean or a sum has none, rows theirs",
    "label_wraps": "a label outside the classes is looked up from the end, as indexing does: "
    "check 0 <= target < V",
    "label_unchecked": "a label outside the classes is not refused: check 0 <= target < V",
    "stray_label": "a negative label that is not ignore_index is taken for one to ignore: compare "
    "with ignore_index, not with 0",
    "broadcasts": "a target of the wrong shape broadcasts against the rows: compare the shapes",
    "truncates_labels": "floating labels are truncated to classes: refuse them",
    "unknown_reduction": "an unknown reduction is taken for another one: raise ValueError",
    "unchecked_smoothing": "label_smoothing outside [0, 1] is used: raise ValueError",
    "unchecked_weight": "a weight for another number of classes is used: compare its length",
    "square": "an N x N array is made, by diag(upstream) @ one_hot: multiply rows by "
    "upstream[:, None]",
    "copies": "several copies of the logits are alive at once: keep the row's lse, recompute the "
    "exponentials in backward",
    "keeps_graph": "the object keeps tensors with their graph after the call: memory grows",
    "float32_inside": "float64 logits are computed in float32: a constant or a zeros() without "
    "dtype",
    "another_dtype": "the result has another dtype than the logits",
    "low_precision_sum": "sums or means are taken in half precision: accumulate in float32",
    "low_precision_exp": "exponentials of rounded log-probabilities: compute the gradient from "
    "the logits in float32",
    "empty_mean": "the mean of no rows is nan in torch, with a gradient of 0",
    "empty_gradient": "0 / 0 reaches the gradient when every row is ignored: it is 0",
    "ignored_nan": "nan or inf in an ignored row spreads: use where before the row is used, not a "
    "product with 0",
    "hides_nan": "nan in the logits is hidden: a loss of nan logits is nan",
    "rows_mix": "a row's result depends on the others in its batch",
    "bias_again": "the bias is added once for every block of the width: add it once, after the sum",
    "bias_dropped": "the bias is not added",
    "frozen_hidden": "no weight gradient where the hidden states need none: look at each input's "
    "requires_grad on its own",
    "frozen_weight": "no hidden gradient where the weight is frozen: look at each input's "
    "requires_grad on its own",
    "bf16_accumulated": "gradients or losses are summed over chunks in bfloat16: accumulate in "
    "float32, round once",
    "folded_mean": "1 / N is folded into float16 dlogits, which then underflow: scale after the "
    "product, in float32",
    "filtered": "small gradient entries are dropped: rows of a confident batch lose them all",
    "whole_logits": "the N x V logits are stored: compute them in chunks",
    "tail_dropped": "rows beyond the last full chunk are left out or counted twice",
    "not_transformable": "it cannot be transformed: give the autograd.Function setup_context, and "
    "vmap or generate_vmap_rule",
    "own_difference": "the gradient is not the derivative of the loss that forward returns",
    "masked_select": "vmap meets masked_select: use where",
}


@dataclass(frozen=True)
class Cause:
    """A mistake in words, and the names of the checks that it explains."""

    name: str
    text: str
    checks: tuple[str, ...]


def text_of(name: str) -> str | None:
    base, _, behind = name.partition("/")
    if base in flaws.FLAWS:
        told = flaws.FLAWS[base][0]
        return f"in backward: {told}" if behind else told
    return formats.TEXTS.get(base) or BEHAVIOUR.get(base)


def matching(
    case: Case,
    obtained: dict[str, Any],
    wrong: Sequence[str],
    exact: dict[str, Any] | None = None,
) -> tuple[str, ...]:
    """The mistakes that give just the numbers obtained.

    Args:
        case: what was asked.
        obtained: "loss" and "dlogits", in the shapes of the case; None where there is none.
        wrong: which of them are wrong; the others are right.
        exact: what is right; without it no formula of rounding is looked for.
    """
    everywhere, there = [], []
    right = flaws.answer(case, flaws.Way())
    for name, way in flaws.ways():
        backward = isinstance(way, flaws.Slope)
        loss, gradient = flaws.answer(case, way)
        given = {"loss": right[0] if backward else loss, "dlogits": gradient}
        label = f"{name}/backward" if backward and name_is_general(name) else name
        _sort(
            label,
            given,
            dict(zip(("loss", "dlogits"), right, strict=True)),
            obtained,
            wrong,
            1e-6 if case.dtype == "float64" else 2e-5,
            everywhere,
            there,
        )
    found = everywhere or there
    if found or exact is None:
        return tuple(dict.fromkeys(found))
    return tuple(_unstable(case, obtained, wrong, exact))


def name_is_general(name: str) -> bool:
    return not isinstance(flaws.FLAWS[name][1], flaws.Slope)


def _sort(
    label: str,
    given: dict[str, Array],
    right: dict[str, Array],
    obtained: dict[str, Any],
    wrong: Sequence[str],
    tolerance: float,
    everywhere: list[str],
    there: list[str],
) -> None:
    if any(same(given[key], right[key], tolerance) for key in wrong):
        return  # the mistake does not show here
    if not all(np.isfinite(given[key]).all() for key in wrong):
        return  # many mistakes end in infinity
    if not all(same(obtained[key], given[key], tolerance) for key in wrong):
        return
    others = [key for key in given if key not in wrong and obtained.get(key) is not None]
    whole = all(same(obtained[key], given[key], tolerance) for key in others)
    (everywhere if whole else there).append(label)


def _unstable(
    case: Case, obtained: dict[str, Any], wrong: Sequence[str], exact: dict[str, Any]
) -> list[str]:
    """Formulas that give these infinities, nans, zeros or lost digits."""
    found = []
    for name, losses, gradients in formats.formulas(case):
        if case.reduction == "none":
            loss, scale = losses, np.ones(len(losses))
        else:
            divisor = len(losses) if case.reduction == "mean" else 1
            loss, scale = losses.sum() / divisor, np.full(len(losses), 1 / divisor)
        if case.upstream is not None:
            scale = scale * np.broadcast_to(np.asarray(case.upstream, float), scale.shape)
        given = {"loss": loss, "dlogits": gradients * scale[:, None]}
        ulp = 16 * EPS.get(case.dtype, 1e-16)
        if any(np.allclose(given[k], exact[k], rtol=ulp, atol=0, equal_nan=True) for k in wrong):
            continue  # the formula does well here
        if all(close(obtained[key], given[key], case.dtype) for key in wrong):
            found.append(name)
    return list(dict.fromkeys(found))


def same(a: Any, b: Any, tolerance: float) -> bool:
    if a is None or b is None or np.shape(a) != np.shape(b):
        return False
    return np.allclose(a, b, rtol=tolerance, atol=tolerance * 0.1, equal_nan=True)


def close(a: Any, b: Any, dtype: str) -> bool:
    """As near as two ways of rounding the same formula come."""
    if a is None or np.shape(a) != np.shape(b):
        return False
    a, b = np.asarray(a), np.asarray(b)
    loose = {"float16": 0.02, "bfloat16": 0.1}.get(dtype, 1e-4)
    tiny = (
        16 * EPS.get(dtype, 1e-16) * (np.nanmax(np.abs(np.where(np.isfinite(b), b, 0)), initial=0))
    )
    return bool(np.allclose(a, b, rtol=loose, atol=tiny * loose, equal_nan=True))


def ranked(failures: Iterable[Any]) -> list[Cause]:
    """The fewest mistakes that explain the failures, the one that explains most first.

    Failures have name, tier, severity, hint and flaws. What torch gets right comes before what it
    does not; a failure that no known mistake explains is its own cause, told by its hint.
    """
    left = list(failures)
    found: list[Cause] = []
    while left:
        reach: dict[str, list[Any]] = {}
        for failure in left:
            for flaw in failure.flaws or (failure.name,):
                reach.setdefault(flaw, []).append(failure)
        order = list(reach)
        best = max(order, key=lambda flaw: (_weight(reach[flaw]), -order.index(flaw)))
        explained = reach[best]
        told = text_of(best) or explained[0].hint
        found.append(Cause(best, told, tuple(f.name for f in explained)))
        left = [failure for failure in left if failure not in explained]
    return found


def _weight(failures: Sequence[Any]) -> tuple[float, float]:
    agrees = [f for f in failures if f.tier == "agrees with torch"]
    known = any(f.flaws for f in failures)
    return (
        sum(2.0 ** (4 - f.severity) for f in agrees) * (2 if known else 1),
        sum(2.0 ** (4 - f.severity) for f in failures),
    )
