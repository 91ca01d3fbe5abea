"""Curves: information, the entropy of a normal, a loss and its gradient, training losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from xent import cross_entropy_vjp, info
from xent.plots.axes import BLACK, BLUE, COLOURS, DASHES, VERMILION, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def information(ax: Axes | None = None) -> Axes:
    """The information -log p of an event against its probability p, in nats and in bits.

    The left scale is in nats, the right one in bits (1 bit = log 2 nats); the point is one side of
    a fair coin, exactly 1 bit.

    Args:
        ax: where to draw; pyplot's current axes where it is None.

    Returns:
        The Axes drawn on.

    Source: C. E. Shannon, A mathematical theory of communication, 1948, section 6.

    >>> from matplotlib.figure import Figure
    >>> information(Figure().add_subplot()).get_ylabel()
    'information (nats)'
    """
    ax = axes(ax)
    p = np.linspace(0.01, 1, 100)
    ax.plot(p, info.information(p), color=BLUE, linewidth=2)
    coin = float(info.information(np.asarray(0.5)))
    ax.plot([0.5], [coin], "o", color=VERMILION)
    ax.annotate(
        f"a fair coin: {coin:.3f} nats = 1 bit",
        (0.5, coin),
        xytext=(-8, -14),
        textcoords="offset points",
        ha="right",
    )
    ax.set(xlim=(0, 1), ylim=(0, None), title="A rare event tells more")
    ax.set(xlabel="probability", ylabel="information (nats)")
    bits = ax.secondary_yaxis("right", functions=(info.to_bits, info.to_nats))
    bits.set_ylabel("information (bits)")
    ax.grid(alpha=0.3)
    return ax


def normal_entropy(
    std: float,
    ax: Axes | None = None,
    *,
    mean: float = 0.0,
    samples: int = 50_000,
    rng: np.random.Generator | int | None = None,
) -> Axes:
    """Samples of a normal, its density, and its entropy in nats by formula and by quadrature.

    The title holds the differential entropy from the closed form (1 + log(2 pi std^2)) / 2 and
    from the trapezoid rule over the density as drawn (mean plus and minus 6 std, 480 steps).

    Args:
        std: the standard deviation, a positive number.
        ax: where to draw; pyplot's current axes where it is None.
        mean: the mean.
        samples: how many samples the histogram counts.
        rng: a NumPy generator or a seed; None draws other samples at every call.

    Returns:
        The Axes drawn on.

    Raises:
        ValueError: std is not positive (from xent.info.Normal).

    Source: T. M. Cover and J. A. Thomas, Elements of Information Theory, 2nd ed., example 8.1.2.

    >>> from matplotlib.figure import Figure
    >>> normal_entropy(1.0, Figure().add_subplot(), rng=0).get_title()
    'N(0, 1²): entropy 1.4189 nats\\ntrapezoid rule: 1.4189 nats'
    """
    ax = axes(ax)
    normal = info.Normal(mean, std)
    closed_form = float(normal.entropy())
    x = np.linspace(mean - 6 * std, mean + 6 * std, 481)
    log_density = normal.log_density(x)
    density = np.exp(log_density)
    integrand = -density * log_density
    quadrature = float(np.sum((integrand[1:] + integrand[:-1]) / 2 * np.diff(x)))

    drawn = np.random.default_rng(rng).normal(mean, std, samples)
    ax.hist(
        drawn, bins=100, density=True, color=BLUE, alpha=0.4, label=f"{samples:,} samples, counted"
    )
    ax.plot(x, density, color=BLACK, linewidth=2, label="density")
    ax.set(xlabel="value", ylabel="probability density (1 / unit of value)")
    ax.set_title(
        f"N({mean:g}, {std:g}²): entropy {closed_form:.4f} nats\n"
        f"trapezoid rule: {quadrature:.4f} nats"
    )
    ax.margins(y=0.25)  # room for the legend; no fixed limit, so that panels can share their axis
    ax.legend(loc="upper right", frameon=False)
    return ax


def loss_curve(
    logits: Sequence[float] = (0.0, 0.0),
    target: int = 0,
    ax: Axes | None = None,
    *,
    vary: int = 0,
) -> Axes:
    """The cross entropy of one row, and its gradient, as one of its logits moves.

    The logit moves 8 up and 8 down; the dots are the row as given. Far below, the loss of the
    logit's own class is a straight line of slope -1; far above, loss and gradient vanish together.

    Args:
        logits: (V,), the row.
        target: its class.
        ax: where to draw; pyplot's current axes where it is None.
        vary: which logit moves.

    Returns:
        The Axes drawn on: the loss in nats and dloss/dlogit in nats per unit of logit.

    Raises:
        IndexError: target is no class of the row, or vary none of its logits.

    Source: C. M. Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3.4.

    >>> from matplotlib.figure import Figure
    >>> loss_curve([1.0, 0.0, 0.0], target=0, ax=Figure().add_subplot()).get_title()
    'Cross entropy of target 0 among 3 classes'
    """
    ax = axes(ax)
    row = np.asarray(logits, dtype=np.float64)
    step = np.linspace(-8, 8, 161)
    rows = np.tile(row, (step.size, 1))
    rows[:, vary] += step
    targets = np.full(step.size, target)
    loss, vjp = cross_entropy_vjp(rows, targets, reduction="none")
    gradient = vjp(np.ones_like(loss))[:, vary]

    ax.axhline(0, color=BLACK, linewidth=0.8)
    ax.plot(rows[:, vary], loss, color=BLUE, linewidth=2, label="loss (nats)")
    slope = f"dloss/dlogit {vary} (nats per unit)"
    ax.plot(rows[:, vary], gradient, "--", color=VERMILION, linewidth=2, label=slope)
    here = step.size // 2
    ax.plot([row[vary]], [loss[here]], "o", color=BLUE)
    ax.plot([row[vary]], [gradient[here]], "o", color=VERMILION)
    ax.set(xlabel=f"logit {vary}", ylabel="loss (nats), gradient (nats per unit of logit)")
    ax.set_title(f"Cross entropy of target {target} among {row.size} classes")
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return ax


def training_curves(losses: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Axes:
    """The losses of several trainings, step by step, one line for each.

    The lines differ in colour, in dashes and in width, and the later ones are narrower: where two
    trainings agree, both can be seen.

    Args:
        losses: for each training its name and its losses in nats, the first one at step 0.
        ax: where to draw; pyplot's current axes where it is None.

    Returns:
        The Axes drawn on.

    >>> from matplotlib.figure import Figure
    >>> drawn = training_curves({"torch": [0.7, 0.6], "xent": [0.7, 0.6]}, Figure().add_subplot())
    >>> [line.get_label() for line in drawn.get_lines()]
    ['torch', 'xent']
    """
    ax = axes(ax)
    widths = np.linspace(6, 2, len(losses)) if len(losses) > 1 else [2.0]
    looks = cycle(zip(COLOURS, DASHES, strict=True))
    for (name, loss), (color, dashes), width in zip(losses.items(), looks, widths, strict=False):
        ax.plot(range(len(loss)), loss, dashes, color=color, linewidth=width, label=name)
    ax.set(xlabel="step", ylabel="loss (nats)", title="Training loss")
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    return ax
