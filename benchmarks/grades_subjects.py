"""The formulas of the five sources, as losses that can be graded (docs/sources.md names them).

Each is the document's formula in the shortest form that computes what it computes, mistakes and
all; with them xent's own backward as a pair of functions.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import xent

Array = np.ndarray


# The blog post and its notebook


def blog_numpy(logits: Array, target: Array) -> Any:
    powers = np.exp(logits - np.amax(logits, axis=-1, keepdims=True))
    log_p = np.log(powers / powers.sum(axis=-1, keepdims=True))
    return -log_p[np.arange(len(log_p)), target].mean()


def blog_torch(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    powers = torch.exp(logits - torch.amax(logits, dim=-1, keepdim=True))
    log_p = torch.log(powers / powers.sum(dim=-1, keepdim=True))
    return -log_p[torch.arange(len(log_p)), target].mean()


class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        powers = torch.exp(logits - torch.amax(logits, dim=-1, keepdim=True))
        p = powers / powers.sum(dim=-1, keepdim=True)
        ctx.save_for_backward(p)
        return torch.log(p)

    @staticmethod
    def backward(ctx: Any, *upstreams: torch.Tensor) -> torch.Tensor:
        (p,), (upstream,) = ctx.saved_tensors, upstreams
        upstream -= p * upstream.sum(dim=-1, keepdim=True)
        return upstream


class _Likelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_p: torch.Tensor, target: torch.Tensor, ignore_index: Any, reduce: str
    ) -> torch.Tensor:
        rows = len(log_p)
        kept = target.ne(-1 if ignore_index is None else ignore_index)
        ctx.save_for_backward(target, kept)
        ctx.sizes = *log_p.shape, ignore_index, reduce
        loss = -log_p[torch.arange(rows), target]
        if reduce == "mean":
            return torch.mean(loss[kept])
        if reduce == "sum":
            return torch.sum(loss[kept])
        loss[~kept] = 0.0
        return loss

    @staticmethod
    def backward(ctx: Any, *upstreams: torch.Tensor) -> Any:
        (target, kept), (upstream,) = ctx.saved_tensors, upstreams
        rows, classes, ignore_index, reduce = ctx.sizes
        if reduce != "none":
            upstream = upstream.expand(rows)
        if reduce == "mean":
            upstream = upstream / kept.sum()
        hot = torch.zeros(rows, classes)
        hot[torch.arange(rows), target] = 1
        if ignore_index is not None:
            hot[torch.arange(rows), ignore_index] = 0
        return torch.diag(-upstream) @ hot, None, None, None


def blog_parts(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return _Likelihood.apply(_LogSoftmax.apply(logits), target, None, "mean")


class BlogTogether(torch.nn.Module):
    def __init__(self, reduce: str = "mean", ignore_index: int = -1) -> None:
        super().__init__()
        self.reduce, self.ignore_index = reduce, ignore_index

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_p = _LogSoftmax.apply(logits)
        self.saved = torch.exp(log_p), target
        return _Likelihood.apply(log_p, target, self.ignore_index, self.reduce)


def _p(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class BlogBackwardParts:
    """Its backward by hand, where softmax is divided by N and the one-hot target is not."""

    def forward(self, logits: Array, target: Array) -> Any:
        self.p, self.target = _p(logits), target
        return -np.log(self.p)[np.arange(len(target)), target].mean()

    def backward(self, upstream: Any) -> Array:
        return upstream * (self.p / len(self.p) - np.eye(self.p.shape[1])[self.target])


class NotebookBackward(BlogBackwardParts):
    """The notebook's, where both are divided."""

    def backward(self, upstream: Any) -> Array:
        return upstream * (self.p - np.eye(self.p.shape[1])[self.target]) / len(self.p)


class BlogBackwardTogether:
    """Its second backward by hand: ignored rows are not left out."""

    def __init__(self, reduce: str = "mean", ignore_index: int = -1) -> None:
        self.reduce, self.ignore_index = reduce, ignore_index

    def forward(self, logits: Array, target: Array) -> Any:
        self.p, self.target = _p(logits), target
        loss = -np.log(self.p)[np.arange(len(target)), target]
        kept = target != self.ignore_index
        if self.reduce == "none":
            return np.where(kept, loss, 0.0)
        return loss[kept].mean() if self.reduce == "mean" else loss[kept].sum()

    def backward(self, upstream: Any) -> Array:
        gradient = self.p - np.eye(self.p.shape[1])[self.target]
        return upstream * (gradient / len(self.p) if self.reduce == "mean" else gradient)


# The breakdown of torch's function


def breakdown_softmax(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    p = logits.exp() / logits.exp().sum(-1).unsqueeze(-1)
    return -p[range(len(target)), target].log().mean()


def breakdown_log_softmax(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    log_p = logits - logits.exp().sum(-1).log().unsqueeze(-1)
    return -log_p[range(len(target)), target].mean()


# The course notes


class Notes:
    """Its layer; the result of softmax takes the name of the method."""

    softmax: Any = staticmethod(_p)

    def forward(self, logits: Array, target: Array) -> Any:
        self.logits, self.target = logits, target
        self.softmax = self.softmax(logits)
        return np.sum(-target * np.log(self.softmax)) / len(logits)

    def backward(self) -> Array:
        return (self.softmax - self.target) / len(self.logits)


# The forum thread


def forum(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    hot = torch.zeros_like(logits)
    hot[range(len(target)), target] = 1.0
    rows = -hot * (logits - logits.exp().sum(1).log().unsqueeze(1))
    return rows.sum(dim=1).mean()


class ForumAnswer:
    """The answer's gradient: one_hot without the number of classes."""

    def forward(self, logits: Array, target: Array) -> Any:
        self.logits, self.target = torch.from_numpy(logits), torch.from_numpy(target)
        return forum(self.logits, self.target).numpy()[()]

    def backward(self) -> Array:
        hot = F.one_hot(self.target)
        return ((F.softmax(self.logits, dim=1) - hot) / len(self.logits)).numpy()


# xent


def xent_forward(logits: Array, target: Array, **options: Any) -> Any:
    loss, vjp = xent.cross_entropy_vjp(logits, target, **options)
    return loss, vjp


def xent_backward(kept: Any, upstream: Any) -> Array:
    return kept(upstream)


# Liger's kernel, whose module needs the rest of the package


def liger(
    logits: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    lse_square_scale: float = 0.0,
    softcap: float | None = None,
) -> torch.Tensor:
    function: Any = importlib.import_module("liger_kernel.ops.cross_entropy")
    options = ignore_index, lse_square_scale, label_smoothing, reduction, softcap, False
    return function.LigerCrossEntropyFunction.apply(logits, target, weight, *options)[0]


# torch's chunked linear head


def torch_chunked(
    input: torch.Tensor,
    linear_weight: torch.Tensor,
    target: torch.Tensor,
    *,
    linear_bias: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    return F.linear_cross_entropy(
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        options=torch.nn.LinearCrossEntropyOptions(),
    )
