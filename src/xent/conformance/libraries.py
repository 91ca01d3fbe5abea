"""The array libraries that implementations are written for: numbers in, numbers out, gradients.

Each has `array(values, dtype)`, `index(values, dtype)`, `values(array)`, `dtype(array)` and
`vjp(function, arrays, upstream)`, which gives the result and, for each array, the gradient, or None
where the result does not depend on it in a way that the library can follow.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Function = Callable[..., Any]


class Library:
    """NumPy: no gradients of its own."""

    name = "numpy"
    differentiates = False
    torch: Any = None  # the module, where the library is that one
    jax: Any = None

    def array(self, values: Any, dtype: str) -> Any:
        if dtype == "bfloat16":
            return _no_such("bfloat16 in NumPy")
        return np.array(values, dtype=dtype)

    def index(self, values: Any, dtype: str = "int64") -> Any:
        return np.array(values, dtype=dtype)

    def values(self, array: Any) -> np.ndarray:
        return np.array(array, dtype=np.float64)

    def dtype(self, array: Any) -> str:
        return str(np.asarray(array).dtype)

    def vjp(self, function: Function, arrays: Sequence[Any], upstream: Any) -> tuple[Any, list]:
        return function(*arrays), [None] * len(arrays)


class Torch(Library):
    """torch, on the CPU."""

    name = "torch"
    differentiates = True

    def __init__(self) -> None:
        self.torch = importlib.import_module("torch")

    def array(self, values: Any, dtype: str) -> Any:
        return self.torch.tensor(np.array(values), dtype=getattr(self.torch, dtype))

    def index(self, values: Any, dtype: str = "int64") -> Any:
        return self.torch.tensor(np.array(values), dtype=getattr(self.torch, dtype))

    def values(self, array: Any) -> np.ndarray:
        if not isinstance(array, self.torch.Tensor):
            return np.array(array, dtype=np.float64)
        return array.detach().to(self.torch.float64).numpy().copy()

    def dtype(self, array: Any) -> str:
        return str(getattr(array, "dtype", type(array).__name__)).removeprefix("torch.")

    def vjp(self, function: Function, arrays: Sequence[Any], upstream: Any) -> tuple[Any, list]:
        leaves = [array.detach().requires_grad_() for array in arrays]
        result = function(*leaves)
        if not getattr(result, "requires_grad", False):
            return result, [None] * len(leaves)
        if upstream is None:
            upstream = self.torch.ones_like(result)
        else:
            drawn = self.torch.as_tensor(np.array(upstream, np.float64))
            upstream = drawn.to(result.dtype).expand(result.shape).clone()
        return result, list(self.torch.autograd.grad(result, leaves, upstream, allow_unused=True))


class Jax(Library):
    """jax, with 64-bit numbers."""

    name = "jax"
    differentiates = True

    def __init__(self) -> None:
        # Every operation is compiled for every shape, which is nearly all the time there is: what
        # is run once needs no optimisation.
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
        self.jax = importlib.import_module("jax")
        self.jax.config.update("jax_enable_x64", True)

    def array(self, values: Any, dtype: str) -> Any:
        return self.jax.numpy.asarray(np.array(values), dtype=dtype)

    def index(self, values: Any, dtype: str = "int64") -> Any:
        return self.jax.numpy.asarray(np.array(values), dtype=dtype)

    def values(self, array: Any) -> np.ndarray:
        return np.array(self.jax.numpy.asarray(array).astype("float64"))

    def vjp(self, function: Function, arrays: Sequence[Any], upstream: Any) -> tuple[Any, list]:
        result, pull = self.jax.vjp(function, *arrays)
        up = np.broadcast_to(1.0 if upstream is None else upstream, result.shape)
        return result, list(pull(self.jax.numpy.asarray(up, dtype=result.dtype)))


class Tinygrad(Library):
    """tinygrad, on the CPU."""

    name = "tinygrad"
    differentiates = True

    def __init__(self) -> None:
        self.tinygrad = importlib.import_module("tinygrad")

    def array(self, values: Any, dtype: str) -> Any:
        kind = getattr(self.tinygrad.dtypes, dtype)
        return self.tinygrad.Tensor(np.array(values, np.float64)).cast(kind).realize()

    def index(self, values: Any, dtype: str = "int64") -> Any:
        return self.tinygrad.Tensor(np.array(values, dtype)).realize()

    def values(self, array: Any) -> np.ndarray:
        return array.cast(self.tinygrad.dtypes.float64).numpy().astype(np.float64)

    def dtype(self, array: Any) -> str:
        names = {"half": "float16", "float": "float32", "double": "float64"}
        name = str(array.dtype).removeprefix("dtypes.")
        return names.get(name, name)

    def vjp(self, function: Function, arrays: Sequence[Any], upstream: Any) -> tuple[Any, list]:
        leaves = [array.detach() for array in arrays]
        for leaf in leaves:
            if hasattr(leaf, "requires_grad_"):  # before 0.14, which follows every tensor
                leaf.requires_grad_(True)
        result = function(*leaves)
        up = np.broadcast_to(1.0 if upstream is None else upstream, result.shape)
        given = self.tinygrad.Tensor(np.ascontiguousarray(up)).cast(result.dtype)
        return result, list(result.gradient(*leaves, gradient=given))


class Mlx(Library):
    """MLX, on the CPU."""

    name = "mlx"
    differentiates = True

    def __init__(self) -> None:
        self.mx = importlib.import_module("mlx.core")
        self.mx.set_default_device(self.mx.cpu)

    def array(self, values: Any, dtype: str) -> Any:
        return self.mx.array(np.array(values, np.float64), dtype=getattr(self.mx, dtype))

    def index(self, values: Any, dtype: str = "int64") -> Any:
        return self.mx.array(np.array(values, dtype))

    def values(self, array: Any) -> np.ndarray:
        return np.array(array.astype(self.mx.float64), dtype=np.float64)

    def dtype(self, array: Any) -> str:
        return str(array.dtype).removeprefix("mlx.core.")

    def vjp(self, function: Function, arrays: Sequence[Any], upstream: Any) -> tuple[Any, list]:
        result = function(*arrays)
        up = np.broadcast_to(1.0 if upstream is None else upstream, result.shape)
        given = self.array(up, self.dtype(result))
        (result,), grads = self.mx.vjp(lambda *a: [function(*a)], list(arrays), [given])
        return result, list(grads)


LIBRARIES: dict[str, tuple[str, type[Library]]] = {  # the module it needs
    "torch": ("torch", Torch),
    "numpy": ("numpy", Library),
    "jax": ("jax", Jax),
    "tinygrad": ("tinygrad", Tinygrad),
    "mlx": ("mlx", Mlx),
}


def installed(name: str) -> bool:
    return importlib.util.find_spec(LIBRARIES[name][0]) is not None


def library(name: str) -> Library:
    return LIBRARIES[name][1]()


def _no_such(what: str) -> Any:
    raise TypeError(f"there is no {what}")
