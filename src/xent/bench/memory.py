"""The peak of this process's memory during a call, as Linux counts it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def extra_bytes(call: Callable[[], Any]) -> int | None:
    """The peak above what the process holds before the call; None where the system does not tell.

    >>> extra = extra_bytes(lambda: bytearray(2**25))
    >>> extra is None or 2**25 <= extra < 2**26
    True
    """
    _trim()
    try:
        RESET.write_text("5")  # the peak so far is forgotten (proc_pid_clear_refs(5))
        before, peak = _status("VmRSS"), _status("VmHWM")
    except OSError:
        return None
    if before is None or peak is None or peak > before + 2**20:  # it was not forgotten
        return None
    kept = call()
    peak = _status("VmHWM")
    del kept
    return None if peak is None else peak - before


def _status(name: str) -> int | None:
    """A line of the process's status, in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _trim() -> None:
    """Have the C library give back what is free, or the call would reuse it unseen."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return  # not glibc
