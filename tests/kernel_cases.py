"""What the tests of the compiled kernel share: arrays of every layout, and what is right."""

from __future__ import annotations

import array_api_compat.torch as torch_xp
import numpy as np
import torch

from xent.conformance import exact
from xent.kernels import cpu
from xent.ops.blocks import Blocks

FORMATS = ("float16", "bfloat16", "float32", "float64")
ULP = {"float16": (0.51, 0.51), "bfloat16": (0.51, 0.51), "float32": (3.0, 4.0)}
BOTH = {**ULP, "float64": (8.5, 16.0)}  # the kernel's error and the op's own


def cast(numbers, dtype, library="torch"):
    """An array of a library; NumPy has no bfloat16."""
    made = torch.from_numpy(np.array(numbers, order="C")).to(getattr(torch, dtype))
    return made if library == "torch" else made.numpy()


def _within(array, shape, view):
    made = (torch if isinstance(array, torch.Tensor) else np).full(
        shape, float("nan"), dtype=array.dtype
    )
    made = view(made)
    made[...] = array
    return made


LAYOUTS = {  # of the same numbers (N, D, V); the gaps are NaN
    "whole": lambda a: a,
    "padded": lambda a: _within(a, (*a.shape[:2], a.shape[2] + 3), lambda m: m[:, :, : a.shape[2]]),
    "gaps": lambda a: _within(a, (*a.shape[:2], 2 * a.shape[2]), lambda m: m[:, :, ::2]),
    "rows apart": lambda a: _within(a, (2 * a.shape[0], *a.shape[1:]), lambda m: m[::2]),
    "offset": lambda a: _within(
        a, (1 + np.prod(a.shape),), lambda m: m[1:].reshape(tuple(a.shape))
    ),
    "images": lambda a: _within(
        a, (a.shape[0], a.shape[2], a.shape[1]), lambda m: m.swapaxes(1, 2)
    ),
    "classes first": lambda a: _within(a, tuple(a.shape)[::-1], lambda m: m.swapaxes(0, 2)),
}
BACKWARDS = {  # torch has none
    "backwards": lambda a: _within(a, a.shape, lambda m: m[::-1, :, ::-1]),
    "rows backwards": lambda a: _within(a, a.shape, lambda m: m[::-1, ::-1]),
}


def floats(array):
    """Any array as NumPy's float64."""
    return array.double().numpy() if isinstance(array, torch.Tensor) else np.float64(array)


def unit(size, dtype):
    """The spacing of a format's numbers around numbers of a size."""
    bits, smallest, _ = exact.FORMATS[dtype]
    binade = np.where(size == 0, smallest, np.frexp(size)[1] - 1)
    return np.ldexp(1.0, np.maximum(binade, smallest) - bits + 1)


def near(found, right, dtype, limit, size=0.0, lost=0.0):
    """See that numbers are right to `limit` units, those of `size` where it is larger.

    Or to `lost` times the smallest normal number of what is computed in.
    """
    found, right = floats(found), floats(right)
    with np.errstate(all="ignore"):
        rounded = cast(right, dtype).double().numpy()
        same = (found == right) | (np.isnan(found) & np.isnan(right))
        same |= np.isinf(found) & (found == rounded)
        lost = np.ldexp(lost, -1022 if dtype == "float64" else -126)
        errors = abs(found - right) / unit(np.fmax(abs(right), size), dtype)
        fine = same | (errors <= limit) | (abs(found - right) <= lost)
    if not fine.all():
        at = tuple(np.argwhere(~fine)[0])
        place = f"{(~fine).sum()} of {fine.size} entries, the first at {at}"
        raise AssertionError(f"{place}: {found[at]}, not {right[at]}: {errors[at]} ULP")


def bits(array):
    """The bits of an array, as a NumPy array."""
    if isinstance(array, torch.Tensor):
        array = array.detach().clone(memory_format=torch.contiguous_format)
        return array.view(-1).view(torch.uint8).numpy()
    return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)


def same_bits(found, right):
    """See that arrays, or tuples of them, are the same to the last bit."""
    if isinstance(right, tuple):
        for one, other in zip(found, right, strict=True):
            same_bits(one, other)
    elif right is None:
        assert found is None
    else:
        assert found.dtype == right.dtype
        assert tuple(found.shape) == tuple(right.shape)
        np.testing.assert_array_equal(bits(found), bits(right))


def by_kernel(op, arrays, cotangents, plan=None):
    """Outputs, residuals and gradient of the kernel; its inputs stay as they are."""
    before = [None if a is None else bits(a).copy() for a in (*arrays, *cotangents)]
    assert cpu.why_not(op, arrays) is None
    result = cpu.forward(op, arrays, plan)
    gradient = cpu.vjp(op, arrays, result.residuals, cotangents, plan)
    for array, copy in zip((*arrays, *cotangents), before, strict=True):
        assert array is None or np.array_equal(bits(array), copy)
    assert gradient.dtype == arrays[0].dtype
    return (*result.outputs, *result.residuals, gradient)


def by_op(op, arrays, cotangents):
    """The same of the op, in float64."""
    wide = tuple(None if a is None else torch.from_numpy(_wide(a)) for a in arrays)
    given = tuple(None if g is None else torch.from_numpy(_wide(g)) for g in cotangents)
    result = op.forward(torch_xp, wide, Blocks())
    wanted = (True, False, False)
    gradient = op.vjp(torch_xp, wide, result.residuals, given, wanted, Blocks())[0]
    return (*result.outputs, *result.residuals, gradient)


def _wide(array):
    if not str(array.dtype).endswith("int64"):
        return np.array(floats(array))
    return np.array(array.numpy() if isinstance(array, torch.Tensor) else array)


def addends(op, arrays, cotangents):
    """The size of the numbers that an entry of the gradient is the sum of."""
    x, t, w = (None if a is None else _wide(a) for a in arrays)
    by_lse, by_nll, by_smooth, by_entropy = (
        None if g is None else abs(_wide(g))[..., None] for g in cotangents
    )
    w = np.ones(x.shape[2]) if w is None else abs(w)
    u, slope = op.logit_scale * x, np.full(x.shape, op.logit_scale)
    if op.softcap is not None:
        slope *= np.cosh(np.clip(u / op.softcap, -300, 300)) ** -2.0
        u = op.softcap * np.tanh(u / op.softcap)
    p = np.exp(u - u.max(2, keepdims=True))
    p /= p.sum(2, keepdims=True)
    size = np.zeros(x.shape)
    if by_lse is not None:
        size = size + by_lse * p * slope
    if by_nll is not None and t.ndim == 3:
        mass = abs(t) * w
        size = size + by_nll * np.fmax(mass.sum(2, keepdims=True) * p, mass) * slope
    elif by_nll is not None:
        kept = np.where(t < 0, 0, w[np.maximum(t, 0)])[..., None]
        at = np.arange(x.shape[2]) == t[..., None]
        size = size + by_nll * kept * np.where(at, 1 - p, p) * slope
    if by_smooth is not None:
        size = size + by_smooth * np.fmax(w.sum() * p, w) * slope / x.shape[2]
    if by_entropy is not None:
        surprisal = -np.log(np.fmax(p, 1e-300))
        entropy = (p * surprisal).sum(2, keepdims=True)
        size = size + by_entropy * p * np.fmax(surprisal, entropy) * slope
    return np.where(np.isfinite(size), size, 0)


def agree(op, arrays, cotangents, found, right, limits):
    """See that statistics and gradient are right, in ULP of the dtype of the logits."""
    dtype = str(arrays[0].dtype).removeprefix("torch.")
    lost = arrays[0].shape[2]  # exponentials that are not normal numbers are 0
    np.testing.assert_array_equal(floats(found[4]), floats(right[4]))
    assert all(str(o.dtype).endswith("float64") for o in found[:4] if o is not None)
    with np.errstate(all="ignore"):
        log_sum = np.log1p(floats(right[5]))
        size = np.nan_to_num(np.fmax(abs(floats(right[0]) - log_sum), log_sum))
    if op.softcap is not None and dtype == "float64":
        size = np.fmax(size, op.softcap)  # which is what a softcap is exact to
    for place in range(4):
        assert (found[place] is None) == (right[place] is None)
        if found[place] is None:
            continue
        rounded = cast(floats(found[place]), dtype)
        of_size = size if place == 0 or op.softcap is not None else 0
        near(rounded, right[place], dtype, limits[0], of_size, 100 * lost)
    of_tail = ("float64", limits[0]) if dtype == "float64" else ("float32", 4)
    near(found[5], right[5], *of_tail, 0, lost)
    sizes = [abs(floats(c)).max() for c in (*cotangents, arrays[2]) if c is not None]
    with np.errstate(all="ignore"):
        size = addends(op, arrays, cotangents)
    near(found[6], right[6], dtype, limits[1], size, lost * max(1.0, *sizes) ** 2)


def compare(op, arrays, cotangents, limits=BOTH, plan=None):
    """The kernel against the op; what the kernel gave."""
    dtype = str(arrays[0].dtype).removeprefix("torch.")
    found = by_kernel(op, arrays, cotangents, plan)
    with np.errstate(all="ignore"):
        right = by_op(op, arrays, cotangents)
    more = 8 * op.softcap if op.softcap is not None and dtype == "float64" else 0
    limit = tuple(each + more for each in limits[dtype])
    agree(op, arrays, cotangents, found, right, limit)
    return found


def cotangents_of(rng, op, shape, target, library="torch"):
    """Derivatives by lse, nll, smooth and entropy."""
    g = [cast(rng.normal(0, 1, shape[:2]), "float64", library) for _ in range(4)]
    wanted = True, target is not None, op.smooth, op.entropy
    return tuple(one if w else None for one, w in zip(g, wanted, strict=True))
