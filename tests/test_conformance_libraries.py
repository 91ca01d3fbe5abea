"""conformance/libraries: numbers go in and come out, and gradients are those of the library."""

from __future__ import annotations

import numpy as np
import pytest

from xent.conformance.libraries import LIBRARIES, installed, library

USED = [n for n in LIBRARIES if n not in ("tinygrad", "mlx")]


@pytest.mark.parametrize("name", USED)
def test_numbers_in_and_out(name: str, rng: np.random.Generator) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    used, values = library(name), np.round(rng.standard_normal((2, 3)) * 8) / 8
    for dtype in ("float16", "float32", "float64"):
        array = used.array(values, dtype)
        assert used.dtype(array) == dtype
        np.testing.assert_array_equal(used.values(array), values)
    assert used.dtype(used.index([1, 0], "int32")) == "int32"


@pytest.mark.parametrize("name", USED)
def test_gradients(name: str, rng: np.random.Generator) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    used, values = library(name), rng.standard_normal((2, 3))
    array = used.array(values, "float64")
    result, (gradient,) = used.vjp(lambda x: (x * x).sum(1), [array], np.array([1.0, 3.0]))
    np.testing.assert_allclose(used.values(result), (values**2).sum(1))
    if not used.differentiates:
        assert gradient is None
        return
    np.testing.assert_allclose(used.values(gradient), 2 * values * [[1.0], [3.0]])


def test_a_cut_graph_has_no_gradient() -> None:
    used = library("torch")
    array = used.array([1.0, 2.0], "float64")
    assert used.vjp(lambda x: x.detach().sum(), [array], None)[1] == [None]


def test_bfloat16_of_numpy_is_refused() -> None:
    with pytest.raises(TypeError, match="bfloat16"):
        library("numpy").array([1.0], "bfloat16")
