"""Tiles of logits on torch tensors, by torch's products into memory that is used again."""

from __future__ import annotations

from typing import Any

import array_api_compat.torch as xp
import torch
from torch import Tensor

from xent.backends import linear, torch_products
from xent.backends import torch as backend
from xent.kernels import ONLY_FIRST
from xent.ops.stats import IGNORED, RowStats
from xent.ops.tiles import Head
from xent.spec import Plan

HALVES = (torch.float16, torch.bfloat16)


class TorchEngine(linear.KernelEngine):
    """Tiles by torch's products into memory that is used again."""

    def __init__(self, plan: Plan | None) -> None:
        super().__init__(xp, plan)
        self.room: Any = None

    def takes_out(self, target: Tensor) -> bool:
        """Whether rows that take no part are taken out before."""
        # A look at the target would make the host wait for a GPU, and a recorded call has none.
        return target.is_cpu and not backend.watched()

    def kept(self, target: Any) -> Any:
        if target is None or target.ndim != 2 or not self.takes_out(target):
            return None
        taken = target[:, 0] != IGNORED
        return None if bool(taken.all()) else taken.nonzero()[:, 0]

    def choose(self, op: RowStats, arrays: tuple, wanted: tuple = ONLY_FIRST) -> Any:
        return backend.choose(op, arrays, self.plan, wanted)

    def operands(self, head: Head) -> tuple:
        arrays = [a for pair in head.pairs for a in pair]
        half = torch_products.serves(*arrays)
        return (torch.bfloat16 if half else self.work(head),) * len(head.pairs)

    def silenced(self, lefts: list, target: Any) -> list:
        # What an ignored row holds, NaN included, must not reach a gradient by its product with 0.
        if target is None or target.ndim != 2 or self.takes_out(target):
            return lefts
        return [left.masked_fill(target == IGNORED, 0.0) for left in lefts]

    def logits(self, lefts: list, rights: list, bias: Any, first: int = 0) -> Tensor:
        shape, half = (lefts[0].shape[0], rights[0].shape[0]), lefts[0].dtype in HALVES
        count, dtype = shape[0] * shape[1], torch.float32 if half else lefts[0].dtype
        if self.room is None or self.room.numel() < count or self.room.dtype != dtype:
            self.room = lefts[0].new_empty(count, dtype=dtype)
        made = self.room[:count].view(shape)
        if half:
            for i, (left, right) in enumerate(zip(lefts, rights, strict=True)):
                self.multiply(made, left, right.T, add=i > 0)
            return made if bias is None else made.add_(bias)
        if bias is None:
            torch.mm(lefts[0], rights[0].T, out=made)
        else:
            torch.addmm(bias, lefts[0], rights[0].T, out=made)
        for left, right in zip(lefts[1:], rights[1:], strict=True):
            made.addmm_(left, right.T)
        return made

    def mend(
        self,
        by_left: Any,
        by_right: Any,
        whole: Tensor,
        narrow: Tensor,
        left: Tensor,
        right: Tensor,
    ) -> None:
        # The entries of the target and of the likeliest class are the large ones of a row: what
        # their rounding loses counts for more than that of all others, and costs no product.
        (least, first), (most, second) = whole.min(dim=1), whole.max(dim=1)
        at, sizes = torch.stack((first, second), 1), torch.stack((least, most), 1)
        lost = sizes - narrow.gather(1, at)
        lost[:, 1] *= first != second
        self.mended(by_left, by_right, at, lost, left, right)

    def mended(
        self, by_left: Any, by_right: Any, at: Tensor, lost: Tensor, left: Tensor, right: Tensor
    ) -> None:
        """Add what two entries of each row lost, at (R, 2) classes, to gradients."""
        for classes, share in zip(at.unbind(1), lost.split(1, 1), strict=True):
            if by_left is not None:
                by_left.addcmul_(share, right[classes].to(lost.dtype))
            if by_right is not None:
                by_right.index_add_(0, classes, share * left.to(lost.dtype))

    def multiply(self, out: Tensor, left: Tensor, right: Tensor, add: bool) -> None:
        if left.dtype != out.dtype:
            torch_products.multiply(out, left, right, add)
        elif add:
            out.addmm_(left, right)
        else:
            torch.mm(left, right, out=out)
