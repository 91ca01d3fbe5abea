"""examples/train_parallel.py under torchrun: the curve of one process, on 2 and on 4."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_train_parallel(tmp_path, size):
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    told = subprocess.run(
        [sys.executable, *command, str(ROOT / "examples/train_parallel.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].split() == ["step", "1", "process", str(size), "processes", "difference"]
    rows = [list(map(float, line.split())) for line in lines[1:6]]
    assert rows[-1][1] < rows[0][1] / 2, "it did not learn"
    assert max(row[3] for row in rows) < 1e-10
    assert (tmp_path / "train_parallel.png").stat().st_size > 10_000
