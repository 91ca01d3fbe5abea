"""explanation.batch: rows in blocks, whatever their axes and library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import xent
from xent.explanation import batch as module
from xent.explanation.batch import Batch, wide
from xent.spec import Spec


def made(logits: Any, target: Any, weight: Any = None, **options: Any) -> Batch:
    return Batch.of(logits, target, weight, Spec(function="explain", **options))


@pytest.mark.parametrize("block", [1, 5, 12, 30, 10**6])
def test_the_size_of_a_block_changes_nothing(
    block: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    logits, target = rng.standard_normal((7, 5, 3)), rng.integers(0, 5, (7, 3))
    found = made(logits, target, reduction="none")
    np.testing.assert_allclose(
        found.loss, xent.cross_entropy(logits, target, reduction="none"), rtol=1e-15
    )
    assert (found.likeliest.reshape(7, 3) == logits.argmax(1)).all()
    soft = made(logits, xent.softmax(logits, axis=1))
    np.testing.assert_allclose(
        soft.gradient(),
        xent.cross_entropy_vjp(logits, xent.softmax(logits, axis=1))[1](1.0),
        atol=1e-17,
    )


def test_rows_are_read_once(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = rng.standard_normal((50, 4)), rng.integers(0, 4, 50)
    monkeypatch.setattr(module, "BLOCK", 40)
    read: list[int] = []
    monkeypatch.setattr(module, "wide", lambda array: read.append(array.size) or wide(array))
    found = made(logits, target)
    assert float(found.loss) == pytest.approx(float(xent.cross_entropy(logits, target)))
    assert (found.losses >= 0).all()
    assert found.likeliest.shape == (50,)
    assert sum(read) == logits.size


def test_denominator_is_that_of_the_reduction(rng: np.random.Generator) -> None:
    logits, weight = rng.standard_normal((4, 3)), np.array([1.0, 2.0, 4.0])
    target = np.array([2, -100, 0, 1])
    assert made(logits, target).denominator == 3
    assert made(logits, target, weight).denominator == 7
    assert made(logits, target, weight).row_weight.tolist() == [4, 0, 1, 2]
    assert made(logits, target, weight, normalizer=5.0).denominator == 5
    assert made(logits, target, weight, normalizer=np.asarray(5)).denominator == 5
    assert made(logits, target, reduction="sum").denominator is None
    assert made(logits, xent.softmax(logits), weight).denominator == 4
    assert made(logits, target).scale.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])


def test_all_rows_ignored_give_nan() -> None:
    found = made(np.zeros((2, 3)), np.array([-100, -100]))
    assert np.isnan(found.loss)
    assert found.gradient().tolist() == np.zeros((2, 3)).tolist()


def test_rows_are_named_as_in_the_target(rng: np.random.Generator) -> None:
    flat = made(rng.standard_normal((4, 3)), rng.integers(0, 3, 4))
    assert flat.label(2) == "2"
    deep = made(rng.standard_normal((2, 3, 4)), rng.integers(0, 3, (2, 4)))
    assert [deep.label(i) for i in (0, 5)] == ["(0, 0)", "(1, 1)"]


def test_a_tensor_that_needs_a_gradient_is_read() -> None:
    half = torch.tensor([[1.5, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    assert wide(half).tolist() == [[1.5, 2.0]]
    assert wide(half).dtype == np.float64
