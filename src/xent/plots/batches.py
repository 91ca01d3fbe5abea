"""Pictures of many rows: the gradient of a batch, and the calibration of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xent import cross_entropy_vjp
from xent.plots.axes import BLACK, BLUE, PURPLE, VERMILION, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xent.evaluation.single import Evaluation


def gradient_map(logits: Any, target: Any, ax: Axes | None = None, **options: Any) -> Axes:
    """The gradient of the cross entropy by every logit of a batch, one line for each row.

    Purple entries pull a logit up when the gradient is descended, orange ones push it down; the
    circles are the targets. Every line adds up to 0: what the target gains the others lose. An
    ignored row is white.

    Args:
        logits: (N, V), or (V,) for one row.
        target: (N,) class indices, or probabilities of the logits' shape.
        ax: where to draw; pyplot's current axes where it is None.
        options: those of `xent.cross_entropy`; with reduction "none" each row has its own gradient.

    Returns:
        The Axes drawn on, with a colour bar in nats per unit of logit.

    Raises:
        ValueError, TypeError, IndexError: as `xent.cross_entropy`; ValueError for other shapes.

    Source: C. M. Bishop, Pattern Recognition and Machine Learning, 2006, equation 4.109.

    >>> from matplotlib.figure import Figure
    >>> drawn = gradient_map([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]], [1, 0], Figure().add_subplot())
    >>> drawn.get_title()
    'Gradient of the loss, 2.0185 nats'
    """
    from matplotlib.ticker import MaxNLocator

    rows = np.asarray(logits)
    if rows.ndim not in (1, 2):
        raise ValueError(f"gradient_map: logits has shape {rows.shape}, expected (N, V) or (V,)")
    rows = rows.astype(np.float64, copy=False)
    loss, vjp = cross_entropy_vjp(rows, target, **options)
    gradient = np.atleast_2d(vjp(np.ones_like(loss)))
    ax = axes(ax)
    most = float(np.max(np.abs(gradient), initial=0.0, where=np.isfinite(gradient))) or 1.0
    image = ax.imshow(
        gradient, cmap="PuOr_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest"
    )
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("dloss/dlogit (nats per unit of logit)")
    codes = np.atleast_1d(np.asarray(target))
    if codes.dtype.kind in "iu":
        kept = np.flatnonzero((codes >= 0) & (codes < gradient.shape[1]))
        ax.scatter(codes[kept], kept, s=40, facecolors="white", edgecolors=BLACK)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set(xlabel="class (index; a circle is the target)", ylabel="row (index)")
    ax.set_title(f"Gradient of the loss, {np.sum(loss):.4f} nats")
    return ax


def reliability(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Accuracy against confidence by bins; on the diagonal, confidences are what they say.

    Args:
        evaluation: what `xent.evaluate` gives.
        ax: where to draw; pyplot's current axes where it is None.

    Returns:
        The Axes drawn on, with a second scale for the share of rows.

    Source: C. Guo et al., On calibration of modern neural networks, 2017.

    >>> import numpy as np, xent
    >>> from matplotlib.figure import Figure
    >>> told = xent.evaluate(np.eye(3) * 4, np.array([0, 1, 1]))
    >>> reliability(told, Figure().add_subplot()).get_title()
    'Reliability: ECE 29.80 %, MCE 29.80 %'
    """
    ax = axes(ax)
    bins = [b for b in evaluation.bins if b.share]
    width = 1 / len(evaluation.bins)
    ax.bar(
        [(b.lower + b.upper) / 2 for b in bins],
        [b.accuracy for b in bins],
        width=0.92 * width,
        color=BLUE,
        label="accuracy",
    )
    ax.plot(
        [b.confidence for b in bins],
        [b.accuracy for b in bins],
        "o",
        color=VERMILION,
        label="at the mean confidence",
    )
    ax.plot([0, 1], [0, 1], "--", color=BLACK, linewidth=1, label="calibrated")
    shares = ax.twinx()
    shares.step(
        [0.0, *(b.upper for b in evaluation.bins)],
        [evaluation.bins[0].share, *(b.share for b in evaluation.bins)],
        color=PURPLE,
        linewidth=1.5,
    )
    shares.set(ylim=(0, 1), ylabel="share of rows (purple line)")
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (of 1)", ylabel="accuracy (of 1)")
    told = f"ECE {100 * evaluation.ece:.2f} %, MCE {100 * evaluation.mce:.2f} %"
    ax.set_title(f"Reliability: {told}")
    ax.legend(loc="upper left", frameon=False)
    return ax
