"""The picture of an evaluation: reliability diagram, histogram of losses, classes as bars."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xent.evaluation.measures import DECADES
from xent.plots import reliability
from xent.plots.axes import BLUE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xent.evaluation.single import Evaluation

MOST_BARS = 30  # classes; of more, those of the largest total loss


def draw(told: Evaluation, file: Path) -> None:
    """Write the three panels to a file of that name's format."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(3, 3, 4))
    reliability(told, first)
    losses(told, second)
    classes(told, third)
    figure.savefig(file, dpi=150, format=file.suffix.removeprefix(".") or "png")


def losses(told: Evaluation, ax: Axes) -> Axes:
    """How many rows have which loss, on a scale of decades; the first bar is all that is below."""
    edges = 10.0 ** np.linspace(DECADES[0], DECADES[1], len(told.losses) - 1)
    counts = told.losses / max(1.0, float(np.sum(told.losses)))
    inside = np.flatnonzero(counts[1:-1])
    first = int(inside[0]) if len(inside) else 0
    ax.stairs(counts[1 + first : -1], edges[first:], fill=True, color=BLUE)
    ax.set(xscale="log", xlabel="loss of a row (nats)", ylabel="share of rows")
    ax.margins(y=0.2)  # room for the legend
    mean = told.log_perplexity
    if 0 < mean < edges[-1]:
        ax.axvline(mean, color=VERMILION, linewidth=2, label=f"mean {mean:.4g} nats")
        ax.legend(loc="upper left", frameon=False)
    below = f"\n{100 * counts[0]:.1f} % of rows below 1e{DECADES[0]}" if counts[0] > 0.0005 else ""
    ax.set_title(f"Losses{below}")
    return ax


def classes(told: Evaluation, ax: Axes) -> Axes:
    """The mean loss of each class, or of those that add most to the whole."""
    table = [c for c in told.per_class if c["rows"]]
    most = sorted(table, key=lambda c: -c["rows"] * c["loss"])[:MOST_BARS]
    shown = sorted(most, key=lambda c: c["class"])
    names = [str(c["class"]) for c in shown]
    ax.bar(names, [c["loss"] for c in shown], color=BLUE)
    ax.axhline(told.loss, color=VERMILION, linewidth=2, label="mean of all rows")
    of = "" if len(table) == len(shown) else f": {len(shown)} of {len(table)} that add most to it"
    ax.set(xlabel="class", ylabel=f"mean loss ({told.unit})", title=f"Loss by class{of}")
    ax.margins(y=0.2)
    ax.tick_params(axis="x", labelrotation=90 if len(names) > 12 else 0)
    ax.legend(frameon=False)
    return ax
