"""conformance/checks/dtype: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from xent.conformance.report import NOT_OFFERED

sys.path.insert(0, str(Path(__file__).parent))
from graded import FAILED, PASSED, assert_caught, assert_passes, examined, of_family, record_of
from wrong_losses import Wrong, cross_entropy


@of_family("dtype")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    assert_passes(cross_entropy, "dtype", seed=seed)


def test_one_dtype_that_is_missing_masks_nothing(seed: int) -> None:
    def single(logits, target):
        if logits.dtype != torch.float32:
            raise TypeError("float32 alone")
        return cross_entropy(logits, target)

    report = examined(single, "dtype", "value", "gradient", seed=seed)
    assert not report.of(FAILED)
    assert record_of(report, "dtype.float64").status == NOT_OFFERED
    assert record_of(report, "value.mean").status == PASSED


def test_torch_falls_short_where_half_precision_sums(seed: int) -> None:
    report = examined(torch.nn.functional.cross_entropy, "dtype", seed=seed)
    assert {r.name for r in report.of(FAILED)} == {
        "dtype.half_mean",
        "dtype.half_classes",
        "dtype.int32_targets",
    }
