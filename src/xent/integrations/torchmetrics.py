"""Metrics for torchmetrics: cross entropy, perplexity and bits per byte of all that was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torchmetrics

from xent.functional import token_statistics
from xent.info import bits_per_byte, perplexity
from xent.integrations.lazy_logits import LazyLogits

Tensor = torch.Tensor


class CrossEntropy(torchmetrics.Metric):
    """Mean cross entropy of all rows that were seen, in nats.

    The sum of the losses over the number of rows, and not a mean of the batches' means. The sum is
    kept in float64, and stays so when the metric is cast; processes add theirs up.

    Args:
        ignore_index: the class index of rows that take no part.
        **kwargs: those of `torchmetrics.Metric`.

    >>> import torch
    >>> from xent.integrations.torchmetrics import CrossEntropy
    >>> metric = CrossEntropy()
    >>> metric.update(torch.zeros(3, 4), torch.tensor([0, 1, -100]))
    >>> metric.update(torch.tensor([[100.0, 0.0]]), torch.tensor([1]))
    >>> metric.compute()  # (2 log 4 + 100) / 3
    tensor(34.2575, dtype=torch.float64)
    """

    is_differentiable = True
    higher_is_better = False
    full_state_update = False
    total: Tensor
    rows: Tensor

    def __init__(self, ignore_index: int = -100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Any, target: Tensor) -> None:
        """Add rows.

        Args:
            logits: (..., V) floating, or the lazy logits of a patched model.
            target: (...) class indices of any integer dtype.
        """
        if isinstance(logits, LazyLogits):
            of = {"ignore_index": self.ignore_index, "reduction": "none"}
            losses = logits.cross_entropy(target, **of)
        else:
            told = token_statistics(logits, target, axis=-1, ignore_index=self.ignore_index)
            losses = 0.0 - told.log_prob
        self.total = self.total + losses.to(self.total.device, torch.float64).sum()
        self.rows = self.rows + (target != self.ignore_index).sum().to(self.rows.device)

    def compute(self) -> Tensor:
        """The mean, float64; NaN of no rows."""
        return self.total / self.rows

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """The value, or values, on axes of matplotlib's.

        Args:
            val: what `forward` or `compute` gave, or a list of it; None computes one.
            ax: the axes.
        """
        return self._plot(val, ax)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Any:
        """Moves the sums to another device; `.to(dtype)` and `.half()` do not round them."""
        kept = self.total
        moved: Any = super()._apply(fn, exclude_state)
        moved.total = kept.to(moved.total.device)
        moved._defaults["total"] = moved._defaults["total"].double()
        return moved


class Perplexity(CrossEntropy):
    """exp of the mean cross entropy of all rows that were seen.

    Beyond 709 nats it is infinite in float64; `CrossEntropy` is its logarithm.

    Args:
        ignore_index: the class index of rows that take no part.
        **kwargs: those of `torchmetrics.Metric`.

    >>> import torch
    >>> from xent.integrations.torchmetrics import Perplexity
    >>> metric = Perplexity()
    >>> metric.update(torch.tensor([[60.0, 0.0], [60.0, 0.0]]), torch.tensor([1, 1]))
    >>> f"{metric.compute():.10g}"  # e ** 60
    '1.142007...e+26'
    """

    def compute(self) -> Tensor:
        """The perplexity, float64; NaN of no rows."""
        mean = super().compute()
        return mean if mean.isnan() else perplexity(mean)


class BitsPerByte(CrossEntropy):
    """The summed cross entropy in bits over the length in bytes of the text it is of.

    Unlike a loss per token it compares models of different vocabularies.

    Args:
        ignore_index: the class index of rows that take no part.
        **kwargs: those of `torchmetrics.Metric`.

    >>> import torch
    >>> from xent.integrations.torchmetrics import BitsPerByte
    >>> metric = BitsPerByte()
    >>> metric.update(torch.zeros(3, 256), torch.tensor([5, 6, 7]), n_bytes=12)
    >>> metric.compute()  # 3 tokens of 8 bits for 12 bytes
    tensor(2.0000, dtype=torch.float64)
    """

    n_bytes: Tensor

    def __init__(self, ignore_index: int = -100, **kwargs: Any) -> None:
        super().__init__(ignore_index, **kwargs)
        self.add_state("n_bytes", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(  # type: ignore[override]
        self, logits: Any, target: Tensor, n_bytes: int | Tensor
    ) -> None:
        """Add tokens and the text that they spell.

        Args:
            logits: (..., V) floating, or the lazy logits of a patched model.
            target: (...) class indices of any integer dtype.
            n_bytes: the length of that text in UTF-8: a number, or integers that are added up.
        """
        super().update(logits, target)
        self.n_bytes = self.n_bytes + torch.as_tensor(n_bytes, device=self.n_bytes.device).sum()

    def compute(self) -> Tensor:
        """Bits per byte, float64; NaN of no bytes."""
        if not self.n_bytes:
            return self.total / self.n_bytes
        return bits_per_byte(self.total, self.n_bytes)
