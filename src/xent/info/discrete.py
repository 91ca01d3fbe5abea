"""Measures of one discrete distribution, or of two over the same classes."""

from __future__ import annotations

import math
from typing import Any

from xent.info import checks, terms
from xent.info.arrays import Array
from xent.info.layout import read, rounded, widest


def information(p: Any, *, base: float | None = None) -> Array:
    """The information -log p of events of probability p, also called surprisal.

    Args:
        p: (...) floating, in [0, 1]. Probabilities of events, each by itself.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.

    Returns:
        (...) in the dtype of p. An event of probability 0 has information inf.

    Raises:
        ValueError: an entry of p is outside [0, 1], or base is not a number > 0 other than 1.
        TypeError: p is not real floating.

    Source: Shannon, A Mathematical Theory of Communication (1948), section 6.

    >>> information([1.0, 0.5, 0.125], base=2)
    array([0., 1., 3.])
    """
    log_base = checks.log_base("information", base)
    xp, (given,) = checks.arrays("information", p=p)
    values = widest(xp, given)
    checks.entries("information", "p", xp, values, 0.0, 1.0)
    return rounded(xp, -terms.log(xp, values) / log_base + 0.0, given.dtype)


def entropy(
    p: Any,
    *,
    axis: int | tuple[int, ...] = -1,
    base: float | None = None,
    from_logits: bool = False,
    keepdims: bool = False,
) -> Array:
    """The entropy H(p) = -sum p log p of distributions over the classes along an axis.

    Args:
        p: (..., V) floating. Probabilities: entries >= 0 whose sum over the classes is 1 within
            eps + 8 sqrt(V) min(eps, 2**-23) + V tiny, with eps of the dtype of p and tiny its
            smallest number > 0. Nothing is ever renormalised.
        axis: of the classes, or several axes that count the classes together.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        from_logits: p holds logits, finite or -inf: the distribution is their softmax.
        keepdims: the axes of the classes stay, with length 1.

    Returns:
        (...) in the dtype of p, at least 0 and at most log V. A class of probability 0 adds 0.
        For torch, differentiable; where p is 0 the derivative of -p log p is infinite, and the
        gradient there is 0, which is what a softmax before it needs.

    Raises:
        ValueError: an entry of p is negative or not finite, a sum is not 1, or axis or base is
            wrong. The values of torch tensors that are not on the CPU, or under torch.compile or
            a transform of torch.func, cannot be read: a negative or nan entry gives nan there, a
            wrong sum goes unseen.
        TypeError: p is not real floating, or a keyword has the wrong type.

    Source: Cover and Thomas, Elements of Information Theory (2006), section 2.1.

    >>> entropy([0.8, 0.2], base=2)
    np.float64(0.7219280948873623)
    >>> entropy([[0.0, 1.0], [0.5, 0.5]])
    array([0.        , 0.69314718])
    """
    layout, (row,) = read("entropy", axis, base, from_logits, keepdims, p=p)
    return layout.result(terms.mean_surprisal(row, row))


def cross_entropy(
    p: Any,
    q: Any,
    *,
    axis: int | tuple[int, ...] = -1,
    base: float | None = None,
    from_logits: bool | tuple[bool, bool] = False,
    keepdims: bool = False,
) -> Array:
    """The cross entropy H(p, q) = -sum p log q: the mean surprisal of q where p is the truth.

    This is the measure of two distributions. The loss of logits and targets is
    `xent.cross_entropy`.

    Args:
        p: (..., V) floating. Probabilities as for `entropy`.
        q: (..., V) floating. Probabilities as for `entropy`; the shapes broadcast.
        axis: as for `entropy`; a negative one where p and q differ in dimensions.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        from_logits: both hold logits; a pair of bools tells it for p and for q.
        keepdims: the axes of the classes stay, with length 1.

    Returns:
        (...) in the common dtype, >= H(p). It is inf where q is 0 and p is not; a class where p
        is 0 adds 0, whatever q is.

    Raises:
        ValueError: p or q is not a distribution, as for `entropy`, or their shapes do not match.
        TypeError: as for `entropy`, or p and q are arrays of two libraries.

    Source: Good, Some Terminology and Notation in Information Theory (1956).

    >>> cross_entropy([0.5, 0.5], [0.25, 0.75], base=2)
    np.float64(1.207518749639422)
    >>> cross_entropy([0.0, 1.0], [10.0, 0.0], from_logits=(False, True))
    np.float64(10.000045398899218)
    """
    layout, (p_row, q_row) = read("cross_entropy", axis, base, from_logits, keepdims, p=p, q=q)
    return layout.result(terms.mean_surprisal(p_row, q_row))


def kl_divergence(
    p: Any,
    q: Any,
    *,
    axis: int | tuple[int, ...] = -1,
    base: float | None = None,
    from_logits: bool | tuple[bool, bool] = False,
    keepdims: bool = False,
) -> Array:
    """The Kullback-Leibler divergence KL(p || q) = sum p log(p / q), p first.

    It is computed as sum p log(p / q) - p + q, every term of which is >= 0 and accurate also where
    p and q nearly agree. This is the same number where p and q have the same sum. Where they sum to
    1 only up to a rounding error e, it is the divergence of the normalised distributions to within
    a relative e and an absolute e^2 / 2, whereas sum p log(p / q) is off by e itself. Its gradient
    is log(p / q) with respect to p and 1 - p / q with respect to q: 0 where p and q agree.

    Args:
        p: (..., V) floating. Probabilities as for `entropy`.
        q: (..., V) floating. Probabilities as for `entropy`; the shapes broadcast.
        axis: as for `cross_entropy`.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        from_logits: as for `cross_entropy`. With logits on both sides the accuracy is that of
            their differences, so that nearby logits lose nothing in the softmax.
        keepdims: the axes of the classes stay, with length 1.

    Returns:
        (...) in the common dtype, >= 0. It is inf where q is 0 and p is not.

    Raises:
        ValueError: as for `cross_entropy`.
        TypeError: as for `cross_entropy`.

    Source: Csiszár, I-divergence geometry of probability distributions (1975).

    >>> kl_divergence([0.5, 0.5], [0.25, 0.75], base=2)
    np.float64(0.2075187496394219)
    >>> kl_divergence([0.5, 0.5], [0.50000001, 0.49999999])
    np.float64(2.0000000089968067e-16)
    """
    layout, (p_row, q_row) = read("kl_divergence", axis, base, from_logits, keepdims, p=p, q=q)
    return layout.result(terms.divergence(p_row, q_row))


def js_divergence(
    p: Any,
    q: Any,
    *,
    axis: int | tuple[int, ...] = -1,
    base: float | None = None,
    from_logits: bool | tuple[bool, bool] = False,
    keepdims: bool = False,
) -> Array:
    """The Jensen-Shannon divergence (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2.

    Args:
        p: (..., V) floating. Probabilities as for `entropy`.
        q: (..., V) floating. Probabilities as for `entropy`; the shapes broadcast.
        axis: as for `cross_entropy`.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        from_logits: as for `cross_entropy`.
        keepdims: the axes of the classes stay, with length 1.

    Returns:
        (...) in the common dtype, symmetric in p and q, from 0 to log 2 (1 bit).

    Raises:
        ValueError: as for `cross_entropy`.
        TypeError: as for `cross_entropy`.

    Source: Lin, Divergence Measures Based on the Shannon Entropy (1991).

    >>> js_divergence([1.0, 0.0], [0.0, 1.0], base=2)
    np.float64(1.0)
    """
    layout, (p_row, q_row) = read("js_divergence", axis, base, from_logits, keepdims, p=p, q=q)
    return layout.result(_js(p_row, q_row))


def js_distance(
    p: Any,
    q: Any,
    *,
    axis: int | tuple[int, ...] = -1,
    base: float | None = None,
    from_logits: bool | tuple[bool, bool] = False,
    keepdims: bool = False,
) -> Array:
    """The Jensen-Shannon distance, the square root of `js_divergence`: a metric.

    Args:
        p: (..., V) floating. Probabilities as for `entropy`.
        q: (..., V) floating. Probabilities as for `entropy`; the shapes broadcast.
        axis: as for `cross_entropy`.
        base: of the logarithm under the root, > 1; None is e, and the unit root nats.
        from_logits: as for `cross_entropy`.
        keepdims: the axes of the classes stay, with length 1.

    Returns:
        (...) in the common dtype, from 0 to sqrt(log 2). It has a kink where p and q agree: the
        gradient there is 0.

    Raises:
        ValueError: as for `cross_entropy`, or base is not > 1.
        TypeError: as for `cross_entropy`.

    Source: Endres and Schindelin, A New Metric for Probability Distributions (2003).

    >>> js_distance([0.5, 0.5], [0.5, 0.5])
    np.float64(0.0)
    """
    root = math.sqrt(checks.log_base("js_distance", base, above=1.0))
    layout, (p_row, q_row) = read("js_distance", axis, None, from_logits, keepdims, p=p, q=q)
    nats, xp = _js(p_row, q_row), layout.xp
    distance = xp.where(nats != 0, xp.sqrt(xp.where(nats != 0, nats, 1.0)), 0.0)
    return layout.result(distance / root)


def _js(p: terms.Rows, q: terms.Rows) -> Array:
    """At most log 2, also where the sums of p and q exceed 1 by their rounding."""
    nats = terms.halfway_divergence(p, q)
    return p.xp.where(nats > math.log(2), math.log(2), nats)
