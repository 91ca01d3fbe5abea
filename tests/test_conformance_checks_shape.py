"""conformance/checks/shape: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from graded import FAILED, assert_caught, assert_passes, examined, of_family, record_of
from wrong_losses import Wrong, cross_entropy


@of_family("shape")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    assert_passes(cross_entropy, "shape", seed=seed)


def test_a_shape_that_is_refused_is_not_offered(seed: int) -> None:
    def flat(logits, target):
        if logits.ndim != 2:
            raise ValueError("logits (N, V)")
        return cross_entropy(logits, target)

    report = examined(flat, "shape", seed=seed)
    assert not report.of(FAILED)
    assert "logits (N, V)" in record_of(report, "shape.image").note
