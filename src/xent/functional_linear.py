"""The public functions of a linear head: losses of hidden states whose logits are never stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from xent.backends import backend_of, linear
from xent.backends.linear import LinearGradients
from xent.functional import TokenStatistics
from xent.inputs_linear import LowRank, linear_rows
from xent.ops import cross_entropy as ce
from xent.ops.stats import RowStats
from xent.spec import Plan, Spec

Array = Any  # NumPy, torch or any other array-API library's


def linear_cross_entropy(
    hidden: Array,
    linear_weight: Array | LowRank,
    target: Array,
    *,
    linear_bias: Array | None = None,
    weight: Array | None = None,
    ignore_index: int | None = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: Any = None,
    shift: int = 0,
    options: Any = None,
    plan: Plan | None = None,
) -> Array:
    """Cross entropy of the logits of a linear layer, in nats, without ever storing them.

    What `torch.nn.functional.linear_cross_entropy` computes, a few rows or classes at a time::

        cross_entropy(hidden @ linear_weight.T + linear_bias, target)

    Differentiable on torch to any order, also by the weights.

    Args:
        hidden: (..., D) hidden states, floating.
        linear_weight: (V, D), floating; a `LowRank`; or (V, d1, ..., dk, D) for k-dimensional
            losses of hidden (N, D).
        target: class indices of any integer dtype, of the shape of hidden without its last axis,
            (N, d1, ..., dk) for k-dimensional losses; or class probabilities, floating, (..., V)
            or (N, V, d1, ..., dk).
        linear_bias: (V,), or (V, d1, ..., dk).
        weight: (V,) weight of each class.
        ignore_index: the class index of rows that take no part: they are left out of the products
            on a CPU. None is torch's word for -100.
        reduction: "mean" over the weight of the rows that take part (for probabilities: over the
            rows), "sum", or "none" for the loss of each row.
        label_smoothing: e in [0, 1]; the target becomes (1 - e) target + e / V.
        z_loss: factor of the square of each row's log-sum-exp, added to its loss with its weight.
        softcap: c in c tanh(logits / c), applied to the scaled logits.
        logit_scale: factor of the logits, the inverse of a temperature.
        normalizer: what the sum over rows is divided by, in place of the mean's own denominator: a
            number or a 0-d array.
        shift: k pairs hidden[..., :-k, :] with target[..., k:], as a causal language model does.
        options: torch's `LinearCrossEntropyOptions`, read as a plan where there is none.
        plan: how to compute; see `Plan`.

    Returns:
        The loss, 0-d; or that of each row, of the target's shape without classes. In the dtype of
        all arrays together, at least float32. Arrays of several dtypes are multiplied in the widest
        of them; each gradient has the dtype of its array.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an array of the wrong shape, or an option out of its range.
        IndexError: a class index that is neither in [0, V) nor `ignore_index`.

    >>> import numpy as np, xent
    >>> hidden, linear_weight = np.array([[1.0, 0.0], [0.5, -1.0]]), np.eye(3, 2)
    >>> round(float(xent.linear_cross_entropy(hidden, linear_weight, [0, 1])), 4)
    1.3278
    """
    spec = Spec(
        function="linear_cross_entropy",
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        logit_scale=logit_scale,
        normalizer=normalizer,
    )
    rows = linear_rows(hidden, linear_weight, target, linear_bias, weight, spec, shift)
    return linear.run(ce, rows, spec, _plan(plan, options, rows))


def linear_cross_entropy_vjp(
    hidden: Array,
    linear_weight: Array | LowRank,
    target: Array,
    *,
    linear_bias: Array | None = None,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: Any = None,
    shift: int = 0,
    plan: Plan | None = None,
) -> tuple[Array, Callable[..., LinearGradients]]:
    """Cross entropy of a linear head, and its hand-derived backward as a function.

    With dlogits = upstream (softmax(logits) - target) / N for a mean over N rows, vjp(upstream) is
    dlogits @ linear_weight, dlogits.T @ hidden and the sum of dlogits over rows. On a torch tensor
    too, outside autograd.

    Args:
        hidden: (..., D), as for `linear_cross_entropy`, like all arguments that follow.
        linear_weight: (V, D), (V, d1, ..., dk, D) or a `LowRank`.
        target: class indices or class probabilities.
        linear_bias: (V,) or (V, d1, ..., dk).
        weight: (V,) weight of each class.
        ignore_index: the class index of rows that take no part.
        reduction: "mean", "sum" or "none".
        label_smoothing: e in [0, 1].
        z_loss: factor of the squared log-sum-exp.
        softcap: c in c tanh(logits / c).
        logit_scale: factor of the logits.
        normalizer: explicit denominator of the mean.
        shift: how many places later a hidden state's target is.
        plan: how to compute.

    Returns:
        The loss, and vjp: a number, or an array of the loss's shape, -> the gradients `hidden`,
        `linear_weight` and `linear_bias`, each of the shape and dtype of its array; that of a
        `LowRank` is one. It can be called any number of times.

    Raises:
        TypeError: as `linear_cross_entropy`.
        ValueError: as `linear_cross_entropy`; by vjp, an upstream of the wrong shape.
        IndexError: as `linear_cross_entropy`.

    >>> import numpy as np, xent
    >>> hidden, linear_weight = np.array([[1.0, 0.0]]), np.eye(2)
    >>> loss, vjp = xent.linear_cross_entropy_vjp(hidden, linear_weight, [0])
    >>> vjp().hidden.round(4)
    array([[-0.2689,  0.2689]])
    """
    spec = Spec(
        function="linear_cross_entropy_vjp",
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
        z_loss=z_loss,
        softcap=softcap,
        logit_scale=logit_scale,
        normalizer=normalizer,
    )
    rows = linear_rows(hidden, linear_weight, target, linear_bias, weight, spec, shift)
    return linear.run_vjp(ce, rows, spec, plan)


def linear_token_statistics(
    hidden: Array,
    linear_weight: Array | LowRank,
    target: Array,
    *,
    linear_bias: Array | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    shift: int = 0,
    plan: Plan | None = None,
) -> TokenStatistics:
    """Log-probability of the target, entropy, log-sum-exp and argmax of each row of a linear head.

    They come from one pass over logits that are not stored. The first three are differentiable on
    torch.

    Args:
        hidden: (..., D) hidden states, floating.
        linear_weight: (V, D), (V, d1, ..., dk, D) or a `LowRank`.
        target: class indices, as for `linear_cross_entropy`.
        linear_bias: (V,) or (V, d1, ..., dk).
        ignore_index: the class index of rows that take no part: all their statistics are 0.
        softcap: c in c tanh(logits / c), applied to the scaled logits.
        logit_scale: factor of the logits.
        shift: how many places later a hidden state's target is.
        plan: how to compute; see `Plan`.

    Returns:
        A `TokenStatistics` of arrays of the target's shape, in the dtype of all arrays together, at
        least float32.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an array of the wrong shape, or an option out of its range.
        IndexError: a class index that is neither in [0, V) nor `ignore_index`.

    >>> import numpy as np, xent
    >>> hidden = np.array([[1.0, 0.0], [0.5, -1.0]])
    >>> statistics = xent.linear_token_statistics(hidden, np.eye(3, 2), [0, 1])
    >>> statistics.log_prob.round(4), statistics.argmax
    (array([-0.5514, -2.1041]), array([0, 0]))
    """
    spec = Spec(
        function="linear_token_statistics",
        ignore_index=ignore_index,
        softcap=softcap,
        logit_scale=logit_scale,
    )
    rows = linear_rows(hidden, linear_weight, target, linear_bias, None, spec, shift, soft=False)
    backend, xp = backend_of(rows.hidden), rows.xp
    stats = RowStats(spec.logit_scale, spec.softcap, entropy=True)
    rows, found = linear.token_statistics(stats, rows, spec, plan)
    lse, nll, _, entropy, argmax, *_ = found
    with backend.quiet():
        return TokenStatistics(
            log_prob=rows.per_row(0.0 - nll, rows.dtype),
            entropy=rows.per_row(entropy, rows.dtype),
            lse=rows.per_row(lse, rows.dtype),
            argmax=rows.per_row(argmax, xp.int64),
        )


def _plan(plan: Plan | None, options: Any, rows: Any) -> Plan | None:
    """A plan; or what torch's options of its chunked way mean as one: so many rows at a time."""
    size = getattr(options, "batch_chunk_size", None)
    if plan is not None or size is None:
        return plan
    wide = 8 if rows.dtype == rows.xp.float64 else 4
    classes = max(1, rows.logits.shape[-1])
    return replace(Plan(), chunk_bytes=size * classes * wide, chunk_over="rows")
