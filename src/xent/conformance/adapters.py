"""How an implementation is found and called: loading it, and telling what kind of thing it is."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from xent.conformance.libraries import LIBRARIES, installed
from xent.errors import bad


@dataclass(frozen=True)
class Adapter:
    """A library, the kind of object, and the order of its arguments."""

    name: str
    library: str  # "" where the object's own library is to be found out
    kind: str  # function; class: constructed with options, then called; layer; pair
    order: str = "logits"  # what comes first: logits, target, or hidden of a linear head
    about: str = ""


ADAPTERS = {
    adapter.name: adapter
    for adapter in (
        Adapter("torch", "torch", "function", about="f(logits, target, **options) on tensors"),
        Adapter("torch-module", "torch", "class", about="M(**options)(logits, target)"),
        Adapter("numpy", "numpy", "function", about="f(logits, target, **options), no gradient"),
        Adapter("numpy-pair", "numpy", "pair", about="forward, backward: two functions"),
        Adapter("numpy-class", "numpy", "layer", about="C(**options).forward and .backward"),
        Adapter("jax", "jax", "function", about="f(logits, target, **options), as in optax"),
        Adapter("keras", "", "function", "target", "f(y_true, y_pred, **options)"),
        Adapter("keras-class", "", "class", "target", "C(**options)(y_true, y_pred)"),
        Adapter("tinygrad", "tinygrad", "function", about="f(logits, target, **options)"),
        Adapter("mlx", "mlx", "function", about="f(logits, target, **options)"),
        Adapter("linear", "torch", "function", "hidden", "f(hidden, weight, target, **options)"),
        Adapter(
            "linear-module", "torch", "class", "hidden", "M(**options)(hidden, weight, target)"
        ),
        Adapter("linear-numpy", "numpy", "function", "hidden", "f(hidden, weight, target)"),
    )
}

TARGETS_FIRST = {"y_true", "labels_true", "true"}
HIDDEN_WEIGHTS = {
    "linear_weight",
    "lin_weight",
    "lm_head_weight",
    "head_weight",
    "weight",
    "w",
    "c",
}
TARGETS = {"target", "targets", "label", "labels", "y"}


def load(name: str) -> Any:
    """The object that `module:function` or `file.py:function` names; `a:f,b` is a pair.

    >>> load("math:sqrt")(4.0)
    2.0
    """
    place, colon, path = name.rpartition(":")
    if not colon or not place or not path:
        has = f"value {name!r}"
        raise bad(ValueError, "grade", "target", has, "module:function or file.py:function")
    module = _module_of(place)
    found = [_attribute(module, part.strip(), place) for part in path.split(",")]
    return found[0] if len(found) == 1 else tuple(found)


def _module_of(place: str) -> ModuleType:
    if place.split(".")[0] == "keras" and not importlib.util.find_spec("tensorflow"):
        os.environ.setdefault("KERAS_BACKEND", "jax" if installed("jax") else "numpy")
    if not place.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(place)
    file = Path(place)
    if not file.is_file():
        raise bad(ValueError, "grade", "target", f"no file {place}", "a file that exists")
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise bad(ValueError, "grade", "target", f"file {place}", "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, path: str, place: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            near = f"one of {', '.join(names[:12])}" if names else "a name that it has"
            raise bad(ValueError, "grade", "target", f"no {path} in {place}", near)
        found = getattr(found, part)
    return found


def candidates(found: Any) -> Iterator[tuple[Adapter, str]]:
    """The adapters that may fit an object, the likeliest first, each with what speaks for it."""
    if isinstance(found, (tuple, list)):
        yield ADAPTERS["numpy-pair"], "two functions: forward and backward"
        return
    likely = libraries_of(found)
    if isinstance(found, type):
        yield from _classes(found, likely)
        return
    if hasattr(found, "forward") and hasattr(found, "backward"):
        yield ADAPTERS["numpy-pair"], "it has forward and backward"
        return
    names = required(found)
    if names[:1] and names[0] in TARGETS_FIRST:
        yield ADAPTERS["keras"], f"its first argument is {names[0]}"
        return
    if len(names) > 2 and (names[1] in HIDDEN_WEIGHTS and names[2] in TARGETS):
        told = f"its arguments are {', '.join(names[:3])}"
        yield ADAPTERS["linear"], told
        yield ADAPTERS["linear-numpy"], told
        return
    for name in likely:
        yield ADAPTERS[name], f"it runs on {name} arrays"


def _classes(found: type, likely: list[str]) -> Iterator[tuple[Adapter, str]]:
    bases = {base.__module__.split(".")[0] for base in found.__mro__}
    if "keras" in bases:
        yield ADAPTERS["keras-class"], "a Keras class"
    elif "torch" in bases:
        names = required(getattr(found, "forward", None))[1:]
        head = len(names) > 2 and names[1] in HIDDEN_WEIGHTS
        kind = "linear-module" if head else "torch-module"
        yield ADAPTERS[kind], "a torch.nn.Module class"
    elif hasattr(found, "forward") and hasattr(found, "backward"):
        yield ADAPTERS["numpy-class"], "a class with forward and backward"
    else:
        yield ADAPTERS["torch-module"], "a class"


def required(function: Any) -> list[str]:
    """Its positional arguments without a default, in their order."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in kinds and p.default is p.empty]


def libraries_of(found: Any) -> list[str]:
    """Libraries that are installed, those first that the object's module names."""
    own = str(getattr(found, "__module__", "")).split(".")[0]
    own = {"optax": "jax", "jaxlib": "jax", "flax": "jax"}.get(own, own)
    seen = [own] if own in LIBRARIES else []
    scope = getattr(inspect.unwrap(found) if callable(found) else found, "__globals__", {})
    for value in list(scope.values()):
        of = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        root = str(of or "").split(".")[0]
        root = {"optax": "jax"}.get(root, root)
        if root in LIBRARIES and root not in seen:
            seen.append(root)
    seen.sort(key=lambda name: (name != own, list(LIBRARIES).index(name)))
    rest = [name for name in LIBRARIES if name not in seen and name in ("torch", "numpy")]
    return [name for name in (*seen, *rest) if installed(name)]


def signature_of(found: Any, adapter: Adapter) -> tuple[list[str], bool]:
    """The keyword arguments of an implementation, and whether it takes others too."""
    function: Callable[..., Any] = found
    if adapter.kind == "pair":
        function = found[0] if isinstance(found, (tuple, list)) else found.forward
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return [], True
    positional = 0 if adapter.kind in ("class", "layer") else 3 if adapter.order == "hidden" else 2
    kept = list(parameters.values())[positional:]
    more = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return [p.name for p in kept if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)], more
