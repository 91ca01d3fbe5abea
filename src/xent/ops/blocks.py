"""Row blocks: an N x V array is worked on a few rows at a time, so that what is computed in float64
never takes more memory than a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

BLOCK_BYTES = 1 << 21  # of float64: about what stays in a core's cache


@dataclass(frozen=True)
class Blocks:
    """How rows are cut: bytes of float64 in a block (None: all rows at once), and whether the
    first result may be written piece by piece into one new array. It may not be where someone
    differentiates through the computation, or where the array type cannot be written to."""

    bytes: int | None = BLOCK_BYTES
    write: bool = False


def over_rows(
    xp: Any, function: Callable[..., tuple], arrays: tuple[Any, ...], blocks: Blocks
) -> tuple[Any, ...]:
    """function(*blocks of arrays) for all rows, put together again.

    Arrays of shape (N, D, V) or (N, D), or None; the function gets (R, V) and (R,), compact, and
    returns a tuple of the same kinds of arrays, or None. The first result of shape (R, V) takes the
    type and the layout in memory of the first array where `blocks.write` holds.
    """
    first = arrays[0]
    lead = first.shape[:2]
    cuts = list(_cuts(first.shape, blocks.bytes))
    if len(cuts) == 1 and not blocks.write:
        pieces = function(*(_compact(xp, array, None) for array in arrays))
        return tuple(_shape(xp, piece, lead) for piece in pieces)
    out = None
    rows: list[tuple] = []
    for cut in cuts:
        piece = function(*(_compact(xp, array, cut) for array in arrays))
        if blocks.write and piece[0] is not None and piece[0].ndim == first.ndim - 1:
            if out is None:
                out = xp.empty_like(first)
            out[cut] = xp.reshape(piece[0], out[cut].shape)
            piece = (None, *piece[1:])
        rows.append(piece)
    joined = [_join(xp, column, lead) for column in zip(*rows, strict=True)]
    return (out if out is not None else joined[0], *joined[1:])


def _cuts(shape: tuple[int, int, int], limit: int | None) -> Iterator[tuple]:
    """Slices of the first two axes, in row order, of at most `limit` bytes or one row."""
    n, d, v = shape
    if limit is None or n * d * v * 8 <= limit:
        yield slice(0, n), slice(0, d), ...
        return
    rows = max(1, limit // (8 * v))
    if rows >= d:
        step = rows // d
        for start in range(0, n, step):
            yield slice(start, min(start + step, n)), slice(0, d), ...
        return
    for row in range(n):
        for start in range(0, d, rows):
            yield slice(row, row + 1), slice(start, min(start + rows, d)), ...


def _compact(xp: Any, array: Any, cut: tuple | None) -> Any:
    if array is None:
        return None
    part = array if cut is None else array[cut]
    return xp.reshape(part, (part.shape[0] * part.shape[1], *part.shape[2:]))


def _shape(xp: Any, piece: Any, lead: tuple[int, int]) -> Any:
    return None if piece is None else xp.reshape(piece, (*lead, *piece.shape[1:]))


def _join(xp: Any, column: tuple, lead: tuple[int, int]) -> Any:
    return None if column[0] is None else _shape(xp, xp.concat(column, axis=0), lead)
