"""conformance/checks/options: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from xent.conformance.checks import CHECKS

sys.path.insert(0, str(Path(__file__).parent))
from graded import NOT_OFFERED, assert_caught, assert_passes, examined, of_family, record_of
from wrong_losses import Wrong, right_options


@of_family("options")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    assert_passes(right_options, "options", seed=seed, tier="agrees with torch")


def test_torch_offers_none_of_them(seed: int) -> None:
    report = examined(torch.nn.functional.cross_entropy, "options", seed=seed)
    assert {record.status for record in report.records} == {NOT_OFFERED}
    assert len(report.records) == sum(check.family == "options" for check in CHECKS.values())


def test_options_of_any_name_are_not_offered_where_they_change_nothing(seed: int) -> None:
    def loss(logits, target, **options):
        return torch.nn.functional.cross_entropy(logits, target, reduction="mean")

    report = examined(loss, "options.z_loss", "options.softcap", seed=seed)
    assert record_of(report, "options.z_loss").note == "no z_loss"
    assert record_of(report, "options.softcap").note == "no softcap"
