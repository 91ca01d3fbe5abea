"""conformance/checks/gradient: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from xent.conformance.report import NOT_OFFERED

sys.path.insert(0, str(Path(__file__).parent))
from graded import FAILED, assert_caught, assert_passes, examined, of_family
from wrong_losses import Wrong, cross_entropy


@of_family("gradient")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    assert_passes(cross_entropy, "gradient", seed=seed)


def test_a_loss_without_a_gradient_offers_none(seed: int) -> None:
    def loss(logits, target):
        z = logits - logits.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        return -log_p[np.arange(len(z)), target].mean()

    report = examined(loss, "gradient", "value", seed=seed, adapter="numpy")
    assert not report.of(FAILED)
    assert {r.note for r in report.of(NOT_OFFERED) if r.name == "gradient.mean"} == {"no gradient"}
