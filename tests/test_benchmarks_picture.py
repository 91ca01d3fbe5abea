"""benchmarks/picture.py: the README's picture shows the figures of the results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from matplotlib import image
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import picture

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_opens_with_it() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](docs/xent.png)" in text.split("\n\n")[1]
    assert image.imread(ROOT / "docs/xent.png").shape == (396, 1320, 4)


def test_its_case_was_measured_beside_every_rival() -> None:
    results = json.loads(picture.RESULTS.read_text(encoding="utf-8"))
    measured = {m["peer"] for m in results["measurements"] if m["case"] == picture.CASE}
    assert set(picture.NAMES) <= measured


def test_the_losses_are_exact_where_torchs_end() -> None:
    ax = Figure().add_subplot()
    picture.losses(ax)
    lines = {line.get_label(): line.get_data() for line in ax.get_lines()}
    exact, ours, theirs = (np.array(lines[name][1]) for name in ("exact", "xent", "torch"))
    np.testing.assert_allclose(ours, exact, rtol=1e-6)
    assert len(theirs) < len(ours)
    assert theirs[-1] > 0


def test_it_is_drawn(tmp_path: Path) -> None:
    picture.main(tmp_path / "x.png")
    assert image.imread(tmp_path / "x.png").std() > 0.1
