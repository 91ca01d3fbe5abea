"""conformance/checks/linear: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from xent.conformance.checks import CHECKS

sys.path.insert(0, str(Path(__file__).parent))
from graded import PASSED, assert_caught, assert_passes, examined, of_family, record_of
from wrong_losses import Wrong, cross_entropy, right_head


@of_family("linear")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


CHEAP = [n for n in CHECKS if n.startswith("linear.") and not n.endswith(("compile", "logits"))]


def test_a_right_head_passes(seed: int) -> None:
    tier = "agrees with torch"
    assert_passes(right_head, *set(CHEAP) - {"linear.upstream_rows"}, seed=seed, tier=tier)


def test_torch_s_chunked_head_has_silent_zeros(seed: int) -> None:
    options = torch.nn.LinearCrossEntropyOptions()

    def chunked(hidden, linear_weight, target):
        return torch.nn.functional.linear_cross_entropy(
            hidden, linear_weight, target, options=options
        )

    report = examined(chunked, *CHEAP, seed=seed)
    assert record_of(report, "linear.value").status == PASSED
    assert record_of(report, "linear.jvp").flaws == ("jvp_zero",)


def test_other_losses_have_no_linear_checks(seed: int) -> None:
    assert not examined(cross_entropy, "linear", seed=seed).records
