"""How a whole loss is launched: the programs of its sums, and in how many launches it is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from triton_cases import there

import xent
from xent import Plan
from xent.kernels import triton_loss, triton_rows


@pytest.mark.parametrize("count", [0, 1, 1000, 1024, 1025, 16384, 16385, 1_000_000])
def test_every_number_is_summed_once(count):
    programs, span = triton_loss._spans(count)
    assert span % triton_loss.BLOCK == 0
    assert (programs - 1) * span < max(count, 1) <= programs * span
    assert span <= triton_loss.SPAN


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels, as they are launched."""
    found, whole = [], triton_rows._launch

    def watched(kernel, *given, **constants):
        found.append(kernel.fn.__name__)
        return whole(kernel, *given, **constants)

    monkeypatch.setattr(triton_rows, "_launch", watched)
    monkeypatch.setattr(triton_loss, "_launch", watched)
    with triton_cases.running():
        yield found


def test_the_launches_of_a_loss(rng, launched, monkeypatch):
    x = there(torch.from_numpy(rng.normal(size=(3, 40)))).requires_grad_()
    t = there(torch.from_numpy(rng.integers(0, 40, 3)))
    loss = xent.cross_entropy(x, t)
    assert launched == ["prepare", "fused", "summed"]
    launched.clear()
    loss.backward()
    assert launched == ["heed", "fused"]
    launched.clear()
    y = x * 1
    xent.cross_entropy(y, t, plan=Plan(inplace=True)).backward()
    assert launched == ["prepare", "fused", "summed", "heed", "scaled"]
    launched.clear()
    with torch.no_grad():
        xent.cross_entropy(x, t, reduction="none")
    assert launched == ["prepare", "fused"]
    launched.clear()
    monkeypatch.setattr(triton_rows, "tile_of", lambda *given: triton_rows.Tile(1, 16, 4))
    monkeypatch.setattr(triton_rows, "parts_of", lambda *given: (3, 16))
    xent.cross_entropy(x, t).backward()
    first = ["prepare", "statistics", "merge", "combine", "coefficients", "gradient", "summed"]
    assert launched == [*first, "heed", "combine", "coefficients", "gradient"]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_is_compiled_calls_the_kernels(rng, launched, backend, reduction):
    torch._dynamo.reset()
    x = there(torch.from_numpy(rng.normal(size=(3, 40)))).requires_grad_()
    t = there(torch.from_numpy(rng.integers(0, 40, 3)))

    def loss(x):
        return xent.cross_entropy(x, t, reduction=reduction, label_smoothing=0.1).sum()

    (right,) = torch.autograd.grad(loss(x), x)
    launched.clear()
    found = torch.compile(loss, backend=backend, fullgraph=True)(x)
    assert launched == ["statistics"]
    launched.clear()
    torch.testing.assert_close(torch.autograd.grad(found, x)[0], right, rtol=1e-12, atol=1e-15)
    assert launched == ["coefficients", "gradient"]
