"""conformance/checks/memory: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from graded import FAILED, PASSED, assert_caught, assert_passes, examined, of_family, record_of
from wrong_losses import Wrong, cross_entropy


@of_family("memory")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_torch_keeps_three_copies(seed: int) -> None:
    loss = torch.nn.functional.cross_entropy
    report = examined(loss, "memory.square", "memory.one_gradient", seed=seed)
    assert record_of(report, "memory.square").status == PASSED
    record = record_of(report, "memory.one_gradient")
    assert record.status == FAILED
    assert float(record.obtained.split()[0]) == pytest.approx(3, abs=0.5)


class Keeps(torch.nn.Module):
    """Leaves its logits on itself."""

    def forward(self, logits, target):
        self.saved = (logits.exp(), target)
        return cross_entropy(logits, target)


def test_a_module_that_keeps_its_graph(seed: int) -> None:
    report = examined(Keeps, "memory.released", seed=seed)
    assert record_of(report, "memory.released").flaws == ("keeps_graph",)
    assert_passes(torch.nn.CrossEntropyLoss, "memory.released", seed=seed)
