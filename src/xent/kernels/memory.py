"""Memory of a gradient: fresh, in huge pages where it is large, or that of an earlier one.

The page faults of a fresh gradient take several times as long as computing it. Memory that is
reused has had them: it is kept here, and handed out again once nothing holds what was last made of
it.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any

import numpy as np

from xent.inputs import is_torch, namespace
from xent.kernels import cpu
from xent.spec import Plan

HUGE = 1 << 22  # bytes of a fresh array from which huge pages pay
LINE = 64  # bytes of a line of the cache

_lock = threading.Lock()
_kept: list[tuple[np.ndarray, weakref.ref]] = []  # with what was last made of it


def fresh(like: Any, plan: Plan | None = None) -> Any:
    """A new array of the shape and the layout in memory of another; what it holds is undefined."""
    if plan is not None and plan.reuse:
        found = _reused(like)
        if found is not None:
            return found
    out = namespace(like).empty_like(like)
    if out.nbytes >= HUGE:
        cpu.ask_for_huge_pages(cpu.address(out), out.nbytes)
    return out


def _reused(like: Any) -> Any:
    """Such an array in memory that is kept; None where all of that size is in use."""
    size = like.nbytes
    with _lock:
        free = [memory for memory, holder in _kept if holder() is None]
        memory = next((memory for memory in free if memory.nbytes == size + LINE), None)
        if memory is None:
            if any(memory.nbytes == size + LINE for memory, _ in _kept):
                return None
            memory = np.empty(size + LINE, np.uint8)
            cpu.ask_for_huge_pages(memory.ctypes.data, memory.nbytes)
            kept = [pair for pair in _kept if pair[1]() is not None]  # of another size: let go
        else:
            kept = [pair for pair in _kept if pair[0] is not memory]
        # Every view of it holds this object, which nothing else does.
        holder = (ctypes.c_ubyte * memory.nbytes).from_buffer(memory.data)
        _kept[:] = [*kept, (memory, weakref.ref(holder))]
    start = -memory.ctypes.data % LINE
    return _shaped(np.frombuffer(memoryview(holder), np.uint8, size, start), like)


def _shaped(memory: np.ndarray, like: Any) -> Any:
    """Bytes as an array of the dtype, shape and layout of `empty_like`."""
    if is_torch(like):
        xp = namespace(like)
        strides = xp.empty_like(like, device="meta").stride()
        return xp.from_numpy(memory).view(like.dtype).as_strided(like.shape, strides)
    strides = np.empty_like(like).strides
    return np.ndarray(like.shape, like.dtype, memory, strides=strides)
