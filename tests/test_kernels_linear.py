"""The compiled kernel over a tile of logits: what the reference gives, where the logits were."""

from __future__ import annotations

import array_api_compat.numpy as xp
import numpy as np
import pytest

from xent.kernels import library, linear
from xent.ops import cross_entropy as ce
from xent.ops.blocks import Blocks
from xent.spec import Spec

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=str(library.why_not()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [3, 100, 5000])
@pytest.mark.parametrize(
    "options", [{}, {"z_loss": 0.1, "label_smoothing": 0.2}, {"softcap": 2.0, "logit_scale": 0.5}]
)
def test_gradients_lie_where_the_logits_were(rng, dtype, classes, options):
    spec = Spec(**options)
    op, x = ce.op(spec), rng.normal(size=(6, 1, classes)).astype(dtype)
    target, weight = rng.integers(0, classes, (6, 1)), rng.random(classes)
    target[2], target[4] = -1, -2
    arrays = (x.copy(), target, weight)
    result = op.forward(xp, arrays, Blocks())
    row_weight = np.where(target >= 0, weight[target], 0.0)
    losses = ce.value(result.outputs, row_weight, spec)
    g = tuple(
        None if p is None else 0.5 * p for p in ce.partials(xp, result.outputs, row_weight, spec)
    )
    right = op.vjp(xp, arrays, result.residuals, g, (True, False, False), Blocks())[0]
    rtol, atol = (1e-5, 1e-7) if dtype is np.float32 else (1e-11, 1e-15)
    linear.vjp(op, arrays, result.residuals, g, None)
    np.testing.assert_allclose(arrays[0], right, rtol=rtol, atol=atol)
    arrays, found = (x.copy(), target, weight), np.empty((6, 1))
    linear.both(op, arrays, ce.coefficients(spec), 0.5, found, None)
    np.testing.assert_allclose(found, losses, rtol=rtol, atol=atol)
    np.testing.assert_allclose(arrays[0], right, rtol=rtol, atol=atol)
