"""Calls of `xent.explain` for its tests: the worked example of the course notes, and drawn ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from xent.explanation.batch import Batch
from xent.explanation.told import Told, chosen, told
from xent.spec import Spec

LOGITS = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
TARGET = np.array([1, 0])


@st.composite
def calls(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Logits (N, V), class indices or probabilities, and options of all kinds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, classes = draw(st.integers(1, 9)), draw(st.integers(2, 12))
    logits = rng.standard_normal((rows, classes)) * draw(st.sampled_from([0.1, 3.0, 40.0]))
    options: dict[str, Any] = {
        "label_smoothing": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "z_loss": draw(st.sampled_from([0.0, 0.01])),
        "softcap": draw(st.sampled_from([None, 30.0])),
        "logit_scale": draw(st.sampled_from([1.0, 0.5])),
        "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
    }
    if draw(st.booleans()):
        options["weight"] = rng.random(classes) + 0.1
    if options["reduction"] == "mean" and draw(st.booleans()):
        options["normalizer"] = 7.0
    if draw(st.booleans()):
        return logits, rng.dirichlet(np.ones(classes), rows), options
    target = rng.integers(0, classes, rows)
    target[1 + rng.integers(0, rows) :] = -100  # the first row takes part
    return logits, target, options


def shown(
    logits: Any, target: Any, weight: Any = None, rows: int = 6, classes: int = 8, **options: Any
) -> tuple[Batch, Told]:
    """The batch, and the numbers of its rows."""
    batch = Batch.of(logits, target, weight, Spec(function="explain", **options))
    return batch, told(batch, chosen(batch, rows), classes)
