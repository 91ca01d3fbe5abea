"""What must not change a single bit of a result - the batch, blocks, threads, layout in memory -
and that nothing a caller passes is changed."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

import xent
from xent import Plan

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
NUMPY_AND_TORCH = pytest.mark.parametrize("array", [np.asarray, torch.asarray])
DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
MIXED = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 20.0, "logit_scale": 0.7}


def gradient(logits, target, plan, **options):
    options["reduction"] = "none"
    return (xent.cross_entropy_vjp(logits, target, plan=plan, **options)[1](1.5),)


# Each takes logits (N, V) and class indices (N,), and gives results whose first axis is that of N.
CALLS = {
    "cross_entropy": lambda x, t, plan: (xent.cross_entropy(x, t, reduction="none", plan=plan),),
    "cross_entropy, options": lambda x, t, plan: (
        xent.cross_entropy(x, t, reduction="none", plan=plan, **MIXED),
    ),
    "cross_entropy, probabilities": lambda x, t, plan: (
        xent.cross_entropy(x, abs(x), reduction="none", plan=plan),
    ),
    "gradient": gradient,
    "gradient, options": lambda x, t, plan: gradient(x, t, plan, **MIXED),
    "gradient, probabilities": lambda x, t, plan: gradient(x, abs(x), plan),
    "nll_loss": lambda x, t, plan: (xent.nll_loss(x, t, reduction="none", plan=plan),),
    "binary": lambda x, t, plan: (
        xent.binary_cross_entropy_with_logits(x, abs(x), reduction="none", plan=plan),
    ),
    "softmax": lambda x, t, plan: (xent.softmax(x, plan=plan),),
    "log_softmax": lambda x, t, plan: (xent.log_softmax(x, plan=plan),),
    "logsumexp": lambda x, t, plan: (xent.logsumexp(x, plan=plan),),
    "token_statistics": lambda x, t, plan: tuple(xent.token_statistics(x, t, plan=plan)),
}
EACH_CALL = pytest.mark.parametrize("name", CALLS)


def results(name, logits, target, plan=None):
    return [np.asarray(result) for result in CALLS[name](logits, target, plan)]


def draw(rng, shape, dtype="float32"):
    logits = (rng.normal(0, 1, shape) * rng.choice([0.1, 3, 30], (shape[0], 1))).astype(dtype)
    target = rng.integers(0, shape[1], shape[0])
    target[rng.random(shape[0]) < 0.2] = -100
    return logits, target


def assert_same_bits(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, strict=True)
        np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


@LIBRARIES
@DTYPES
@EACH_CALL
def test_a_row_alone_is_the_row_in_a_batch(rng, name, dtype, array):
    if array is array_api_strict.asarray and dtype == "float16":
        dtype = "float32"  # array_api_strict has no float16
    logits, target = draw(rng, (9, int(rng.choice([1, 2, 7, 33, 130]))), dtype)
    together = results(name, array(logits), array(target))
    for n in range(9):
        alone = results(name, array(logits[n : n + 1]), array(target[n : n + 1]))
        assert_same_bits(alone, [result[n : n + 1] for result in together])


@NUMPY_AND_TORCH
@EACH_CALL
def test_permuted_rows_give_permuted_results(rng, name, array):
    logits, target = draw(rng, (40, 17))
    order = rng.permutation(40)
    moved = results(name, array(logits[order]), array(target[order]))
    assert_same_bits(moved, [r[order] for r in results(name, array(logits), array(target))])


@LIBRARIES
@EACH_CALL
def test_blocks_of_any_size_give_the_same(rng, name, array):
    logits, target = (array(a) for a in draw(rng, (12, 19)))
    whole = results(name, logits, target, Plan(chunk_bytes=2**40))
    for size in (1, 8 * 19, 8 * 19 * 5 + 1, 10**4):
        assert_same_bits(results(name, logits, target, Plan(chunk_bytes=size)), whole)


@LIBRARIES
@pytest.mark.parametrize("size", [1, 8 * 6, 8 * 6 * 2, 8 * 6 * 5, 8 * 6 * 11, 2**40])
def test_blocks_cut_the_axes_after_the_classes(rng, size, array):
    logits = rng.normal(0, 3, (3, 6, 5))
    target = rng.integers(0, 6, (3, 5))
    rows = logits.transpose(0, 2, 1).reshape(15, 6)
    loss, vjp = xent.cross_entropy_vjp(array(rows), array(target.reshape(15)), reduction="none")
    cut = xent.cross_entropy_vjp(
        array(logits), array(target), reduction="none", plan=Plan(chunk_bytes=size)
    )
    assert_same_bits([np.asarray(cut[0])], [np.asarray(loss).reshape(3, 5)])
    expected = np.asarray(vjp(1.0)).reshape(3, 5, 6).transpose(0, 2, 1)
    assert_same_bits([np.asarray(cut[1](1.0))], [expected])


@NUMPY_AND_TORCH
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_a_reduction_has_the_same_bits_for_any_block(rng, reduction, array):
    logits, target = (array(a) for a in draw(rng, (101, 7), "float64"))
    losses = {
        float(xent.cross_entropy(logits, target, reduction=reduction, plan=Plan(chunk_bytes=b)))
        for b in (1, 1000, 2**30)
    }
    assert len(losses) == 1


@EACH_CALL
def test_one_thread_and_two_and_a_second_run_give_the_same(rng, name):
    logits, target = (torch.asarray(a) for a in draw(rng, (301, 257)))
    logits = logits.to(torch.bfloat16)
    threads = torch.get_num_threads()
    runs = []
    try:
        for number in (1, 2, 2):
            torch.set_num_threads(number)
            runs.append([r.clone() for r in CALLS[name](logits, target, None)])
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for a, b in zip(runs[0], run, strict=True):
            assert torch.equal(a, b)


@NUMPY_AND_TORCH
def test_autograd_and_vjp_give_the_same(rng, array):
    logits, target = draw(rng, (20, 33), "float64")
    right = xent.cross_entropy_vjp(array(logits), array(target))[1](1.0)
    leaf = torch.tensor(logits, requires_grad=True)
    xent.cross_entropy(leaf, torch.tensor(target)).backward()
    # One is written while the exponentials of the loss are at hand, the other computes them anew.
    np.testing.assert_allclose(leaf.grad, right, rtol=1e-14, atol=0)


@LIBRARIES
def test_a_last_axis_of_one_changes_nothing(rng, array):
    logits, target = draw(rng, (30, 23))
    flat = xent.cross_entropy_vjp(array(logits), array(target), reduction="none")
    deep = xent.cross_entropy_vjp(
        array(logits[:, :, None]), array(target[:, None]), reduction="none"
    )
    assert_same_bits([np.asarray(deep[0])[:, 0]], [np.asarray(flat[0])])
    assert_same_bits([np.asarray(deep[1](1.0))[:, :, 0]], [np.asarray(flat[1](1.0))])


def layouts(logits):
    """The same numbers at other places in memory."""
    n, v = logits.shape
    yield "columns first", np.asfortranarray(logits)
    yield "every second", np.repeat(np.repeat(logits, 2, axis=0), 2, axis=1)[::2, ::2]
    yield "backwards", logits[::-1, ::-1].copy()[::-1, ::-1]
    unaligned = np.zeros(n * v + 1, logits.dtype)[1:].reshape(n, v)
    unaligned[:] = logits
    yield "one element off", unaligned
    frozen = logits.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    yield "swapped twice", logits.T.copy().T


@EACH_CALL
def test_the_layout_in_memory_changes_nothing(rng, name):
    logits, target = draw(rng, (11, 37))
    right = {
        array: results(name, array(logits), array(target)) for array in (np.asarray, torch.asarray)
    }
    for layout, same in layouts(logits):
        assert_same_bits(results(name, same, np.repeat(target, 3)[::3]), right[np.asarray])
        if layout not in ("backwards", "read-only"):  # torch has none
            assert_same_bits(
                results(name, torch.asarray(same), torch.asarray(target)), right[torch.asarray]
            )


@EACH_CALL
def test_one_row_broadcast(rng, name):
    logits, _ = draw(rng, (1, 12))
    target = np.full(6, 3)
    right = results(name, np.repeat(logits, 6, axis=0), target)
    assert_same_bits(results(name, np.broadcast_to(logits, (6, 12)), target), right)
    expanded = torch.asarray(logits).expand(6, 12)
    copied = results(name, torch.asarray(logits).repeat(6, 1), torch.asarray(target))
    assert_same_bits(results(name, expanded, torch.asarray(target)), copied)


@LIBRARIES
@EACH_CALL
def test_no_call_modifies_its_arrays(rng, name, array):
    given = draw(rng, (6, 5), "float64")
    before = [a.tobytes() for a in given]
    ready = [array(a) for a in given]  # in the same memory, but for array_api_strict
    results(name, *ready)
    results(name, *ready, Plan(chunk_bytes=1))
    assert [a.tobytes() for a in given] == before
    assert [np.asarray(a).tobytes() for a in ready] == before


@NUMPY_AND_TORCH
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("soft", [False, True])
def test_nothing_passed_is_modified(rng, soft, reduction, array):
    logits, target = draw(rng, (6, 5), "float64")
    logits[target < 0] = np.nan
    given = [logits, target if not soft else rng.random((6, 5)), rng.random(5)]
    upstream = rng.normal(size=6) if reduction == "none" else np.array(3.0)
    normalizer = np.array(4.0) if reduction == "mean" else None
    before = [a.tobytes() for a in (*given, upstream, np.array(4.0))]
    arrays = [array(a) for a in given]
    options = {**MIXED, "reduction": reduction, "label_smoothing": 0.2}
    options["normalizer"] = None if normalizer is None else array(normalizer)
    xent.cross_entropy(*arrays, **options)
    loss, vjp = xent.cross_entropy_vjp(*arrays, **options)
    first, value = (np.asarray(a).copy() for a in (vjp(array(upstream)), loss))
    np.testing.assert_array_equal(first, np.asarray(vjp(array(upstream))))
    np.testing.assert_array_equal(value, np.asarray(loss))
    after = [a.tobytes() for a in (*given, upstream, np.array(4.0))]
    assert after == before


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "nll_loss", "binary", "logsumexp"])
@NUMPY_AND_TORCH
def test_no_result_shares_memory_with_the_input(rng, name, array):
    for shape in ((4, 1), (4, 3), (0, 3)):
        logits, target = rng.normal(size=shape), np.zeros(shape[0], int)
        for result in results(name, array(logits), array(target)):
            assert not np.shares_memory(result, logits)
