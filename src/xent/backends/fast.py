"""The fast way: a loss, with its gradient, in one call of a kernel, on a CPU the compiled one.

It serves the most common calls with no look at what it does not need. Where it gives None, for
want of a kernel or because a call is wrong, the general way computes the same, or raises.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from xent.kernels import library
from xent.kernels.loss import Prepared, recipe
from xent.spec import FIELDS, Plan, Spec

NORMALIZER = FIELDS.index("normalizer")


def loss(logits: Any, target: Any, weight: Any, options: tuple, plan: Plan | None) -> Any:
    """`xent.cross_entropy` of arrays and of the values of its options, or None."""
    way = _way(logits, plan)
    if way is None:
        return None
    prepared = _allowed(options)
    return None if prepared is None else way.loss(logits, target, weight, prepared, plan)


def loss_and_vjp(
    logits: Any, target: Any, weight: Any, options: tuple, plan: Plan | None
) -> tuple[Any, Callable[..., Any]] | None:
    """`xent.cross_entropy_vjp` of arrays and of the values of its options, or None."""
    way = _way(logits, plan)
    if way is None or not hasattr(way, "loss_and_vjp"):
        return None
    prepared = _allowed(options)
    return None if prepared is None else way.loss_and_vjp(logits, target, weight, prepared, plan)


# By the type of the logits, what gives the way of an array.
_ways: dict[type, Callable[[Any], ModuleType | None]] = {}


def _way(logits: Any, plan: Plan | None) -> ModuleType | None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.compiler.is_compiling():
        return None
    if plan is not None and (type(plan) is not Plan or plan.kernel == "reference"):
        return None
    kind = type(logits)
    find = _ways[kind] if kind in _ways else _ways.setdefault(kind, _finder(kind, torch))
    return find(logits)


def _finder(kind: type, torch: Any) -> Callable[[Any], ModuleType | None]:
    compiled = library.load() is not None
    if kind is np.ndarray and compiled:
        from xent.backends import numpy_fused

        return lambda logits: numpy_fused
    if torch is None or kind not in (torch.Tensor, torch.nn.Parameter):
        return lambda logits: None
    from xent.backends import torch_device
    from xent.kernels import triton_rows

    in_main_memory = None
    if compiled:
        from xent.backends import torch_fused as in_main_memory

    def find(logits: Any) -> ModuleType | None:
        return torch_device if triton_rows.on_device(logits) else in_main_memory

    return find


def _allowed(options: tuple) -> Prepared | None:
    """The options checked, as a kernel takes them; None where they are not for a kernel."""
    # An array is not kept: what made it would live as long.
    if not isinstance(options[NORMALIZER], (int, float, type(None))):
        return None
    try:
        return _prepared(*options)
    except TypeError:  # of the wrong type
        return None


@functools.lru_cache(maxsize=256, typed=True)
def _prepared(*options: Any) -> Prepared | None:
    spec = Spec.of(*options)
    found = recipe(spec)
    return None if found is None else Prepared(spec, found)
