"""Which rows of a tensor (N, D, V) are worked on together, and the views that are worked on."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xent.spec import Plan

CHUNK_BYTES = 1 << 21  # of float32
SHORT = 64  # classes of a row that is worked on side by side with others


def count_of(logits: Tensor, plan: Plan | None) -> int:
    """Logits in a chunk: at least a row."""
    asked = None if plan is None else plan.chunk_bytes
    return max(logits.shape[2], (CHUNK_BYTES if asked is None else asked) // 4)


def empty(*shape: int) -> Tensor:
    """float32 in main memory, whatever torch's default is."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def groups(logits: Tensor, count: int) -> Iterator[tuple]:
    """Indices of (N, D), in order: all rows if long, rows of about `count` logits otherwise."""
    n, d, classes = logits.shape
    rows = max(n, d) if is_long(logits) else count // classes
    step = max(1, rows // d)
    for first in range(0, n, step):
        for start in range(0, d, rows):
            yield slice(first, first + step), slice(start, start + rows)


def is_long(logits: Tensor) -> bool:
    """Whether rows (N, D, V) are worked on piece by piece, and not side by side."""
    _, d, classes = logits.shape
    return d == 1 and classes >= SHORT and logits.stride(2) == 1


def cuts(x: Tensor, count: int) -> Iterator[slice]:
    """Slices of the first axis of about `count` elements."""
    step = count // x[0].numel()
    return (slice(start, start + step) for start in range(0, x.shape[0], step))


def some(logits: Tensor, which: Tensor, count: int) -> Iterator[tuple]:
    """Indices of the rows that are marked, of about `count` logits at a time."""
    parts = which.nonzero().split(max(1, count // logits.shape[2]))
    return (part.unbind(1) for part in parts)


def class_second(array: Tensor) -> Tensor:
    """(N, D, V) as (N, V), or as (N, V, D)."""
    return array[:, 0] if array.shape[1] == 1 else array.transpose(1, 2)


def like(x: Tensor, rows: Tensor) -> Tensor:
    """(N, D) numbers in the shape of x, but for its class axis, the second."""
    return rows.reshape(x.shape[0], 1, *x.shape[2:])


def shaped(room: Tensor, like: Tensor) -> Tensor:
    """The beginning of some room in the shape of a tensor."""
    return room[: like.numel()].view(like.shape)
