"""What the unstable formulas give, computed as they are written in the format that is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from xent.conformance.draws import Array, Case, one_hot, rounded

Round = Callable[[Array], Array]
Answer = tuple[Array, Array]  # losses (N,) and their gradients (N, V)


def formulas(case: Case) -> Iterator[tuple[str, Array, Array]]:
    """The cause, and the losses and gradients of the rows, for every way to get it wrong."""
    if case.logits.ndim != 2 or case.weight is not None or case.label_smoothing:
        return
    if case.transformed:
        return
    x = np.asarray(case.logits, np.float64)
    t = case.target if case.soft else one_hot(case.target, x.shape[1])

    def r(values: Array) -> Array:
        return rounded(values, case.dtype)

    with np.errstate(all="ignore"):
        for name, formula in FORMULAS:
            yield (name, *formula(x, t, r))


def _unshifted(x: Array, t: Array, r: Round) -> Answer:
    total = r(r(np.exp(x)).sum(1, keepdims=True))
    losses = -r(r(x - r(np.log(total))) * t).sum(1)
    return losses, r(r(r(np.exp(x)) / total) - t)


def _unshifted_picked(x: Array, t: Array, r: Round) -> Answer:
    total = r(r(np.exp(x)).sum(1, keepdims=True))
    log_p = r(x - r(np.log(total)))
    return -_pick(log_p, t), r(r(r(np.exp(x)) / total) - t)


def _unshifted_quotient(x: Array, t: Array, r: Round) -> Answer:
    p = r(r(np.exp(x)) / r(r(np.exp(x)).sum(1, keepdims=True)))
    return -_pick(r(np.log(p)), t), r(p - t)


def _shared_shift(x: Array, t: Array, r: Round) -> Answer:
    z = r(x - np.max(x))
    total = r(r(np.exp(z)).sum(1, keepdims=True))
    return -_pick(r(z - r(np.log(total))), t), r(r(r(np.exp(z)) / total) - t)


def _log_of_softmax(x: Array, t: Array, r: Round) -> Answer:
    z = r(x - x.max(1, keepdims=True))
    p = r(r(np.exp(z)) / r(r(np.exp(z)).sum(1, keepdims=True)))
    return -_pick(r(np.log(p)), t), r(p - t)


def _log_of_softmax_times(x: Array, t: Array, r: Round) -> Answer:
    z = r(x - x.max(1, keepdims=True))
    p = r(r(np.exp(z)) / r(r(np.exp(z)).sum(1, keepdims=True)))
    return -r(r(np.log(p)) * t).sum(1), r(p - t)


def _log_of_softmax_by_autograd(x: Array, t: Array, r: Round) -> Answer:
    losses, _ = _log_of_softmax(x, t, r)
    z = r(x - x.max(1, keepdims=True))
    p = r(r(np.exp(z)) / r(r(np.exp(z)).sum(1, keepdims=True)))
    up = np.where(t > 0, r(-t / p), 0.0)
    return losses, p * (up - (p * up).sum(1, keepdims=True))


def _guarded(eps: float) -> Callable[[Array, Array, Round], Answer]:
    def formula(x: Array, t: Array, r: Round) -> Answer:
        z = r(x - x.max(1, keepdims=True))
        p = r(r(np.exp(z)) / r(r(np.exp(z)).sum(1, keepdims=True)))
        losses = -_pick(r(np.log(r(p + eps))), t)
        return losses, r(p - t) * (_pick(p, t) / (_pick(p, t) + eps))[:, None]

    return formula


def _clipped(x: Array, t: Array, r: Round) -> Answer:
    limits = (1e-7, 1e-8, 1e-12, 1e-15)
    exact = _shifted(x, t, r)[0]
    return np.minimum(exact, -np.log(limits[0])), np.zeros_like(x)


def _nonzero_times(x: Array, t: Array, r: Round) -> Answer:
    losses, gradient = _shifted(x, t, r)
    z = r(x - x.max(1, keepdims=True))
    log_p = r(z - r(np.log(r(r(np.exp(z)).sum(1, keepdims=True)))))
    return -r(log_p * t).sum(1) + 0 * losses, gradient


def _lse_minus_target(x: Array, t: Array, r: Round) -> Answer:
    top = x.max(1, keepdims=True)
    z = r(x - top)
    lse = r(top + r(np.log(r(r(np.exp(z)).sum(1, keepdims=True)))))
    return _pick(r(lse - x), t), r(r(np.exp(r(x - lse))) - t)


def _shifted(x: Array, t: Array, r: Round) -> Answer:
    """The usual way: right but for losses near 0 and gradients of rounded log-probabilities."""
    z = r(x - x.max(1, keepdims=True))
    log_p = r(z - r(np.log(r(r(np.exp(z)).sum(1, keepdims=True)))))
    return -_pick(log_p, t), r(r(np.exp(log_p)) - t)


def _pick(rows: Array, t: Array) -> Array:
    return np.where(t > 0, rows * t, 0.0).sum(1)


FORMULAS: tuple[tuple[str, Callable[[Array, Array, Round], Answer]], ...] = (
    ("log_of_softmax", _log_of_softmax),
    ("log_of_softmax", _log_of_softmax_by_autograd),
    ("log_of_softmax", _log_of_softmax_times),
    ("exp_unshifted", _unshifted),
    ("exp_unshifted", _unshifted_picked),
    ("exp_unshifted", _unshifted_quotient),
    ("shift_of_the_batch", _shared_shift),
    ("epsilon_in_log", _guarded(1e-7)),
    ("epsilon_in_log", _guarded(1e-8)),
    ("epsilon_in_log", _guarded(1e-9)),
    ("epsilon_in_log", _guarded(1e-10)),
    ("epsilon_in_log", _guarded(1e-12)),
    ("epsilon_in_log", _guarded(1e-15)),
    ("epsilon_in_log", _clipped),
    ("zero_times_infinity", _nonzero_times),
    ("lse_minus_target", _lse_minus_target),
    ("log_one_plus", _shifted),
)

TEXTS = {
    "exp_unshifted": "you exponentiate the logits as they are: subtract the row's maximum first",
    "shift_of_the_batch": "you subtract the maximum of the whole batch: take each row's own",
    "log_of_softmax": "you take log(softmax): compute x - max - log(sum(exp(x - max))) instead",
    "epsilon_in_log": "you clip or add an epsilon inside the logarithm: use log-softmax, which "
    "needs none",
    "zero_times_infinity": "you multiply a one-hot target with an infinite logarithm: 0 * inf is "
    "nan; pick the target's entry, or use where",
    "lse_minus_target": "you subtract the target's logit from lse: (max - x_t) + log(sum) loses "
    "no digits at large logits",
    "log_one_plus": "the largest term is in the sum, and 1 + s rounds s away: log1p of the sum "
    "of the others, expm1 for the target's gradient",
}
