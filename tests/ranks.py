"""Runs a file of this folder as two processes that meet, and reads what each tells."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def two_ranks(file: str, folder: Path, seed: int) -> list[Any]:
    """What each rank wrote into told<rank>.json; an AssertionError with its errors otherwise."""
    script = str(Path(__file__).with_name(file))
    both = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(folder), str(seed)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], "\n".join(told)
    files = [folder / f"told{rank}.json" for rank in range(2)]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
