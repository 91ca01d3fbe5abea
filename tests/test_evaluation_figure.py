"""evaluation.figure: what the three panels show is what was evaluated."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

import xent
from xent.evaluation import figure

sys.path.insert(0, str(Path(__file__).parent))
from prediction_files import drawn


@pytest.mark.parametrize("classes", [3, 100])
def test_the_panels(classes: int, rng: np.random.Generator, tmp_path: Path) -> None:
    told = xent.evaluate(*drawn(rng, 600, classes))
    ax = figure.losses(told, Figure().add_subplot())
    assert sum(ax.patches[0].get_data().values) == pytest.approx(1 - told.losses[0] / 600)
    ax = figure.classes(told, Figure().add_subplot())
    assert len(ax.patches) == min(classes, figure.MOST_BARS)
    assert ("that add most" in ax.get_title()) == (classes == 100)
    figure.draw(told, tmp_path / "x.png")
    assert image.imread(tmp_path / "x.png").std() > 0


def test_losses_of_zero_can_be_drawn(tmp_path: Path) -> None:
    told = xent.evaluate(np.array([[900.0, 0.0]] * 3), np.zeros(3, int))
    figure.draw(told, tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
