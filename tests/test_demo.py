"""demo.py: the three ways are one, and each part does what its name says."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import image
from sklearn import datasets

import xent
from xent import demo


@pytest.fixture(scope="module")
def comparison() -> demo.Comparison:
    """As `xent demo` runs it; its seed stands in the record."""
    return demo.compare(10, int(os.environ.get("XENT_SEED", secrets.randbits(32))))


def without_seconds(comparison: demo.Comparison) -> list[demo.Training]:
    return [dataclasses.replace(training, seconds=0) for training in comparison.trainings]


def test_the_three_loss_curves_are_one(comparison: demo.Comparison) -> None:
    """Float64 and 230 steps: measured 1e-15 nats, allowed 1e-10 of every loss."""
    by_hand, torchs, xents = (training.losses for training in comparison.trainings)
    assert len(torchs) == 10 * 23
    np.testing.assert_allclose(by_hand, torchs, rtol=1e-10, err_msg=f"{comparison.seed=}")
    np.testing.assert_allclose(xents, torchs, rtol=1e-10, err_msg=f"{comparison.seed=}")


def test_every_way_learns_the_digits(comparison: demo.Comparison) -> None:
    for training in comparison.trainings:
        assert training.accuracy > 0.95, comparison
        assert max(training.losses[-23:]) < 0.1 * training.losses[0], comparison
        assert training.seconds > 0


def test_accuracy_is_a_share_of_the_test_images(comparison: demo.Comparison) -> None:
    for training in comparison.trainings:
        right = training.accuracy * 359
        assert right == pytest.approx(round(right), abs=1e-9)


def test_a_seed_repeats_a_run_and_another_seed_does_not(seed: int) -> None:
    one, again, other = (demo.compare(1, drawn) for drawn in (seed, seed, seed + 1))
    assert without_seconds(one) == without_seconds(again)
    assert one.trainings[0].losses[0] != other.trainings[0].losses[0]


def test_every_way_uses_the_loss_that_it_names(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The curves cannot tell whose loss it was: they are one."""
    calls: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return function(*arguments)

        return call

    layer, functional = xent.manual.CrossEntropyLoss, torch.nn.functional
    monkeypatch.setattr(layer, "forward", watched(demo.BY_HAND, layer.forward))
    monkeypatch.setattr(functional, "cross_entropy", watched(demo.TORCH, functional.cross_entropy))
    monkeypatch.setattr(xent, "cross_entropy", watched(demo.TORCH_XENT, xent.cross_entropy))
    ways = [training.way for training in demo.compare(1, seed).trainings]
    assert ways == [demo.BY_HAND, demo.TORCH, demo.TORCH_XENT]
    assert calls == [way for way in ways for _ in range(23)]


def test_differences_are_the_largest_of_each_pair() -> None:
    curves = {"a": (3.0, 2.0, 1.0), "b": (3.0, 2.5, 1.0), "c": (3.0, 2.0, 1.125)}
    trainings = tuple(demo.Training(way, losses, 1.0, 0.1) for way, losses in curves.items())
    differences = demo.Comparison(0, 1, 3, trainings).differences()
    assert differences == {("a", "b"): 0.5, ("a", "c"): 0.125, ("b", "c"): 0.5}


def test_the_records_are_frozen(comparison: demo.Comparison) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        comparison.seed = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        comparison.trainings[0].losses = ()  # type: ignore[misc]


def test_tick_follows_every_step_and_the_threads_come_back(seed: int) -> None:
    threads, ticks = torch.get_num_threads(), []
    demo.compare(1, seed, lambda *tick: ticks.append(tick))
    ways = (demo.BY_HAND, demo.TORCH, demo.TORCH_XENT)
    assert ticks == [(way, step, 23) for way in ways for step in range(1, 24)]
    assert torch.get_num_threads() == threads


def test_the_threads_come_back_from_an_interrupted_run(seed: int) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        demo.compare(1, seed, interrupt)
    assert torch.get_num_threads() == threads


def test_every_fifth_digit_is_for_the_test() -> None:
    images, target = datasets.load_digits(return_X_y=True)
    digits = demo.load_digits()
    np.testing.assert_array_equal(digits.test_target, target[4::5])
    np.testing.assert_array_equal(digits.target, np.delete(target, np.s_[4::5]))
    assert len(digits.images) == 1438
    assert digits.images.mean() == pytest.approx(0, abs=1e-12)
    assert digits.images.std() == pytest.approx(1, rel=1e-12)
    pixels = np.delete(images, np.s_[4::5], axis=0)
    shift, scale = pixels.mean(), pixels.std()
    np.testing.assert_allclose(digits.test_images * scale + shift, images[4::5], atol=1e-12)


def test_the_start_is_he_normal(rng: np.random.Generator) -> None:
    weight, bias, weight_2, bias_2 = demo.start_parameters(rng)
    assert [p.shape for p in (weight, bias, weight_2, bias_2)] == [(64, 64), (64,), (64, 10), (10,)]
    assert not bias.any()
    assert not bias_2.any()
    # 4,096 and 640 normal numbers: six standard errors of their standard deviation.
    assert weight.std() == pytest.approx(np.sqrt(2 / 64), rel=0.07)
    assert weight_2.std() == pytest.approx(np.sqrt(2 / 64), rel=0.17)


def test_every_epoch_has_all_rows_in_an_order_of_its_own(rng: np.random.Generator) -> None:
    batches = demo.drawn_batches(rng, 150, 3)
    assert [len(batch) for batch in batches] == 3 * [64, 64, 22]
    orders = [np.concatenate(batches[first : first + 3]) for first in (0, 3, 6)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(150))
    assert len({tuple(order) for order in [*orders, np.arange(150)]}) == 4


def test_layers_have_torchs_derivatives(rng: np.random.Generator) -> None:
    values, weight, bias = rng.normal(size=(5, 4)), rng.normal(size=(4, 3)), rng.normal(size=3)
    upstream = rng.normal(size=(5, 3))
    linear, relu = demo.Linear(weight, bias), demo.ReLU()
    result = relu.forward(linear.forward(values))
    by_hand = [linear.backward(relu.backward(upstream)), *linear.gradients]

    tensors = [torch.tensor(array, requires_grad=True) for array in (values, weight, bias)]
    torchs = torch.relu(tensors[0] @ tensors[1] + tensors[2])
    np.testing.assert_allclose(result, torchs.detach(), rtol=1e-12, atol=1e-14)
    derivatives = torch.autograd.grad(torchs, tensors, torch.tensor(upstream))
    for mine, theirs in zip(by_hand, derivatives, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-14)


def test_descend_is_torchs_sgd_with_momentum(rng: np.random.Generator) -> None:
    start, gradients = rng.normal(size=6), rng.normal(size=(4, 6))
    parameter, velocity = start.copy(), np.zeros(6)
    torchs = torch.nn.Parameter(torch.tensor(start))
    sgd = torch.optim.SGD([torchs], lr=demo.LEARNING_RATE, momentum=demo.MOMENTUM)
    for gradient in gradients:
        demo.descend([parameter], [velocity], [gradient])
        torchs.grad = torch.tensor(gradient)
        sgd.step()
    np.testing.assert_allclose(parameter, torchs.detach(), rtol=1e-13, atol=1e-14)


def test_the_figure_shows_the_curves(comparison: demo.Comparison, tmp_path: Path) -> None:
    file = tmp_path / "curves.png"
    demo.draw(comparison, file)
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(file)
    assert pixels.shape == (675, 1200, 4)
    assert np.unique(pixels[..., 0]).size > 20, "an empty picture"


def test_the_figure_takes_the_format_of_the_ending(
    comparison: demo.Comparison, tmp_path: Path
) -> None:
    demo.draw(comparison, tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text()
    assert text.startswith("<?xml")
    assert "<svg" in text
