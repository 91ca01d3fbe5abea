"""What the tests of the Triton kernels share: the interpreter, and cases against the op.

The kernels run on the device where there is one, and in Triton's interpreter elsewhere. That has to
be told before a kernel is imported, and holds for the whole process: `conftest.py` does.
"""

from __future__ import annotations

import contextlib

import kernel_cases as cases
import numpy as np
import pytest
import torch

from xent.kernels import triton_rows
from xent.ops.stats import IGNORED, INVALID, RowStats

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = pytest.mark.parametrize("dtype", cases.FORMATS)
PLAIN = RowStats()
EVERY = RowStats(0.7, 20.0, smooth=True, entropy=True)


def bfloat16_rounded(builder, src, dst_type):
    """A cast as a device makes it: the interpreter's own cuts a bfloat16 off, and takes its bits
    for an integer where the other type is float64."""
    import triton.language as tl
    from triton.runtime import interpreter

    data, old, new = src.data, src.dtype.scalar, dst_type.scalar
    if old == tl.bfloat16:
        data = torch.from_numpy(data.view(np.int16).copy()).view(torch.bfloat16).float().numpy()
    if new == tl.bfloat16:
        data = torch.from_numpy(np.array(data, np.float32)).bfloat16().view(torch.int16).numpy()
        return interpreter.TensorHandle(data.view(np.uint16), new)
    return interpreter.TensorHandle(data.astype(interpreter._get_np_dtype(dst_type)), new)


def bfloat16_multiplied(builder, a, b, d, *options):
    """A product as a device makes it: the interpreter's own multiplies the bits of a bfloat16."""
    import triton.language as tl
    from triton.runtime import interpreter

    a, b = (bfloat16_rounded(builder, m, tl.float32).data for m in (a, b))
    return interpreter.TensorHandle(np.matmul(a, b, dtype=d.data.dtype) + d.data, d.dtype.scalar)


def patched_once(patch):
    """The interpreter's own `patch`, which makes a function's language its own, where that is not
    done yet: it takes two thirds of the time of small arrays to do it at every call."""
    import triton.language as tl
    from triton.runtime import interpreter

    def patch_lang(fn):
        known = [m for m in fn.__globals__.values() if m is tl or m is tl.core]
        if known and not any(tl.core.is_builtin(m.load) for m in known):
            return interpreter._LangPatchScope()
        return patch(fn)

    return patch_lang


@contextlib.contextmanager
def running():
    """Kernels that serve tensors in main memory where there is no device."""
    if DEVICE == "cuda":
        yield
        return
    from triton.runtime import interpreter

    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(triton_rows, "on_device", lambda tensor: tensor.is_cpu)
        patch.setattr(interpreter.InterpreterBuilder, "cast_impl", bfloat16_rounded)
        patch.setattr(interpreter, "_patch_lang", patched_once(interpreter._patch_lang))
        patch.setattr(interpreter.InterpreterBuilder, "create_dot", bfloat16_multiplied)
        yield


def there(array):
    """An array where the kernels run, with its strides."""
    if array is None or DEVICE == "cpu":
        return array
    moved = torch.empty_strided(array.shape, array.stride(), dtype=array.dtype, device=DEVICE)
    return moved.copy_(array)


def back(array):
    return None if array is None else array.cpu()


def by_kernel(op, arrays, cotangents, plan=None):
    """Outputs, residuals and gradient of the kernels; their inputs stay as they are."""
    given, by = tuple(map(there, arrays)), tuple(map(there, cotangents))
    with running():
        assert triton_rows.why_not(op, given) is None
        result = triton_rows.forward(op, given, plan)
        gradient = triton_rows.vjp(op, given, result.residuals, by, plan)
    for array, moved in zip((*arrays, *cotangents), (*given, *by), strict=True):
        assert array is None or np.array_equal(cases.bits(array), cases.bits(moved.cpu()))
    assert gradient.dtype == arrays[0].dtype
    assert gradient.stride() == torch.empty_like(arrays[0]).stride()
    return tuple(map(back, (*result.outputs, *result.residuals, gradient)))


def compare(op, arrays, cotangents, limits=cases.BOTH, plan=None):
    """The kernels against the op, in ULP of the dtype of the logits; what the kernels gave."""
    dtype = str(arrays[0].dtype).removeprefix("torch.")
    found = by_kernel(op, arrays, cotangents, plan)
    with np.errstate(all="ignore"):
        right = cases.by_op(op, arrays, cotangents)
    more = 8 * op.softcap if op.softcap is not None and dtype == "float64" else 0
    # A tail of half precision is computed for a loss of half precision.
    if dtype in ("float16", "bfloat16"):
        cases.near(found[5], right[5], "float32", 80 if dtype == "float16" else 400)
        found = (*found[:5], right[5], found[6])
    cases.agree(op, arrays, cotangents, found, right, tuple(n + more for n in limits[dtype]))
    return found


def arrays_of(rng, shape, dtype, target="codes", weight=None, layout="whole", spread=4.0, at=0.0):
    """Random logits, target and class weights."""
    logits = cases.LAYOUTS[layout](cases.cast(rng.normal(at, spread, shape), dtype))
    given = None
    if target == "codes":
        given = torch.from_numpy(rng.integers(0, shape[2], shape[:2]))
        given[torch.from_numpy(rng.random(shape[:2]) < 0.15)] = IGNORED
        given[torch.from_numpy(rng.random(shape[:2]) < 0.1)] = INVALID
    elif target is not None:
        given = cases.LAYOUTS[layout](
            cases.cast(rng.dirichlet(np.ones(shape[2]), shape[:2]), target)
        )
    if weight is not None:
        kept = rng.random(shape[2]) < 0.9
        weight = cases.cast(rng.uniform(0, 2, shape[2]) * kept, weight)
    return logits, given, weight


def check(rng, op, shape, dtype, plan=None, limits=cases.BOTH, **how):
    """The kernels against the op on random numbers."""
    arrays = arrays_of(rng, shape, dtype, **how)
    g = cases.cotangents_of(rng, op, shape, arrays[1])
    return compare(op, arrays, g, limits, plan)
