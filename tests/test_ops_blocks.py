"""Row blocks: for every cut the same rows, no block larger than asked, the layout of the first."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xent.inputs import namespace
from xent.ops.blocks import BLOCK_BYTES, Blocks, over_rows

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
LAYOUTS = {
    "rows": lambda x: x,
    "classes first": lambda x: np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1),
    "backwards": lambda x: np.ascontiguousarray(x.transpose(2, 1, 0)).transpose(2, 1, 0),
    "every second": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}


def run(array, x, per_row, blocks):
    """over_rows of a function that scales rows and sums them, with the sizes of its blocks."""
    sizes = []
    given = array(x)
    xp = namespace(given)

    def function(block, missing, numbers):
        assert missing is None
        assert block.ndim == 2
        assert numbers.ndim == 1
        sizes.append(tuple(block.shape))
        return block * numbers[:, None], None, xp.sum(block, axis=1) + numbers

    results = over_rows(xp, function, (given, None, array(per_row)), blocks)
    return results, sizes


@LIBRARIES
@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(5, 1, 3), (1, 7, 3), (4, 5, 3), (3, 2, 8), (1, 1, 1)])
def test_any_cut_gives_the_same_rows(rng, shape, layout, write, array):
    if layout == "backwards" and array is torch.asarray:
        layout = "classes first"
    x, per_row = LAYOUTS[layout](rng.normal(size=shape)), rng.normal(size=shape[:2])
    if array is not np.asarray:
        x = x.copy() if layout == "broadcast" else x
    row = 8 * shape[2]
    for limit in (1, row, 2 * row, 3 * row + 1, 5 * row, 10**9, None):
        results, sizes = run(array, x, per_row, Blocks(limit, write))
        scaled, missing, sums = results
        assert missing is None
        np.testing.assert_array_equal(np.asarray(scaled), x * per_row[:, :, None])
        np.testing.assert_allclose(np.asarray(sums), x.sum(axis=2) + per_row, atol=1e-14)
        assert sum(n for n, _ in sizes) == shape[0] * shape[1]
        assert all(n == 1 or limit is None or n * row <= limit for n, _ in sizes)


@given(
    shape=st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 4)),
    limit=st.integers(1, 400),
    write=st.booleans(),
)
@settings(max_examples=200)
def test_random_shapes_and_limits(shape, limit, write):
    x = np.arange(np.prod(shape), dtype=float).reshape(shape)
    per_row = np.arange(shape[0] * shape[1], dtype=float).reshape(shape[:2])
    (scaled, _, sums), sizes = run(np.asarray, x, per_row, Blocks(limit, write))
    np.testing.assert_array_equal(scaled, x * per_row[:, :, None])
    np.testing.assert_array_equal(sums, x.sum(axis=2) + per_row)
    assert all(n == 1 or n * shape[2] * 8 <= limit for n, _ in sizes)
    fewest = -(-x.size * 8 // limit)
    assert len(sizes) >= min(fewest, shape[0] * shape[1])


@pytest.mark.parametrize("layout", ["rows", "classes first", "backwards"])
@pytest.mark.parametrize("limit", [1, 100, 10**9])
def test_a_written_result_has_the_dtype_and_layout_of_the_first_array(rng, layout, limit):
    x = LAYOUTS[layout](rng.normal(size=(4, 5, 3)).astype(np.float32))
    results = over_rows(np, lambda b: (b * 2,), (x,), Blocks(limit, write=True))
    assert results[0].strides == x.strides
    assert results[0].dtype == np.float32
    np.testing.assert_array_equal(results[0], 2 * x)


def test_a_written_result_of_a_broadcast_array_has_memory_of_its_own(rng):
    x = np.broadcast_to(rng.normal(size=(1, 1, 3)), (4, 2, 3))
    scale = rng.normal(size=(4, 2))
    results = over_rows(np, lambda b, s: (b * s[:, None],), (x, scale), Blocks(24, write=True))
    np.testing.assert_array_equal(results[0], x * scale[:, :, None])


def test_only_the_first_result_may_be_written():
    x = np.ones((3, 1, 2))
    first, second = over_rows(np, lambda b: (b[:, 0], b), (x,), Blocks(1, write=True))
    np.testing.assert_array_equal(first, np.ones((3, 1)))
    np.testing.assert_array_equal(second, x)
    missing, second = over_rows(np, lambda b: (None, 3 * b), (x,), Blocks(1, write=True))
    assert missing is None
    np.testing.assert_array_equal(second, 3 * x)


def test_torch_differentiates_through_blocks_that_are_not_written(rng):
    x = torch.tensor(rng.normal(size=(5, 2, 3)), requires_grad=True)
    results = over_rows(namespace(x), lambda b: (b**2, b.sum(1)), (x,), Blocks(50))
    (results[0].sum() + results[1].sum()).backward()
    np.testing.assert_allclose(x.grad, 2 * x.detach() + 1)


def test_a_block_fits_the_cache_by_default():
    assert Blocks() == Blocks(BLOCK_BYTES, False)
    assert BLOCK_BYTES == 2**21
