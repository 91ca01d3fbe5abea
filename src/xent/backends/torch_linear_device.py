"""A linear head on a GPU: few large products, and kernels that make dlogits of logits in between.

float32 and float64 heads go tile by tile as everywhere. In half precision a product of rounded
matrices is summed in float32, and is the faster the larger it is: a tile of float32 logits becomes
statistics and rounded dlogits without the factors 1 / N and upstream, and dlogits are kept for as
many rows as `ops.tiles.room` says. Backward makes each gradient of them by products that are scaled
before they are rounded: the upstream is read on the device, and the host never waits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xent.backends import torch as backend
from xent.backends.torch_tiles import HALVES, TorchEngine
from xent.kernels import triton_rows
from xent.ops.stats import IGNORED, RowStats
from xent.ops.tiles import LOGITS, Head, Room, Sums, Tile, cuts, lengths, room, tile
from xent.spec import Plan

SPACE = 10  # float16 dlogits are to be 2^SPACE at most, which leaves room for 2^5 times as much
LONG = 64.0  # a log-sum-exp that a z-loss may well have
NUMBERS = 8  # of a row, that the kernel of the gradient reads


def engine_of(plan: Plan | None, hidden: Tensor) -> TorchEngine:
    """How the tiles of a head of these hidden states are computed."""
    reference = plan is not None and plan.kernel == "reference"
    served = triton_rows.on_device(hidden) and triton_rows.installed()
    if not served or reference or backend.watched():
        return TorchEngine(plan)
    return DeviceEngine(plan, hidden.dtype)


class DeviceEngine(TorchEngine):
    """Tiles on a GPU."""

    def __init__(self, plan: Plan | None, dtype: torch.dtype) -> None:
        super().__init__(plan)
        self.defers = dtype in HALVES
        self.few: Any = None  # how many rows take part, where the device alone knows
        self.of_product: Any = None  # the same, of the rows of a product
        self.dlogits: Dlogits | None = None  # what those of a tile are kept in

    def takes_out(self, target: Tensor) -> bool:
        return self.few is not None

    def kept(self, target: Any) -> Any:
        asked = self.plan is not None and self.plan.compact and self.limit is None
        if not self.defers or not asked or target is None or target.ndim != 2:
            return None
        from xent.kernels.triton_linear import Few

        silent = target[:, 0] == IGNORED
        self.few = Few(silent.numel() - silent.sum())
        return torch.sort(silent, stable=True).indices

    def operands(self, head: Head) -> tuple:
        work = self.work(head)
        return tuple(
            left.dtype if left.dtype == right.dtype and left.dtype in HALVES else work
            for left, right in head.pairs
        )

    def tile(self, head: Head) -> Tile:
        if found := self._room(head):
            return found.tile
        size = 8 if self.work(head) == torch.float64 else 4
        limit = LOGITS if self.limit is None else self.limit
        width = sum(2 * right.shape[1] for _, right in head.pairs if right.dtype in HALVES)
        return tile(*lengths(head), width, size, limit, self.over)

    def apart(self, head: Head) -> int | None:
        found = self._room(head)
        if found is None or found.kept or found.apart >= lengths(head)[0]:
            return None
        return found.apart

    def sums(self, op: Any, arrays: tuple, wanted: tuple[bool, ...]) -> Sums:
        head = op.head(arrays)
        found, work = self._room(head), self.work(head)
        if found is None:
            return Sums(self, arrays, wanted, work)
        empty = any(0 in array.shape for pair in head.pairs for array in pair)
        if found.kept == 0 or empty or any(wanted[-2:]):
            return Scaled(self, arrays, wanted, work, op.stats.logit_scale)
        self.dlogits = Dlogits(self, arrays, wanted, work, op.stats.logit_scale, found)
        return self.dlogits

    def _room(self, head: Head) -> Room | None:
        """The rule for this head; None where its first product is not of half precision."""
        if self.operands(head)[0] not in HALVES:
            return None
        return room(*lengths(head), head.pairs[0][1].shape[1], self.limit, self.over)

    def logits(self, lefts: list, rights: list, bias: Any, first: int = 0) -> Tensor:
        self.of_product = None if self.few is None else self.few.after(first)
        made = super().logits(lefts, rights, bias, first)
        self.of_product = None
        return made

    def multiply(self, out: Tensor, left: Tensor, right: Tensor, add: bool) -> None:
        if self.of_product is None or left.dtype == out.dtype:
            return super().multiply(out, left, right, add)
        from xent.kernels.triton_linear import multiply

        return multiply(out, left, right, add, self.of_product)

    def vjp(self, op: RowStats, arrays: tuple, residuals: tuple, g: tuple, wanted: tuple) -> tuple:
        if not wanted[0] or self.choose(op, arrays, wanted) is not triton_rows:
            return super().vjp(op, arrays, residuals, g, wanted)
        if self.dlogits is not None:
            return self.dlogits.make(op, arrays, residuals, g), None, None
        made = triton_rows.gradient_into(arrays[0], op, arrays, residuals, g, self.plan)
        return made, None, None

    def mended(
        self, by_left: Any, by_right: Any, at: Tensor, lost: Tensor, left: Tensor, right: Tensor
    ) -> None:
        from xent.kernels.triton_linear import by_class, by_row, finish

        if by_left is not None:
            finish(by_left, by_left, right, by_row(at, lost), 0)
        if by_right is not None:
            finish(by_right, by_right, left, by_class(at, lost, right.shape[0]), 0)


class Scaled(Sums):
    """Gradients of half precision, scaled before they are rounded."""

    def __init__(
        self, engine: Any, arrays: tuple, wanted: tuple[bool, ...], work: Any, slope: float
    ) -> None:
        super().__init__(engine, arrays, wanted, work)
        self.slope = slope  # the most that a transformed logit grows by with a logit
        self.factor: Any = None  # of what is added

    def scaled(self, cotangents: tuple) -> tuple:
        if 0 in self.arrays[0].shape:
            return cotangents
        by_lse, by_nll, by_smooth, by_entropy = (
            0.0 if c is None else c.abs().amax() for c in cotangents
        )
        times = self._fitting((by_nll + by_smooth) * self._heaviest() + by_lse + 32 * by_entropy)
        if times is None:
            return cotangents
        self.factor = 1 / times
        return tuple(None if c is None else c * times for c in cotangents)

    def unscaled(self, objective: Any) -> Any:
        scale = objective.scale
        times = self._fitting(self._heaviest() * (1 + 2 * objective.spec.z_loss * LONG))
        times = torch.ones_like(scale) if times is None else times.to(scale.dtype)
        self.factor = scale / times
        return objective.times(times)

    def _fitting(self, size: Any) -> Any:
        """The power of two that brings dlogits of a size into float16; bfloat16 needs none."""
        hidden = self.arrays[0]
        if hidden.dtype != torch.float16:
            return None
        size = torch.as_tensor(size * self.slope, dtype=torch.float64, device=hidden.device)
        fits = torch.ldexp(torch.ones_like(size), SPACE - torch.frexp(size)[1])
        return torch.where(size.isfinite() & (size > 0), fits, 1.0)

    def _heaviest(self) -> Any:
        """The largest class weight."""
        weight = self.arrays[-1]
        return 1.0 if weight is None or weight.numel() == 0 else weight.abs().amax().double()

    def _by(self, upstream: Any) -> Any:
        """What a sum is multiplied by, 0-d, or None."""
        by, target = self.factor, self.arrays[-2]
        if by is None or upstream is None:
            by = upstream if by is None else by
        else:
            by = by * upstream
        if by is None or target is None or target.ndim != 2:
            return by
        # A mean over no rows divides by 0, and yet no gradient is NaN.
        return torch.where((target == IGNORED).all(), torch.zeros_like(by), by)

    def close(self, slab: slice) -> None:
        if slab.stop - slab.start == self.arrays[1].shape[0]:
            return  # rounded at the end
        for i, found in enumerate(self.open):
            if found is not None:
                rounded(self.sums[i][slab], found, self.factor)
            self.open[i] = None

    def gradients(self, upstream: Any = None) -> tuple:
        by, found = self._by(upstream), list(self.sums)
        for i, (gradient, total) in enumerate(zip(self.sums, self.open, strict=True)):
            of_weight = i % 2 == 1 and i < len(found) - 3
            if gradient is not None and not (of_weight and total is None):
                found[i] = torch.empty_like(self.arrays[i], memory_format=torch.contiguous_format)
                rounded(found[i], gradient if total is None else total, by)
        return tuple(found)


def rounded(out: Tensor, sums: Tensor, by: Any) -> None:
    """Write sums, multiplied by a number on the device, in the dtype of `out`."""
    if by is None:
        out.copy_(sums)
    else:
        torch.mul(sums, by, out=out)


class Dlogits(Scaled):
    """Rounded dlogits of as many rows as there is room for, and what is made of them."""

    def __init__(
        self,
        engine: Any,
        arrays: tuple,
        wanted: tuple[bool, ...],
        work: Any,
        slope: float,
        found: Room,
    ) -> None:
        # The gradients themselves are made at the end, and sums only of the rows that come before.
        self.engine, self.arrays, self.wanted, self.work = engine, arrays, wanted, work
        self.slope, self.factor = slope, None
        self.bytes, classes = found.sums, arrays[1].shape[0]
        self.sums: list = [None] * len(arrays)
        self.first, self.rows = 0, 0  # of those whose dlogits are kept
        half = arrays[0].dtype
        self.kept = torch.empty((found.kept, classes), dtype=half, device=arrays[0].device)
        self.at = torch.empty((found.kept, 2), dtype=torch.int64, device=arrays[0].device)
        self.lost = torch.empty((found.kept, 2), dtype=torch.float32, device=arrays[0].device)
        pairs = range(0, len(arrays) - 3, 2)
        self.half = [i for i in pairs if arrays[i].dtype == arrays[i + 1].dtype == half]
        self.wide = [i for i in pairs if i not in self.half and any(wanted[i : i + 2])]

    def make(self, op: RowStats, arrays: tuple, residuals: tuple, g: tuple) -> Tensor:
        """dlogits of the next rows, rounded; and in float32 over the logits where a pair asks."""
        from xent.kernels.triton_linear import lost_of

        x, plan = arrays[0], self.engine.plan
        if self.rows + x.shape[0] > self.kept.shape[0]:
            self._flush()
        place = slice(self.rows, self.rows + x.shape[0])
        out = self.kept[place][:, None, :]
        numbers = torch.empty((x.shape[0], 1, NUMBERS), dtype=torch.float64, device=x.device)
        triton_rows.gradient_into(out, op, arrays, residuals, g, plan, found=numbers)
        lost_of(out, op, arrays, residuals[0], numbers, self.at[place], self.lost[place])
        if self.wide:
            return triton_rows.gradient_into(x, op, arrays, residuals, g, plan)
        return out

    def add(self, cut: slice, slab: slice, lefts: list, rights: list, made: tuple) -> None:
        self.rows += cut.stop - cut.start
        for i in self.wide:
            dx, left, right = made[0][:, 0, :], lefts[i // 2], rights[i // 2]
            if self.wanted[i]:
                self.engine.multiply(self._sums(i)[cut], dx, right, False)
            if self.wanted[i + 1]:
                self.engine.multiply(self._sums(i + 1), dx.T, left, cut.start > 0)

    def close(self, slab: slice) -> None:
        self.engine.room = self.engine.dlogits = None

    def gradients(self, upstream: Any = None) -> tuple:
        by = self._by(upstream)
        found: list = [None] * len(self.arrays)
        if self.wanted[-3]:
            self._add_bias()
        for i, array in enumerate(self.arrays):
            if not self.wanted[i]:
                continue
            found[i] = torch.empty_like(array, memory_format=torch.contiguous_format)
            if i in self.half:
                self._by_left(found[i], i, by)
            elif i - 1 in self.half:
                self._by_right(found[i], i - 1, by)
            else:
                rounded(found[i], self.sums[i], by)
        return tuple(found)

    def _sums(self, i: int) -> Tensor:
        """The float32 sums of a gradient; float64 those of a bias."""
        if self.sums[i] is None:
            dtype = torch.float64 if i == len(self.arrays) - 3 else torch.float32
            self.sums[i] = torch.zeros_like(
                self.arrays[i], dtype=dtype, memory_format=torch.contiguous_format
            )
        return self.sums[i]

    def _flush(self) -> None:
        """Add the gradients of the rows whose dlogits are kept to the float32 sums."""
        for i in self.half:
            if self.wanted[i]:
                self._by_left(self._sums(i)[self.first : self.first + self.rows], i, None)
            if self.wanted[i + 1]:
                self._by_right(self._sums(i + 1), i, None)
        if self.wanted[-3]:
            self._add_bias()
        self.first, self.rows = self.first + self.rows, 0

    def _few(self) -> Any:
        """How many of the rows that are kept take part, where the device alone knows."""
        few = self.engine.few
        return None if few is None else few.after(self.first)

    def _by_left(self, out: Tensor, i: int, by: Any) -> None:
        """The gradient by the hidden states of rows, into that of all or the sums of those kept."""
        from xent.kernels.triton_linear import by_row, finish

        right, few, before = self.arrays[i + 1], self._few(), out.shape[0] - self.rows
        if before:
            rounded(out[:before], self.sums[i][:before], by)
        lost = by_row(self.at[: self.rows], self.lost[: self.rows])
        for cut, total in self._totals(self.rows, right.shape[1]):
            some = None if few is None else few.after(cut.start)
            self._multiply(total, self.kept[cut], right, False, some)
            finish(out[before:][cut], total, right, lost, cut.start, by, few)

    def _by_right(self, out: Tensor, i: int, by: Any) -> None:
        """The gradient by the weights, into the gradient or added to the sums, which are `out`."""
        from xent.kernels.triton_linear import by_class, finish

        rows, few, kept = slice(self.first, self.first + self.rows), self._few(), self.kept
        left, target = self.arrays[i][rows], self.arrays[-2]
        (left,) = self.engine.silenced([left], None if target is None else target[rows])
        lost = by_class(self.at[: self.rows], self.lost[: self.rows], out.shape[0])
        early = self.sums[i + 1] if self.first else None
        for cut, total in self._totals(out.shape[0], left.shape[1]):
            if early is not None:
                total = early[cut]
            self._multiply(total, kept[: self.rows, cut].T, left, early is not None, few, True)
            finish(out[cut], total, left, lost, cut.start, by)

    def _totals(self, length: int, width: int) -> Any:
        """So much of a gradient as is rounded together, and room for its float32 sums."""
        step = max(1, self.bytes // (4 * width))
        space = torch.empty(
            (min(step, length), width), dtype=torch.float32, device=self.kept.device
        )
        return ((cut, space[: cut.stop - cut.start]) for cut in cuts(length, step))

    def _multiply(
        self, out: Tensor, left: Tensor, right: Tensor, add: bool, few: Any, inner: bool = False
    ) -> None:
        if few is None:
            self.engine.multiply(out, left, right, add)
        else:
            from xent.kernels.triton_linear import multiply

            multiply(out, left, right, add, few, inner)

    def _add_bias(self) -> None:
        total = self._sums(len(self.arrays) - 3)
        total += self.kept[: self.rows].sum(0, dtype=torch.float64)
        at, lost = self.at[: self.rows].reshape(-1), self.lost[: self.rows].reshape(-1).double()
        there = at < total.shape[0]  # a row that takes no part has none
        at, lost = torch.where(there, at, 0), torch.where(there, lost, 0.0)
        total.index_put_((at,), lost, accumulate=True)  # in order, unlike index_add_
