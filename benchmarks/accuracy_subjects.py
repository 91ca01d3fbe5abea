"""What accuracy is measured of: xent, torch, SciPy and the formulas of five documents.

A subject gets logits and target as torch tensors, in the format that is measured, and gives float64
arrays; None is what it does not compute. The five documents (docs/sources.md) give:

    blog, notebook   log(softmax), softmax with the maximum subtracted; gradient softmax - 1[target]
    breakdown        log(softmax), softmax of the logits as they are; gradient by autograd
    breakdown 2      logits - log(sum(exp(logits))); gradient by autograd
    notes            - sum of target times log(softmax), target one-hot; gradient softmax - target
    forum            - sum of one-hot times (logits - log(sum(exp(logits)))); softmax - one-hot
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special

import xent

Tensor = torch.Tensor
Options = dict[str, Any]


class Subject:
    """One column: a way to compute the loss of rows, its gradient, log-softmax and the mean."""

    name = ""
    formats = ("float16", "bfloat16", "float32", "float64")

    def loss(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        """(N,) the loss of each row; by default from `log_softmax`."""
        if options or target.ndim == 2:
            return None
        rows = self.log_softmax(logits)
        return None if rows is None else -rows.gather(1, target[:, None])[:, 0]

    def mean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        """The mean of the losses; by default with torch's own mean."""
        loss = self.loss(logits, target, options)
        return None if loss is None else loss.mean()

    def dlogits(
        self, logits: Tensor, target: Tensor, options: Options, upstream: Tensor
    ) -> Tensor | None:
        """(N, V) the gradient of the rows for an upstream of each; by default that of autograd."""
        logits = logits.detach().requires_grad_()
        loss = self.loss(logits, target, options)
        return None if loss is None else torch.autograd.grad(loss, logits, upstream)[0]

    def dmean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        """(N, V) the gradient of the mean; by default that of autograd."""
        logits = logits.detach().requires_grad_()
        loss = self.mean(logits, target, options)
        return None if loss is None else torch.autograd.grad(loss, logits)[0]

    def log_softmax(self, logits: Tensor) -> Tensor | None:
        """(N, V)."""
        return None

    def entropy(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        """(N,) the entropy of the softmax of each row."""
        return None


class XentTorch(Subject):
    """xent on torch tensors."""

    name = "xent torch"
    library = "torch"
    plan: xent.Plan | None = None

    def loss(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        return xent.cross_entropy(logits, target, reduction="none", plan=self.plan, **options)

    def mean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        return xent.cross_entropy(logits, target, plan=self.plan, **options)

    def log_softmax(self, logits: Tensor) -> Tensor | None:
        return xent.log_softmax(logits, plan=self.plan)

    def entropy(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        return xent.token_statistics(logits, target, plan=self.plan, **options).entropy


class XentNumPy(Subject):
    """xent on NumPy arrays, with the hand-derived backward."""

    name = "xent NumPy"
    library = "numpy"
    formats = ("float16", "float32", "float64")
    plan: xent.Plan | None = None

    def loss(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        arrays = _arrays(logits, target)
        return _tensor(xent.cross_entropy(*arrays, reduction="none", plan=self.plan, **options))

    def mean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        return _tensor(xent.cross_entropy(*_arrays(logits, target), plan=self.plan, **options))

    def dlogits(
        self, logits: Tensor, target: Tensor, options: Options, upstream: Tensor
    ) -> Tensor | None:
        arrays = _arrays(logits, target)
        vjp = xent.cross_entropy_vjp(*arrays, reduction="none", plan=self.plan, **options)[1]
        return _tensor(vjp(upstream.numpy()))

    def dmean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        vjp = xent.cross_entropy_vjp(*_arrays(logits, target), plan=self.plan, **options)[1]
        return _tensor(vjp())

    def log_softmax(self, logits: Tensor) -> Tensor | None:
        return _tensor(xent.log_softmax(logits.numpy(), plan=self.plan))

    def entropy(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        arrays = _arrays(logits, target)
        return _tensor(xent.token_statistics(*arrays, plan=self.plan, **options).entropy)


class AccurateTorch(XentTorch):
    """xent on torch tensors, asked for 0.51 ULP in float32."""

    name = "accurate torch"
    formats = ("float32",)
    plan = xent.Plan(accurate=True)


class AccurateNumPy(XentNumPy):
    """The same on NumPy arrays."""

    name = "accurate NumPy"
    formats = ("float32",)
    plan = xent.Plan(accurate=True)


class Torch(Subject):
    """torch.nn.functional; the z-loss, scale and softcap are added as its users do."""

    name = "torch"

    def loss(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        smoothing, z_loss = options.get("label_smoothing", 0.0), options.get("z_loss", 0.0)
        if "logit_scale" in options:
            logits = logits * options["logit_scale"]
        if "softcap" in options:
            logits = options["softcap"] * torch.tanh(logits / options["softcap"])
        loss = F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
        return loss + z_loss * torch.logsumexp(logits, 1) ** 2 if z_loss else loss

    def log_softmax(self, logits: Tensor) -> Tensor | None:
        return F.log_softmax(logits, dim=1)

    def mean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        return super().mean(logits, target, options) if options else F.cross_entropy(logits, target)


class SciPy(Subject):
    """scipy.special.log_softmax."""

    name = "SciPy"
    formats = ("float16", "float32", "float64")

    def log_softmax(self, logits: Tensor) -> Tensor | None:
        return _tensor(special.log_softmax(logits.detach().numpy(), axis=1))

    def dlogits(
        self, logits: Tensor, target: Tensor, options: Options, upstream: Tensor
    ) -> Tensor | None:
        return None

    def dmean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        return None

    def mean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        loss = self.loss(logits, target, options)
        return None if loss is None else _tensor(np.mean(loss.numpy()))


class Document(Subject):
    """A formula for log-softmax, and the gradient that the document derives by hand, if it does."""

    def __init__(
        self,
        name: str,
        log_softmax: Callable[[Tensor], Tensor],
        softmax: Callable[[Tensor], Tensor] | None = None,
        one_hot: bool = False,
        soft: bool = False,
    ) -> None:
        self.name, self.formula, self.softmax = name, log_softmax, softmax
        self.one_hot, self.soft = one_hot, soft

    def log_softmax(self, logits: Tensor) -> Tensor | None:
        return self.formula(logits)

    def loss(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        if not self.one_hot:
            return super().loss(logits, target, options)
        if options or (target.ndim == 2 and not self.soft):
            return None
        return -(_measure(logits, target) * self.formula(logits)).sum(1)

    def dlogits(
        self, logits: Tensor, target: Tensor, options: Options, upstream: Tensor
    ) -> Tensor | None:
        if self.softmax is None:
            return super().dlogits(logits, target, options, upstream)
        if options or (target.ndim == 2 and not self.soft):
            return None
        return (self.softmax(logits) - _measure(logits, target)) * upstream[:, None]

    def dmean(self, logits: Tensor, target: Tensor, options: Options) -> Tensor | None:
        if self.softmax is None:
            return super().dmean(logits, target, options)
        rows = self.dlogits(logits, target, options, torch.ones_like(logits[:, 0]))
        return None if rows is None else rows / len(rows)


def softmax_shifted(logits: Tensor) -> Tensor:
    """exp(x - max) over its sum."""
    powers = (logits - logits.amax(1, keepdim=True)).exp()
    return powers / powers.sum(1, keepdim=True)


def softmax_unshifted(logits: Tensor) -> Tensor:
    """exp(x) over its sum."""
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def minus_log_sum(logits: Tensor) -> Tensor:
    """x - log(sum(exp(x)))."""
    return logits - logits.exp().sum(1, keepdim=True).log()


SUBJECTS: tuple[Subject, ...] = (
    XentNumPy(),
    XentTorch(),
    AccurateNumPy(),
    AccurateTorch(),
    Torch(),
    SciPy(),
    Document("blog", lambda x: softmax_shifted(x).log(), softmax_shifted),
    Document("breakdown", lambda x: softmax_unshifted(x).log()),
    Document("breakdown 2", minus_log_sum),
    Document("notes", lambda x: softmax_shifted(x).log(), softmax_shifted, one_hot=True, soft=True),
    Document("forum", minus_log_sum, lambda x: F.softmax(x, dim=1), one_hot=True),
)


OURS = {s.name: s.library for s in SUBJECTS if isinstance(s, (XentNumPy, XentTorch))}


def _measure(logits: Tensor, target: Tensor) -> Tensor:
    if target.ndim == 2:
        return target
    return F.one_hot(target, logits.shape[1]).to(logits.dtype)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.asarray(array))
