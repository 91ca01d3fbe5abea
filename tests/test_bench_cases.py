"""bench/cases.py: a case is its name."""

from __future__ import annotations

import pytest
import torch

from xent.bench import cases


def test_a_name_gives_its_case_back() -> None:
    every = (*cases.CASES, *cases.HEADS)
    for case in every:
        assert cases.named(case.name) == case
    assert len({case.name for case in every}) == len(every)


@pytest.mark.parametrize(
    "name",
    [
        *("", "8x10", "8-float32", "8x10-int64", "8x0-float32", "8x10-float32 ", "x-float32"),
        *("8x10-float32-head", "8x9x10-float32-heads", "8x9x10-float32-head-ignored0"),
        *("8x9x10-float32-head-ignored100", "8x9x10-float32-head-"),
    ],
)
def test_what_names_no_case_gives_none(name: str) -> None:
    assert cases.named(name) is None


@pytest.mark.parametrize("name", ["6x11-bfloat16", "2x5x4x3-float64", "6x11-float16"])
def test_sizes_are_those_of_the_tensor(name: str) -> None:
    case = cases.named(name)
    assert case is not None
    logits = torch.empty(case.shape, dtype=getattr(torch, case.dtype))
    assert case.bytes == logits.nbytes
    assert case.rows == logits.select(cases.AXIS, 0).numel()


def test_the_cases_of_a_quick_run_are_small_and_some() -> None:
    for every in (cases.CASES, cases.HEADS):
        small = [case for case in every if case.bytes <= cases.SMALL]
        assert 0 < len(small) < len(every)


def test_a_head_counts_the_logits_that_it_does_not_store() -> None:
    head = cases.Head((6, 5, 11), "bfloat16", ignored=50)
    assert (head.bytes, head.rows, head.suite) == (6 * 11 * 2, 6, cases.LINEAR)
