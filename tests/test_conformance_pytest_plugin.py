"""conformance/pytest_plugin: a test for each check, that fails, passes or is skipped as it did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEST = """
import pytest
import torch

F = torch.nn.functional

def wrong(logits, target, reduction="mean"):
    return -F.cross_entropy(logits, target, reduction=reduction)

CHECKS = ["value.mean", "value.sum", "value.weight_mean", "accuracy.tiny_loss"]

@pytest.mark.xent_grade(wrong, seed=5, checks=CHECKS, isolate=False)
def test_wrong(xent_check):
    xent_check()

@pytest.mark.xent_grade(F.cross_entropy, checks=CHECKS, isolate=False, better=True)
def test_torch(xent_check):
    assert xent_check().status == "passed"
"""


def test_each_check_is_a_test(own_folder: Path) -> None:
    Path("conftest.py").write_text('pytest_plugins = ["xent.conformance.pytest_plugin"]\n')
    Path("test_mine.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-rs", "-v", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--strict-markers", "test_mine.py"], capture_output=True, text=True, check=False
    )
    told = done.stdout
    assert done.returncode == 1, told + done.stderr
    assert "test_wrong[value.mean] FAILED" in told
    assert "test_wrong[value.weight_mean] SKIPPED" in told
    assert "not offered: no weight" in told
    assert "test_wrong[accuracy" not in told
    assert "test_torch[value.weight_mean] PASSED" in told
    assert "test_torch[accuracy.tiny_loss] FAILED" in told
    assert "the sign is flipped: the loss is minus log p" in told
    assert "seed      5" in told
    assert "3 failed, 3 passed, 1 skipped" in told
