"""conformance/subject: every kind of implementation behind one face."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import xent
from xent import manual
from xent.conformance import draws, expect
from xent.conformance import subject as subject_module
from xent.conformance.draws import Case
from xent.conformance.findings import NotOffered
from xent.conformance.subject import prepare

sys.path.insert(0, str(Path(__file__).parent))
from wrong_losses import cross_entropy


def soft_alone(logits, target):
    if target.shape != logits.shape:
        raise ValueError("probabilities")
    return torch.nn.functional.cross_entropy(logits, target)


def keywords(logits, target, **options):
    if set(options) - {"weight", "reduction"}:
        raise TypeError(f"unexpected {options}")
    return cross_entropy(logits, target, **options)


def forward(logits, target):
    return float(xent.cross_entropy(logits, target)), (logits, target)


def backward(kept, upstream):
    return xent.cross_entropy_vjp(*kept)[1](upstream)


@pytest.mark.parametrize(
    ("found", "adapter", "natural"),
    [
        (cross_entropy, None, "mean"),
        (torch.nn.CrossEntropyLoss, None, "mean"),
        (soft_alone, None, "mean"),
        ((forward, backward), None, "mean"),
        (manual.CrossEntropyLoss, "numpy-class", "mean"),
        (xent.linear_cross_entropy, None, "mean"),
        (lambda x, y: cross_entropy(x, y, reduction="sum"), "torch", "sum"),
        (lambda x, y: cross_entropy(x, y, reduction="none"), "torch", "none"),
    ],
)
def test_loss_and_gradient(found, adapter, natural: str, rng: np.random.Generator) -> None:
    subject = prepare(found, adapter)
    assert subject.natural == natural
    assert subject.best == "float64"
    for case in draws.plain(rng, reduction=natural):
        outcome = subject.run(case)
        exact = expect.expected(case, expect.BOTH)
        np.testing.assert_allclose(outcome.loss, exact["loss"], rtol=1e-9)
        np.testing.assert_allclose(outcome.dlogits, exact["dlogits"], rtol=1e-9, atol=1e-12)


def test_options_that_it_does_not_take() -> None:
    subject = prepare(lambda x, y: cross_entropy(x, y), "torch")
    assert not subject.names
    with pytest.raises(NotOffered, match="no weight"):
        subject.run(Case(np.eye(2), np.arange(2), np.ones(2)))
    with pytest.raises(NotOffered, match="no reduction 'sum'"):
        subject.run(Case(np.eye(2), np.arange(2), reduction="sum"))


def test_options_that_it_only_seems_to_take() -> None:
    assert set(prepare(keywords).names) == {"weight", "reduction", "linear_bias"}


def test_arguments_the_other_way_round(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras's order and words, of any library: no Keras is needed for them."""

    def loss(y_true, y_pred, from_logits=False, ignore_class=None):
        assert from_logits
        return cross_entropy(y_pred, y_true, ignore_index=ignore_class or -100)

    monkeypatch.setattr(subject_module, "_keras_library", lambda: "torch")
    subject = prepare(loss, "keras")
    assert subject.adapter.order == "target"
    assert subject.constants == {"from_logits": True}
    assert subject.names == {"ignore_index": "ignore_class"}
    (case,) = draws.plain(rng, ((3, 4),))
    for asked in (case, draws.ignoring(case, rng, 1)):
        outcome, exact = subject.run(asked), expect.expected(asked, expect.BOTH)
        np.testing.assert_allclose(outcome.loss, exact["loss"], rtol=1e-9)
        np.testing.assert_allclose(outcome.dlogits, exact["dlogits"], rtol=1e-9, atol=1e-12)


def test_keras_itself(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    if "keras" not in sys.modules:
        monkeypatch.setenv("KERAS_BACKEND", "torch")
    losses = pytest.importorskip("keras.losses")
    subject = prepare(losses.sparse_categorical_crossentropy)
    assert subject.adapter.name == "keras"
    assert subject.natural == "none"
    (case,) = draws.plain(rng, ((3, 4),), reduction="none", dtype="float32")
    outcome, exact = subject.run(case), expect.expected(case, expect.BOTH)
    np.testing.assert_allclose(outcome.loss, exact["loss"], rtol=1e-5)
    if outcome.dlogits is not None:  # Keras on NumPy has none
        np.testing.assert_allclose(outcome.dlogits, exact["dlogits"], rtol=1e-5, atol=1e-6)


def test_options_that_torch_has_not(rng: np.random.Generator) -> None:
    options = {"z_loss", "softcap", "logit_scale", "normalizer"}
    assert options <= set(prepare(xent.cross_entropy, "torch").names)
    assert options <= set(prepare(xent.manual.CrossEntropyLoss).names)
    assert not options & set(prepare(torch.nn.functional.cross_entropy).names)


def test_what_fits_no_adapter() -> None:
    with pytest.raises(ValueError, match=r"no adapter fits: torch: TypeError"):
        prepare(lambda: 0, "torch")


def test_a_linear_head_refuses_what_the_product_spoils() -> None:
    subject = prepare(xent.linear_cross_entropy)
    with pytest.raises(NotOffered, match="infinite logits"):
        subject.run(Case(np.array([[np.inf, 0.0]]), np.array([0])))
