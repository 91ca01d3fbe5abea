"""conformance/checks/linear_compose: silent zeros of a head are faults, refusals are not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from xent.conformance.report import NOT_OFFERED

sys.path.insert(0, str(Path(__file__).parent))
from graded import PASSED, examined, record_of
from wrong_losses import right_head


def plain(hidden, linear_weight, target):
    return torch.nn.functional.cross_entropy(hidden @ linear_weight.T, target)


def test_a_plain_head_is_differentiable(seed: int) -> None:
    report = examined(plain, "linear.jvp", "linear.create_graph", seed=seed)
    assert {r.status for r in report.records} == {PASSED}


def test_gradients_made_in_forward_are_detached(seed: int) -> None:
    report = examined(right_head, "linear.jvp", "linear.create_graph", seed=seed)
    assert record_of(report, "linear.create_graph").flaws == ("gradient_detached",)
    assert record_of(report, "linear.jvp").status == NOT_OFFERED


@pytest.mark.slow
def test_compiled(seed: int) -> None:
    report = examined(plain, "linear.compile", seed=seed)
    assert record_of(report, "linear.compile").status == PASSED
