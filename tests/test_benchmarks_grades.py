"""benchmarks/grades: subjects that can be loaded, and the page made of what was run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import grades
import grades_subjects


def test_subjects_can_be_loaded() -> None:
    from xent.conformance.adapters import ADAPTERS, load

    assert len({s.name for s in grades.SUBJECTS}) == len(grades.SUBJECTS)
    for subject in grades.SUBJECTS:
        assert subject.adapter in (None, *ADAPTERS)
        if subject.target.startswith((grades.HERE, "torch", "xent")):
            assert load(subject.target)


def test_the_sources_formulas_are_right_for_plain_logits(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((4, 3)), np.array([2, 0, 1, 2])
    tensors = torch.from_numpy(logits), torch.from_numpy(target)
    right = torch.nn.functional.cross_entropy(*tensors).item()
    module = grades_subjects
    for loss in (module.blog_torch, module.blog_parts, module.BlogTogether(), module.forum):
        assert loss(*tensors).item() == pytest.approx(right)
    assert module.blog_numpy(logits, target) == pytest.approx(right)
    for layer in (module.BlogBackwardParts(), module.BlogBackwardTogether(), module.ForumAnswer()):
        assert layer.forward(logits, target) == pytest.approx(right)
    assert module.Notes().forward(logits, np.eye(3)[target]) == pytest.approx(right)


def test_the_page(tmp_path: Path) -> None:
    subject = grades.Subject("mine", "torch.nn.functional:cross_entropy", "torch")
    found = grades.graded(subject, 1, checks=("value.mean", "accuracy.tiny_loss"))
    absent = grades.graded(grades.Subject("other", "none:f", "no-such-package"), 1)
    told = grades.page([found, absent])
    assert f"| mine | torch {torch.__version__} | 1 of 1 | 0 of 1 | 0 | the largest term" in told
    assert "- other: no-such-package not installed" in told
    assert importlib.util.find_spec("grades") is not None
