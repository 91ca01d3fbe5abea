"""conformance/draws: cases are what their seed says, and every format holds their numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xent.conformance import draws


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rounded_is_torch_s_rounding(dtype: str, rng: np.random.Generator) -> None:
    values = rng.standard_normal((7, 5)) * 10.0 ** rng.integers(-4, 4, (7, 5))
    expected = torch.from_numpy(values).to(getattr(torch, dtype)).double().numpy()
    if dtype == "bfloat16":  # torch rounds once, this twice, by way of float32
        expected = torch.from_numpy(values).float().bfloat16().double().numpy()
    np.testing.assert_array_equal(draws.rounded(values, dtype), expected)
    for special in (np.inf, -np.inf, np.nan, 0.0):
        np.testing.assert_equal(float(draws.rounded(special, dtype)), special)


def test_every_format_holds_what_is_drawn(rng: np.random.Generator) -> None:
    for case in draws.plain(rng):
        for dtype in draws.EPS:
            np.testing.assert_array_equal(draws.rounded(case.logits, dtype), case.logits)


def test_the_seed_says_it_all(seed: int) -> None:
    one, other = ([c.logits for c in draws.plain(draws.generator(seed, "a"))] for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
    different = draws.logits(draws.generator(seed, "b"), 4, 9)
    assert not np.array_equal(different, draws.logits(draws.generator(seed, "a"), 4, 9))


def test_an_ignored_row_and_probabilities(rng: np.random.Generator) -> None:
    (case,) = draws.plain(rng, ((5, 4),))
    ignored = draws.ignoring(case, rng, 1)
    assert (ignored.target == 1).sum() == 1
    p = draws.probabilities(rng, 3, 4, 2)
    assert p.shape == (3, 4, 2)
    np.testing.assert_array_equal(p.sum(1), np.ones((3, 2)))
    assert replace(case, target=p[:, :, 0]).soft


def test_a_case_in_words() -> None:
    case = draws.Case(np.array([[0.5, 1.0]]), np.array([1]), np.array([1.0, 2.0]), upstream=2.5)
    expected = (
        "logits [[0.5, 1]], target [1], weight [1, 2], reduction 'mean', upstream 2.5, float64"
    )
    assert case.told() == expected
    assert draws.shown(np.zeros((5, 6))) == "of shape (5, 6): 0, 0, 0, 0, ..."
    assert draws.shown(1 / 3) == "0.333333333"
