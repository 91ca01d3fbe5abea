"""plots: what holds of every picture; each is compared with a picture of it that was looked at.

    XENT_DRAW=1 pytest tests/test_plots.py

draws the pictures in tests/pictures anew, to be looked at again.
"""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.testing.compare import compare_images

import xent
from xent import plots

BATCH = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9], [-1.0, 4.0, 0.0]])
PREDICTED = np.sin(np.arange(1200.0) ** 1.5).reshape(400, 3) * 2
PICTURES = Path(__file__).parent / "pictures"
PLOTS: dict[str, Callable[..., Axes]] = {
    "information": plots.information,
    "normal_entropy": lambda ax=None: plots.normal_entropy(2.5, ax, rng=0),
    "loss_curve": lambda ax=None: plots.loss_curve([1.0, 0.0, 2.0], 2, ax),
    "training_curves": lambda ax=None: plots.training_curves({"a": [3.0, 1.0], "b": [2.0]}, ax),
    "temperatures": lambda ax=None: plots.temperatures([2.0, 1.0, 0.1], ax=ax),
    "entropy_bar": lambda ax=None: plots.entropy_bar([0.5, 0.5], [0.9, 0.1], ax, base=2),
    "gradient_map": lambda ax=None: plots.gradient_map(BATCH, [1, 0, -100], ax),
    "reliability": lambda ax=None: plots.reliability(
        xent.evaluate(PREDICTED, np.arange(400) % 3), ax
    ),
}
WITHOUT_UNIT = {"step", "logit", "logit 0", "value", "probability", "training step"}


@pytest.fixture
def ax() -> Axes:
    return Figure(layout="constrained").add_subplot()


@pytest.fixture
def plt():
    """Pyplot without a window, and without figures of other tests."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.close("all")
    yield plt
    plt.close("all")


def test_all_of_them_are_here() -> None:
    assert set(PLOTS) == set(plots.__all__)


@pytest.mark.parametrize("name", PLOTS)
def test_the_given_axes_come_back_labelled(name: str, ax: Axes) -> None:
    assert PLOTS[name](ax) is ax
    assert ax.get_title()
    for axis in (ax.xaxis, ax.yaxis):
        label = axis.get_label_text()
        bare = not len(axis.get_ticklocs())
        assert "(" in label or label in WITHOUT_UNIT or bare, "the unit belongs on the axis"


@pytest.mark.parametrize("name", PLOTS)
def test_the_picture_is_the_one_that_was_looked_at(name: str, tmp_path: Path) -> None:
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(6, 4), layout="constrained")
        PLOTS[name](figure.add_subplot())
        kept, drawn = PICTURES / f"{name}.png", tmp_path / f"{name}.png"
        figure.savefig(kept if os.environ.get("XENT_DRAW") else drawn, dpi=60)
    if os.environ.get("XENT_DRAW"):
        return
    # the tolerance is a root mean square of 255: other letters pass, a moved line does not
    assert compare_images(str(kept), str(drawn), tol=5) is None


def test_another_picture_is_told(tmp_path: Path) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    plots.loss_curve([1.0, 0.0, 2.0], 1, figure.add_subplot())
    figure.savefig(tmp_path / "x.png", dpi=60)
    kept = str(PICTURES / "loss_curve.png")
    assert compare_images(kept, str(tmp_path / "x.png"), tol=5, in_decorator=True)


@pytest.mark.parametrize("name", PLOTS)
def test_given_axes_leave_pyplot_and_the_style_alone(name: str, ax: Axes, plt) -> None:
    before = dict(mpl.rcParams)
    PLOTS[name](ax)
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PLOTS)
def test_without_axes_the_current_ones_are_used(name: str, plt) -> None:
    current = plt.figure().add_subplot()
    assert PLOTS[name]() is current
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("name", PLOTS)
def test_every_picture_renders_without_a_warning(name: str, ax: Axes) -> None:
    PLOTS[name](ax)
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")


def test_importing_plots_imports_no_matplotlib() -> None:
    code = "import sys, xent.plots; print('matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_is_freed_with_its_last_user(name: str) -> None:
    figure = Figure()
    PLOTS[name](figure.add_subplot())
    alive = weakref.ref(figure)
    del figure
    gc.collect()
    assert alive() is None
