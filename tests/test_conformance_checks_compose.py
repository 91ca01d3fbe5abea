"""conformance/checks/compose: each mistake of the family is caught by its check, and named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from graded import FAILED, PASSED, assert_caught, assert_passes, examined, of_family, record_of
from wrong_losses import Wrong


@of_family("compose")
def test_the_mistake_is_caught_and_leads(wrong: Wrong, seed: int) -> None:
    assert_caught(wrong, seed)


def test_a_right_loss_passes(seed: int) -> None:
    names = ("chain", "double_backward", "hessian", "jvp", "func_grad", "gradcheck")
    assert_passes(torch.nn.functional.cross_entropy, *(f"compose.{n}" for n in names), seed=seed)


@pytest.mark.slow
def test_torch_passes_what_it_transforms(seed: int) -> None:
    report = examined(torch.nn.functional.cross_entropy, "compose", seed=seed)
    assert {r.name for r in report.of(FAILED)} <= {"compose.vmap_options"}


@pytest.mark.slow
def test_jax_is_transformed(seed: int) -> None:
    optax = pytest.importorskip("optax")
    loss = optax.softmax_cross_entropy_with_integer_labels
    report = examined(loss, "compose.jax_transforms", seed=seed, adapter="jax")
    assert record_of(report, "compose.jax_transforms").status == PASSED, report.trouble
