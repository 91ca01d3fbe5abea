"""Memory of gradients: where it lies, and that what is held is never handed out again."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch

import xent
from xent import Plan
from xent.kernels import cpu, library, memory

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

REUSE = Plan(reuse=True)
KINDS = pytest.mark.parametrize("kind", ["torch", "numpy"])
PLANS = pytest.mark.parametrize("plan", [None, REUSE], ids=["fresh", "reuse"])


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(memory, "_kept", [])


def zeros(kind, shape, dtype="float32"):
    return (
        torch.zeros(shape, dtype=getattr(torch, dtype))
        if kind == "torch"
        else np.zeros(shape, dtype)
    )


@KINDS
@PLANS
@pytest.mark.parametrize("shape", [(2, 3, 5), (700, 2, 1000)], ids=str)
def test_it_lies_as_the_logits(kind, plan, shape):
    like = zeros(kind, shape)
    turned = [like, like.swapaxes(1, 2), like.swapaxes(0, 2), like[:, ::2]]
    for array in turned:
        made = memory.fresh(array, plan)
        empty_like = torch.empty_like if kind == "torch" else np.empty_like
        assert type(made) is type(array)
        assert made.dtype == array.dtype
        assert made.shape == array.shape
        assert cpu.strides(made) == cpu.strides(empty_like(array))
        assert cpu.address(made) != cpu.address(array)
        made[...] = 1
    assert not like.any()


@KINDS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_nobody_holds_is_used_again(kind, dtype):
    like = zeros(kind, (30, 70), dtype)
    first = memory.fresh(like, REUSE)
    address = cpu.address(first)
    assert address % memory.LINE == 0
    del first
    assert cpu.address(memory.fresh(like, REUSE)) == address


@KINDS
def test_what_somebody_holds_is_not(kind):
    like = zeros(kind, (30, 70))
    made = memory.fresh(like, REUSE)
    address = cpu.address(made)
    holders = [made, made[3:], made.T[1:, 2:], made.reshape(-1)[5:6]]
    if kind == "torch":
        holders += [made.detach(), made.numpy(), memoryview(made.numpy())]
    del made
    while holders:
        assert cpu.address(memory.fresh(like, REUSE)) != address
        holders.pop()
    gc.collect()
    assert cpu.address(memory.fresh(like, REUSE)) == address


@KINDS
def test_memory_of_another_size_is_let_go(kind):
    memory.fresh(zeros(kind, (30, 70)), REUSE)
    held = memory.fresh(zeros(kind, (9, 70)), REUSE)
    memory.fresh(zeros(kind, (5, 70)), REUSE)
    assert [kept.nbytes - memory.LINE for kept, _ in memory._kept] == [9 * 70 * 4, 5 * 70 * 4]
    del held


def test_without_the_plan_nothing_is_kept():
    memory.fresh(zeros("numpy", (30, 70)))
    memory.fresh(zeros("numpy", (30, 70)), Plan())
    assert memory._kept == []


def test_many_threads_never_share_it():
    like, wrong = zeros("numpy", (4, 1000)), []

    def work(number):
        for _ in range(200):
            made = memory.fresh(like, REUSE)
            made[...] = number
            if (made != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_steps_of_training_reuse_one_gradient(rng, dtype):
    target = torch.from_numpy(rng.integers(0, 40, 6))
    addresses, model = set(), torch.nn.Linear(8, 40, dtype=dtype)
    for _ in range(4):
        hidden = torch.from_numpy(rng.normal(size=(6, 8))).to(dtype)
        logits, again = model(hidden), model(hidden)
        logits.register_hook(lambda g: addresses.add(g.data_ptr()))
        model.zero_grad()
        xent.cross_entropy(logits, target, plan=REUSE).backward()
        found = model.weight.grad.clone()
        model.zero_grad()
        xent.cross_entropy(again, target).backward()
        assert torch.equal(found, model.weight.grad)
    assert len(addresses) == 1


def test_two_gradients_that_are_held_are_two(rng):
    x, t = rng.normal(size=(5, 70)), rng.integers(0, 70, 5)
    first = xent.cross_entropy_vjp(x, t, plan=REUSE)[1](1.0)
    before = first.copy()
    second = xent.cross_entropy_vjp(-x, t, plan=REUSE)[1](1.0)
    np.testing.assert_array_equal(first, before)
    np.testing.assert_array_equal(second, xent.cross_entropy_vjp(-x, t)[1](1.0))
