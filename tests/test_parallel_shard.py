"""Splits of classes over processes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from xent.parallel import balanced, equal


@given(classes=st.integers(0, 200), size=st.integers(1, 12))
def test_splits_cover_all_classes_once(classes, size):
    for split in (balanced(classes, size), equal(classes, size)):
        assert len(split) == size
        found = np.concatenate([np.arange(classes)[at] for at in split])
        np.testing.assert_array_equal(found, np.arange(classes))
    counts = [at.stop - at.start for at in balanced(classes, size)]
    assert max(counts) - min(counts) <= 1


@given(classes=st.integers(1, 200), size=st.integers(1, 12))
def test_an_equal_split_is_that_of_torch(classes, size):
    wanted = [len(part) for part in torch.arange(classes).chunk(size)]
    found = [at.stop - at.start for at in equal(classes, size)]
    assert [count for count in found if count] == wanted
