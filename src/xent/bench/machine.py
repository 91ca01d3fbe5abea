"""Where and with what the benchmark ran: nothing that names the owner, the host or a folder."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from xent.doctor import examine

INSTRUCTIONS = (
    *("fma", "avx2", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "asimd", "sve", "sve2", "bf16"),
)
LIBRARIES = ("numpy", "torch", "scipy", "jax", "jaxlib", "optax")
ALLOCATOR = r"MALLOC_\w+|GLIBC_TUNABLES|THP_MEM_ALLOC_ENABLE|(OMP|KMP|GOMP|MKL|OPENBLAS)_\w+"


def machine() -> dict[str, Any]:
    """The processor, its caches and instructions, memory, and the system; None where not known."""
    about = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", about, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", about, re.MULTILINE)
    total = re.search(r"^MemTotal:\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    has = flags[1].split() if flags else []
    return {
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "caches": caches(),
        "instructions": [name for name in INSTRUCTIONS if name in has],
        "memory_bytes": int(total[1]) * 1024 if total else None,
        "virtual": "hypervisor" in has if has else None,
        "system": platform.system(),
        "kernel": platform.release(),
    }


def caches() -> dict[str, str]:
    """The size of each cache of the first core, by level and type."""
    folder = Path("/sys/devices/system/cpu/cpu0/cache")
    found = {}
    for index in sorted(folder.glob("index*")):
        level, kind, size = (_read(index / name).strip() for name in ("level", "type", "size"))
        found[f"L{level} {kind.lower()}"] = size
    return found


def software() -> dict[str, Any]:
    """Versions, xent's kernels as `xent doctor` tells them, and the commit where there is one."""
    facts = examine()
    return {
        "xent": facts["xent"],
        "kernels": facts["kernels"],
        "commit": commit(),
        "python": facts["python"],
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def allocator() -> dict[str, Any]:
    """What decides how memory is given out: the C library, its settings, huge pages."""
    pages = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", pages)
    preloaded = re.split(r"[ :]+", os.environ.get("LD_PRELOAD", ""))
    return {
        "libc": " ".join(platform.libc_ver()) or None,
        "preloaded": [Path(library).name for library in preloaded if library],
        "huge_pages": chosen[1] if chosen else None,
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if re.fullmatch(ALLOCATOR, name) and "/" not in value
        },
    }


def load() -> list[float] | None:
    """The load of the last 1, 5 and 15 minutes."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def commit() -> str | None:
    """The commit of the sources, with a + where they have been changed since."""
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "src")) or None
    except OSError:
        return None


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _read(file: str | Path) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError:
        return ""
