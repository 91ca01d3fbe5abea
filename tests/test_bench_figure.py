"""bench/figure.py: every marker is where its ratio is."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xent.bench import figure
from xent.bench.peers import PEERS

sys.path.insert(0, str(Path(__file__).parent))
import bench_report


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def collected(ax: Axes) -> dict[str, np.ndarray]:
    """The segments of the lines that have a label."""
    return {str(c.get_label()): np.array(c.get_segments()) for c in ax.collections}


def test_markers_and_lines_are_the_ratios(ax: Axes) -> None:
    before = dict(mpl.rcParams)
    assert figure.speed(bench_report.report(), "forward", 2, ax) is ax
    lines = {str(line.get_label()): line.get_data() for line in ax.get_lines()}
    assert list(lines) == ["torch", "optax", "xent"]
    np.testing.assert_array_equal(lines["torch"][0], [8.0, 16.0])
    np.testing.assert_array_equal(lines["optax"][0], [0.5])
    np.testing.assert_array_equal(lines["xent"][0], [1, 1])
    ends = np.array(ax.collections[0].get_segments())[:, :, 0]
    np.testing.assert_array_equal(ends, [[4.0, 32.0], [8.0, 64.0]])
    floor = collected(ax)["floor: sum"]
    np.testing.assert_allclose(floor[0][:, 0], 1 / 1.25)
    np.testing.assert_allclose(np.array(ax.collections[-1].get_segments())[0][:, 0], 1 / 3)
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_yticklabels()] == [bench_report.CASE, bench_report.OTHER]
    assert ax.get_title() == "Forward, 2 threads"
    assert dict(mpl.rcParams) == before


def test_a_backward_has_the_floor_of_a_copy(ax: Axes) -> None:
    figure.speed(bench_report.report(), "forward and backward", 2, ax)
    np.testing.assert_allclose(collected(ax)["floor: copy"][0][:, 0], 1 / 1.75)


def test_a_case_has_the_same_row_in_every_panel(ax: Axes) -> None:
    made = bench_report.report()
    made.measurements = [
        m for m in made.measurements if (m.case, m.quantity) != (bench_report.CASE, "forward")
    ]
    rows = [t.case for t in made.measurements]
    assert rows[0] == bench_report.OTHER
    for quantity, row in (("forward", 0), ("forward and backward", 1)):
        figure.speed(made, quantity, 2, ax)
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels == [bench_report.OTHER, bench_report.CASE]
        (y,) = ax.get_lines()[0].get_ydata()
        assert abs(float(y) - row) < 0.5
        ax.clear()


def test_peers_can_be_told_apart() -> None:
    assert len(figure.LOOKS) >= len(PEERS)
    assert len({color for color, _ in figure.LOOKS}) == len(figure.LOOKS)
    assert len({marker for _, marker in figure.LOOKS}) == len(figure.LOOKS)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_picture_is_written(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"ratios.{ending}"
    figure.draw(bench_report.report(), file)
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert file.read_bytes().startswith(start)


def test_nothing_measured_is_an_empty_picture(tmp_path: Path) -> None:
    empty = bench_report.report()
    empty.measurements = []
    figure.draw(empty, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").exists()


def test_without_axes_the_current_ones_are_used() -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    current = plt.figure().add_subplot()
    assert figure.speed(bench_report.report(), "forward", 2) is current
    plt.close("all")
