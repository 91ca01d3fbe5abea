"""Bars of distributions: softmax at several temperatures, and what a wrong model costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xent import info, softmax
from xent.plots.axes import BLACK, BLUE, COLOURS, HATCHES, VERMILION, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

UNITS = {None: "nats", 2: "bits", 10: "hartleys"}


def temperatures(
    logits: Sequence[float], values: Sequence[float] = (0.5, 1.0, 2.0, 5.0), ax: Axes | None = None
) -> Axes:
    """softmax(logits / T) of one row at several temperatures T, a group of bars for each class.

    Args:
        logits: (V,), the row.
        values: the temperatures, positive numbers.
        ax: where to draw; pyplot's current axes where it is None.

    Returns:
        The Axes drawn on.

    Raises:
        ValueError: a temperature is not positive.

    Source: G. Hinton, O. Vinyals, J. Dean, Distilling the knowledge in a neural network, 2015.

    >>> from matplotlib.figure import Figure
    >>> drawn = temperatures([2.0, 1.0, 0.1], [0.5, 1.0], Figure().add_subplot())
    >>> [text.get_text() for text in drawn.get_legend().get_texts()]
    ['T = 0.5', 'T = 1']
    """
    row = np.asarray(logits, dtype=np.float64)
    for number in values:
        if not number > 0:
            raise ValueError(f"temperatures: values has {number!r}, expected positive temperatures")
    ax = axes(ax)
    width = 0.8 / len(values)
    for i, number in enumerate(values):
        place = np.arange(row.size) + (i - (len(values) - 1) / 2) * width
        colour, hatch = COLOURS[i % len(COLOURS)], HATCHES[i % len(HATCHES)]
        ax.bar(
            *(place, softmax(row / number), width),
            color="white" if hatch else colour,
            edgecolor=colour,
            hatch=hatch,
            label=f"T = {number:g}",
        )
    ax.set_xticks(np.arange(row.size), [f"class {c}\n{x:g}" for c, x in enumerate(row)])
    ax.set(ylim=(0, 1), xlabel="logit", ylabel="probability (of 1)")
    ax.set_title("A high temperature evens out")
    ax.legend(frameon=False)
    return ax


def entropy_bar(p: Any, q: Any, ax: Axes | None = None, *, base: float | None = None) -> Axes:
    """The cross entropy H(p, q) as the entropy H(p) and the divergence KL(p || q) end to end.

    H(p) is what p itself costs, KL(p || q) what is paid for believing q. A divergence that is
    infinite (q is 0 where p is not) is drawn as an open bar.

    Args:
        p: (V,), the distribution that things have.
        q: (V,), the one that is believed.
        ax: where to draw; pyplot's current axes where it is None.
        base: of the logarithm; None gives nats, 2 bits.

    Returns:
        The Axes drawn on.

    Raises:
        ValueError: p or q is no distribution (from xent.info).

    Source: T. M. Cover and J. A. Thomas, Elements of Information Theory, 2nd ed., theorem 5.4.3.

    >>> from matplotlib.figure import Figure
    >>> drawn = entropy_bar([0.5, 0.5], [0.9, 0.1], Figure().add_subplot(), base=2)
    >>> drawn.get_title()
    'H(p) + KL(p || q) = H(p, q)\\n1.0000 + 0.7370 = 1.7370 bits'
    """
    entropy = float(info.entropy(p, base=base))
    divergence = float(info.kl_divergence(p, q, base=base))
    total = float(info.cross_entropy(p, q, base=base))
    ax = axes(ax)
    unit = UNITS.get(base, f"units of log {base}")
    endless = np.isinf(divergence)
    shown = max(entropy, 1.0) if endless else divergence
    ax.barh([0], [entropy], 0.5, color=BLUE, label="H(p)")
    ax.barh(
        *([0], [shown], 0.5, [entropy]),
        color="white",
        edgecolor=VERMILION,
        hatch="///",
        label="KL(p || q)",
    )
    if endless:
        ax.annotate(
            "→ ∞",
            (entropy + shown, 0),
            va="center",
            ha="right",
            color=BLACK,
            fontsize=16,
            bbox={"color": "white"},
        )
    ax.set(yticks=[], ylim=(-0.6, 0.9), xlim=(0, 1.08 * (entropy + shown) or 1))
    ax.set(xlabel=f"H(p, q) ({unit})")
    ax.set_title(
        f"H(p) + KL(p || q) = H(p, q)\n{entropy:.4f} + {divergence:.4f} = {total:.4f} {unit}"
    )
    ax.legend(frameon=False, loc="upper left", ncols=2)
    return ax
