"""A split vocabulary gives what the unsplit one gives, on 1 to 4 processes, and the same bits on
each."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import parallel_cases as cases
from parallel_ranks import run


def compare(wanted: list[dict], parts: list[list[dict]]) -> None:
    for i, whole in enumerate(wanted):
        each = [part[i] for part in parts]
        for name, value in whole.items():
            found = cases.joined(each, name)
            assert found.dtype == value.dtype
            np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-14, err_msg=name)
            if found is each[0][name]:
                for other in each[1:]:
                    np.testing.assert_array_equal(other[name], found, err_msg=name)


@pytest.mark.parametrize("linear", [False, True], ids=["logits", "head"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_option_equals_the_unsplit_call(rng, size, linear):
    calls, wanted = [], []
    for i, name in enumerate(cases.OPTIONS):
        arrays, options = cases.drawn(rng, name)
        counts = cases.SPLITS[size][i % len(cases.SPLITS[size])]
        calls.append((arrays, options, counts, linear))
        wanted.append(cases.unsplit(arrays, options, linear))
    parts = run(cases.several, size, calls)
    for i, whole in enumerate(wanted):
        compare(whole, [part[i] for part in parts])
