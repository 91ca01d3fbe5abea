"""What xent has to work with on this machine: what `xent doctor` shows."""

from __future__ import annotations

import importlib
import os
import platform
from typing import Any

import xent
from xent.kernels import library

LIBRARIES = {  # the name it is installed by, and its module
    "numpy": "numpy",
    "array-api-compat": "array_api_compat",
    "torch": "torch",
    "scipy": "scipy",
}


def examine() -> dict[str, Any]:
    """Versions, kernels and threads, as JSON can hold them.

    Returns:
        libraries: the version of each, None where it cannot be used; errors: why not, for those
        that are installed; kernels: what computes the losses of NumPy arrays and torch tensors,
        native or reference; for torch chunks, its own operations on some rows at a time, in place
        of the reference; native: the instruction set of the compiled kernel, those that this CPU
        has, and the reason where it is not used.

    >>> examine()["kernels"]["numpy"] in ("native", "reference")
    True
    """
    libraries: dict[str, str | None] = {}
    errors: dict[str, str] = {}
    for name, module in LIBRARIES.items():
        libraries[name] = None
        try:
            libraries[name] = importlib.import_module(module).__version__
        except Exception as error:  # a broken installation can raise anything
            if not (isinstance(error, ModuleNotFoundError) and error.name == module):
                errors[name] = f"{type(error).__name__}: {error}"
    kernels = {"numpy": "reference", "torch": "chunks"}
    threads = {"cores": os.cpu_count()}
    if libraries["torch"]:
        threads["torch"] = importlib.import_module("torch").get_num_threads()
    return {
        "xent": xent.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": libraries,
        "errors": errors,
        "kernels": {
            name: "native" if library.load() else kernel
            for name, kernel in kernels.items()
            if libraries[name]
        },
        "native": native(),
        "threads": threads,
    }


def native() -> dict[str, Any]:
    """The compiled kernel, loaded or not."""
    loaded = library.load()
    return {
        "instructions": loaded.instructions if loaded else None,
        "supported": list(loaded.supported) if loaded else [],
        "reason": library.why_not(),
    }


def told(facts: dict[str, Any]) -> str:
    """The same in lines to read."""
    lines = {"xent": facts["xent"], "python": f"{facts['python']} on {facts['platform']}"}
    for name, version in facts["libraries"].items():
        about = [version or facts["errors"].get(name, "not installed")]
        if name in facts["kernels"]:
            instructions = facts["native"]["instructions"]
            about.append(" ".join(filter(None, ("kernel:", facts["kernels"][name], instructions))))
        if name in facts["threads"]:
            about.append(f"threads: {facts['threads'][name]}")
        lines[name] = ", ".join(about)
    native = facts["native"]
    lines["native kernel"] = native["reason"] or (
        f"{native['instructions']} of {', '.join(native['supported'])}"
    )
    lines["cores"] = facts["threads"]["cores"]
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {about}" for name, about in lines.items())
