"""Which arrays the compiled kernel takes, as what it sees them, and what it makes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xent import Plan
from xent.kernels import choose, cpu, library
from xent.kernels.cpu import Layout, layout, why_not
from xent.ops.softmax import Softmax
from xent.ops.stats import RowStats

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import LAYOUTS, same_bits

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)


@pytest.mark.parametrize(
    ("shape", "strides", "axis", "rows"),
    [
        ((5,), (1,), 0, (1, 1, 5, 0, 0, 1)),
        ((4, 5), (5, 1), 1, (4, 1, 5, 5, 0, 1)),
        ((4, 5), (5, 1), 0, (1, 5, 4, 0, 1, 5)),
        ((4, 5), (1, 4), 1, (4, 1, 5, 1, 0, 4)),
        ((4, 5), (7, 1), 1, (4, 1, 5, 7, 0, 1)),
        ((4, 5), (-5, -1), 1, (4, 1, 5, -5, 0, -1)),
        ((2, 5, 3, 4), (60, 12, 4, 1), 1, (2, 12, 5, 60, 1, 12)),
        ((2, 3, 4, 5), (60, 20, 5, 1), 3, (24, 1, 5, 5, 0, 1)),
        ((2, 3, 5), (0, 0, 1), 2, (6, 1, 5, 0, 0, 1)),
        ((1, 3, 1, 5), (99, 5, 77, 1), 3, (3, 1, 5, 5, 0, 1)),
        ((2, 5, 1, 4), (20, 4, 99, 1), 1, (2, 4, 5, 20, 1, 4)),
    ],
)
def test_axes_that_merge(shape, strides, axis, rows):
    assert layout(shape, strides, axis) == Layout(*rows)


@pytest.mark.parametrize(
    ("shape", "strides", "axis"),
    [
        ((2, 3, 5), (60, 5, 1), 2),  # gaps between the first
        ((2, 5, 3, 4), (60, 1, 5, 15), 1),  # a transposed image
        ((2, 3, 5), (5, 10, 1), 2),  # transposed rows
        ((2, 3, 5), (0, 5, 1), 2),  # rows that are shown twice
    ],
)
def test_axes_that_do_not_merge(shape, strides, axis):
    assert layout(shape, strides, axis) is None


def test_a_layout_finds_each_number(rng):
    for shape, axis in (((2, 3, 5), 2), ((2, 5, 3, 2), 1), ((6,), 0), ((4, 3, 2), 0)):
        array = np.arange(np.prod(shape)).reshape(shape)
        rows = layout(shape, cpu.strides(array), axis)
        n, d, v = np.indices(rows[:3])
        moved = np.moveaxis(array, axis, -1).reshape(-1, shape[axis])
        places = n * rows.stride_n + d * rows.stride_d + v * rows.stride_v
        np.testing.assert_array_equal(places.reshape(moved.shape), moved)


X, T = torch.zeros((2, 1, 3)), torch.zeros((2, 1), dtype=torch.int64)
W = torch.ones(3)


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("op", "arrays"),
    [
        (RowStats(), (X, T, None)),
        (RowStats(smooth=True), (X, None, None)),
        (RowStats(), (X, T, W)),
        (RowStats(), (X, X.double(), W.half())),
        (RowStats(), (torch.nn.Parameter(X), T, torch.nn.Parameter(W))),
        (RowStats(), (X.numpy(), T.numpy(), W.numpy())),
    ],
)
def test_what_it_serves(op, arrays):
    assert why_not(op, arrays) is None
    assert choose(op, arrays, None) is cpu
    assert choose(op, arrays, Plan(kernel="native")) is cpu
    assert choose(op, arrays, Plan(kernel="reference")) is None


OTHER = "an array is neither NumPy's nor torch's"
ELSEWHERE = "an array is no plain tensor in main memory"
EMPTY = "there are no rows or no classes"
OUT = "a derivative by the target or the class weights is wanted"
REASONS = {
    "another op": (Softmax(), (X, T, None), "the op is not that of row statistics"),
    "no rows": (RowStats(), (X[:0], T[:0], None), EMPTY),
    "no classes": (RowStats(), (X[:, :, :0], None, None), EMPTY),
    "integers": (RowStats(), (X.int(), T, None), "the dtype int32 has no kernel"),
    "complex": (RowStats(), (X, T, W.cfloat()), "the dtype complex64 has no kernel"),
    "long double": (RowStats(), (np.zeros((1, 1, 2), "g"), None, None), None),
    "integer shares": (RowStats(), (X, X.long(), None), "the dtype int64 has no kernel"),
    "no memory": (RowStats(), (X.to("meta"), T, None), ELSEWHERE),
    "weights elsewhere": (RowStats(), (X, T, W.to("meta")), ELSEWHERE),
    "a subclass": (RowStats(), (X.as_subclass(Tagged), T, None), ELSEWHERE),
    "a list": (RowStats(), ([[[1.0, 2.0]]], None, None), OTHER),
    "foreign bytes": (RowStats(), (np.zeros((1, 1, 2), ">f4"), None, None), OTHER),
    "a matrix": (RowStats(), (np.zeros((1, 1, 2)).view(np.recarray), None, None), OTHER),
}


@pytest.mark.parametrize("name", REASONS)
def test_why_it_does_not_serve(name):
    op, arrays, reason = REASONS[name]
    if reason is None:
        reason = f"the dtype {np.dtype('g').name} has no kernel"
    assert why_not(op, arrays) == reason
    assert choose(op, arrays, None) is not cpu
    text = f"Plan: kernel has value 'native', expected None or 'reference': {reason}"
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared
        choose(op, arrays, Plan(kernel="native"))
    assert str(caught.value) == text


@pytest.mark.parametrize("wanted", [(True, True, False), (True, False, True)])
def test_no_derivative_by_target_or_weight(wanted):
    assert why_not(RowStats(), (X, X, W), wanted) == OUT


def test_without_a_library_the_reason_is_the_librarys(monkeypatch):
    monkeypatch.setattr(library, "why_not", lambda: "it is not built")
    assert why_not(RowStats(), (X, T, None)) == "it is not built"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_lies_as_fresh_memory(rng, layout):
    logits = LAYOUTS[layout](torch.from_numpy(rng.normal(size=(3, 4, 70))))
    ones = torch.ones((3, 4), dtype=torch.float64)
    residuals = cpu.forward(RowStats(), (logits, None, None), None).residuals
    arrays = logits, None, None
    gradient = cpu.vjp(RowStats(), arrays, residuals, (ones, None, None, None), None)
    assert gradient.stride() == torch.empty_like(logits).stride()


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_small_arrays_may_have_gaps(rng, kind):
    logits = rng.normal(size=(3, 4, 70))
    target, weight = rng.integers(0, 70, (3, 4)), rng.random(70)
    arrays = (logits, target, weight)
    gaps = (
        logits,
        np.repeat(target, 2, 1)[:, ::2],
        np.repeat(weight, 3)[::3],
    )
    if kind == "torch":
        arrays, gaps = (tuple(map(torch.from_numpy, a)) for a in (arrays, gaps))
    same_bits(cpu.forward(RowStats(), gaps, None), cpu.forward(RowStats(), arrays, None))
    ones = np.ones((3, 8))
    ones = torch.from_numpy(ones) if kind == "torch" else ones
    residuals = cpu.forward(RowStats(), arrays, None).residuals
    found = cpu.vjp(RowStats(), gaps, residuals, (None, ones[:, ::2], None, None), None)
    whole = (None, cpu.compact(ones[:, ::2]), None, None)
    same_bits(found, cpu.vjp(RowStats(), arrays, residuals, whole, None))
