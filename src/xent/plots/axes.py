"""What every picture shares: its Axes and its colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008), Color universal design.
BLUE, VERMILION, BLACK, GREEN, PURPLE = "#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7"
COLOURS, DASHES = (BLUE, VERMILION, BLACK, GREEN, PURPLE), ("-", "--", ":", "-.", "-")
HATCHES = ("", "///", "...", "xxx", "\\\\\\")


def axes(ax: Axes | None) -> Axes:
    """The Axes given, or pyplot's current ones."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.gca()
