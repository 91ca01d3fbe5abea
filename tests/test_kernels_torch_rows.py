"""The rows that are worked on together: every row once, in order, and no more than asked."""

from __future__ import annotations

import pytest
import torch

from xent.kernels import torch_rows
from xent.spec import Plan

SHAPES = [(7, 1, 3), (7, 1, 100), (3, 5, 4), (2, 9, 70), (1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 12, 500, 10**6])
def test_groups_and_cuts_hold_every_row_once_in_order(shape, count):
    x = torch.arange(float(torch.Size(shape).numel())).view(shape)
    count = max(count, shape[2])
    found = []
    for group in torch_rows.groups(x, count):
        part = torch_rows.class_second(x[group])
        for cut in torch_rows.cuts(part, count):
            assert 0 < part[cut].numel() <= count
            found.append(part[cut].movedim(1, -1).flatten())
    assert torch.equal(torch.cat(found), x.flatten())


def test_the_count_is_that_of_the_plan():
    logits = torch.zeros((2, 1, 30))
    assert torch_rows.count_of(logits, None) == torch_rows.CHUNK_BYTES // 4
    assert torch_rows.count_of(logits, Plan(chunk_bytes=400)) == 100
    assert torch_rows.count_of(logits, Plan(chunk_bytes=1)) == 30


def test_marked_rows_a_few_at_a_time():
    logits, which = torch.zeros((4, 2, 10)), torch.zeros((4, 2), dtype=torch.bool)
    which[0, 1] = which[2, 0] = which[3, 1] = True
    parts = [tuple(i.tolist() for i in at) for at in torch_rows.some(logits, which, 25)]
    assert parts == [([0, 2], [1, 0]), ([3], [1])]


def test_rows_of_a_long_row_lie_side_by_side():
    short = torch_rows.SHORT
    assert torch_rows.is_long(torch.zeros((2, 1, short)))
    assert not torch_rows.is_long(torch.zeros((2, 1, short - 1)))
    assert not torch_rows.is_long(torch.zeros((2, 2, short)))
    assert not torch_rows.is_long(torch.zeros((2, 1, 2 * short))[:, :, ::2])
