"""explanation.record: steps as data, and the ways an explanation shows itself."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

import xent

sys.path.insert(0, str(Path(__file__).parent))
from explained import LOGITS, TARGET

from xent.explanation.record import PARTS


def test_steps_are_frozen_data() -> None:
    told = xent.explain(LOGITS, TARGET)
    assert isinstance(told.steps, tuple)
    step = told["lse"]
    assert (step.name, step.title, step.part) == ("lse", "Log-sum-exp", "forward")
    for value in (step for one in told.steps for step in one.values.values()):
        assert isinstance(value, np.ndarray)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.title = "other"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(dataclasses.FrozenInstanceError):
        told.lang = "ko"  # pyright: ignore[reportAttributeAccessIssue]


def test_parts_have_all_steps_in_order() -> None:
    told = xent.explain(np.zeros((9, 3)), [0] * 9)
    found = list(told.parts())
    assert [title for title, _ in found] == ["The batch", "Forward", "Backward", "Numerics"]
    numbers = [number for _, steps in found for number, _ in steps]
    assert numbers == list(range(1, len(told.steps) + 1))
    assert {step.part for step in told.steps} == set(PARTS)


def test_the_heading_has_the_loss() -> None:
    assert xent.explain(LOGITS, TARGET).heading == "Cross entropy: 2.0185 nats"
    assert xent.explain(LOGITS, TARGET, reduction="none").heading == "Cross entropy of each row"


def test_it_shows_itself_in_every_way() -> None:
    told = xent.explain(LOGITS, TARGET)
    assert repr(told) == str(told)
    assert told._repr_html_().startswith('<div class="xent-explain"')
    assert told._repr_latex_().startswith("$$")
    assert told._repr_markdown_().startswith("## Cross entropy")
    assert told.html().startswith("<!doctype html>")
    assert told.as_dict()["loss"] == float(told.loss)


def test_the_gradient_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from xent.explanation.batch import Batch

    made: list[int] = []
    real = Batch.gradient
    monkeypatch.setattr(Batch, "gradient", lambda self: made.append(1) or real(self))
    told = xent.explain(LOGITS, TARGET)
    assert not made
    assert told.gradient is told.gradient
    assert made == [1]
