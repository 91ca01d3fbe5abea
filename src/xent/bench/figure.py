"""The picture of a Report: the time of each peer over xent's, on a log scale, and the floor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xent.bench.cases import QUANTITIES
from xent.bench.peers import PEERS
from xent.bench.records import OURS, Report
from xent.bench.report import FLOORS, counted, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito (2008), Color universal design; a marker for each besides.
LOOKS = (
    *(("#0072B2", "o"), ("#56B4E9", "v"), ("#D55E00", "s")),
    *(("#009E73", "D"), ("#CC79A7", "^"), ("#E69F00", "P"), ("#A05A2C", "X")),
)
BLACK, GREY = "#000000", "#808080"
ACROSS = 3  # panels
WIDE = 100  # from the least to the most ratio: more than powers of ten would crowd the axis
HEIGHT = 0.12  # of a row, between one peer and the next


def speed(report: Report, quantity: str, threads: int, ax: Axes | None = None) -> Axes:
    """How many times longer than xent each peer takes, one row of markers for each case.

    A marker is the median of the rounds, the line through it goes from the least to the largest.
    The grey line is the floor: of logits torch's sum for a forward, else its copy; of a linear head
    its matrix products.

    Args:
        report: what was measured.
        quantity: one of `cases.QUANTITIES`.
        threads: one of the numbers that were measured.
        ax: where to draw; pyplot's current axes where it is None.

    Returns:
        The Axes drawn on.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.gca()
    found = [m for m in report.measurements if (m.quantity, m.threads) == (quantity, threads)]
    # Those of the whole report, so that panels can share their axis.
    cases = dict.fromkeys(m.case for m in report.measurements)
    rows = {case: row for row, case in enumerate(cases)}
    peers = [name for name in PEERS if any(m.peer == name for m in found)]
    for place, peer in enumerate(peers):
        mine = [m for m in found if m.peer == peer]
        shift = HEIGHT * (place - (len(peers) - 1) / 2)
        y = [rows[m.case] + shift for m in mine]
        color, marker = LOOKS[list(PEERS).index(peer)]
        ax.hlines(y, [m.ratio.min for m in mine], [m.ratio.max for m in mine], color=color)
        middle = [m.ratio.median for m in mine]
        ax.plot(middle, y, marker, color=color, markersize=5, label=peer)

    floor = next((f for f in FLOORS if found and f in found[0].floors), "")
    label = f"floor: {floor}"
    for case, m in shown(found).items():
        x, y = m.seconds[floor].median / m.seconds[OURS].median, rows[case]
        ax.vlines(x, y - 0.45, y + 0.45, color=GREY, linewidth=3, label=label)
        label = ""  # one line in the legend
    ax.axvline(1, color=BLACK, linewidth=1.2, label="xent")
    ax.set_xscale("log")
    ax.set_yticks(list(rows.values()), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    least, most = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if most < WIDE * least else (1,)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(
        xlabel="time / xent's time (right of 1: slower than xent)",
        title=f"{quantity.capitalize()}, {counted(threads)}",
    )
    ax.grid(axis="x", alpha=0.3)
    return ax


def memory(report: Report, ax: Axes | None = None) -> Axes:
    """The peak of memory of each implementation, one row of markers for each case.

    Args:
        report: what was measured.
        ax: where to draw; pyplot's current axes where it is None.

    Returns:
        The Axes drawn on.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.gca()
    cases = dict.fromkeys(m.case for m in report.measurements)
    rows = {case: row for row, case in enumerate(cases)}
    looks = {OURS: (BLACK, "|"), **dict(zip(PEERS, LOOKS, strict=True))}
    there = [name for name in looks if any(m.subject == name for m in report.memory)]
    for place, subject in enumerate(there):
        mine = [m for m in report.memory if m.subject == subject and m.logits is not None]
        shift = HEIGHT * (place - (len(there) - 1) / 2)
        color, marker = looks[subject]
        y = [rows[m.case] + shift for m in mine if m.case in rows]
        x = [m.logits or 0.0 for m in mine if m.case in rows]
        size = 9 if subject == OURS else 5
        ax.plot(x, y, marker, color=color, markersize=size, markeredgewidth=2, label=subject)
    ax.set_yticks(list(rows.values()), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(left=-0.1)
    ax.set(xlabel="peak memory / memory of the logits", title="Memory of forward and backward")
    ax.grid(axis="x", alpha=0.3)
    return ax


def draw(report: Report, file: Path) -> None:
    """A panel for each quantity and number of threads, and one of memory.

    The picture has the format that the ending of the file's name says.
    """
    from matplotlib.figure import Figure

    panels = [
        (quantity, threads)
        for threads in report.settings["threads"]
        for quantity in QUANTITIES
        if any((m.quantity, m.threads) == (quantity, threads) for m in report.measurements)
    ]
    remembered = bool(panels and report.memory)
    count = len(panels) + remembered
    across = max(1, min(ACROSS, count))
    down = max(1, -(-count // across))
    cases = len({m.case for m in report.measurements})
    size = (2 + 4.5 * across, 1.6 + down * (0.8 + 0.6 * cases))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    for (quantity, threads), ax in zip(panels, grid.flat, strict=False):
        speed(report, quantity, threads, ax)
    if remembered:
        memory(report, grid.flat[count - 1])
    for ax in grid.flat[count:]:
        ax.set_axis_off()
    handles = {
        label: handle
        for ax in grid.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=5, frameon=False
        )
    figure.suptitle(f"{report.machine['processor']}, {report.machine['cores']} cores")
    figure.savefig(file, dpi=110)
