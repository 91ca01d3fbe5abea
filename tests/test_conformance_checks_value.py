"""conformance/checks/value: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from graded import assert_caught, assert_passes, examined, of_family, record_of
from wrong_losses import WRONG, Wrong, cross_entropy


@of_family("value")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    assert_passes(cross_entropy, "value", seed=seed)


def test_the_smallest_input_is_told(seed: int) -> None:
    (wrong,) = (w for w in WRONG if w.name == "rows")
    record = record_of(examined(wrong.loss, "value.ignore_mean", seed=seed), "value.ignore_mean")
    assert "ignore_index -100" in record.given
    assert record.given.count("[") == 4  # two rows of logits, in brackets, and the target
