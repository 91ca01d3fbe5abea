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


class TorchEngine(linear.KernelEngine):
    """Tiles by torch's products into memory that is used again."""

    def __init__(self, plan: Plan | None) -> None:
        super().__init__(xp, plan)
        self.room: Any = None

    def kept(self, target: Any) -> Any:
        # A look at the target would make the host wait for a GPU, and a recorded call has none.
        if target is None or not target.is_cpu or backend.watched():
            return None
        if target.ndim != 2:
            return None
        taken = target[:, 0] != IGNORED
        return None if bool(taken.all()) else taken.nonzero()[:, 0]

    def choose(self, op: RowStats, arrays: tuple, wanted: tuple = ONLY_FIRST) -> Any:
        return backend.choose(op, arrays, self.plan, wanted)

    def operand(self, head: Head) -> torch.dtype:
        arrays = [a for pair in head.pairs for a in pair]
        return torch.bfloat16 if torch_products.serves(*arrays) else self.work(head)

    def logits(self, lefts: list, rights: list, bias: Any) -> Tensor:
        shape, half = (lefts[0].shape[0], rights[0].shape[0]), lefts[0].dtype == torch.bfloat16
        count, dtype = shape[0] * shape[1], torch.float32 if half else lefts[0].dtype
        if self.room is None or self.room.numel() < count or self.room.dtype != dtype:
            self.room = lefts[0].new_empty(count, dtype=dtype)
        made = self.room[:count].view(shape)
        if half:
            for i, (left, right) in enumerate(zip(lefts, rights, strict=True)):
                torch_products.multiply(made, left, right.T, add=i > 0)
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
        for size, at, counts in ((least, first, first >= 0), (most, second, first != second)):
            lost = (size[:, None] - narrow.gather(1, at[:, None])) * counts[:, None]
            if by_left is not None:
                by_left.addcmul_(lost, right[at].to(lost.dtype))
            if by_right is not None:
                by_right.index_add_(0, at, lost * left.to(lost.dtype))

    def multiply(self, out: Tensor, left: Tensor, right: Tensor, add: bool) -> None:
        if left.dtype != out.dtype:
            torch_products.multiply(out, left, right, add)
        elif add:
            out.addmm_(left, right)
        else:
            torch.mm(left, right, out=out)
