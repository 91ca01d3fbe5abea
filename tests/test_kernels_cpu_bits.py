"""What must not change a bit of what the compiled kernel gives: threads, the batch, the run."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import xent
from xent.kernels import cpu, library
from xent.ops.stats import RowStats

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import FORMATS, LAYOUTS, by_kernel, cast, cotangents_of, same_bits

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

DTYPES = pytest.mark.parametrize("dtype", FORMATS)
OPS = {
    "plain": RowStats(),
    "smooth": RowStats(smooth=True),
    "general": RowStats(0.7, 30.0, smooth=True, entropy=True),
}
SHAPES = [(3000, 1, 7), (2, 1500, 21), (900, 1, 130), (20, 3, 5003), (70, 1, 64)]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(rng, shape, dtype):
    logits = rng.normal(0, 3, shape) * rng.choice([0.1, 1, 10], (*shape[:2], 1))
    target = rng.integers(0, shape[2], shape[:2])
    target[rng.random(shape[:2]) < 0.1] = -1
    return cast(logits, dtype), torch.from_numpy(target)


def loss_and_gradient(logits, target, **options):
    leaf = logits.detach().requires_grad_()
    loss = xent.cross_entropy(leaf, target, ignore_index=-1, axis=-1, **options)
    loss.backward()
    return loss.detach(), leaf.grad


@DTYPES
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads_and_runs(rng, dtype, name, shape):
    op, (logits, target) = OPS[name], draw(rng, shape, dtype)
    g = cotangents_of(rng, op, shape, target)
    options = {"label_smoothing": 0.1} if op.smooth else {}
    options |= {"softcap": 30.0} if name == "general" else {}
    found = []
    for count in (1, 2, 2, 3):
        torch.set_num_threads(count)
        given = by_kernel(op, (logits, target, None), g)
        found.append((given, loss_and_gradient(logits, target, **options)))
    for other in found[1:]:
        same_bits(other, found[0])


@DTYPES
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("shape", [(40, 1, 3), (4, 30, 33), (30, 1, 130), (4, 3, 5003)], ids=str)
def test_a_row_alone_is_the_row_in_a_batch(rng, dtype, name, shape):
    op, (logits, target) = OPS[name], draw(rng, shape, dtype)
    for layout in ("whole", "padded", "images"):
        arranged = LAYOUTS[layout](logits)
        g = cotangents_of(rng, op, shape, target)
        together = by_kernel(op, (arranged, target, None), g)
        for _ in range(4):
            n, d = int(rng.integers(shape[0])), int(rng.integers(shape[1]))
            at = slice(n, n + 1), slice(d, d + 1)
            given = tuple(None if c is None else c[at] for c in g)
            alone = by_kernel(op, (arranged[at], target[at], None), given)
            same_bits(alone, tuple(None if t is None else t[at] for t in together))


@DTYPES
@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("rows", [1, 3])
def test_columns_that_are_shared_out(rng, dtype, name, rows):
    op, shape = OPS[name], (rows, 1, 300000)
    logits, target = draw(rng, shape, dtype)
    target[0] = 123456  # not ignored
    g = cotangents_of(rng, op, shape, target)
    arrays, options = (logits, target, None), {"label_smoothing": 0.1 if op.smooth else 0.0}
    torch.set_num_threads(2)
    shared = by_kernel(op, arrays, g), loss_and_gradient(logits, target, **options)
    torch.set_num_threads(1)
    alone = by_kernel(op, arrays, g), loss_and_gradient(logits, target, **options)
    same_bits(shared, alone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "parallel", lambda array: 0)
        same_bits(by_kernel(op, arrays, g), shared[0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 1, 100000), (1, 1, 300000), (900, 1, 30)], ids=str)
def test_numpy_and_torch(rng, dtype, shape):
    logits, target = draw(rng, shape, dtype)
    op = RowStats(smooth=True)
    g = cotangents_of(rng, op, shape, target)
    by_torch = by_kernel(op, (logits, target, None), g)
    given = tuple(None if c is None else c.numpy() for c in g)
    by_numpy = by_kernel(op, (logits.numpy(), target.numpy(), None), given)
    same_bits(by_numpy, tuple(None if t is None else t.numpy() for t in by_torch))
    loss, gradient = loss_and_gradient(logits, target)
    found, vjp = xent.cross_entropy_vjp(logits.numpy(), target.numpy(), ignore_index=-1, axis=-1)
    same_bits((np.asarray(found), vjp(1.0)), (loss.numpy(), gradient.numpy()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_in_memory_a_row_begins(rng, dtype):
    for classes in (64, 130, 5003):
        logits, target = draw(rng, (3, 1, classes), dtype)
        g = cotangents_of(rng, RowStats(), logits.shape, target)
        right = by_kernel(RowStats(), (logits, target, None), g)
        for layout in ("padded", "offset", "rows apart"):
            arrays = LAYOUTS[layout](logits), target, None
            same_bits(by_kernel(RowStats(), arrays, g), right)
