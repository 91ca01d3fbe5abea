"""Tiles by torch's products: what is multiplied, and memory that is used again."""

from __future__ import annotations

import pytest
import torch

from xent import Plan
from xent.backends import torch_products
from xent.backends.torch_tiles import TorchEngine
from xent.ops.tiles import Head


def drawn(rng, *shape, dtype=torch.float32):
    return torch.from_numpy(rng.normal(size=shape)).to(dtype)


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_logits_are_the_products(rng, dtype, pairs, biased):
    lefts = [drawn(rng, 5, 4, dtype=dtype) for _ in range(pairs)]
    rights = [drawn(rng, 7, 4, dtype=dtype) for _ in range(pairs)]
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    bias = drawn(rng, 7, dtype=wide) if biased else None
    engine = TorchEngine(None)
    exact = sum(a.double() @ b.double().T for a, b in zip(lefts, rights, strict=True))
    exact = exact if bias is None else exact + bias.double()
    made = engine.logits(lefts, rights, bias)
    assert made.dtype == wide
    torch.testing.assert_close(made.double(), exact, rtol=1e-5, atol=1e-5)
    again = engine.logits(lefts, rights, bias)
    assert again.data_ptr() == made.data_ptr()
    fewer = engine.logits([a[:2] for a in lefts], rights, bias)
    assert fewer.data_ptr() == made.data_ptr()


@pytest.mark.parametrize("native", [False, True])
def test_what_is_multiplied(rng, native, monkeypatch):
    monkeypatch.setattr(torch_products, "multiplies_bfloat16", lambda: native)
    monkeypatch.setattr(torch_products, "_product", lambda: torch.mm)
    engine = TorchEngine(Plan())
    half, single = drawn(rng, 3, 4, dtype=torch.bfloat16), drawn(rng, 3, 4)
    asked = (half, half), (half, single), (half.half(), half.half()), (single.double(), half)
    found = [engine.operands(Head((pair,), None))[0] for pair in asked]
    first = torch.bfloat16 if native else torch.float32
    assert found == [first, torch.float32, torch.float32, torch.float64]


def test_what_narrowing_loses_of_the_largest_entries_is_added(rng):
    whole = drawn(rng, 6, 9)
    narrow, left, right = whole.bfloat16(), drawn(rng, 6, 4), drawn(rng, 9, 4)
    by_left, by_right = narrow.float() @ right, narrow.float().T @ left
    TorchEngine(None).mend(by_left, by_right, whole, narrow, left, right)
    for at in (whole.argmin(1), whole.argmax(1)):
        narrow = narrow.float().scatter(1, at[:, None], whole.gather(1, at[:, None]))
    torch.testing.assert_close(by_left, narrow @ right)
    torch.testing.assert_close(by_right, narrow.T @ left)


def test_one_class_is_added_once(rng):
    whole = drawn(rng, 6, 1)
    narrow, left, right = whole.bfloat16(), drawn(rng, 6, 4), drawn(rng, 1, 4)
    by_left = narrow.float() @ right
    TorchEngine(None).mend(by_left, None, whole, narrow, left, right)
    torch.testing.assert_close(by_left, whole @ right)
