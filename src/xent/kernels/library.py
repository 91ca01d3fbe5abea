"""The library compiled from cpu.cpp: found, loaded once, and why not where it is not.

Two environment variables are read at the first call:

- XENT_CPU: the instruction set, `v4`, `v3` or `baseline`, in place of the best that this CPU has;
  `none`: no compiled kernel.
- XENT_CPU_LIBRARY: the path of another build of cpu.cpp.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xent.kernels

# Each with its bits of xent_supported, the best first.
INSTRUCTIONS = {"v4": 2, "v3": 1, "baseline": 0}
OFF = "none"  # in their place: no compiled kernel
NAME = "xent_cpu.dll" if os.name == "nt" else "xent_cpu.so"
NOT_BUILT = "not_built.txt"  # what a build without the library leaves in its place: the reason
LOCK = threading.Lock()


@dataclass(frozen=True)
class Library:
    """The loaded library, and the instruction set whose functions are used."""

    handle: ctypes.CDLL
    path: str
    instructions: str
    supported: tuple[str, ...]

    def function(self, name: str) -> Callable[..., Any]:
        """The C function of that name for the instruction set: the same object at every call."""
        return getattr(self.handle, f"{name}_{self.instructions}")


def load() -> Library | None:
    """The library; None where there is none to use, for the reason that `why_not` gives."""
    with LOCK:
        return found()[0]


def why_not() -> str | None:
    """Why `load` gives None; None where it gives the library."""
    with LOCK:
        return found()[1]


@functools.cache
def found() -> tuple[Library | None, str | None]:
    """The library or the reason, by the environment of the first call."""
    return find(os.environ)


def find(environment: Mapping[str, str]) -> tuple[Library | None, str | None]:
    """The library that the environment asks for, or the reason why there is none."""
    asked = environment.get("XENT_CPU", "")
    if asked == OFF:
        return None, f"XENT_CPU is {OFF!r}"
    if asked and asked not in INSTRUCTIONS:
        return None, f"XENT_CPU is {asked!r}, expected {', '.join(INSTRUCTIONS)} or {OFF}"
    given = environment.get("XENT_CPU_LIBRARY")
    path = given or beside(NAME)
    if path is None:
        return None, f"no compiled kernel is installed: {unbuilt()}"
    try:
        handle = ctypes.CDLL(os.path.abspath(path))
        runs = handle.xent_supported()
        if not given and stale(handle):
            return None, "the compiled kernel is not that of cpu.cpp: install xent again"
    except (OSError, AttributeError, ValueError) as error:  # no file, function or variable
        return None, f"the compiled kernel cannot be loaded: {error}"
    supported = tuple(name for name, bits in INSTRUCTIONS.items() if runs & bits == bits)
    if asked and asked not in supported:
        return None, f"XENT_CPU asks for {asked}, which this CPU does not have"
    return Library(handle, path, asked or supported[0], supported), None


def beside(name: str) -> str | None:
    """The path of the package's file of that name; an editable install has two folders."""
    paths = (Path(folder, name) for folder in xent.kernels.__path__)
    return next((str(path) for path in paths if path.is_file()), None)


def unbuilt() -> str:
    """Why the package has no library."""
    told = beside(NOT_BUILT)
    return Path(told).read_text(encoding="utf-8") if told else "install xent with a C++ compiler"


def stale(handle: ctypes.CDLL) -> bool:
    """Whether a cpu.cpp lies here that is not the one compiled; a wheel holds none."""
    source = beside("cpu.cpp")
    if source is None:
        return False
    compiled = (ctypes.c_char * 64).in_dll(handle, "xent_source").value
    return compiled.decode() != hashlib.sha256(Path(source).read_bytes()).hexdigest()


def torch_threads() -> int | None:
    """The address of torch_parallel_for, the C function that runs another on torch's threads.

    None where torch is not imported, or older than 2.10.
    """
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "get_num_threads"):  # its import may be under way
        return None
    return parallel_for(torch.__path__[0])


@functools.cache
def parallel_for(folder: str) -> int | None:
    """The address in the libtorch_cpu of a torch that is imported."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        path = Path(folder, "lib", name)
        if path.is_file():
            function = getattr(ctypes.CDLL(str(path)), "torch_parallel_for", None)
            return ctypes.cast(function, ctypes.c_void_p).value if function else None
    return None
