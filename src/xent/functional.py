"""The public functions: signature, documentation, and the way in (options, arrays, run)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from xent import inputs
from xent.backends import backend_of, fast, run, run_vjp
from xent.ops import binary, nll
from xent.ops import cross_entropy as ce
from xent.ops.softmax import Softmax
from xent.ops.stats import RowStats
from xent.spec import Plan, Spec

Array = Any  # NumPy, torch or any other array-API library's


def cross_entropy(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: Any = None,
    axis: int | None = None,
    plan: Plan | None = None,
) -> Array:
    r"""Cross entropy of softmax(logits) relative to a target, in nats.

    What `torch.nn.functional.cross_entropy` computes, to the last digit also where the loss is
    small::

        -log(softmax(logits, axis=1))[arange(N), target].mean()

    Args:
        logits: (N, V), (N, V, d1, ..., dk) or (V,) unnormalised log-probabilities, floating.
        target: class indices of any integer dtype, of the logits' shape without the class axis; or
            class probabilities, floating, of the logits' shape.
        weight: (V,) weight of each class.
        ignore_index: the class index of rows that take no part in the loss or its derivatives.
        reduction: "mean" over the weight of the rows that take part (for probabilities: over the
            rows), "sum", or "none" for the loss of each row.
        label_smoothing: e in [0, 1]; the target becomes (1 - e) target + e / V.
        z_loss: factor of the square of each row's log-sum-exp, added to its loss with its weight
            (PaLM, Chowdhery et al. 2022, section 5).
        softcap: c in c tanh(logits / c), applied to the scaled logits (Gemma 2, 2024, section 2).
        logit_scale: factor of the logits, the inverse of a temperature.
        normalizer: what the sum over rows is divided by, in place of the mean's own denominator: a
            number or a 0-d array.
        axis: the class axis. None is torch's rule: 1, or 0 for a single row.
        plan: how to compute; see `Plan`.

    Returns:
        The loss, 0-d; or that of each row, of the logits' shape without the class axis. In the
        dtype of the logits; of probabilities and logits together where the target is probabilities.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an array of the wrong shape, or an option out of its range.
        IndexError: a class index that is neither in [0, V) nor `ignore_index`.

    >>> import numpy as np, xent
    >>> logits = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
    >>> round(float(xent.cross_entropy(logits, [1, 0])), 4)
    2.0185
    """
    options = (
        "cross_entropy",
        ignore_index,
        reduction,
        label_smoothing,
        z_loss,
        softcap,
        logit_scale,
        normalizer,
        axis,
    )
    found = fast.loss(logits, target, weight, options, plan)
    if found is not None:
        return found
    spec = Spec.of(*options)
    return run(ce, inputs.class_rows(logits, target, weight, spec), spec, plan)


def cross_entropy_vjp(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: Any = None,
    axis: int | None = None,
    plan: Plan | None = None,
) -> tuple[Array, Callable[..., Array]]:
    """Cross entropy, and its hand-derived backward as a function.

    For hand-written layers: `loss, vjp = cross_entropy_vjp(logits, target)`, then
    `dlogits = vjp(upstream)` is upstream times the derivative of the loss by the logits,
    (softmax(logits) - target) / N for a mean over N rows. On a torch tensor too, outside autograd.

    Args:
        logits: (N, V), (N, V, d1, ..., dk) or (V,), as for `cross_entropy`.
        target: class indices or class probabilities, as for `cross_entropy`.
        weight: (V,) weight of each class.
        ignore_index: as for `cross_entropy`, like all options that follow.
        reduction: "mean", "sum" or "none".
        label_smoothing: e in [0, 1].
        z_loss: factor of the squared log-sum-exp.
        softcap: c in c tanh(logits / c).
        logit_scale: factor of the logits.
        normalizer: explicit denominator of the mean.
        axis: the class axis.
        plan: how to compute.

    Returns:
        The loss, and vjp: a number, or an array of the loss's shape, -> dlogits, of the logits'
        shape and dtype. It can be called any number of times.

    Raises:
        TypeError: as `cross_entropy`.
        ValueError: as `cross_entropy`; by vjp, an upstream of the wrong shape.
        IndexError: as `cross_entropy`.

    >>> import numpy as np, xent
    >>> loss, vjp = xent.cross_entropy_vjp(np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), [1, 0])
    >>> vjp(1.0).round(3)
    array([[ 0.33 , -0.379,  0.049],
           [-0.464,  0.243,  0.22 ]])
    """
    options = (
        "cross_entropy_vjp",
        ignore_index,
        reduction,
        label_smoothing,
        z_loss,
        softcap,
        logit_scale,
        normalizer,
        axis,
    )
    found = fast.loss_and_vjp(logits, target, weight, options, plan)
    if found is not None:
        return found
    spec = Spec.of(*options)
    return run_vjp(ce, inputs.class_rows(logits, target, weight, spec), spec, plan)


def nll_loss(
    log_probs: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    normalizer: Any = None,
    axis: int | None = None,
    plan: Plan | None = None,
) -> Array:
    """Negative log likelihood of class indices under given log-probabilities, in nats.

    What `torch.nn.functional.nll_loss` computes: the mean of
    -weight[target] log_probs[arange(N), target] over the weight of the rows.

    Args:
        log_probs: (N, V), (N, V, d1, ..., dk) or (V,), the result of `log_softmax`.
        target: class indices of any integer dtype, of that shape without the class axis.
        weight: (V,) weight of each class.
        ignore_index: the class index of rows that take no part.
        reduction: "mean", "sum" or "none", as for `cross_entropy`.
        normalizer: explicit denominator of the mean, a number or a 0-d array.
        axis: the class axis. None is torch's rule: 1, or 0 for a single row.
        plan: how to compute; see `Plan`.

    Returns:
        The loss, 0-d, or that of each row; in the dtype of log_probs.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an array of the wrong shape, or an option out of its range.
        IndexError: a class index that is neither in [0, V) nor `ignore_index`.

    >>> import numpy as np, xent
    >>> xent.nll_loss(np.log([[0.25, 0.75], [0.5, 0.5]]), [1, 0], reduction="none").round(4)
    array([0.2877, 0.6931])
    """
    spec = Spec(
        function="nll_loss",
        ignore_index=ignore_index,
        reduction=reduction,
        normalizer=normalizer,
        axis=axis,
    )
    rows = inputs.class_rows(log_probs, target, weight, spec, name="log_probs", soft=False)
    return run(nll, rows, spec, plan)


def binary_cross_entropy_with_logits(
    logits: Array,
    target: Array,
    weight: Array | None = None,
    *,
    pos_weight: Array | None = None,
    reduction: str = "mean",
    plan: Plan | None = None,
) -> Array:
    """Cross entropy of sigmoid(logits) relative to a target, element by element, in nats.

    What `torch.nn.functional.binary_cross_entropy_with_logits` computes, with the right values at
    infinite logits: 0 where the target agrees, inf where it does not.

    Args:
        logits: any shape, floating.
        target: probabilities of the positive class, floating, of the logits' shape.
        weight: factor of each element's loss; its shape broadcasts to the logits'.
        pos_weight: factor of the positive term; its shape broadcasts to the logits'.
        reduction: "mean" over the elements, "sum", or "none" for the loss of each.
        plan: how to compute; see `Plan`.

    Returns:
        The loss, 0-d, or that of each element; in the dtype of all arrays together.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an array of the wrong shape, or an option out of its range.

    >>> import numpy as np, xent
    >>> logits, target = np.array([30.0, -np.inf, 2.0]), np.array([1.0, 0.0, 0.0])
    >>> xent.binary_cross_entropy_with_logits(logits, target, reduction="none")
    array([9.35762297e-14, 0.00000000e+00, 2.12692801e+00])
    """
    spec = Spec(function="binary_cross_entropy_with_logits", reduction=reduction)
    return run(binary, inputs.element_rows(logits, target, weight, pos_weight, spec), spec, plan)


def softmax(x: Array, axis: int = -1, dtype: Any = None, *, plan: Plan | None = None) -> Array:
    """exp(x) / sum(exp(x)) along an axis.

    Args:
        x: (..., V, ...) floating.
        axis: the axis whose entries sum to 1.
        dtype: the dtype to cast x to first, and of the result.
        plan: how to compute; see `Plan`.

    Returns:
        An array of the shape of x, in its dtype or in `dtype`.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an axis that x does not have.

    >>> import numpy as np, xent
    >>> xent.softmax(np.array([2.0, 1.0, 0.1])).round(3)
    array([0.659, 0.242, 0.099])
    """
    rows = inputs.plain_rows("softmax", x, axis, dtype)
    return _entries(Softmax(), rows, plan)


def log_softmax(x: Array, axis: int = -1, dtype: Any = None, *, plan: Plan | None = None) -> Array:
    """log(softmax(x)) along an axis, accurate also where a probability is almost 0 or 1.

    Blanchard, Higham and Higham, Accurately computing the log-sum-exp and softmax functions, IMA
    Journal of Numerical Analysis 41 (2021), with log1p for the sum as in their section 5.

    Args:
        x: (..., V, ...) floating.
        axis: the axis along which the exponentials of the result sum to 1.
        dtype: the dtype to cast x to first, and of the result.
        plan: how to compute; see `Plan`.

    Returns:
        An array of the shape of x, in its dtype or in `dtype`.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an axis that x does not have.

    >>> import numpy as np, xent
    >>> xent.log_softmax(np.array([0.0, -40.0]))
    array([-4.24835426e-18, -4.00000000e+01])
    """
    rows = inputs.plain_rows("log_softmax", x, axis, dtype)
    return _entries(Softmax(log=True), rows, plan)


def logsumexp(x: Array, axis: int = -1, *, plan: Plan | None = None) -> Array:
    """log(sum(exp(x))) along an axis, without overflow.

    Args:
        x: (..., V, ...) floating.
        axis: the axis that is summed over.
        plan: how to compute; see `Plan`.

    Returns:
        An array of the shape of x without `axis`, in its dtype; -inf for an empty sum.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an axis that x does not have.

    >>> import numpy as np, xent
    >>> float(xent.logsumexp(np.array([1000.0, 1000.0])))
    1000.6931471805599
    """
    rows = inputs.plain_rows("logsumexp", x, axis, None)
    backend = backend_of(rows.logits)
    lse = backend.apply(RowStats(), rows.arrays[:3], plan).outputs[0]
    with backend.quiet():
        return rows.per_row(lse, rows.dtype)


class TokenStatistics(NamedTuple):
    """What is asked of each row (token) of a classifier or language model, in nats."""

    log_prob: Array  # of the target
    entropy: Array  # of softmax(logits)
    lse: Array  # log-sum-exp of the logits, transformed
    argmax: Array  # int64, the likeliest class


def token_statistics(
    logits: Array,
    target: Array,
    *,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    axis: int | None = None,
    plan: Plan | None = None,
) -> TokenStatistics:
    """Log-probability of the target, entropy, log-sum-exp and argmax of each row, in one pass.

    The first three are differentiable on torch.

    Args:
        logits: (N, V), (N, V, d1, ..., dk) or (V,), as for `cross_entropy`.
        target: class indices of any integer dtype, of the logits' shape without the class axis.
        ignore_index: the class index of rows that take no part: all their statistics are 0.
        softcap: c in c tanh(logits / c), applied to the scaled logits.
        logit_scale: factor of the logits.
        axis: the class axis. None is torch's rule: 1, or 0 for a single row.
        plan: how to compute; see `Plan`.

    Returns:
        A `TokenStatistics` of arrays of the target's shape, in the dtype of the logits; float32
        for half-precision logits.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an array of the wrong shape, or an option out of its range.
        IndexError: a class index that is neither in [0, V) nor `ignore_index`.

    >>> import numpy as np, xent
    >>> statistics = xent.token_statistics(np.array([[0.0, 0.0], [3.0, -1.0]]), [0, 0])
    >>> statistics.entropy.round(4), statistics.argmax
    (array([0.6931, 0.0901]), array([0, 0]))
    """
    spec = Spec(
        function="token_statistics",
        ignore_index=ignore_index,
        softcap=softcap,
        logit_scale=logit_scale,
        axis=axis,
    )
    rows = inputs.class_rows(logits, target, None, spec, soft=False)
    backend, xp = backend_of(rows.logits), rows.xp
    rows = backend.coded(rows, spec, plan)
    op = RowStats(logit_scale, softcap, entropy=True)
    (lse, nll, _, entropy), (argmax, _) = backend.apply(op, rows.arrays, plan)
    dtype = xp.float32 if inputs.is_half(rows.logits) else rows.dtype
    with backend.quiet():
        return TokenStatistics(
            log_prob=rows.per_row(0.0 - nll, dtype),
            entropy=rows.per_row(entropy, dtype),
            lse=rows.per_row(lse, dtype),
            argmax=rows.per_row(argmax, xp.int64),
        )


def _entries(op: Softmax, rows: inputs.Rows, plan: Plan | None) -> Array:
    return rows.spread(backend_of(rows.logits).apply(op, (rows.logits,), plan).outputs[0])
