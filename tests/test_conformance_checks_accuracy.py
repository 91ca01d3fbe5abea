"""conformance/checks/accuracy: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from xent.conformance.checks import AGREES, CHECKS

sys.path.insert(0, str(Path(__file__).parent))
from graded import FAILED, assert_caught, assert_passes, examined, of_family
from wrong_losses import Wrong, cross_entropy


@of_family("accuracy")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    # It computes in float64, and keeps nothing of what float64 loses.
    own = {name for name in CHECKS if name.startswith("accuracy.")}
    assert_passes(cross_entropy, *own - {"accuracy.wide_gradient_float64"}, seed=seed)


def test_torch_loses_small_losses(seed: int) -> None:
    report = examined(torch.nn.functional.cross_entropy, "accuracy", seed=seed)
    assert not report.of(FAILED, AGREES)
    lost = {r.name: r.flaws for r in report.of(FAILED)}
    assert "log_one_plus" in lost["accuracy.tiny_loss"]
    assert "low_precision_exp" in lost["accuracy.bfloat16_gradient"]
