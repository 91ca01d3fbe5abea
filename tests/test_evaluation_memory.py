"""evaluation: the memory that a large file takes, at its peak, is that of a few pieces."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resource")
MEASURE = """
import resource, numpy, xent
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
xent.evaluate(numpy.zeros((4, 3), numpy.float32), numpy.zeros(4, int))
before = peak()
told = xent.evaluate("x.npy", "t.npy", chunk_mb=64)
print(told.rows, told.loss, peak() - before)
"""


@pytest.mark.parametrize(
    ("rows", "classes"),
    [(75_000, 1000), pytest.param(32_768, 32_000, marks=pytest.mark.slow)],
    ids=["300 MB", "4 GB"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is counted otherwise")
def test_the_peak_of_memory(rows: int, classes: int, own_folder: Path) -> None:
    # What is not written of a file reads as zeros and takes no room on the disk.
    with Path("x.npy").open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, classes)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + 4 * rows * classes)
    np.save("t.npy", np.zeros(rows, np.int64))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    counted, loss, peak = done.stdout.split()
    assert int(counted) == rows
    assert float(loss) == pytest.approx(np.log(classes), rel=1e-6)
    assert int(peak) < 64 * 2**20, f"{int(peak) / 2**20:.0f} MiB"
