"""Arrays as rows: views, axes, dtypes and codes. The texts of errors: test_inputs_texts.py."""

from __future__ import annotations

import subprocess
import sys

import array_api_strict
import numpy as np
import pytest
import torch

import xent
from xent import inputs
from xent.ops.stats import IGNORED, INVALID
from xent.spec import Spec

LIBRARIES = pytest.mark.parametrize(
    "array", [np.asarray, torch.asarray, array_api_strict.asarray], ids=["numpy", "torch", "strict"]
)
X = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([2, 0])


@LIBRARIES
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 4, 3), (2, 4, 3, 5)])
def test_the_classes_come_last_and_go_back(array, shape):
    values = np.arange(np.prod(shape), dtype=float).reshape(shape)
    for axis in range(-len(shape), len(shape)):
        place = axis % len(shape)
        per_row = shape[:place] + shape[place + 1 :]
        target = np.zeros(per_row, int)
        rows = inputs.class_rows(array(values), array(target), None, Spec(axis=axis))
        moved = np.moveaxis(values, place, -1).reshape(-1, shape[place])
        assert rows.logits.ndim == 3
        assert rows.indexed
        assert (rows.shape, rows.axis) == (per_row, place)
        np.testing.assert_array_equal(np.asarray(rows.logits).reshape(moved.shape), moved)
        assert tuple(rows.target.shape) == tuple(rows.logits.shape[:2])
        np.testing.assert_array_equal(np.asarray(rows.spread(rows.logits)), values)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, 3])
def test_contiguous_logits_are_viewed_and_not_copied(axis):
    values = np.zeros((2, 3, 4, 5))
    per_row = np.delete((2, 3, 4, 5), 1 if axis is None else axis)
    rows = inputs.class_rows(values, np.zeros(per_row, int), None, Spec(axis=axis))
    assert np.shares_memory(rows.logits, values)
    assert rows.logits.size == values.size


@LIBRARIES
def test_probabilities_take_the_place_of_the_logits(rng, array):
    logits, p = rng.normal(size=(2, 3, 4)), rng.random((2, 3, 4))
    rows = inputs.class_rows(array(logits), array(p), None, Spec())
    assert not rows.indexed
    np.testing.assert_array_equal(np.asarray(rows.target), np.moveaxis(p, 1, -1))
    assert rows.coded(Spec()) is rows


@pytest.mark.parametrize(
    ("shape", "axis", "expected"), [((5,), None, 0), ((5, 6), None, 1), ((5, 6, 7), None, 1)]
)
def test_the_class_axis_is_torchs(shape, axis, expected):
    assert inputs.class_axis("f", "logits", np.zeros(shape), axis) == expected
    assert inputs.class_axis("f", "logits", np.zeros(shape), -1) == len(shape) - 1


@LIBRARIES
def test_codes_of_class_indices(array):
    target = array(np.array([[0, 7, -100], [2, -1, 3]]))
    xp = inputs.namespace(target)
    codes = inputs.target_codes(xp, target, 3, Spec(), None)
    expected = [[0, INVALID, IGNORED], [2, INVALID, INVALID]]
    np.testing.assert_array_equal(np.asarray(codes), expected)
    assert str(codes.dtype).endswith("int64")


@pytest.mark.parametrize("dtype", inputs.INTEGERS)
def test_codes_of_any_integer_dtype(dtype):
    target = np.array([0, 2, 100], dtype)
    codes = inputs.target_codes(np, target, 3, Spec(ignore_index=100), (3,))
    np.testing.assert_array_equal(codes, [0, 2, IGNORED])
    assert codes.dtype == np.int64


def test_a_uint64_beyond_int64_is_no_ignored_row():
    target = np.array([2**64 - 100], np.uint64)
    codes = inputs.target_codes(np, target, 3, Spec(), None)
    np.testing.assert_array_equal(codes, [INVALID])


@LIBRARIES
@pytest.mark.parametrize(
    ("logits", "target"),
    [(X.tolist(), Y.tolist()), (X.astype(int).tolist(), tuple(Y)), (X, Y.tolist())],
)
def test_lists_are_arrays(logits, target, array):
    logits = array(logits) if isinstance(logits, np.ndarray) else logits
    assert float(xent.cross_entropy(logits, target)) == pytest.approx(0.753109126556245, rel=1e-15)


@LIBRARIES
def test_a_list_takes_the_dtype_and_library_of_the_logits(array):
    logits = array(X.astype(np.float32))
    loss = xent.cross_entropy(logits, [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], [1.0, 2.0, 4.0])
    assert type(loss) is not float
    assert str(loss.dtype).endswith("float32")
    assert xent.cross_entropy(X.tolist(), [2, 0]).dtype == np.float64


@LIBRARIES
def test_a_number_is_the_target_of_one_row(array):
    assert float(xent.cross_entropy(array(X[0]), 2)) == pytest.approx(0.4076059644443803)


def test_numpy_scalars_are_targets_and_denominators():
    one, other = (xent.cross_entropy(X[0], two) for two in (np.int64(2), 2))
    assert one == pytest.approx(other, 1e-15)
    right = pytest.approx(1.5062182531124901 / 2, 1e-15)
    for two in (2, np.float32(2), np.int64(2), np.array(2)):
        assert xent.cross_entropy(X, Y, normalizer=two) == right
    loss = xent.cross_entropy(torch.tensor(X), torch.tensor(Y), normalizer=np.float64(2))
    assert float(loss) == right


@LIBRARIES
def test_a_denominator_as_an_array(array):
    for two in (array(np.array(2.0)), array(np.array(2)), array(np.array(2, np.uint8))):
        loss = xent.cross_entropy(array(X), array(Y), normalizer=two)
        assert float(loss) == pytest.approx(1.5062182531124901 / 2, 1e-15)


@LIBRARIES
def test_elements_are_rows_of_one_class(rng, array):
    logits, target, weight = rng.normal(size=(2, 3)), rng.random((2, 3)), rng.random(3)
    rows = inputs.element_rows(array(logits), array(target), array(weight), None, Spec())
    assert tuple(rows.logits.shape) == tuple(rows.weight.shape) == (6, 1, 1)
    assert (rows.shape, rows.axis, rows.more) == ((2, 3), None, (None,))
    np.testing.assert_array_equal(np.asarray(rows.weight)[:, 0, 0], np.tile(weight, 2))
    np.testing.assert_array_equal(np.asarray(rows.spread(rows.logits)), logits)


@LIBRARIES
def test_results_per_row_take_the_callers_shape(array):
    rows = inputs.class_rows(array(np.ones((2, 3, 4))), array(np.zeros((2, 4), int)), None, Spec())
    values = array(np.arange(8.0).reshape(2, 4))
    given = rows.per_row(values, rows.xp.float32)
    assert tuple(given.shape) == (2, 4)
    assert str(given.dtype).endswith("float32")
    assert tuple(rows.per_row(array(np.array(1.0)), rows.dtype).shape) == ()


def test_names_of_dtypes():
    assert inputs.dtype_name(torch.zeros(1, dtype=torch.bfloat16)) == "bfloat16"
    assert inputs.dtype_name(array_api_strict.zeros(1)) == "float64"
    assert inputs.is_half(np.zeros(1, np.float16))
    assert not inputs.is_half(np.zeros(1, np.float32))


def test_torch_is_not_imported_for_a_numpy_array():
    code = (
        "import sys, numpy as np, xent;"
        "xent.cross_entropy_vjp(np.zeros((2, 3)), [0, 1])[1](1.0);"
        "print([m for m in ('torch', 'scipy', 'matplotlib', 'click', 'rich') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Refused: what would be a silently wrong number.


def refused(kind, text, *arguments, **options):
    with pytest.raises(kind) as raised:
        xent.cross_entropy(*arguments, **options)
    assert str(raised.value) == text


def test_a_masked_array_is_refused():
    refused(
        TypeError,
        "cross_entropy: logits has type numpy.ma.MaskedArray, "
        "expected an array of numbers (NumPy, torch or another array-API library)",
        np.ma.masked_array(X, X > 2),
        Y,
    )


@pytest.mark.parametrize("dtype", [">f4", "longdouble", "object", "U3"])
def test_dtypes_of_numpy_alone_are_refused(dtype):
    logits = X.astype(dtype)
    expected = "expected a floating dtype (float16, bfloat16, float32 or float64)"
    text = f"cross_entropy: logits has dtype {logits.dtype}, {expected}"
    refused(TypeError, text, logits, Y)


@pytest.mark.parametrize("array", [np.asarray, torch.asarray])
def test_a_dtype_of_another_library_is_refused(array):
    wrong = torch.float32 if array is np.asarray else np.float32
    with pytest.raises(TypeError) as raised:
        xent.softmax(array(X), dtype=wrong)
    text = f"softmax: dtype has value {wrong!r}, expected a dtype of the library of x"
    assert str(raised.value) == text


def test_an_array_on_another_device_is_refused():
    here, there = (array_api_strict.Device(name) for name in ("CPU_DEVICE", "device1"))
    text = f"cross_entropy: target has device {there}, expected {here}, as the logits"
    logits = array_api_strict.asarray(X, device=here)
    refused(ValueError, text, logits, array_api_strict.asarray(Y, device=there))


def test_class_weights_that_want_a_gradient_are_refused():
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    text = (
        "cross_entropy: weight has requires_grad=True with class indices, "
        "expected one that needs no gradient"
    )
    refused(RuntimeError, text, torch.asarray(X), torch.asarray(Y), weight)
