"""conformance/checks/calls: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from graded import assert_caught, assert_passes, of_family
from wrong_losses import Wrong, cross_entropy


@of_family("calls")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    assert_passes(cross_entropy, "calls", seed=seed)
