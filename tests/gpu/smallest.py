"""The smallest calls of every Triton kernel of a loss, for compute-sanitizer to watch.

Each is right, or the script fails. It runs on a GPU, or in Triton's interpreter without one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import triton_cases

import xent
from xent import Plan
from xent.kernels import triton_rows

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EVERY = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0, "logit_scale": 0.7}
SHAPES = ((1, 1), (3, 5), (2, 3, 4), (1, 40))


def draw(shape, dtype, soft=False):
    """Logits of a graph, and a target."""
    x = torch.randn(shape, dtype=torch.float64).to(DEVICE, dtype).requires_grad_()
    if soft:
        return x, torch.softmax(torch.randn(shape, dtype=torch.float64), 1).to(DEVICE, dtype)
    return x, torch.randint(0, shape[1], (shape[0], *shape[2:])).to(DEVICE)


def check(shape, dtype, soft, options, upstream, plan):
    """A loss and its gradient against the reference."""
    x, t = draw(shape, dtype, soft)
    weight = torch.rand(shape[1], dtype=torch.float64).to(DEVICE) + 0.5 if options else None
    leaf = x.detach().double().requires_grad_()
    right = xent.cross_entropy(leaf, t, weight, plan=Plan(kernel="reference"), **options)
    right.backward(torch.full_like(right, upstream))
    loss = xent.cross_entropy(x * 1 if plan else x, t, weight, plan=plan, **options)
    loss.backward(torch.full_like(loss, upstream))
    near = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(loss.double(), right.double(), rtol=near, atol=near)
    size = float(leaf.grad.abs().max())
    torch.testing.assert_close(x.grad.double(), leaf.grad, rtol=near, atol=near * size)
    with torch.no_grad():
        xent.cross_entropy(x, t, weight, reduction="none", **options)


def main(dtypes=DTYPES, shapes=SHAPES):
    """Every kernel, for each dtype."""
    with triton_cases.running():
        for dtype in dtypes:
            for place, shape in enumerate(shapes):
                soft, upstream = bool(place % 2), (1.0, 0.5)[place % 2]
                check(shape, dtype, soft, (EVERY, {})[place // 2 % 2], upstream, None)
            check((3, 5), dtype, False, {}, 0.5, Plan(inplace=True))
            check((3, 5), dtype, False, {}, 1.0, Plan(gradient="recompute"))
        few = triton_rows.parts_of
        triton_rows.parts_of = lambda rows, classes, tile, count: (2, tile.classes)
        try:
            width = triton_rows.tile_of
            triton_rows.tile_of = lambda *given: triton_rows.Tile(1, 16, 1)
            check((2, 30), torch.float32, False, EVERY, 0.5, None)
            triton_rows.tile_of = width
        finally:
            triton_rows.parts_of = few
    if DEVICE == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
    print("smallest: all right")
