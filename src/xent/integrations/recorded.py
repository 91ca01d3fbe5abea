"""What is recorded of logits that are not made, and which operations can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Request:
    """What a patched head is asked in place of logits: `of(hidden, weight, bias)`, or its logits.

    Asked by calling the head, so that the hooks of FSDP2, ZeRO-3 and accelerate put its weight in
    place first.
    """

    of: Callable[[Tensor, Any, Tensor | None], Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Recorded:
    """Logits as outer * tanh(scale * (x + bias)) of the head's x; without tanh, scale * (x + bias).

    `steps` is the same as a list of calls, for logits that have to be made after all.
    """

    scale: float = 1.0
    bias: Tensor | None = None  # (V,)
    capped: bool = False
    outer: float = 1.0
    steps: tuple[tuple[Callable[..., Tensor], tuple], ...] = ()

    def also(self, function: Callable[..., Tensor], *args: Any, **changes: Any) -> Recorded:
        """With one more call."""
        return replace(self, steps=(*self.steps, (function, args)), **changes)

    @property
    def options(self) -> dict[str, Any]:
        """The same as options of `linear_cross_entropy`."""
        if self.capped:
            return {"softcap": self.outer, "logit_scale": self.scale * self.outer}
        return {"logit_scale": self.scale}


def cast(logits: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A move and a cast, as one step."""
    return logits.to(device, dtype)


def number(value: Any) -> float | None:
    """A positive number that logits can be scaled by; None where it is none, or has a gradient."""
    if isinstance(value, Tensor):
        here = value.ndim == 0 and value.device.type == "cpu" and value.is_floating_point()
        if not here or value.requires_grad:
            return None
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < math.inf else None


def of_rows(index: Any, ndim: int) -> tuple | None:
    """The index of hidden states that stands for one of logits; None where it cuts classes."""
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if not (part is Ellipsis or isinstance(part, int | slice | Tensor)):
            return None
        if isinstance(part, Tensor) and part.dtype not in (torch.bool, torch.int64):
            return None
    used = sum(0 if p is Ellipsis else _axes(p) for p in parts)
    to_the_end = any(p is Ellipsis for p in parts[:-1]) or used == ndim
    if not to_the_end:
        return parts
    return parts if isinstance(parts[-1], slice) and parts[-1] == slice(None) else None


def _axes(part: Any) -> int:
    """How many axes a part of an index takes."""
    return part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1
