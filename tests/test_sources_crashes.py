"""Where the documents' code fails, changes what it was given, or cannot tell (docs/sources.md).

Each test runs the step that fails, as short as it can be written, and the library on the same
input.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import xent
import xent.nn
from xent import manual

LOGITS = torch.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
TARGET = torch.tensor([2, 0])
DIGITS = 5e-5


class LogSoftmax(torch.autograd.Function):
    """Its backward writes the result over the upstream, and it has no setup_context."""

    @staticmethod
    def forward(ctx, logits):
        ctx.save_for_backward(logits.softmax(1))
        return logits.log_softmax(1)

    @staticmethod
    def backward(ctx, upstream):
        (probabilities,) = ctx.saved_tensors
        return upstream.sub_(probabilities * upstream.sum(1, keepdim=True))


# What was passed is changed, or a dtype or device is not the logits'


def test_backward_writes_over_its_upstream() -> None:
    logits, upstream = LOGITS.clone().requires_grad_(), torch.ones(2, 3)
    torch.autograd.grad(LogSoftmax.apply(logits), logits, upstream)
    assert_allclose(upstream[0], [0.7299, 0.2658, -0.9957], atol=DIGITS)
    with pytest.raises(RuntimeError, match="single memory location"):
        LogSoftmax.apply(logits).sum().backward()

    upstream = torch.ones(2, 3)
    (right,) = torch.autograd.grad(xent.log_softmax(logits), logits, upstream)
    assert_allclose(right[0], [0.7299, 0.2658, -0.9957], atol=DIGITS)
    assert upstream.eq(1).all()
    xent.log_softmax(logits).sum().backward()
    assert logits.grad is not None
    assert_allclose(logits.grad, right)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_one_hot_of_another_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.diag(torch.ones(2, dtype=dtype)) @ torch.zeros(2, 3)
    logits = LOGITS.to(dtype).requires_grad_()
    xent.cross_entropy(logits, TARGET).backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert_allclose(logits.grad.double()[0], [0.0450, 0.1224, -0.1674], atol=1e-3)


def test_one_hot_of_another_device() -> None:
    elsewhere = torch.zeros(2, 3, device="meta")  # a device that every machine has
    assert torch.zeros(elsewhere.shape).device != elsewhere.device
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logits = LOGITS.clone().to(device).requires_grad_()
    xent.cross_entropy(logits, TARGET.to(device)).backward()
    assert logits.grad is not None
    assert logits.grad.device == logits.device
    assert_allclose(logits.grad.cpu()[0], [0.0450, 0.1224, -0.1674], atol=DIGITS)


# Ignored labels


@pytest.mark.parametrize("ignored", [-100, 255])
def test_an_ignored_label_is_looked_up(ignored: int) -> None:
    target = torch.tensor([2, ignored])
    with pytest.raises(IndexError, match="out of bounds"):
        LOGITS.log_softmax(1)[torch.arange(2), target]
    loss = xent.cross_entropy(LOGITS, target, ignore_index=ignored)
    assert_allclose(loss, 0.4076, atol=DIGITS)


def test_ignore_index_is_looked_up_where_nothing_is_ignored() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        torch.zeros(2, 3)[torch.arange(2), -100] = 0
    logits = LOGITS.clone().requires_grad_()
    xent.cross_entropy(logits, TARGET, ignore_index=-100).backward()
    assert logits.grad is not None
    assert_allclose(logits.grad[0], [0.0450, 0.1224, -0.1674], atol=DIGITS)


def test_one_hot_of_an_ignored_label() -> None:
    with pytest.raises(RuntimeError, match="Class values must be non-negative"):
        torch.nn.functional.one_hot(torch.tensor([2, -1]), num_classes=3)
    layer = manual.CrossEntropyLoss(ignore_index=-1)
    assert_allclose(layer.forward(LOGITS.numpy(), [2, -1]), 0.4076, atol=DIGITS)
    expected = [[0.0900, 0.2447, -0.3348], [0, 0, 0]]
    assert_allclose(layer.backward(), expected, atol=DIGITS)


# Layers and shapes


class Overwriting:
    """A layer whose result takes the name of its method, and whose backward needs its forward."""

    def softmax(self, logits):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def forward(self, logits, target):
        self.target = target
        self.softmax = self.softmax(logits)
        return (-target * np.log(self.softmax)).sum(axis=1).mean()

    def backward(self):
        return (self.softmax - self.target) / len(self.target)


def test_a_layer_that_runs_once() -> None:
    logits = LOGITS.numpy()
    wrong = Overwriting()
    wrong.forward(logits, np.eye(3)[[2, 0]])
    with pytest.raises(TypeError, match=r"'numpy\.ndarray' object is not callable"):
        wrong.forward(logits, np.eye(3)[[2, 0]])
    layer = manual.CrossEntropyLoss()
    losses = [float(layer.forward(logits, [2, 0])) for _ in range(2)]
    assert_allclose(losses, 0.4076, atol=DIGITS)


def test_backward_before_forward_and_one_row() -> None:
    with pytest.raises(AttributeError, match="target"):
        Overwriting().backward()
    unready = "CrossEntropyLoss: backward has no forward before it, expected a forward"
    with pytest.raises(RuntimeError, match=f"^{unready}$"):
        manual.CrossEntropyLoss().backward()
    row = np.array([1.0, 2.0, 3.0])
    with pytest.raises(np.exceptions.AxisError):
        Overwriting().forward(row, np.array([0, 0, 1]))
    with pytest.raises(ValueError, match="could not be broadcast"):
        Overwriting().forward(LOGITS.numpy(), np.array([2, 0]))
    layer = manual.CrossEntropyLoss()
    assert_allclose(layer.forward(row, 2), 0.4076, atol=DIGITS)
    assert_allclose(layer.backward(), [0.0900, 0.2447, -0.3348], atol=DIGITS)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_one_row_and_extra_axes(shape: tuple[int, ...]) -> None:
    logits, target = torch.zeros(shape), torch.zeros(shape[:-2] + shape[2:], dtype=torch.int64)
    with pytest.raises((IndexError, TypeError)):
        logits.log_softmax(-1)[range(target.shape[0]), target]
    assert_allclose(xent.cross_entropy(logits, target), np.log(3), rtol=1e-7)


def test_labels_of_uint8_are_taken_for_a_mask() -> None:
    with pytest.raises(IndexError, match="mask"), pytest.warns(UserWarning, match="uint8"):
        LOGITS[torch.arange(2), TARGET.to(torch.uint8)]
    assert_allclose(xent.cross_entropy(LOGITS, TARGET.to(torch.uint8)), 0.4076, atol=DIGITS)


# Memory


def test_a_square_of_the_batch() -> None:
    assert torch.diag(torch.ones(1000)).nbytes == 4_000_000
    rows = 20_000  # a square of 1.6 GB in float32
    logits, target = np.zeros((rows, 4), dtype=np.float32), np.zeros(rows, dtype=np.int64)
    layer = manual.CrossEntropyLoss()
    tracemalloc.start()
    layer.forward(logits, target)
    layer.backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * logits.nbytes


class Keeping(torch.nn.Module):
    """A layer that keeps its probabilities, and with them their graph."""

    def forward(self, logits, target):
        log_probs = logits.log_softmax(1)
        self.saved = log_probs.exp()
        return torch.nn.functional.nll_loss(log_probs, target)


@pytest.mark.parametrize(("layer", "kept"), [(Keeping, True), (xent.nn.CrossEntropyLoss, False)])
def test_a_layer_that_keeps_the_graph(layer: type[torch.nn.Module], kept: bool) -> None:
    criterion = layer()
    logits = LOGITS.clone().requires_grad_()
    alive = weakref.ref(logits)
    criterion(logits, TARGET).backward()
    del logits
    gc.collect()
    assert (alive() is not None) == kept


# torch.func and torch.compile


class Picking(torch.autograd.Function):
    """Takes the number of rows from a tensor of sizes."""

    @staticmethod
    def forward(ctx, log_probs, target):
        rows, _ = torch.tensor(log_probs.shape)
        return -log_probs[torch.arange(rows), target].mean()

    @staticmethod
    def backward(ctx, upstream):
        return upstream, None


def test_torch_func() -> None:
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(lambda x: LogSoftmax.apply(x)[0, 0])(LOGITS)
    gradient = torch.func.grad(lambda x: xent.cross_entropy(x, TARGET))(LOGITS)
    assert_allclose(gradient[0], [0.0450, 0.1224, -0.1674], atol=DIGITS)


# torch.compile itself makes an instance of every autograd.Function that it traces.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_torch_compile() -> None:
    whole = {"fullgraph": True, "backend": "eager"}
    logits = LOGITS.clone().requires_grad_()
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        torch.compile(Picking.apply, **whole)(logits, TARGET)
    compiled = torch.compile(xent.cross_entropy, **whole)
    assert_allclose(compiled(logits, TARGET).detach(), 0.4076, atol=DIGITS)


# Checks that cannot fail, and one that fails by chance


def checked(first: torch.Tensor, second: torch.Tensor) -> bool:
    """The comparison's result is dropped: only an exception counts."""
    try:
        torch.isclose(first, second).item()
    except RuntimeError:
        return False
    return True


def test_a_comparison_whose_result_is_dropped() -> None:
    assert checked(torch.tensor(1.0), torch.tensor(2.0))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(torch.tensor(1.0), torch.tensor(2.0))


def test_a_misspelt_exception() -> None:
    with pytest.raises(NameError, match="Exeption"):
        exec("raise Exeption('Something went wrong')")


def test_an_upstream_of_ones_tells_nothing_of_softmax() -> None:
    p = LOGITS.softmax(1).double().numpy()
    layer = manual.Softmax()
    layer.forward(LOGITS.double().numpy())
    ones, other = np.ones((2, 3)), np.array([[1.0, 2.0, 3.0], [-1.0, 0.0, 2.0]])

    def wrong(upstream: np.ndarray) -> np.ndarray:
        return upstream - (upstream * p).sum(axis=1, keepdims=True)  # the factor p is missing

    assert_allclose(wrong(ones), layer.backward(ones), atol=1e-7)
    assert_allclose(wrong(other)[0], [-1.5752, -0.5752, 0.4248], atol=DIGITS)
    assert_allclose(np.asarray(layer.backward(other))[0], [-0.1418, -0.1408, 0.2826], atol=DIGITS)


def test_a_label_drawn_past_the_last_class() -> None:
    assert {random.randint(0, 1) for _ in range(200)} == {0, 1}  # the upper bound is drawn
    assert int(torch.randint(1, (200,)).max()) == 0  # here it is not
    assert_allclose(1 - (3000 / 3001) ** 8, 0.0027, atol=DIGITS)
    with pytest.raises(IndexError, match=r"value 3000 at row 0, expected a class in \[0, 3000\)"):
        xent.cross_entropy(np.zeros((1, 3000)), [3000])


def test_a_comparison_that_never_reaches_the_unstable_region(rng: np.random.Generator) -> None:
    """The tolerance and the logits of the blog pass the formula that gives inf for [0, 200]."""
    logits = rng.normal(size=(8, 3000)).astype(np.float32)
    target = rng.integers(0, 3000, 8)

    def log_of_softmax(rows: np.ndarray) -> np.ndarray:
        powers = np.exp(rows - rows.max(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):
            return np.log(powers / powers.sum(axis=1, keepdims=True))

    passed = -log_of_softmax(logits)[np.arange(8), target].mean()
    assert_allclose(passed, xent.cross_entropy(logits, target), rtol=1e-4, atol=1e-6)
    assert -log_of_softmax(np.array([[0, 200]], dtype=np.float32))[0, 0] == np.inf
