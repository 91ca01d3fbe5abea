"""What the ways to compute a whole loss of torch tensors at once share (`torch_fused`, on a GPU
`torch_device`): who watches, the gradient as operations, and logits that hold their gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C import (
    _functorch,  # pyright: ignore[reportAttributeAccessIssue]
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch.autograd import forward_ad

from xent import backends
from xent.inputs import class_rows, written_over
from xent.ops import cross_entropy
from xent.spec import Spec

KINDS = (Tensor, torch.nn.Parameter)


def seen() -> bool:
    """Whether something of torch's is to see or to differentiate the operations of a forward."""
    return (
        _functorch.maybe_current_level() is not None
        or forward_ad._current_level >= 0
        or _len_torch_dispatch_stack() > 0
        or _len_torch_function_stack() > 0
    )


def tracked(arrays: tuple[Tensor, Tensor, Tensor | None], spec: Spec, upstream: Tensor) -> Tensor:
    """The gradient as tensor operations that torch can differentiate."""
    rows = class_rows(*arrays, spec)
    return backends.gradient(cross_entropy, rows, spec, upstream)


class _Consumed(Tensor):
    """Logits that hold their gradient: any use of them is an error."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return written_over(getattr(func, "__name__", str(func)))


def consumed(logits: Tensor, result: Tensor) -> Tensor:
    """The result; the logits now hold their gradient: autograd is told, and any use raises."""
    base = logits._base
    torch.autograd.graph.increment_version(logits)
    for tensor in (logits, base):
        if tensor is not None:
            tensor.__class__ = _Consumed
    return result
