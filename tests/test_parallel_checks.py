"""What is told of a split that cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from xent.parallel import Shard, checks, cross_entropy


def test_a_shard_is_of_a_group():
    with pytest.raises(TypeError, match="Shard: group has type int, expected a ProcessGroup"):
        Shard(3, 0, 10)  # pyright: ignore


@pytest.mark.parametrize(
    ("first", "classes", "kind", "text"),
    [
        (-1, 10, ValueError, "Shard: first has value -1, expected an integer >= 0"),
        (11, 10, ValueError, "Shard: first has value 11, expected at most 10 classes"),
        (0.0, 10, TypeError, "Shard: first has type float, expected an integer"),
        (0, True, TypeError, "Shard: classes has type bool, expected an integer"),
    ],
)
def test_a_place_is_among_the_classes(first, classes, kind, text):
    with pytest.raises(kind) as told:
        checks.place(first, classes)
    assert str(told.value) == text


def test_a_tensor_needs_a_shard_or_rows():
    import torch

    with pytest.raises(TypeError, match="shard has type NoneType, expected a Shard"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(TypeError, match="rows has type int, expected a ProcessGroup"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), rows=3)  # pyright: ignore


def test_classes_lie_in_the_order_of_ranks():
    call = {"rows": 2, "classes": 5}
    good = [call | {"first": 0, "count": 3}, call | {"first": 3, "count": 2}]
    checks.alike("f", good, 0)
    with pytest.raises(ValueError, match="f: shard has first class 3 on rank 0, expected 0"):
        checks.alike("f", good[::-1], 0)
    with pytest.raises(ValueError, match="f: shard has 3 classes on all 1 ranks together"):
        checks.alike("f", good[:1], 0)
    with pytest.raises(ValueError, match="f: rows has 7 on rank 1 and 2 on rank 0"):
        checks.alike("f", [good[0], good[1] | {"rows": 7}], 0)


def test_classes_lie_within_all():
    checks.inside("f", "logits", 3, 2, 5)
    with pytest.raises(ValueError, match="logits has 3 classes from 3 on, expected at most 2 of 5"):
        checks.inside("f", "logits", 3, 3, 5)
    with pytest.raises(ValueError, match=r"linear_weight has shape \(5, 2, 3\)"):
        checks.head("f", (5, 2, 3))
