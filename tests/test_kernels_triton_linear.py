"""Products of only some rows, and what rounding loses of the largest dlogits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))
import triton_cases
from triton_cases import back, there

from xent.kernels import triton_linear, triton_rows
from xent.kernels.triton_linear import Few, by_class, by_row
from xent.ops.stats import RowStats

HALVES = [torch.bfloat16, torch.float16]


def drawn(rng, *shape, dtype=torch.float32):
    return torch.from_numpy(rng.normal(size=shape)).to(dtype)


def turned(matrix):
    return matrix.T.contiguous().T


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("some", [0, 37, 150])
def test_products_of_some_rows(rng, dtype, inner, some):
    before = 3  # rows that come before those of the product
    left, right = turned(drawn(rng, 150, 70, dtype=dtype)), drawn(rng, 70, 33, dtype=dtype)
    right = turned(right) if inner else right
    start = drawn(rng, 150, 40)[:, :33]
    out = there(start.clone())
    few = Few(there(torch.tensor(before)), 0).after(before)
    few = Few(there(torch.tensor(before + some)), few.before)
    with triton_cases.running():
        triton_linear.multiply(out, there(left), there(right), True, few, inner)
    wide = left.double(), right.double()
    if inner:
        wide = wide[0][:, :some], wide[1][:some]
    found, exact = back(out), start + wide[0] @ wide[1]
    rows = 150 if inner else some
    torch.testing.assert_close(found[:rows].double(), exact[:rows], rtol=1e-4, atol=1e-4)
    # Blocks of 128 rows that have none of the few are left as they were.
    if not inner and some <= 128:
        assert torch.equal(found[128:], start[128:])
    if not inner and some == 0:
        assert torch.equal(found, start)
    again = there(drawn(rng, 150, 33))
    with triton_cases.running():
        triton_linear.multiply(again, there(left), there(right), False, few, inner)
    exact = wide[0] @ wide[1]
    torch.testing.assert_close(back(again)[:rows].double(), exact[:rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("factor", [None, 0.37])
@pytest.mark.parametrize("few", [None, 9])
def test_a_gradient_is_finished_with_what_was_lost(rng, dtype, factor, few):
    rows, classes, width = 23, 11, 300
    at = torch.from_numpy(rng.integers(0, classes + 1, (rows, 2)))
    at[::2, 0] = 3  # many rows of one class
    lost = drawn(rng, rows, 2) * (at < classes)  # a row that has no such entry
    dense = torch.zeros(rows, classes + 1, dtype=torch.float64)
    for column in range(2):
        dense.scatter_add_(1, at[:, column, None], lost[:, column, None].double())
    dense = dense[:, :classes]
    weight, hidden = turned(drawn(rng, classes, width, dtype=dtype)), drawn(rng, rows, width)
    by = None if factor is None else torch.tensor(factor, dtype=torch.float64)
    some = None if few is None else Few(there(torch.tensor(few)))
    for sums, other, ends, total in (
        (drawn(rng, rows, width), weight, by_row(at, lost), dense @ weight.double()),
        (
            drawn(rng, classes, width),
            hidden,
            by_class(at, lost, classes),
            dense.T @ hidden.double(),
        ),
    ):
        first, n = 4, sums.shape[0]
        exact = (sums + total)[first:] * (1 if factor is None else factor)
        if few is not None:
            exact[max(0, few - first) :] = 0
        out = there(torch.empty(n - first, width, dtype=dtype))
        ends = type(ends)(*map(there, ends))
        with triton_cases.running():
            given = there(sums[first:].clone()), there(other), ends, first, there(by), some
            triton_linear.finish(out, *given)
        found = back(out)
        spacing = 2.0 ** (-8 if dtype == torch.bfloat16 else -11)
        torch.testing.assert_close(found.double(), exact, rtol=1.01 * spacing, atol=1e-4)
        assert found.dtype == dtype


def test_sums_may_be_finished_in_place(rng):
    sums, other = drawn(rng, 6, 10), drawn(rng, 4, 10)
    at, lost = torch.from_numpy(rng.integers(0, 4, (6, 2))), drawn(rng, 6, 2)
    exact = sums + (lost[:, :, None] * other[at]).sum(1)
    out = there(sums)
    with triton_cases.running():
        ends = by_row(there(at), there(lost))
        triton_linear.finish(out, out, there(other), ends, 0)
    torch.testing.assert_close(back(out), exact)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("target", ["codes", "none"])
@pytest.mark.parametrize(
    "op",
    [RowStats(), RowStats(0.7, None, smooth=True), RowStats(0.7, 20.0, smooth=True, entropy=True)],
    ids=["plain", "smooth", "every"],
)
def test_what_rounding_loses_of_the_largest_entries(rng, dtype, target, op):
    n, v = 8, 70
    logits = drawn(rng, n, 1, v) * 3
    codes = torch.from_numpy(rng.integers(0, v, (n, 1)))
    codes[:3, 0] = logits[:3, 0].argmax(1)  # the likeliest class is the target
    codes[5], codes[6] = -1, -2
    codes = None if target == "none" else codes
    weight = torch.from_numpy(rng.uniform(0.5, 2, v)) if op.smooth else None
    arrays = tuple(map(there, (logits, codes, weight)))
    asked = True, codes is not None, op.smooth, op.entropy
    g = [there(torch.from_numpy(rng.normal(size=(n, 1)))) if a else None for a in asked]
    at = there(torch.empty(n, 2, dtype=torch.int64))
    lost = there(torch.empty(n, 2))
    out, wide = (there(torch.empty(n, 1, v, dtype=d)) for d in (dtype, torch.float64))
    numbers = there(torch.empty(n, 1, 8, dtype=torch.float64))
    with triton_cases.running():
        kept = triton_rows.forward(op, arrays, None).residuals
        triton_rows.gradient_into(wide, op, arrays, kept, tuple(g), None)
        triton_rows.gradient_into(out, op, arrays, kept, tuple(g), None, found=numbers)
        triton_linear.lost_of(out, op, arrays, kept[0], numbers, at, lost)
    out, wide, at, lost, k = (back(a) for a in (out, wide, at, lost, kept[0]))
    for row in range(n):
        told = None if codes is None else int(codes[row, 0])
        if told == -1:
            assert not lost[row].any()
            assert at[row].tolist() == [v, v]
            continue
        assert at[row, 0] == k[row, 0]
        if told is None or told == -2:
            assert at[row, 1] == v
        elif told != int(k[row, 0]):
            assert at[row, 1] == told
        else:
            rest = out[row, 0].double().clone()
            rest[told] = -torch.inf
            assert rest[at[row, 1]] == rest.max()
        for place, share in zip(at[row].tolist(), lost[row].double(), strict=True):
            if place == v:
                assert share == 0
            elif told != -2:
                exact = wide[row, 0, place] - out[row, 0, place].double()
                assert abs(share - exact) <= 1e-6 * abs(wide[row, 0, place]) + 1e-30
    if codes is not None:
        assert lost[6, 0].isnan()
