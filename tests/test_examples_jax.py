"""examples/jax_cross_entropy.py: a recipe, held against optax and xent where there is JAX."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xent

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
FILE = Path(__file__).parents[1] / "examples" / "jax_cross_entropy.py"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return runpy.run_path(str(FILE))


def test_jax_cross_entropy(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FILE), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == [
        "loss 4.248354e-18, gradient -4.248354e-18 and 4.248354e-18",
        "gradients of the head: (8, 4) and (10, 4)",
    ]


def test_the_loss_and_its_gradient(recipe: dict[str, Any], rng: np.random.Generator) -> None:
    logits = (rng.standard_normal((6, 5)) * 8).astype("float32")
    target = rng.integers(0, 5, 6)
    loss, gradient = jax.jit(jax.value_and_grad(recipe["cross_entropy"]))(logits, target)
    theirs = optax.softmax_cross_entropy_with_integer_labels(jax.numpy.array(logits), target)
    assert float(loss) == pytest.approx(float(theirs.mean()), rel=1e-5)
    exact, vjp = xent.cross_entropy_vjp(logits.astype("float64"), target)
    assert float(loss) == pytest.approx(float(exact), rel=1e-6)
    np.testing.assert_allclose(gradient, vjp(1.0), rtol=2e-5)


def test_the_head_is_the_loss_of_its_logits(
    recipe: dict[str, Any], rng: np.random.Generator
) -> None:
    hidden, weight = rng.standard_normal((8, 4)), rng.standard_normal((7, 4))
    given = [jax.numpy.array(array.astype("float32")) for array in (hidden, weight)]
    target = rng.integers(0, 7, 8)
    function = jax.value_and_grad(recipe["linear_cross_entropy"], argnums=(0, 1))
    for rows in (1, 4, 8):
        loss, gradients = function(*given, target, rows)
        exact, vjp = xent.linear_cross_entropy_vjp(hidden, weight, target)
        assert float(loss) == pytest.approx(float(exact), rel=1e-5)
        for mine, right in zip(gradients, vjp(1.0)[:2], strict=True):
            np.testing.assert_allclose(mine, right, rtol=1e-3, atol=1e-6)
