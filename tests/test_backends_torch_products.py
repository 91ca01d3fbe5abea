"""Products of bfloat16 matrices with float32 results, and a linear head that is made of them."""

from __future__ import annotations

import pytest
import torch

import xent
from xent import Plan
from xent.backends import torch_products as products

LAYOUTS = {
    "rows": lambda m: m.contiguous(),
    "columns": lambda m: m.T.contiguous().T,
    "gaps": lambda m: torch.stack([m, m], 2)[:, :, 0],
    "wide": lambda m: torch.cat([m, m], 1)[:, : m.shape[1]],
}


@pytest.fixture(params=["library", "none"])
def product(request, monkeypatch):
    """With the library's product, and where there is none."""
    if request.param == "none":
        monkeypatch.setattr(products, "_product", lambda: None)
    elif products._product() is None:
        pytest.skip("torch was built without the library")


@pytest.fixture
def native(monkeypatch):
    """As on a CPU that multiplies bfloat16 itself."""
    if products._product() is None:
        pytest.skip("torch was built without the library")
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda: True)


def drawn(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape)).bfloat16()


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("of_right", LAYOUTS)
@pytest.mark.parametrize("of_left", LAYOUTS)
@pytest.mark.parametrize("shape", [(7, 5, 9), (1, 3, 4), (70, 1, 33), (1, 1, 1)], ids=str)
def test_products_of_every_layout(rng, shape, of_left, of_right):
    n, k, m = shape
    left, right = LAYOUTS[of_left](drawn(rng, n, k)), LAYOUTS[of_right](drawn(rng, k, m))
    exact = left.double() @ right.double()
    out = torch.full((n, m + 3), 7.0)[:, :m]
    products.multiply(out, left, right, add=False)
    torch.testing.assert_close(out.double(), exact, rtol=1e-5, atol=1e-5)
    products.multiply(out, left, right, add=True)
    torch.testing.assert_close(out.double(), 2 * exact, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("product")
@pytest.mark.parametrize("shape", [(0, 5, 9), (3, 0, 4), (3, 5, 0)], ids=str)
def test_products_of_nothing(shape):
    n, k, m = shape
    out = torch.ones(n, m)
    products.multiply(out, torch.ones(n, k).bfloat16(), torch.ones(k, m).bfloat16(), add=True)
    assert torch.equal(out, torch.ones(n, m))
    products.multiply(out, torch.ones(n, k).bfloat16(), torch.ones(k, m).bfloat16(), add=False)
    assert torch.equal(out, torch.zeros(n, m))


def test_who_is_served(native):
    half, single = torch.ones(2, 2).bfloat16(), torch.ones(2, 2)
    assert products.serves(half, half)
    assert not products.serves(half, single)
    assert not products.serves(half.half(), half.half())
    assert not products.serves(half.to("meta"), half)


def test_the_cpu_is_asked():
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    told = any(getattr(torch.cpu, name)() for name in asked if hasattr(torch.cpu, name))
    assert products.multiplies_bfloat16() == told


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("over", [None, "rows", "classes"])
@pytest.mark.parametrize("spread", [1.0, 12.0])
def test_a_linear_head_of_such_products(rng, over, spread):
    n, d, v = 300, 40, 1100
    hidden = drawn(rng, n, d).requires_grad_()
    weight = (drawn(rng, v, d) * (spread / d**0.5)).requires_grad_()
    bias = drawn(rng, v).requires_grad_()
    target = torch.from_numpy(rng.integers(0, v, n))
    wide = [a.detach().double().requires_grad_() for a in (hidden, weight, bias)]
    loss = torch.nn.functional.cross_entropy(wide[0] @ wide[1].T + wide[2], target)
    right = torch.autograd.grad(loss, wide)
    plan = Plan(chunk_bytes=1 << 18, chunk_over=over)
    found = xent.linear_cross_entropy(hidden, weight, target, linear_bias=bias, plan=plan)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), loss, rtol=1e-6, atol=0)
    for got, exact in zip(torch.autograd.grad(found, (hidden, weight, bias)), right, strict=True):
        assert got.dtype == torch.bfloat16
        norm = torch.linalg.vector_norm
        least = norm(exact.bfloat16().double() - exact)
        # So few rows of a confident batch may have a third entry that counts.
        assert norm(got.double() - exact) <= (1.05 if spread == 1 else 1.3) * least
