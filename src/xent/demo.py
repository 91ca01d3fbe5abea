"""One small classifier, trained three ways that must agree: what `xent demo` shows.

The network has 64 pixels, 64 hidden units with ReLU and 10 classes; the data are the handwritten
digits that scikit-learn ships. By hand, it is NumPy layers with a forward and a backward each, and
`xent.manual.CrossEntropyLoss` starts the backward; then it is torch with torch's cross entropy, and
torch with xent's. All start from the same parameters and see the same batches, in float64, so that
what differs is rounding. Needs `pip install "xent[demo]"`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import xent

SIZES = (64, 64, 10)
BATCH_ROWS = 64
LEARNING_RATE = 0.1
MOMENTUM = 0.9

BY_HAND = "NumPy layers, xent's loss"
TORCH = "torch, torch's loss"
TORCH_XENT = "torch, xent's loss"

Tick = Callable[[str, int, int], object]  # way, steps done, steps of this way


class Digits(NamedTuple):
    """The images, (N, 64) of float64, and their digits, (N,) of int64; every fifth is for test."""

    images: np.ndarray
    target: np.ndarray
    test_images: np.ndarray
    test_target: np.ndarray


@dataclass(frozen=True)
class Training:
    """One way: the loss of every batch in nats, the share of test images it gets right, time."""

    way: str
    losses: tuple[float, ...]
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The three ways, from one seed."""

    seed: int
    epochs: int
    rows: int
    trainings: tuple[Training, ...]

    def differences(self) -> dict[tuple[str, str], float]:
        """The largest difference between the loss curves of each pair of ways, in nats."""
        return {
            (a.way, b.way): float(np.max(np.abs(np.subtract(a.losses, b.losses))))
            for a, b in combinations(self.trainings, 2)
        }


def compare(epochs: int, seed: int, tick: Tick = lambda *_: None) -> Comparison:
    """Train the three ways.

    Args:
        epochs: how often every image is seen, >= 1.
        seed: of the start and of the order of the images, >= 0.
        tick: called after every step with the way's name, its steps done and its steps in all.

    Returns:
        The same record for the same arguments, but for the seconds.

    >>> comparison = compare(epochs=1, seed=0)
    >>> max(comparison.differences().values()) < 1e-12
    True
    """
    import torch

    digits = load_digits()
    rng = np.random.default_rng(seed)
    start = start_parameters(rng)
    rows = len(digits.target)
    batches = drawn_batches(rng, rows, epochs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small only wait for a second thread
    try:
        trainings = (
            train_by_hand(digits, start, batches, tick),
            train_torch(TORCH, digits, start, batches, tick),
            train_torch(TORCH_XENT, digits, start, batches, tick),
        )
    finally:
        torch.set_num_threads(threads)
    return Comparison(seed, epochs, rows, trainings)


def load_digits() -> Digits:
    """The 1,797 digits, with pixels of mean 0 and standard deviation 1 over the training images."""
    from sklearn import datasets

    images, target = datasets.load_digits(return_X_y=True)
    test = np.arange(len(target)) % 5 == 4
    images = (images - images[~test].mean()) / images[~test].std()
    target = target.astype(np.int64)
    return Digits(images[~test], target[~test], images[test], target[test])


def start_parameters(rng: np.random.Generator) -> list[np.ndarray]:
    """A weight (inputs, outputs) and a bias (outputs,) of each linear layer.

    Normal weights of variance 2 / inputs, as He et al. (2015), Delving deep into rectifiers,
    section 2.2.
    """
    parameters = []
    for inputs, outputs in pairwise(SIZES):
        parameters.append(rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs))
        parameters.append(np.zeros(outputs))
    return parameters


def drawn_batches(rng: np.random.Generator, rows: int, epochs: int) -> list[np.ndarray]:
    """The row indices of every step: in each epoch all rows, in another order."""
    orders = [rng.permutation(rows) for _ in range(epochs)]
    return [order[i : i + BATCH_ROWS] for order in orders for i in range(0, rows, BATCH_ROWS)]


class Linear:
    """values @ weight + bias."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, values: np.ndarray) -> np.ndarray:
        """(N, inputs) -> (N, outputs)."""
        self.values = values
        return values @ self.weight + self.bias

    def backward(self, upstream: np.ndarray) -> np.ndarray:
        """(N, outputs) -> the derivative by the values; keeps those by weight and bias."""
        self.gradients = [self.values.T @ upstream, upstream.sum(axis=0)]
        return upstream @ self.weight.T


class ReLU:
    """max(values, 0)."""

    def forward(self, values: np.ndarray) -> np.ndarray:
        """An array of the same shape."""
        self.positive = values > 0
        return np.where(self.positive, values, 0.0)

    def backward(self, upstream: np.ndarray) -> np.ndarray:
        """The upstream where the value was positive, else 0."""
        return np.where(self.positive, upstream, 0.0)


def train_by_hand(
    digits: Digits, start: list[np.ndarray], batches: list[np.ndarray], tick: Tick
) -> Training:
    """NumPy layers: forward through them, backward through them in reverse order."""
    parameters = [parameter.copy() for parameter in start]
    velocities = [np.zeros_like(parameter) for parameter in parameters]
    first, second = Linear(*parameters[:2]), Linear(*parameters[2:])
    layers = [first, ReLU(), second]
    criterion = xent.manual.CrossEntropyLoss()

    def network(values: np.ndarray) -> np.ndarray:
        for layer in layers:
            values = layer.forward(values)
        return values

    losses, begin = [], time.perf_counter()
    for batch in batches:
        losses.append(float(criterion.forward(network(digits.images[batch]), digits.target[batch])))
        upstream = criterion.backward()
        for layer in reversed(layers):
            upstream = layer.backward(upstream)
        descend(parameters, velocities, first.gradients + second.gradients)
        tick(BY_HAND, len(losses), len(batches))
    seconds = time.perf_counter() - begin
    right = network(digits.test_images).argmax(axis=1) == digits.test_target
    return Training(BY_HAND, tuple(losses), float(right.mean()), seconds)


def train_torch(
    way: str, digits: Digits, start: list[np.ndarray], batches: list[np.ndarray], tick: Tick
) -> Training:
    """The same with torch's derivatives; the way says whose cross entropy it is."""
    import torch

    criterion = {
        TORCH: torch.nn.functional.cross_entropy,
        TORCH_XENT: xent.cross_entropy,
    }[way]
    images, target, test_images, test_target = map(torch.from_numpy, digits)
    parameters = [torch.tensor(parameter, requires_grad=True) for parameter in start]
    velocities = [torch.zeros_like(parameter) for parameter in parameters]

    def network(values: torch.Tensor) -> torch.Tensor:
        weight, bias, weight_2, bias_2 = parameters
        return torch.relu(values @ weight + bias) @ weight_2 + bias_2

    losses, begin = [], time.perf_counter()
    for batch in map(torch.from_numpy, batches):
        loss = criterion(network(images[batch]), target[batch])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            descend(parameters, velocities, gradients)
        losses.append(loss.item())
        tick(way, len(losses), len(batches))
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        right = network(test_images).argmax(dim=1) == test_target
    return Training(way, tuple(losses), right.double().mean().item(), seconds)


def descend(parameters: Any, velocities: Any, gradients: Any) -> None:
    """One step of gradient descent with momentum, in place: torch.optim.SGD's, written plainly."""
    for parameter, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
        velocity *= MOMENTUM
        velocity += gradient
        parameter -= LEARNING_RATE * velocity


def draw(comparison: Comparison, file: Path) -> None:
    """The loss curves as a picture, in the format that the file's ending names."""
    from matplotlib.figure import Figure

    from xent.plots import training_curves

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = {training.way: training.losses for training in comparison.trainings}
    training_curves(losses, figure.add_subplot())
    figure.savefig(file, dpi=150)
