"""plots.axes: the colours are told apart with any colour vision."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from xent.plots.axes import COLOURS, HATCHES

# G. M. Machado et al., A physiologically-based model for simulation of color vision deficiency,
# 2009, at full severity, on linear light.
SEEN = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(linear: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(TO_XYZ @ np.clip(linear, 0, 1) / TO_XYZ.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def linear(colour: str) -> np.ndarray:
    return np.array(to_rgb(colour)) ** 2.2


@pytest.mark.parametrize("vision", SEEN)
def test_colours_differ(vision: str) -> None:
    seen = [lab(np.array(SEEN[vision]) @ linear(colour)) for colour in COLOURS]
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(one - other) > 15, "a just noticeable difference is about 2.3"


def test_red_and_green_would_not_pass() -> None:
    seen = [lab(np.array(SEEN["deuteranopia"]) @ linear(c)) for c in ("#c04000", "#707000")]
    assert np.linalg.norm(seen[0] - seen[1]) < 15


def test_bars_differ_without_any_colour() -> None:
    assert len(set(HATCHES)) == len(COLOURS)
