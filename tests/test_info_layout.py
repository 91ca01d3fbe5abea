"""Where the classes go, and the dtype and shape that come back."""

from __future__ import annotations

import array_api_compat.numpy as numpy_namespace
import array_api_compat.torch as torch_namespace
import numpy as np
import torch

from xent.info import layout


def test_classes_last_joins_the_axes_in_the_order_given(rng):
    array = rng.normal(size=(2, 3, 4))
    for axes, expected in (
        ((-1,), array),
        ((0,), np.moveaxis(array, 0, -1)),
        ((1, 2), array.reshape(2, 12)),
        ((2, 0), np.transpose(array, (1, 2, 0)).reshape(3, 8)),
    ):
        np.testing.assert_array_equal(layout.classes_last(np, array, axes), expected)
    assert layout.classes_last(np, np.zeros((0, 3)), (1,)).shape == (0, 3)


def test_sums_are_in_float64_or_wider():
    for dtype in (np.float16, np.float32, np.float64):
        assert layout.widest(numpy_namespace, np.ones(2, dtype)).dtype == np.float64
    assert layout.widest(numpy_namespace, np.ones(2, np.longdouble)).dtype == np.longdouble
    assert (
        layout.widest(torch_namespace, torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float64
    )


def test_read_tells_the_way_back():
    back, (rows,) = layout.read("f", (0, 2), 2, False, True, p=np.full((2, 3, 2), 0.25))
    assert rows.p.shape == (3, 4)
    assert back.sizes == (2, 2)
    np.testing.assert_array_equal(back.result(np.log([2.0, 4.0, 1.0])), [[[1.0], [2.0], [0.0]]])
    back, _ = layout.read("f", -1, None, False, False, p=np.float32([1.0]))
    assert type(back.result(np.float64(-0.0))) is np.float32
    assert str(back.result(np.float64(-0.0))) == "0.0"
