"""From statistics of rows to a loss, where rows may be split over processes too."""

from __future__ import annotations

import array_api_compat.torch as xp
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from xent import reduction
from xent.backends import torch as backend
from xent.inputs import Rows, normalizer
from xent.ops import cross_entropy as ce
from xent.parallel import exchange
from xent.spec import Spec


def reduced(
    outputs: tuple, weight: Tensor, rows: Rows, spec: Spec, over: tuple[ProcessGroup, ...]
) -> Tensor:
    """The loss of rows from their statistics and their weights in a mean.

    `over` are groups that rows are split over: sum and denominator are those of all rows.
    """
    losses = ce.value(outputs, weight, spec)
    if reduction.keeps_rows(spec.reduction):
        return rows.per_row(losses, backend.result_dtype(rows))
    found = torch.stack((backend.total(losses), backend.total(weight)))
    for group in over:
        found = exchange.totals(group, found)
    summed, weighed = found.unbind()
    divisor = None
    if reduction.divides(spec.reduction):
        divisor = normalizer(spec.function, spec.normalizer, rows.logits)
        if divisor is None:
            divisor = weighed.detach() if rows.logits.shape[-1] else float("nan")
    value = summed if divisor is None else reduction.divide(xp, summed, divisor)
    return rows.per_row(value, backend.result_dtype(rows))
