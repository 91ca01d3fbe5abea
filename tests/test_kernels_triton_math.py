"""Elementary functions of the Triton kernels, against NumPy's in a wider type or the oracle's."""

from __future__ import annotations

import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton
import triton.language as tl
import triton_cases
from kernel_cases import near

from xent.kernels import triton_math as of

SIZE = 1024


@triton.jit
def one(x, y, out, lost, NAME: tl.constexpr, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    a, b = tl.load(x + at), tl.load(y + at)
    low = tl.zeros_like(a)
    if NAME == "exp32":
        high = of.exp32(a, b)
    elif NAME == "log1p":
        high = of.log1p(a)
    elif NAME == "tanh":
        high = of.tanh(a)
    elif NAME == "slope_of_tanh":
        high = of.slope_of_tanh(a)
    elif NAME == "difference":
        high, low = of.difference(a, b)
    elif NAME == "product":
        high, low = of.product(a, b)
    elif NAME == "weighted":
        high = of.weighted(a, b)
    else:
        high = of.double(a.to(tl.int64, bitcast=True))
    tl.store(out + at, high)
    tl.store(lost + at, low)


def run(name, x, y=None):
    """A function of numbers, and what it says to have lost."""
    x = torch.from_numpy(x)
    y = torch.zeros_like(x) if y is None else torch.from_numpy(y)
    given = tuple(map(triton_cases.there, (x, y, torch.empty_like(x), torch.empty_like(x))))
    with triton_cases.running():
        one[(1,)](*given, NAME=name, SIZE=SIZE, enable_fp_fusion=True)
    return given[2].cpu().numpy(), given[3].cpu().numpy()


def sizes(rng, low, high):
    """Numbers of sizes between two powers of ten."""
    return 10.0 ** rng.uniform(low, high, SIZE)


def test_exp_of_float32_in_two_parts(rng):
    high = np.float32(-rng.uniform(0, 87.3, SIZE))
    high[:9] = [0, -0.0, -1e-30, -87.33654, -87.34, -100, -np.inf, np.nan, -3e38]
    low = np.float32(rng.uniform(-0.5, 0.5, SIZE) * np.spacing(high))
    low[~(abs(high) < 88)] = 0
    found, _ = run("exp32", high, low)
    right = np.exp(np.float64(high) + low)
    right[high < -87.33655] = 0
    near(found, right, "float32", 1.1)


def test_log1p(rng):
    x = sizes(rng, -320, 6)
    x[:4] = [0, 1, np.nan, 1e-310]
    near(run("log1p", x)[0], np.log1p(x), "float64", 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tanh_and_its_slope(rng, dtype):
    x = sizes(rng, -30, 2) * rng.choice([-1, 1], SIZE)
    x[:5] = [0, np.inf, -np.inf, np.nan, 1e30]
    x = x.astype(dtype)
    near(run("tanh", x)[0], np.tanh(np.float64(x)), dtype, 6)
    x = np.clip(x, -15, 15)
    right = [float(mpmath.sech(v) ** 2) if v == v else v for v in x.tolist()]
    near(run("slope_of_tanh", x)[0], np.array(right), dtype, 40)


@pytest.mark.parametrize("name", ["difference", "product"])
def test_what_is_rounded_and_what_is_lost_are_exact(rng, name):
    x, y = (rng.normal(size=SIZE) * sizes(rng, -20, 20) for _ in range(2))
    high, low = run(name, x, y)
    with mpmath.workprec(400):
        for a, b, h, one_low in zip(x, y, high, low, strict=True):
            a, b = mpmath.mpf(a), mpmath.mpf(b)
            right = a - b if name == "difference" else a * b
            exact = mpmath.mpf(h) + mpmath.mpf(one_low)
            assert abs(exact - right) <= abs(right) * 2.0 ** (-2000 if name[0] == "d" else -104)


def test_a_number_from_its_bits_and_a_measure_of_nothing(rng):
    x = rng.normal(size=SIZE)
    np.testing.assert_array_equal(run("double", x)[0], x)
    y = np.full(SIZE, np.inf)
    x[:10], y[5:10] = 0, 3
    right = np.concatenate([np.zeros(10), np.sign(x[10:]) * np.inf])
    np.testing.assert_array_equal(run("weighted", x, y)[0], right)
