"""conformance/checks/stable: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from graded import FAILED, assert_caught, assert_passes, examined, of_family
from wrong_losses import Wrong, cross_entropy


@of_family("stable")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    assert_passes(cross_entropy, "stable", seed=seed)


def test_torch_falls_short_in_two(seed: int) -> None:
    report = examined(torch.nn.functional.cross_entropy, "stable", seed=seed)
    assert {r.name for r in report.of(FAILED)} == {
        "stable.ignored_nan_gradient",
        "stable.soft_masked",
    }
