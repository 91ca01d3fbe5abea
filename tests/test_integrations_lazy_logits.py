"""Lazy logits against the logits that they stand for."""

from __future__ import annotations

import operator
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
import tiny_models as tiny

from xent.integrations.lazy_logits import LazyLogits
from xent.integrations.transformers import LogitsWarning, patch

F = torch.nn.functional
V = tiny.V
MASK = torch.tensor([[True, False, True], [False, True, True]])


@pytest.fixture(scope="module")
def heads():
    """A language model's head, and the same patched."""
    own, patched = tiny.twins("roberta", 0)
    patch(patched)
    return own.lm_head.decoder, patched.lm_head.decoder


@pytest.fixture
def pair(heads, seed):
    """Logits (2, 3, V) and lazy ones, each of hidden states of their own."""
    torch.manual_seed(seed)
    hidden = torch.randn(2, 3, 16)
    found = []
    for head in heads:
        head.zero_grad()
        own = hidden.clone().requires_grad_()
        found.append((head(own), own))
    (logits, one), (lazy, other) = found
    assert isinstance(lazy, LazyLogits)
    return logits, lazy, one, other


BIAS = torch.linspace(-1, 1, V)
KEPT = {
    "float": lambda x: x.float(),
    "to": lambda x: x.to("cpu", torch.float32),
    "type_as": lambda x: x.type_as(torch.ones(())),
    "contiguous": lambda x: x.contiguous(),
    "times": lambda x: 3 * x * 0.5,
    "times a tensor": lambda x: torch.tensor(2.0) * x,
    "torch.mul": lambda x: torch.mul(x, 2.5),
    "over": lambda x: x / 3,
    "over a tensor": lambda x: torch.div(x, torch.tensor(3.0)),
    "softcap": lambda x: 1.5 * torch.tanh(x / 1.5),
    "scaled softcap": lambda x: (x * 0.7 / 2).tanh() * 2 / 3,
    "bias": lambda x: x + BIAS,
    "bias of a row": lambda x: BIAS[None] + 2 * (x * 0.5 + BIAS[None, None]),
    "scale, bias and softcap": lambda x: torch.tanh((x / 3 + BIAS) / 2) * 2,
    "shifted": lambda x: x[..., :-1, :],
    "shifted early": lambda x: x[:, :-1].contiguous(),
    "a row": lambda x: x[1],
    "from one": lambda x: x[:, 1:, :],
    "all": lambda x: x[...],
    "masked": lambda x: x[MASK],
    "masked early": lambda x: x[..., :-1, :][MASK[:, 1:]],
    "chosen": lambda x: x[torch.tensor([1, 1, 0])],
    "flat": lambda x: x.view(-1, V),
    "flat by its size": lambda x: x.view(-1, x.size(-1)),
    "reshaped": lambda x: x.reshape((3, 2, -1)),
    "torch.reshape": lambda x: torch.reshape(x, (-1, V)),
    "flattened": lambda x: x.flatten(0, 1),
    "many": lambda x: (x.float()[:, 1:] / 2).tanh().view(-1, V) * 1.5,
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_recorded_has_the_same_loss_and_gradients(name, pair, heads):
    logits, lazy, one, other = pair
    changed, kept = KEPT[name](logits), KEPT[name](lazy)
    assert isinstance(kept, LazyLogits)
    assert (kept.shape, kept.dtype, kept.device) == (changed.shape, changed.dtype, changed.device)
    assert kept.ndim == kept.dim() == changed.ndim
    assert kept.numel() == changed.numel()
    assert len(kept) == len(changed)
    target = torch.arange(changed[..., 0].numel()).remainder(V)
    target[1] = -100
    flat = changed.reshape(-1, V), kept.reshape(-1, V)
    theirs, ours = (F.cross_entropy(x, target) for x in flat)
    theirs.backward()
    ours.backward()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)
    for mine, true in zip(heads[1].parameters(), heads[0].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, true.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(kept.tensor(), changed, rtol=1e-6, atol=1e-7)


MADE = {
    "minus": lambda x: 1 - x,
    "negative scale": lambda x: -2 * x,
    "zero": lambda x: x * 0,
    "by a column": lambda x: x * torch.tensor([[1.0], [2.0], [3.0]]),
    "a full sum": lambda x: x + torch.ones(2, 3, V),
    "a sum with itself": lambda x: x + x,
    "tanh twice": lambda x: x.tanh().tanh(),
    "a bias after tanh": lambda x: x.tanh() + BIAS,
    "some classes": lambda x: x[..., :50],
    "a class": lambda x: x[..., 0],
    "a class of a row": lambda x: x[0, :, 3],
    "a new axis": lambda x: x[None],
    "to double": lambda x: x.to(torch.float64),
    "to integers": lambda x: x.to("cpu", torch.int64),
    "a copy": lambda x: x.to(torch.float64, copy=True),
    "transposed": lambda x: x.transpose(1, 2),
    "other classes": lambda x: x.view(2, -1),
    "one row": lambda x: x.view(-1),
    "all flat": lambda x: x.flatten(),
    "argmax": lambda x: x.argmax(-1),
    "softmax": lambda x: torch.softmax(x, -1),
    "compared": lambda x: x > 0,
    "joined": lambda x: torch.cat([x, x]),
    "detached": lambda x: x.detach(),
    "matmul": lambda x: x @ torch.ones(V),
    "a power": lambda x: x**2,
    "cross entropy by axis 1": lambda x: F.cross_entropy(x, torch.ones(2, V, dtype=torch.int64)),
    "old words": lambda x: F.cross_entropy(x[0], torch.tensor([1, 2, 3]), size_average=None),
}


@pytest.mark.filterwarnings("ignore::xent.integrations.transformers.LogitsWarning")
@pytest.mark.parametrize("name", MADE)
def test_anything_else_is_of_the_logits(name, pair):
    logits, lazy, one, other = pair
    theirs, ours = MADE[name](logits), MADE[name](lazy)
    assert type(ours) is torch.Tensor
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
    if theirs.requires_grad:
        for x in (theirs, ours):
            x.sum().backward()
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"reduction": "none"},
        {"reduction": "sum", "label_smoothing": 0.2},
        {"weight": torch.linspace(0.5, 2, V), "ignore_index": 4},
    ],
)
def test_options_of_cross_entropy(options, pair):
    logits, lazy, one, other = pair
    target = torch.tensor([4, 0, 96, 4, 7, 8])
    found = []
    for x in (logits, lazy):
        loss = F.cross_entropy(x.view(-1, V), target, **options)
        (loss * torch.arange(1.0, 1 + loss.numel()).view(loss.shape)).sum().backward()
        found.append(loss)
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_probabilities_as_a_target(pair):
    logits, lazy, *_ = pair
    target = torch.softmax(torch.randn(3, V), -1)
    torch.testing.assert_close(F.cross_entropy(lazy[0], target), F.cross_entropy(logits[0], target))


@pytest.mark.filterwarnings("ignore::xent.integrations.transformers.LogitsWarning")
@pytest.mark.parametrize("change", ["mul_", "__setitem__", "made"])
def test_what_is_changed_in_place_counts(change, pair):
    logits, lazy, *_ = pair
    for x in (logits, lazy):
        if change == "mul_":
            x.mul_(2)
        elif change == "made":
            (x if x is logits else x.tensor()).sub_(BIAS)
        else:
            x[..., 5:9] = -1e4
    target = torch.arange(6)
    kept = [F.cross_entropy((x / 2).view(-1, V)[:6].float(), target) for x in (logits, lazy)]
    torch.testing.assert_close(kept[1], kept[0])


def test_a_slice_is_not_changed_in_place(pair):
    text = "LazyLogits: logits has been changed in place by mul_, expected logits that are no slice"
    with pytest.raises(TypeError, match=text):
        pair[1][:, 1:].mul_(2)
    with pytest.raises(TypeError, match="in place by __setitem__"):
        pair[1].view(-1, V)[0] = 0


def test_they_are_made_once(pair):
    lazy = pair[1]
    with pytest.warns(LogitsWarning, match=r"RobertaForMaskedLM: sum made the logits \(2, 3, 97\)"):
        lazy.sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lazy.sum()
    assert lazy.tensor() is lazy.tensor()
    assert np.asarray(lazy.tensor().detach()).shape == (2, 3, V)


def test_it_says_what_it_is(pair):
    lazy = pair[1]
    assert repr(lazy.view(-1, V)) == "LazyLogits((6, 97), torch.float32)"
    assert lazy.requires_grad
    assert lazy.is_floating_point()
    assert not hasattr(lazy, "__array_interface__")
    with pytest.raises(AttributeError, match="no_such_thing"):
        operator.attrgetter("no_such_thing")(lazy)
