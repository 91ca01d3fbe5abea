"""Which operations on logits can be recorded, and what they come to."""

from __future__ import annotations

import pytest
import torch

from xent.integrations.recorded import Recorded, cast, number, of_rows


@pytest.mark.parametrize("value", [2, 0.5, torch.tensor(3.0), torch.tensor(0.25).double()])
def test_positive_numbers_scale(value):
    assert number(value) == float(value)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1.0,
        float("inf"),
        float("nan"),
        True,
        None,
        "2",
        2j,
        torch.tensor(2),
        torch.ones(1),
        torch.tensor(2.0, requires_grad=True),
    ],
)
def test_nothing_else_does(value):
    assert number(value) is None


def test_options_of_a_softcap():
    plain = Recorded().also(torch.mul, 3.0, scale=3.0)
    assert plain.options == {"logit_scale": 3.0}
    capped = plain.also(torch.tanh, capped=True).also(torch.mul, 5.0, outer=5.0)
    assert capped.options == {"softcap": 5.0, "logit_scale": 15.0}
    # 5 tanh(3 x), as softcap tanh(logit_scale x / softcap)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)
    made = x
    for function, args in capped.steps:
        made = function(made, *args)
    torch.testing.assert_close(made, 5 * torch.tanh(15 * x / 5))


SHAPE = 2, 3, 4, 7


def named(index):
    """An index as the name of a test, which is the same in every process: no random numbers."""
    if isinstance(index, tuple):
        return ", ".join(map(named, index))
    return f"{index.dtype} {tuple(index.shape)}" if torch.is_tensor(index) else str(index)


LEFT = [
    1,
    (0, 1, 2),
    slice(1),
    (Ellipsis,),
    (Ellipsis, slice(0, 2), slice(None)),
    (slice(None), slice(None), 1, slice(None)),
    torch.tensor([1, 0]),
    torch.rand(2, 3) > 0.5,
    (torch.rand(2, 3) > 0.5, slice(2)),
    (0, torch.tensor([1, 0]), Ellipsis),
    (torch.rand(2, 3, 4) > 0.5, slice(None)),
]
CUT = [
    (0, 1, 2, 3),
    (Ellipsis, 0),
    (Ellipsis, slice(5)),
    (slice(None), slice(None), slice(None), slice(3)),
    None,
    (Ellipsis, None),
    torch.rand(2, 3, 4, 7) > 0.5,
    [0, 1],
    torch.ones(2, dtype=torch.int32),
    (Ellipsis, torch.tensor([0])),
]


@pytest.mark.parametrize("index", LEFT, ids=named)
def test_an_index_of_rows_is_that_of_hidden_states(index):
    hidden = torch.randn(2, 3, 4, 5)
    logits = hidden @ torch.ones(5, 7)
    rows = of_rows(index, 4)
    assert rows is not None
    torch.testing.assert_close(hidden[rows] @ torch.ones(5, 7), logits[index])


@pytest.mark.parametrize("index", CUT, ids=named)
def test_an_index_of_classes_is_not(index):
    assert of_rows(index, 4) is None


def test_a_cast():
    assert cast(torch.ones(2), torch.device("cpu"), torch.bfloat16).dtype == torch.bfloat16
