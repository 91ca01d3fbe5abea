"""The losses as torch modules: torch's constructors and argument names, then xent's options."""

from __future__ import annotations

import warnings
from math import prod
from typing import Any

import torch

from xent import functional, functional_linear
from xent.spec import Plan, Spec


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`xent.cross_entropy` as a module in place of `torch.nn.CrossEntropyLoss`.

    Args:
        weight: (V,) weight of each class, kept as a buffer.
        size_average: torch's deprecated word for a mean or a sum.
        ignore_index: the class index of rows that take no part.
        reduce: torch's deprecated word for any reduction or none.
        reduction: "mean", "sum" or "none".
        label_smoothing: e in [0, 1].
        z_loss: factor of the squared log-sum-exp.
        softcap: c in c tanh(logits / c).
        logit_scale: factor of the logits.
        normalizer: explicit denominator of the mean.
        axis: the class axis.
        plan: how to compute; see `xent.Plan`.

    >>> import torch, xent.nn
    >>> loss = xent.nn.CrossEntropyLoss(label_smoothing=0.1)
    >>> loss
    CrossEntropyLoss(label_smoothing=0.1)
    >>> round(loss(torch.tensor([[2.0, 1.0, 0.1]]), torch.tensor([1])).item(), 4)
    1.4137
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        normalizer: Any = None,
        axis: int | None = None,
        plan: Plan | None = None,
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        self.z_loss = z_loss
        self.softcap = softcap
        self.logit_scale = logit_scale
        self.normalizer = normalizer
        self.axis = axis
        self.plan = plan
        Spec(function="CrossEntropyLoss", **self._options())

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of logits (N, V, ...) with class indices or probabilities, in nats."""
        options = self._options()
        return functional.cross_entropy(input, target, self.weight, plan=self.plan, **options)

    def extra_repr(self) -> str:
        return _changed(self._options(), Spec(), self.weight)

    def _options(self) -> dict[str, Any]:
        return {
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
            "z_loss": self.z_loss,
            "softcap": self.softcap,
            "logit_scale": self.logit_scale,
            "normalizer": self.normalizer,
            "axis": self.axis,
        }


class _Head(torch.nn.Module):
    """What torch's LinearCrossEntropyLoss holds, for a torch that has none (before 2.13)."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...],
        bias: bool,
        device: Any,
        dtype: torch.dtype | None,
        weight: torch.Tensor | None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.num_classes, self.out_features = num_classes, out_features
        rows = prod(out_features, start=num_classes)
        self.linear = torch.nn.Linear(in_features, rows, bias=bias, device=device, dtype=dtype)
        for name, value in options.items():
            setattr(self, name, value)


_TorchHead: Any = getattr(torch.nn, "LinearCrossEntropyLoss", _Head)


class LinearCrossEntropyLoss(_TorchHead):
    """`xent.linear_cross_entropy` as a module in place of `torch.nn.LinearCrossEntropyLoss`.

    Its parameters are those of `linear`, a `torch.nn.Linear`; the weight of an embedding is tied by
    `loss.linear.weight = embedding.weight`.

    Args:
        in_features: D, the width of hidden.
        num_classes: V.
        out_features: (d1, ..., dk) of a k-dimensional loss.
        bias: whether there is one.
        device: where the parameters are.
        dtype: of the parameters.
        reduction: "mean", "sum" or "none".
        weight: (V,) weight of each class, kept as a buffer.
        ignore_index: the class index of rows that take no part. None is torch's word for -100.
        label_smoothing: e in [0, 1].
        options: torch's `LinearCrossEntropyOptions`, read as a plan where there is none.
        z_loss: factor of the squared log-sum-exp.
        softcap: c in c tanh(logits / c).
        logit_scale: factor of the logits.
        normalizer: explicit denominator of the mean.
        shift: how many places later a hidden state's target is.
        plan: how to compute; see `xent.Plan`.

    >>> import torch, xent.nn
    >>> loss = xent.nn.LinearCrossEntropyLoss(4, 1000, shift=1)
    >>> loss(torch.zeros(2, 3, 4), torch.ones(2, 3, dtype=torch.int64))
    tensor(6.9078, grad_fn=<_FusedBackward>)
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        reduction: str = "mean",
        weight: torch.Tensor | None = None,
        ignore_index: int | None = -100,
        label_smoothing: float = 0.0,
        options: Any = None,
        z_loss: float = 0.0,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        normalizer: Any = None,
        shift: int = 0,
        plan: Plan | None = None,
    ) -> None:
        spec = Spec(
            function="LinearCrossEntropyLoss",
            ignore_index=-100 if ignore_index is None else ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            softcap=softcap,
            logit_scale=logit_scale,
            normalizer=normalizer,
        )
        super().__init__(
            in_features,
            num_classes,
            out_features=out_features,
            bias=bias,
            device=device,
            dtype=dtype,
            reduction=spec.reduction,
            weight=weight,
            ignore_index=spec.ignore_index,
            label_smoothing=label_smoothing,
            options=options,
        )
        self.z_loss = z_loss
        self.softcap = softcap
        self.logit_scale = logit_scale
        self.normalizer = normalizer
        self.shift = shift
        self.plan = plan

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of hidden states (..., D) with class indices or probabilities, in nats."""
        shape, bias = (self.num_classes, *self.out_features), self.linear.bias
        return functional_linear.linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            shift=self.shift,
            options=self.options,
            plan=self.plan,
            **self._options(),
        )

    def extra_repr(self) -> str:
        text = _changed(self._options(), Spec(), self.weight)
        return text + (", " if text else "") + f"shift={self.shift}" if self.shift else text

    def _options(self) -> dict[str, Any]:
        return {
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
            "z_loss": self.z_loss,
            "softcap": self.softcap,
            "logit_scale": self.logit_scale,
            "normalizer": self.normalizer,
        }


class NLLLoss(torch.nn.NLLLoss):
    """`xent.nll_loss` as a module in place of `torch.nn.NLLLoss`.

    Args:
        weight: (V,) weight of each class, kept as a buffer.
        size_average: torch's deprecated word for a mean or a sum.
        ignore_index: the class index of rows that take no part.
        reduce: torch's deprecated word for any reduction or none.
        reduction: "mean", "sum" or "none".

    >>> import torch, xent.nn
    >>> xent.nn.NLLLoss()(torch.tensor([[-1.0, -2.0]]), torch.tensor([1]))
    tensor(2.)
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        size_average: bool | None = None,
        ignore_index: int = -100,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, ignore_index, reduce, reduction)
        Spec(function="NLLLoss", **self._options())

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss of log-probabilities (N, V, ...) with class indices, in nats."""
        return functional.nll_loss(input, target, self.weight, **self._options())

    def extra_repr(self) -> str:
        return _changed(self._options(), Spec(), self.weight)

    def _options(self) -> dict[str, Any]:
        return {"ignore_index": self.ignore_index, "reduction": self.reduction}


class Softmax(torch.nn.Softmax):
    """`xent.softmax` as a module in place of `torch.nn.Softmax`.

    Args:
        dim: the axis whose entries sum to 1.

    >>> import torch, xent.nn
    >>> xent.nn.Softmax(dim=-1)(torch.tensor([0.0, 0.0]))
    tensor([0.5000, 0.5000])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The softmax, of the shape of the input."""
        return functional.softmax(input, _axis(self, input))


class LogSoftmax(torch.nn.LogSoftmax):
    """`xent.log_softmax` as a module in place of `torch.nn.LogSoftmax`.

    Args:
        dim: the axis along which the exponentials of the result sum to 1.

    >>> import torch, xent.nn
    >>> xent.nn.LogSoftmax(dim=-1)(torch.tensor([0.0, 0.0]))
    tensor([-0.6931, -0.6931])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The log-softmax, of the shape of the input."""
        return functional.log_softmax(input, _axis(self, input))


def _axis(module: Any, x: torch.Tensor) -> int:
    """The module's axis; without one torch's old rule, with torch's warning."""
    if module.dim is not None:
        return module.dim
    name = type(module).__name__
    warnings.warn(f"{name}: dim is not given, expected an integer", UserWarning, stacklevel=3)
    return 0 if x.ndim in (0, 1, 3) else 1


def _changed(options: dict[str, Any], defaults: Spec, weight: torch.Tensor | None) -> str:
    """The options that are not as the signature has them, for a module's repr."""
    parts = [] if weight is None else [f"weight={tuple(weight.shape)}"]
    parts += [f"{name}={v!r}" for name, v in options.items() if v != getattr(defaults, name)]
    return ", ".join(parts)
