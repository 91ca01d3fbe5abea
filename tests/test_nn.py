"""The torch modules as drop-ins."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys

import pytest
import torch

import xent.nn

NAMES = ["CrossEntropyLoss", "LinearCrossEntropyLoss", "NLLLoss", "Softmax", "LogSoftmax"]


@pytest.mark.parametrize("name", NAMES)
def test_the_constructor_and_forward_take_torchs_arguments(name):
    ours, torchs = getattr(xent.nn, name), getattr(torch.nn, name)
    assert issubclass(ours, torchs)
    mine, theirs = (list(inspect.signature(c.__init__).parameters) for c in (ours, torchs))
    assert mine[: len(theirs)] == theirs
    mine, theirs = (list(inspect.signature(c.forward).parameters) for c in (ours, torchs))
    assert mine == theirs


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_torchs(rng, reduction):
    w = torch.from_numpy(rng.random(5))
    x = torch.from_numpy(rng.normal(size=(6, 5)))
    y = torch.tensor([0, 4, 2, -1, 3, 2])
    arguments = (w, None, -1, None, reduction, 0.1)
    got = xent.nn.CrossEntropyLoss(*arguments)(input=x, target=y)
    torch.testing.assert_close(got, torch.nn.CrossEntropyLoss(*arguments)(x, y))
    log_probs = torch.log_softmax(x, 1)
    got = xent.nn.NLLLoss(*arguments[:5])(log_probs, y)
    torch.testing.assert_close(got, torch.nn.NLLLoss(*arguments[:5])(log_probs, y))


def test_softmax_is_torchs(rng):
    x = torch.from_numpy(rng.normal(size=(2, 3, 4)))
    for name in ("Softmax", "LogSoftmax"):
        for dim in (0, 1, -1):
            got, right = (getattr(m, name)(dim=dim)(x) for m in (xent.nn, torch.nn))
            torch.testing.assert_close(got, right)
        with pytest.warns(UserWarning, match=f"^{name}: dim is not given, expected an integer$"):
            got = getattr(xent.nn, name)()(x)
        torch.testing.assert_close(got, getattr(torch.nn, name)(dim=0)(x))


@pytest.mark.parametrize(
    ("words", "reduction"),
    [
        ({"size_average": False}, "sum"),
        ({"size_average": True}, "mean"),
        ({"reduce": False}, "none"),
    ],
)
def test_torchs_deprecated_words_still_mean_what_they_meant(words, reduction):
    for name in ("CrossEntropyLoss", "NLLLoss"):
        with pytest.warns(UserWarning, match="size_average and reduce args will be deprecated"):
            assert getattr(xent.nn, name)(**words).reduction == reduction


def test_the_weight_is_a_buffer():
    loss = xent.nn.CrossEntropyLoss(torch.tensor([1.0, 2.0]))
    assert list(loss.state_dict()) == ["weight"]
    again = xent.nn.CrossEntropyLoss(torch.zeros(2))
    again.load_state_dict(loss.state_dict())
    assert again.weight.tolist() == [1, 2]
    assert loss.to(torch.float64).weight.dtype == torch.float64
    theirs = torch.nn.CrossEntropyLoss(torch.zeros(2))
    theirs.load_state_dict(loss.state_dict())


def test_copies_and_pickles_are_the_same_loss(rng):
    loss = xent.nn.CrossEntropyLoss(
        torch.tensor([1.0, 2.0, 0.5]),
        label_smoothing=0.1,
        z_loss=1e-3,
        softcap=5.0,
        logit_scale=0.5,
        normalizer=7,
        axis=-1,
        plan=xent.Plan(chunk_bytes=100),
    )
    x, y = torch.from_numpy(rng.normal(size=(4, 3))).float(), torch.tensor([0, 1, 2, 1])
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(again(x, y), loss(x, y))
        assert repr(again) == repr(loss)
    options = {"z_loss": 1e-3, "softcap": 5.0, "logit_scale": 0.5, "normalizer": 7, "axis": -1}
    right = xent.cross_entropy(x, y, loss.weight, label_smoothing=0.1, **options)
    assert torch.equal(loss(x, y), right)


def test_a_repr_shows_what_was_set():
    assert repr(xent.nn.CrossEntropyLoss()) == "CrossEntropyLoss()"
    loss = xent.nn.CrossEntropyLoss(torch.ones(3), reduction="sum", z_loss=0.5)
    assert repr(loss) == "CrossEntropyLoss(weight=(3,), reduction='sum', z_loss=0.5)"
    assert repr(xent.nn.NLLLoss(ignore_index=1)) == "NLLLoss(ignore_index=1)"


def test_every_attribute_changed_later_is_used_and_checked(rng):
    x, y = torch.from_numpy(rng.normal(size=(4, 3))), torch.tensor([0, 1, 2, 1])
    loss = xent.nn.CrossEntropyLoss(torch.ones(3))
    changes = {
        "ignore_index": 1,
        "label_smoothing": 0.2,
        "z_loss": 0.1,
        "softcap": 4.0,
        "logit_scale": 2.0,
        "normalizer": 3.0,
        "axis": -1,
        "plan": xent.Plan(chunk_bytes=1),
    }
    for name, value in changes.items():
        setattr(loss, name, value)
    loss.weight = torch.tensor([1.0, 2.0, 0.5])
    assert torch.equal(loss(x, y), xent.cross_entropy(x, y, loss.weight, **changes))
    loss.label_smoothing = 2.0
    with pytest.raises(ValueError, match="cross_entropy: label_smoothing has value 2"):
        loss(x, y)


def test_modules_are_found_moved_and_hooked_as_torchs():
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), xent.nn.LogSoftmax(dim=1))
    model.loss = xent.nn.NLLLoss(torch.tensor([1.0, 3.0]), reduction="sum")
    assert isinstance(model.loss, torch.nn.NLLLoss)
    assert "loss.weight" in model.state_dict()
    model.to(torch.bfloat16)
    assert model.loss.weight.dtype == torch.bfloat16
    assert not model.loss.weight.requires_grad
    seen = []
    model.loss.register_forward_hook(lambda module, given, result: seen.append(result))
    value = model.loss(model[:2](torch.zeros(2, 3, dtype=torch.bfloat16)), torch.tensor([0, 1]))
    assert seen == [value]
    assert value.dtype == torch.bfloat16
    assert repr(model.loss) == "NLLLoss(weight=(2,), reduction='sum')"
    assert repr(model[1]) == "LogSoftmax(dim=1)"


@pytest.mark.parametrize(
    ("name", "options", "kind", "text"),
    [
        (
            "CrossEntropyLoss",
            {"reduction": "avg"},
            ValueError,
            "CrossEntropyLoss: reduction has value 'avg', expected 'none', 'sum' or 'mean'",
        ),
        (
            "CrossEntropyLoss",
            {"label_smoothing": -0.1},
            ValueError,
            "CrossEntropyLoss: label_smoothing has value -0.1, expected a number in [0, 1]",
        ),
        (
            "CrossEntropyLoss",
            {"softcap": 0},
            ValueError,
            "CrossEntropyLoss: softcap has value 0, expected a finite number > 0, or None",
        ),
        (
            "CrossEntropyLoss",
            {"normalizer": 2, "reduction": "sum"},
            ValueError,
            "CrossEntropyLoss: normalizer has a value with reduction 'sum', "
            "expected reduction 'mean'",
        ),
        (
            "CrossEntropyLoss",
            {"ignore_index": None},
            TypeError,
            "CrossEntropyLoss: ignore_index has type NoneType, expected an integer",
        ),
        (
            "NLLLoss",
            {"reduction": "batchmean"},
            ValueError,
            "NLLLoss: reduction has value 'batchmean', expected 'none', 'sum' or 'mean'",
        ),
    ],
)
def test_a_wrong_option_is_told_at_construction(name, options, kind, text):
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        getattr(xent.nn, name)(**options)


def test_a_network_trains_as_with_torchs_losses(rng):
    x, y = torch.from_numpy(rng.normal(size=(40, 6))), torch.from_numpy(rng.integers(0, 4, 40))
    start = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    start.double()
    weight = torch.from_numpy(rng.random(4))
    pairs = [
        [library.nn.CrossEntropyLoss(weight, label_smoothing=0.1) for library in (torch, xent)],
        [
            lambda x, y, library=library: library.nn.NLLLoss(weight)(
                library.nn.LogSoftmax(dim=1)(x), y
            )
            for library in (torch, xent)
        ],
    ]
    for pair in pairs:
        curves = []
        for loss in pair:
            model, curve = copy.deepcopy(start), []
            optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
            for _ in range(100):
                optimizer.zero_grad()
                value = loss(model(x), y)
                value.backward()
                optimizer.step()
                curve.append(value.item())
            curves.append(curve)
        assert curves[1] == pytest.approx(curves[0], rel=1e-6)
        assert curves[1][-1] < curves[1][0]


def test_a_hundred_steps_of_adam_give_torchs_losses(rng):
    start = torch.from_numpy(rng.normal(size=(3, 10)))
    y = torch.from_numpy(rng.integers(0, 10, 3))
    curves = []
    for loss in (torch.nn.CrossEntropyLoss(), xent.nn.CrossEntropyLoss()):
        x = torch.nn.Parameter(start.clone())
        optimizer, curve = torch.optim.Adam([x], lr=0.5), []
        for _ in range(100):
            optimizer.zero_grad()
            value = loss(x, y)
            value.backward()
            optimizer.step()
            curve.append(value.item())
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-9)
    assert curves[1][-1] < curves[1][0] / 10


@pytest.mark.parametrize("out_features", [(), (2, 3)])
def test_a_linear_head_is_torchs(rng, out_features):
    shape = {"out_features": out_features, "bias": True, "dtype": torch.float64}
    torchs = torch.nn.LinearCrossEntropyLoss(4, 5, label_smoothing=0.1, **shape)
    ours = xent.nn.LinearCrossEntropyLoss(4, 5, label_smoothing=0.1, **shape)
    ours.load_state_dict(torchs.state_dict())
    hidden = torch.from_numpy(rng.normal(size=(3, 4)))
    target = torch.from_numpy(rng.integers(0, 5, (3, *out_features)))
    for module in (ours, torchs):
        module(hidden, target).backward()
    torch.testing.assert_close(ours(hidden, target), torchs(hidden, target))
    torch.testing.assert_close(ours.linear.weight.grad, torchs.linear.weight.grad)
    assert repr(ours).startswith("LinearCrossEntropyLoss(\n  label_smoothing=0.1")


def test_a_linear_head_tells_what_is_wrong_with_its_options():
    with pytest.raises(ValueError, match="LinearCrossEntropyLoss: z_loss has value -1, expected"):
        xent.nn.LinearCrossEntropyLoss(4, 5, z_loss=-1)


def test_a_linear_head_where_torch_has_none():
    script = """
import torch
vars(torch.nn).pop("LinearCrossEntropyLoss", None)
import xent, xent.nn
torch.manual_seed(0)
h, t = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 4, -100])
options = {"weight": torch.arange(5.0), "label_smoothing": 0.1}
loss = xent.nn.LinearCrossEntropyLoss(4, 5, bias=True, **options)
torch.testing.assert_close(loss(h, t), xent.cross_entropy(loss.linear(h), t, **options))
wide = xent.nn.LinearCrossEntropyLoss(4, 5, out_features=(2,), reduction="none")
assert wide(h, torch.ones(6, 2, dtype=torch.int64)).shape == (6, 2)
assert [*loss.state_dict()] == ["weight", "linear.weight", "linear.bias"]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
