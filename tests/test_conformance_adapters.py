"""conformance/adapters: what an object is, and where it is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from xent.conformance.adapters import ADAPTERS, candidates, load, required, signature_of


def first(found: object) -> str:
    return next(iter(candidates(found)))[0].name


def keras_like(y_true, y_pred):
    return y_pred


def head(hidden, linear_weight, target, *, bias=None):
    return torch.nn.functional.cross_entropy(hidden @ linear_weight.T, target)


def in_numpy(logits, target):
    return np.mean(logits)


class Layer:
    """forward and backward."""

    def forward(self, logits, target):
        return 0.0

    def backward(self, upstream=1.0):
        return 0.0


class Head(torch.nn.Module):
    """A module of a linear head."""

    def forward(self, hidden, lin_weight, target):
        return head(hidden, lin_weight, target)


def test_what_an_object_is() -> None:
    assert first(torch.nn.functional.cross_entropy) == "torch"
    assert first(torch.nn.CrossEntropyLoss) == "torch-module"
    assert first(Layer) == "numpy-class"
    assert first(Layer()) == "numpy-pair"
    assert first((in_numpy, in_numpy)) == "numpy-pair"
    assert first(keras_like) == "keras"
    assert first(head) == "linear"
    assert first(Head) == "linear-module"


def test_every_adapter_says_what_it_is() -> None:
    for name, adapter in ADAPTERS.items():
        assert name == adapter.name
        assert adapter.about


def test_load_a_file_and_a_pair(own_folder: Path) -> None:
    Path("mine.py").write_text("class A:\n    x = 1\ndef f(): return 2\ndef g(): return 3\n")
    assert load("mine.py:f")() == 2
    assert load("mine.py:A.x") == 1
    one, other = load("mine.py:f,g")
    assert (one(), other()) == (2, 3)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("math", "value 'math', expected module:function or file.py:function"),
        ("math:", "value 'math:'"),
        ("none.py:f", "no file none.py, expected a file that exists"),
        ("math:squirt", "no squirt in math, expected one of acos"),
    ],
)
def test_what_is_not_there(name: str, told: str) -> None:
    with pytest.raises(ValueError, match="grade: target has") as caught:
        load(name)
    assert told in str(caught.value)


def test_signatures() -> None:
    assert required(head) == ["hidden", "linear_weight", "target"]
    assert signature_of(head, ADAPTERS["linear"]) == (["bias"], False)
    names, more = signature_of(torch.nn.functional.cross_entropy, ADAPTERS["torch"])
    assert {"weight", "ignore_index", "reduction", "label_smoothing"} <= set(names)
    assert not more
