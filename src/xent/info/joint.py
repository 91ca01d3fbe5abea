"""Measures of the joint distribution of two variables X and Y."""

from __future__ import annotations

from typing import Any

from xent.info import terms
from xent.info.arrays import Array
from xent.info.layout import Layout, read
from xent.ops import exact


def joint_entropy(
    joint: Any,
    *,
    axis: tuple[int, int] = (-2, -1),
    base: float | None = None,
    from_logits: bool = False,
    keepdims: bool = False,
) -> Array:
    """The entropy H(X, Y) = -sum p(x, y) log p(x, y).

    Args:
        joint: (..., X, Y) floating. Probabilities p(x, y), in all as for `entropy`.
        axis: of X and of Y, in this order.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        from_logits: joint holds logits, and p(x, y) is their softmax over both axes.
        keepdims: both axes stay, with length 1.

    Returns:
        (...) in the dtype of joint, >= 0.

    Raises:
        ValueError: joint is not a distribution, as for `entropy`.
        TypeError: as for `entropy`, or axis is not a pair.

    Source: Cover and Thomas, Elements of Information Theory (2006), section 2.2.

    >>> joint_entropy([[0.5, 0.25], [0.0, 0.25]], base=2)
    np.float64(1.5)
    """
    layout, (row,) = read("joint_entropy", axis, base, from_logits, keepdims, True, joint=joint)
    return layout.result(terms.mean_surprisal(row, row))


def conditional_entropy(
    joint: Any,
    *,
    axis: tuple[int, int] = (-2, -1),
    base: float | None = None,
    from_logits: bool = False,
    keepdims: bool = False,
) -> Array:
    """The entropy H(Y | X) = -sum p(x, y) log p(y | x) that Y keeps once X is known.

    For H(X | Y) give the axes in the other order: `axis=(-1, -2)`.

    Args:
        joint: (..., X, Y) floating. Probabilities p(x, y), in all as for `entropy`.
        axis: of X, which is known, and of Y, in this order.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        from_logits: joint holds logits, and p(x, y) is their softmax over both axes.
        keepdims: both axes stay, with length 1.

    Returns:
        (...) in the dtype of joint, >= 0; H(X, Y) - H(X), without the subtraction.

    Raises:
        ValueError: joint is not a distribution, as for `entropy`.
        TypeError: as for `entropy`, or axis is not a pair.

    Source: Cover and Thomas, Elements of Information Theory (2006), section 2.2.

    >>> conditional_entropy([[0.5, 0.0], [0.25, 0.25]], base=2)
    np.float64(0.5)
    """
    layout, (row,) = read(
        "conditional_entropy", axis, base, from_logits, keepdims, True, joint=joint
    )
    xp, p = layout.xp, _table(layout, row)
    # The largest p(y | x) of a row may be near 1: its surprisal is log1p(the others / it).
    top = terms.largest(xp, p)
    largest = xp.sum(xp.where(top, p, 0.0), axis=-1, keepdims=True)
    others = terms.total(xp, xp.where(top, 0.0, p))[..., None]
    largest = xp.where(largest != 0, largest, 1.0)
    given_x = xp.where(p != 0, p / (largest + others), 1.0)
    surprisal = xp.where(top, xp.log1p(others / largest), -xp.log(given_x))
    return layout.result(_sum(layout, p * surprisal))


def mutual_information(
    joint: Any,
    *,
    axis: tuple[int, int] = (-2, -1),
    base: float | None = None,
    from_logits: bool = False,
    keepdims: bool = False,
) -> Array:
    """The mutual information I(X; Y) = sum p(x, y) log(p(x, y) / (p(x) p(y))).

    It is H(X) + H(Y) - H(X, Y), computed as the divergence of p(x, y) from p(x) p(y) in the form of
    `kl_divergence`: accurate where X and Y are nearly independent, and never negative.

    Args:
        joint: (..., X, Y) floating. Probabilities p(x, y), in all as for `entropy`.
        axis: of X and of Y.
        base: of the logarithm; None is e, and the unit nats; 2 is bits.
        from_logits: joint holds logits, and p(x, y) is their softmax over both axes.
        keepdims: both axes stay, with length 1.

    Returns:
        (...) in the dtype of joint, >= 0 and at most min(H(X), H(Y)).

    Raises:
        ValueError: joint is not a distribution, as for `entropy`.
        TypeError: as for `entropy`, or axis is not a pair.

    Source: Cover and Thomas, Elements of Information Theory (2006), section 2.3.

    >>> mutual_information([[0.5, 0.0], [0.0, 0.5]], base=2)
    np.float64(1.0)
    >>> mutual_information([[0.25, 0.25], [0.25, 0.25]])
    np.float64(0.0)
    """
    layout, (row,) = read(
        "mutual_information", axis, base, from_logits, keepdims, True, joint=joint
    )
    xp, p = layout.xp, _table(layout, row)
    x = terms.total(xp, p)[..., :, None]
    y = terms.total(xp, xp.matrix_transpose(p))[..., None, :]
    product, remainder = exact.product(xp, x, y)
    # sum over x of p(x) KL(p(y | x) || p(y)): unlike p(x) p(y), its parts do not underflow.
    divisor = xp.where(x != 0, x, 1.0)
    positive = p != 0
    given_x = xp.where(positive, p / divisor, 1.0)
    marginal = xp.where(positive, y, 1.0)
    difference = xp.where(positive, ((p - product) - remainder) / divisor, 0.0)
    ratio = terms.log_ratio(xp, given_x, marginal, difference)
    nats = xp.where(positive, terms.excess(xp, given_x, ratio, difference), y)
    return layout.result(_sum(layout, x * nats))


def _table(layout: Layout, row: terms.Rows) -> Array:
    """(..., X, Y): the probabilities of the rows as tables."""
    return layout.xp.reshape(row.p, (*row.p.shape[:-1], *layout.sizes))


def _sum(layout: Layout, table: Array) -> Array:
    """The sum over tables (..., X, Y)."""
    classes = table.shape[-2] * table.shape[-1]
    return terms.total(layout.xp, layout.xp.reshape(table, (*table.shape[:-2], classes)))
