"""The picture at the head of the README: what was measured, as three panels.

    python benchmarks/picture.py [FILE]

The losses are computed now; times and memory are those of benchmarks/results/cpu.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.figure import Figure

import xent
from xent.plots.axes import BLACK, BLUE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/cpu.json"
CASE, QUANTITY = "2048x32000-float32", "forward and backward"
NAMES = {"torch": "torch", "torch-compile": "torch.compile", "optax": "optax", "numpy": "NumPy"}


def losses(ax: Axes) -> None:
    """The loss of a row that is right by ever more: torch's is 0 from a gap of 17 on."""
    gaps = torch.linspace(0, 80, 321)
    rows = torch.stack([gaps, torch.zeros_like(gaps)], dim=1)
    target = torch.zeros(len(rows), dtype=torch.long)
    exact = np.log1p(np.exp(-gaps.double().numpy()))
    ours = xent.cross_entropy(rows, target, reduction="none").numpy()
    theirs = torch.nn.functional.cross_entropy(rows, target, reduction="none").numpy()
    ax.plot(gaps, exact, color=BLACK, linewidth=5, alpha=0.25, label="exact")
    ax.plot(gaps, ours, color=BLUE, linewidth=2, label="xent")
    last = int(np.flatnonzero(theirs)[-1])
    ax.plot(gaps[: last + 1], theirs[: last + 1], "--", color=VERMILION, linewidth=2, label="torch")
    ax.plot([gaps[last]] * 2, [theirs[last], 1e-35], ":", color=VERMILION, linewidth=2)
    ax.annotate("0 from here on", (float(gaps[last]) + 1.5, 1e-33), color=VERMILION)
    ax.set(yscale="log", ylim=(1e-35, 10), xlabel="how far the right logit leads")
    ax.set(ylabel="loss (nats)", title="Exact: float32, two classes")
    ax.legend(frameon=False)


def bars(ax: Axes, told: dict[str, float]) -> None:
    """Horizontal bars, xent's in its colour, each with its number."""
    names = list(told)
    colours = [BLUE if name.startswith("xent") else VERMILION for name in names]
    ax.barh(names, [told[name] for name in names], color=colours)
    for place, name in enumerate(names):
        ax.annotate(f" {told[name]:.3g}", (told[name], place), va="center")
    ax.invert_yaxis()
    ax.margins(x=0.15)


def main(file: Path) -> None:
    """Draw the panels into a file."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    times = {"xent": 1.0}
    for name in NAMES:
        (found,) = (
            m
            for m in results["measurements"]
            if (m["case"], m["peer"], m["quantity"]) == (CASE, name, QUANTITY)
        )
        times[NAMES[name]] = found["ratio"]["median"]
    memory: dict[str, float] = {
        NAMES.get(m["subject"], str(m["subject"])): m["logits"]
        for m in results["memory"]
        if m["case"] == CASE and m["subject"] in ("xent", "xent in place", *NAMES)
    }
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    first, second, third = figure.subplots(1, 3)
    losses(first)
    bars(second, times)
    second.set(
        xlabel="forward and backward (times as long as xent)", title="Fast: 2048 x 32000, CPU"
    )
    bars(third, memory)
    third.set(xlabel="memory on top (times the logits)", title="Small: 2048 x 32000, CPU")
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs/xent.png")
