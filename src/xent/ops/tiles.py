"""Tiles of logits, so many rows by so many classes: all that is made of a linear head's logits.

`tile` is the rule that chooses them, an `Engine` computes them, and `Sums` adds up gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from xent.ops import Result
from xent.ops.blocks import Blocks
from xent.ops.stats import RowStats

BUDGET = 1 << 25  # bytes of a tile
FEW = 64  # rows of a tile for which a matrix product is not worth reading all classes
MANY = 4096  # rows of a tile of a slab
# On a GPU: bytes of a tile's float32 logits, of the dlogits that are multiplied together, and of
# the sums of a gradient that are rounded together.
LOGITS, DLOGITS, SUMS = 1 << 28, 1 << 31, 1 << 25


class Tile(NamedTuple):
    """How many rows and classes are worked on together."""

    rows: int
    classes: int


class Head(NamedTuple):
    """What logits are made of: sum of left @ right.T, plus bias."""

    pairs: tuple[tuple[Any, Any], ...]  # (N, D) and (V, D), each D its own
    bias: Any  # (V,) or None


def tile(n: int, classes: int, width: int, size: int, limit: int | None, over: str | None) -> Tile:
    """The rule of chunks: a tile of logits takes `limit` bytes of `size` each.

    Rows of all classes where there are at least FEW of them in it, or all: the gradient takes three
    products, and its part by the weights is read and written once for each tile. Otherwise slabs
    of classes for up to MANY rows: four products, each weight read and written once. `width` is
    what is kept beside the tile for each class: 0, or twice D where weights are converted; there
    slabs are what keeps the converted weights small.
    """
    room = max(1, (BUDGET if limit is None else limit) // size)
    rows = min(n, max(1, room // max(1, classes)))
    if over == "rows" or (over is None and not width and rows >= min(n, FEW)):
        return Tile(max(1, rows), max(1, classes))
    tall = max(1, min(n, MANY, room))
    return Tile(tall, max(1, min(classes, room // (tall + width))))


class Room(NamedTuple):
    """The tiles of half precision on a GPU, and how much of dlogits is multiplied together."""

    tile: Tile
    kept: int  # rows of dlogits that are kept for two products; 0 where a tile is multiplied alone
    sums: int  # bytes of a gradient's float32 sums
    apart: int  # rows of dhidden that are summed together, where its sums are no one array


def room(n: int, classes: int, width: int, limit: int | None, over: str | None = None) -> Room:
    """The rule of chunks for half precision on a GPU.

    A product is as fast as it is large. So the dlogits of as many rows as DLOGITS holds are kept,
    and each gradient is one product of them: where that is all rows, nothing of the weights' size
    is stored but their gradient; otherwise their float32 sums are. A `limit` is for all of it.
    Where it does not hold the dlogits of all rows, each tile is multiplied alone: half of the limit
    is the tile's, with its float32 dlogits and these rounded, and half that of the sums, of some
    classes' weights or of some rows' hidden states, in a sweep of its own for each.
    """
    n, classes, width = max(1, n), max(1, classes), max(1, width)
    if over == "rows" and limit is not None:
        rows = max(1, min(n, limit // (6 * classes)))
        return Room(Tile(rows, classes), rows, min(SUMS, limit), n)
    if limit is None and over is None:
        rows = max(1, min(n, LOGITS // (4 * classes)))
        many = max(1, DLOGITS // (2 * classes * rows)) * rows
        return Room(Tile(rows, classes), min(n, many), SUMS, n)
    limit = LOGITS if limit is None else limit
    rest = limit - 2 * n * classes - min(SUMS, limit // 8)
    rows = min(n, rest // (4 * classes))
    if over is None and rows >= min(n, FEW):
        return Room(Tile(rows, classes), n, min(SUMS, limit // 8), n)
    step = max(1, limit // 2 // (4 * width))
    some = min(classes, step)
    rows = max(1, min(n, limit // 2 // (10 * some)))
    return Room(Tile(rows, some), 0, limit // 2, min(n, step))


def product_dtype(xp: Any, arrays: Any) -> Any:
    """The dtype of products: that of all floating arrays together, at least float32."""
    wide = any(a is not None and a.dtype == xp.float64 for a in arrays)
    return xp.float64 if wide else xp.float32


def cuts(length: int, step: int) -> Iterator[slice]:
    """Slices of at most `step`, in order, of about equal length."""
    if length == 0:
        return iter([slice(0, 0)])
    even = -(-length // -(-length // step))
    return (slice(at, min(at + even, length)) for at in range(0, length, even))


class Engine:
    """How a tile is computed: here by array-API operations. A backend has its own."""

    def __init__(self, xp: Any, limit: int | None = None, over: str | None = None) -> None:
        self.xp, self.limit, self.over = xp, limit, over

    def work(self, head: Head) -> Any:
        """The dtype that products are summed in: that of all arrays together, at least float32."""
        return product_dtype(self.xp, (*(a for pair in head.pairs for a in pair), head.bias))

    def operands(self, head: Head) -> tuple:
        """The dtype of what is multiplied, of each pair."""
        return (self.work(head),) * len(head.pairs)

    def silenced(self, lefts: list, target: Any) -> list:
        """What rows are made of, where those that take no part were not taken out."""
        return lefts

    def apart(self, head: Head) -> int | None:
        """Rows whose gradients are computed together, in sweeps of their own; None for all."""
        return None

    def sums(self, op: Any, arrays: tuple, wanted: tuple[bool, ...]) -> Sums:
        """What the gradients of the arrays of an op are added up in."""
        return Sums(self, arrays, wanted, self.work(op.head(arrays)))

    def narrowed(self, dlogits: Any, operand: Any) -> Any:
        """A gradient by logits as what is multiplied."""
        return self.xp.astype(dlogits, operand, copy=False)

    def tile(self, head: Head) -> Tile:
        work = self.work(head)
        narrow = any(operand != work for operand in self.operands(head))
        size = (8 if work == self.xp.float64 else 4) + (2 if narrow else 0)
        rights = [right for _, right in head.pairs]
        width = sum(2 * r.shape[1] for r in rights if r.dtype != work)
        n, classes = head.pairs[0][0].shape[0], rights[0].shape[0]
        return tile(n, classes, width, size, self.limit, self.over)

    def logits(self, lefts: list, rights: list, bias: Any, first: int = 0) -> Any:
        """(R, C) sum of left @ right.T, plus bias; of the rows from the `first` on."""
        made = bias
        for left, right in zip(lefts, rights, strict=True):
            term = self.xp.matmul(left, self.xp.permute_dims(right, (1, 0)))
            made = term if made is None else made + term
        return made

    def empty(self, shape: tuple[int, ...], like: Any, dtype: Any) -> Any:
        return self.xp.empty(shape, dtype=dtype, device=like.device)

    def multiply(self, out: Any, left: Any, right: Any, add: bool) -> None:
        """out = left @ right, or out += left @ right."""
        made = self.xp.matmul(left, right)
        out[...] = out + made if add else made

    def mend(
        self, by_left: Any, by_right: Any, whole: Any, narrow: Any, left: Any, right: Any
    ) -> None:
        """Add to two gradients, each None where it is not wanted, what narrowing lost of most."""

    def kept(self, target: Any) -> Any:
        """The numbers of the rows that take part; None for all, or where nobody looks."""
        return None

    def spread(self, values: Any, kept: Any, n: int) -> Any:
        """Values of the rows that take part among zeros for all n."""
        if values is None:
            return None
        out = self.xp.zeros((n, *values.shape[1:]), dtype=values.dtype, device=values.device)
        out[kept] = values
        return out

    def forward(self, op: RowStats, arrays: tuple) -> Result:
        return op.forward(self.xp, arrays, Blocks())

    def vjp(self, op: RowStats, arrays: tuple, residuals: tuple, g: tuple, wanted: tuple) -> tuple:
        """The gradients by logits, target and class weights; the first may lie over the logits."""
        return op.vjp(self.xp, arrays, residuals, g, wanted, Blocks())

    def both(
        self, op: RowStats, arrays: tuple, objective: Any, cut: slice, wanted: tuple
    ) -> tuple[Any, tuple]:
        """The losses of rows and what `vjp` gives for them."""
        result = self.forward(op, arrays)
        losses, g = objective.cotangents(result.outputs, cut)
        return losses, self.vjp(op, arrays, result.residuals, g, wanted)


class Sums:
    """The gradients of a LinearStats' arrays, added up tile by tile.

    Those of weights are summed in the dtype of the products, for the slab that is worked on, and
    rounded once.
    """

    def __init__(self, engine: Engine, arrays: tuple, wanted: tuple, work: Any) -> None:
        self.engine, self.arrays, self.wanted, self.work = engine, arrays, wanted, work
        self.sums: list = [None] * len(arrays)
        self.open: list = [None] * len(arrays)
        empty = 0 in (arrays[0].shape[0], arrays[1].shape[0])
        last = len(arrays) - 1
        for i, (array, want) in enumerate(zip(arrays, wanted, strict=True)):
            if not want:
                continue
            left = i < last - 2 and i % 2 == 0
            dtype = work if left else array.dtype
            if i in (last, last - 2):  # class weights and bias
                dtype = engine.xp.float64
            self.sums[i] = engine.empty(tuple(array.shape), array, dtype)
            if empty or i in (last, last - 2):
                self.sums[i][...] = 0

    def scaled(self, cotangents: tuple) -> tuple:
        """The cotangents of all rows as what is added is computed from them."""
        return cotangents

    def unscaled(self, objective: Any) -> Any:
        """An objective without what these sums multiply by themselves at the end."""
        return objective

    def add(self, cut: slice, slab: slice, lefts: list, rights: list, made: tuple) -> None:
        """Add the gradients of a tile, those by logits (R, 1, C), target and class weights."""
        dx, dt, dw = made
        xp, last = self.engine.xp, len(self.arrays) - 1
        if self.wanted[last - 1]:
            self.sums[last - 1][cut, :, slab] = dt
        if self.wanted[last]:
            self.sums[last][slab] += dw
        if dx is None or 0 in dx.shape:
            return
        whole, narrow = dx[:, 0, :], None
        if self.wanted[last - 2]:
            self.sums[last - 2][slab] += xp.sum(whole, axis=0, dtype=xp.float64)
        for i, (left, right) in enumerate(zip(lefts, rights, strict=True)):
            if not any(self.wanted[2 * i : 2 * i + 2]):
                continue
            same = left.dtype == whole.dtype
            if not same and narrow is None:
                narrow = self.engine.narrowed(whole, left.dtype)
            dx = whole if same else narrow
            if self.wanted[2 * i]:
                self.engine.multiply(self.sums[2 * i][cut], dx, right, slab.start > 0)
            if self.wanted[2 * i + 1]:
                if cut.start == 0:
                    self._begin(2 * i + 1, slab)
                turned = xp.permute_dims(dx, (1, 0))
                self.engine.multiply(self.open[2 * i + 1], turned, left, cut.start > 0)
            if not same:
                by_left = self.sums[2 * i][cut] if self.wanted[2 * i] else None
                self.engine.mend(by_left, self.open[2 * i + 1], whole, dx, left, right)

    def _begin(self, i: int, slab: slice) -> None:
        whole = self.sums[i][slab]
        same = whole.dtype == self.work
        self.open[i] = whole if same else self.engine.empty(whole.shape, whole, self.work)

    def close(self, slab: slice) -> None:
        """Round the gradients by the weights of a slab."""
        for i, found in enumerate(self.open):
            if found is not None and self.sums[i].dtype != self.work:
                self.sums[i][slab] = self.engine.xp.astype(found, self.sums[i].dtype)
            self.open[i] = None

    def gradients(self, upstream: Any = None) -> tuple:
        """The gradient of each array, in its dtype, or None; times an upstream."""
        xp = self.engine.xp
        sums = [g if g is None or upstream is None else g * upstream for g in self.sums]
        return tuple(
            None if g is None else xp.astype(g, array.dtype, copy=False)
            for g, array in zip(sums, self.arrays, strict=True)
        )


def lengths(head: Head) -> tuple[int, int]:
    left, right = head.pairs[0]
    return left.shape[0], right.shape[0]


def of_slab(engine: Engine, head: Head, slab: slice) -> tuple[list, Any]:
    """The weights of some classes as they are multiplied, and their bias."""
    xp, work = engine.xp, engine.work(head)
    pairs = zip(head.pairs, engine.operands(head), strict=True)
    rights = [xp.astype(right[slab], operand, copy=False) for (_, right), operand in pairs]
    return rights, None if head.bias is None else xp.astype(head.bias[slab], work, copy=False)


def of_rows(engine: Engine, head: Head, cut: slice) -> list:
    """What some rows are made of, as it is multiplied."""
    pairs = zip(head.pairs, engine.operands(head), strict=True)
    return [engine.xp.astype(left[cut], operand, copy=False) for (left, _), operand in pairs]


def some(array: Any, cut: slice) -> Any:
    return None if array is None else array[cut]
