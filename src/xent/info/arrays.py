"""What is to be known of an array beforehand: its library, its device, whether it can be read."""

from __future__ import annotations

from typing import Any

import array_api_compat as compat

from xent.inputs import is_torch as is_torch

Array = Any


def readable(array: Array) -> bool:
    """Whether the values of `array` can be read here without a wait, a graph break or an error.

    So it is for NumPy arrays and every other eager array, and for torch tensors on the CPU that
    no torch.func transform, torch.compile or subclass (fake, distributed) holds.
    """
    if not is_torch(array):
        return not compat.is_lazy_array(array)
    import torch
    from torch._C._functorch import is_functorch_wrapped_tensor

    if torch.compiler.is_compiling() or array.device.type != "cpu":
        return False
    plain = type(array) in (torch.Tensor, torch.nn.Parameter)
    return plain and not is_functorch_wrapped_tensor(array)


def device(array: Array) -> Any:
    """Where the array lies."""
    # Not compat.device for torch: torch.compile would warn of its caches.
    return array.device if is_torch(array) else compat.device(array)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of any library that follows the array API."""
    return is_torch(value) or compat.is_array_api_obj(value)
