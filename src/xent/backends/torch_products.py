"""Products of half-precision matrices with float32 results, which torch has none of on a CPU.

The library that torch's own products call has those of bfloat16 (cblas_gemm_bf16bf16f32); they are
worth calling where the CPU multiplies bfloat16 itself. Elsewhere float32 products of converted
matrices are several times as fast.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROW_MAJOR, AS_IS, TRANSPOSED = 101, 111, 112  # of CBLAS
MOST = 2**31 - 1  # a length that an int of the library holds


def serves(*arrays: Tensor) -> bool:
    """Whether bfloat16 matrices are multiplied as they are."""
    return (
        all(a.dtype == torch.bfloat16 and a.is_cpu and max(a.shape) <= MOST for a in arrays)
        and multiplies_bfloat16()
        and _product() is not None
    )


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16."""
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def multiply(out: Tensor, left: Tensor, right: Tensor, add: bool) -> None:
    """out = left @ right, or out += left @ right; out is float32 and has no gaps within a row."""
    if left.is_cuda:
        if add:
            torch.addmm(out, left, right, out_dtype=out.dtype, out=out)
        else:
            torch.mm(left, right, out_dtype=out.dtype, out=out)
        return
    product = _product() if left.dtype == torch.bfloat16 else None
    if product is None or 0 in (*left.shape, *right.shape):
        wide = left.float(), right.float()
        out.addmm_(*wide) if add else torch.mm(*wide, out=out)
        return
    (turn_left, left, step_left), (turn_right, right, step_right) = _laid(left), _laid(right)
    product(
        ROW_MAJOR,
        turn_left,
        turn_right,
        out.shape[0],
        out.shape[1],
        left.shape[1] if turn_left == AS_IS else left.shape[0],
        1.0,
        left.data_ptr(),
        step_left,
        right.data_ptr(),
        step_right,
        1.0 if add else 0.0,
        out.data_ptr(),
        max(1, out.stride(0)),
    )


def _laid(matrix: Tensor) -> tuple[int, Tensor, int]:
    """How a matrix lies: as rows, or transposed, and how far apart its rows are."""
    if matrix.stride(1) == 1 and matrix.stride(0) >= matrix.shape[1]:
        return AS_IS, matrix, matrix.stride(0)
    if matrix.stride(0) == 1 and matrix.stride(1) >= matrix.shape[0]:
        return TRANSPOSED, matrix.T, matrix.stride(1)
    return AS_IS, matrix.contiguous(), max(1, matrix.shape[1])


@functools.cache
def _product() -> Callable[..., None] | None:
    """The library's product; None where torch was built without it."""
    if not torch.backends.mkl.is_available():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        found = library.cblas_gemm_bf16bf16f32
    except (OSError, AttributeError):
        return None
    whole, address, real = ctypes.c_int, ctypes.c_void_p, ctypes.c_float
    found.argtypes = [whole] * 6 + [real] + [address, whole] * 2 + [real, address, whole]
    found.restype = None
    return found
