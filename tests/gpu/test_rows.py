"""What only a GPU can show of a loss by the Triton kernels: bits, memory, graphs, compilers.

`./dev test-gpu` runs it beside the kernels' other tests; without a GPU each test says so and skips.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import grad

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import smallest

import xent
from xent import Plan

MIB = 1 << 20
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
DTYPES = pytest.mark.parametrize("dtype", smallest.DTYPES, ids=str)


def draw(shape, dtype, seed=0):
    """Logits of a graph and class indices, on the GPU."""
    torch.manual_seed(seed)
    x = torch.randn(shape, device="cuda", dtype=torch.float32).mul_(3).to(dtype).requires_grad_()
    return x, torch.randint(0, shape[1], shape[:1], device="cuda")


def test_the_smallest_cases_are_right():
    if torch.cuda.is_available():
        smallest.main()
    else:
        smallest.main((torch.bfloat16, torch.float32), ((3, 5), (2, 3, 4)))


@on_a_gpu
@DTYPES
@pytest.mark.parametrize("shape", [(300, 5000), (2, 300_000), (50_000, 10)])
@pytest.mark.parametrize("upstream", [1.0, 0.25])
def test_ten_runs_give_the_same_bits(dtype, shape, upstream):
    x, t = draw(shape, dtype)
    t[0] = -100
    runs = []
    for _ in range(10):
        loss = xent.cross_entropy(x, t)
        runs.append((loss.detach(), grad(loss, x, torch.full_like(loss, upstream))[0]))
    assert all(torch.equal(a, b) for run in runs for a, b in zip(run, runs[0], strict=True))


@on_a_gpu
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 1e-4}], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_no_host_waits(options, reduction):
    x, t = draw((64, 1000), torch.bfloat16)
    upstream = torch.ones((64,) if reduction == "none" else (), device="cuda", dtype=x.dtype)

    def step(factor):
        loss = xent.cross_entropy(x, t, reduction=reduction, **options)
        return grad(loss, x, upstream * factor)

    step(1)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        for factor in (1, 0.5, 0.5):
            step(factor)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_a_gpu
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("shape", [(64, 1000), (2, 300_000)])
def test_a_cuda_graph(shape, warm):
    options = {"softcap": 30.0 + warm + shape[0]}  # of no other test: nothing is remembered yet
    x, t = draw(shape, torch.bfloat16)
    upstream = torch.ones((), device="cuda", dtype=x.dtype)

    def step():
        loss = xent.cross_entropy(x, t, **options)
        return loss.detach(), grad(loss, x, upstream)[0]

    with torch.no_grad():  # the kernels are compiled before the capture
        xent.cross_entropy(x, t, **options)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        other = {"softcap": 999.0} if not warm else options
        loss = xent.cross_entropy(x, t, **other)
        grad(loss, x, upstream)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    for seed, factor in ((1, 1.0), (2, 0.5), (3, 0.5), (4, 1.0)):
        fresh, target = draw(shape, torch.bfloat16, seed)
        with torch.no_grad():
            x.copy_(fresh)
            t.copy_(target)
            upstream.fill_(factor)
        graph.replay()
        torch.cuda.synchronize()
        kept = [a.clone() for a in found]
        assert all(torch.equal(a, b) for a, b in zip(kept, step(), strict=True))


class Source(torch.autograd.Function):
    """Logits from nowhere, whose gradient is only looked at."""

    @staticmethod
    def forward(ctx, small, shape, dtype):
        return torch.randn(shape, device="cuda", dtype=dtype)

    @staticmethod
    def backward(ctx, gradient):
        Source.peak = torch.cuda.max_memory_allocated()
        Source.place = gradient.data_ptr()
        return torch.zeros((), device="cuda"), None, None


@on_a_gpu
@DTYPES
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("upstream", [1.0, 0.5])
@pytest.mark.parametrize("shape", [(2048, 32_768), (2, 5_000_000)])
def test_peak_memory(dtype, in_place, upstream, shape):
    small = torch.zeros((), device="cuda", requires_grad=True)
    t = torch.zeros(shape[0], dtype=torch.int64, device="cuda")
    for _ in range(2):  # the first compiles, and remembers
        logits = Source.apply(small, shape, dtype)
        size, place = logits.nbytes, logits.data_ptr()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss = xent.cross_entropy(logits, t, plan=Plan(inplace=in_place))
        loss.backward(torch.full_like(loss, upstream))
        assert (Source.place == place) == in_place
        extra = Source.peak - before
        assert extra <= (0 if in_place else size + 2 * MIB) + MIB
        del logits, loss


@on_a_gpu
def test_a_loss_alone_takes_no_memory():
    x, t = draw((4096, 32_768), torch.bfloat16)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            xent.cross_entropy(x, t)
        extra = torch.cuda.max_memory_allocated() - before
    assert extra <= MIB


@on_a_gpu
@DTYPES
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_what_is_compiled_is_one_graph_with_our_kernels(dtype, reduction):
    torch._dynamo.reset()
    x, t = draw((40, 3000), dtype)

    def loss(x, t):
        return xent.cross_entropy(x, t, reduction=reduction, label_smoothing=0.1).sum()

    right = loss(x, t)
    found = torch.compile(loss, fullgraph=True)(x, t)
    near = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, right, rtol=near, atol=0)
    slopes = grad(found, x)[0], grad(right, x)[0]
    torch.testing.assert_close(*slopes, rtol=near, atol=near * float(slopes[1].abs().max()))


@on_a_gpu
def test_more_than_two_to_the_31_logits():
    shape = (16_500, 131_072)
    if torch.cuda.mem_get_info()[0] < 14 << 30:
        pytest.skip("less than 14 GiB are free on the GPU")
    x = torch.randn(shape, device="cuda", dtype=torch.bfloat16).requires_grad_()
    t = torch.randint(0, shape[1], shape[:1], device="cuda")
    loss = xent.cross_entropy(x, t, reduction="sum")
    (g,) = grad(loss, x)
    for rows in (slice(0, 4), slice(-4, None)):
        part = x.detach()[rows].clone().requires_grad_()
        (right,) = grad(xent.cross_entropy(part, t[rows], reduction="sum"), part)
        near = 2 * torch.finfo(torch.bfloat16).eps
        torch.testing.assert_close(g[rows], right, rtol=near, atol=1e-30)


@on_a_gpu
@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_the_sanitizer_finds_nothing(tool):
    program = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    if program is None:
        pytest.skip("compute-sanitizer is not installed")
    script = Path(smallest.__file__)
    command = [program, "--tool", tool, "--error-exitcode", "9"]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    told = subprocess.run(
        [*command, sys.executable, str(script)], capture_output=True, text=True, env=environment
    )
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-4000:]
    assert "smallest: all right" in told.stdout
