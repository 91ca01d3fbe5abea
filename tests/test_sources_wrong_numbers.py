"""Where the documents give a wrong number and no error (docs/sources.md).

Each test runs the document's formula, as short as it can be written, on the least input that shows
the error, and the library on the same input.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import xent
from xent import info, manual

LOGITS = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
DIGITS = 5e-5  # the numbers of docs/sources.md have four digits after the point


def one_hot(target: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[target]


def softmax_of(logits: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def log_of_softmax(logits: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", under="ignore"):
        return np.log(softmax_of(logits))


def log_softmax_unshifted(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def softmax_unshifted(logits: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def gradient(logits: object, target: object, upstream: object = 1.0, **options) -> np.ndarray:
    """xent's gradient by the layer with an explicit backward."""
    layer = manual.CrossEntropyLoss(**options)
    layer.forward(logits, target)
    return np.asarray(layer.backward(upstream))


# Ignored rows


def gradient_zeroing_a_column(logits: np.ndarray, target: list[int], ignore: int) -> np.ndarray:
    hot = one_hot(target, logits.shape[1])
    hot[:, ignore] = 0  # meant are the rows whose target is `ignore`
    return (softmax_of(logits) * hot.sum(axis=1, keepdims=True) - hot) / len(target)


def test_ignore_index_zeroes_a_column() -> None:
    wrong = gradient_zeroing_a_column(LOGITS, [2, 0], -1)
    assert_allclose(wrong[0], [0, 0, 0])
    right = gradient(LOGITS, [2, 0], ignore_index=-1)
    assert_allclose(right[0], [0.0450, 0.1224, -0.1674], atol=DIGITS)
    assert_allclose(right[1], wrong[1], rtol=1e-12)


def test_ignore_index_of_minus_100_zeroes_a_column() -> None:
    logits = np.zeros((1, 101))
    assert_allclose(gradient_zeroing_a_column(logits, [1], -100)[0, :3], [0, 0, 0])
    assert_allclose(gradient(logits, [1])[0, :3], [0.0099, -0.9901, 0.0099], atol=DIGITS)


def test_gradient_by_hand_ignores_no_row() -> None:
    wrong = (softmax_of(LOGITS) - one_hot([2, 0], 3)) / 2
    assert_allclose(wrong[0], [0.0450, 0.1224, -0.1674], atol=DIGITS)
    assert_allclose(wrong[1, 0], -0.1674, atol=DIGITS)
    right = gradient(LOGITS, [2, 0], ignore_index=0)
    assert_allclose(right[0], [0.0900, 0.2447, -0.3348], atol=DIGITS)
    assert_allclose(right[1], [0, 0, 0])


def test_nan_in_an_ignored_row_reaches_its_gradient() -> None:
    logits = np.array([[np.nan, 0.0, 0.0], [3.0, 2.0, 1.0]])
    kept = np.array([[0.0], [1.0]])
    hot = one_hot([2, 0], 3) * kept
    wrong = softmax_of(logits) * hot.sum(axis=1, keepdims=True) - hot
    assert np.isnan(wrong[0]).all()
    right = gradient(logits, [-1, 0], ignore_index=-1)
    assert_allclose(right[0], [0, 0, 0])
    assert_allclose(right[1], wrong[1], rtol=1e-12)


# Overflow and underflow


def test_log_of_softmax_underflows() -> None:
    logits = np.array([[0, 200]], dtype=np.float32)
    assert -log_of_softmax(logits)[0, 0] == np.inf
    assert -log_of_softmax(np.array([[0.0, 800.0]]))[0, 0] == np.inf
    assert xent.cross_entropy(logits, [0]) == 200
    assert xent.cross_entropy(np.array([[0.0, 800.0]]), [0]) == 800


def test_log_of_softmax_loses_digits_before_it_underflows() -> None:
    gaps = [95.0, 100.0, 103.0]
    logits = np.array([[0, gap] for gap in gaps], dtype=np.float32)
    wrong = -log_of_softmax(logits)[:, 0]
    assert_allclose(wrong, [94.99999, 99.983, 103.279], atol=1e-3)
    assert wrong[0] < 95
    assert_allclose(xent.cross_entropy(logits, [0, 0, 0], reduction="none"), gaps, rtol=0)


def test_log_of_softmax_in_half_precision() -> None:
    logits = np.array([[0, 17], [0, 18]], dtype=np.float16)
    wrong = -log_of_softmax(logits)[:, 0]
    assert_allclose(wrong[0], 16.64, atol=5e-3)
    assert wrong[1] == np.inf
    assert_allclose(xent.cross_entropy(logits, [0, 0], reduction="none"), [17, 18], rtol=0)


def test_gradient_of_log_of_softmax_is_nan() -> None:
    logits = torch.tensor([[0.0, 200.0]], requires_grad=True)
    powers = (logits - logits.amax(1, keepdim=True)).exp()
    loss = -(powers / powers.sum(1, keepdim=True)).log()[0, 0]
    assert torch.autograd.grad(loss, logits)[0].isnan().all()
    loss = xent.cross_entropy(logits, torch.tensor([0]))
    assert torch.autograd.grad(loss, logits)[0].tolist() == [[-1, 1]]


def test_exp_without_a_shift_overflows() -> None:
    logits = np.array([[100, 0]], dtype=np.float32)
    assert np.isnan(softmax_unshifted(logits)[0, 0])
    assert -log_softmax_unshifted(logits)[0, 0] == np.inf
    with np.errstate(invalid="ignore"):
        assert np.isnan(-(one_hot([0], 2) * log_softmax_unshifted(logits)).sum())
    exact = xent.Plan(accurate=True)  # else what is below the smallest normal number may be 0
    assert_allclose(xent.cross_entropy(logits, [0], plan=exact), 3.72e-44, rtol=0.02)
    assert_allclose(xent.cross_entropy(logits.astype(np.float64), [0]), 3.72e-44, rtol=1e-3)


def test_exp_without_a_shift_underflows() -> None:
    logits = np.array([[-200, -201]], dtype=np.float32)
    assert np.isnan(softmax_unshifted(logits)).all()
    assert -log_softmax_unshifted(logits)[0, 0] == -np.inf
    with np.errstate(invalid="ignore"):
        assert np.isnan(-(one_hot([0], 2) * log_softmax_unshifted(logits)).sum())
    assert_allclose(xent.cross_entropy(logits, [0]), 0.3133, atol=DIGITS)


def test_sigmoid_by_its_quotient_overflows() -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.isnan(np.exp(1000.0) / (1 + np.exp(1000.0)))
    logit, sure = np.array([1000.0]), 1 / (1 + np.exp(-1000.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        assert np.isnan(-(1 * np.log(sure) + 0 * np.log(np.float64(1 - sure))))
    assert xent.binary_cross_entropy_with_logits(logit, np.array([1.0])) == 0
    assert xent.binary_cross_entropy_with_logits(logit, np.array([0.0])) == 1000


def test_confident_row_loses_its_loss_and_gradient() -> None:
    logits = np.array([[20, 0]], dtype=np.float32)
    assert -log_of_softmax(logits)[0, 0] == 0
    assert -log_softmax_unshifted(logits)[0, 0] == 0
    assert (softmax_of(logits) - one_hot([0], 2))[0, 0] == 0
    assert_allclose(xent.cross_entropy(logits, [0]), 2.0612e-9, rtol=DIGITS)
    assert_allclose(gradient(logits, [0]), [[-2.0612e-9, 2.0612e-9]], rtol=DIGITS)
    wide = np.array([[40.0, 0.0]])
    assert -log_of_softmax(wide)[0, 0] == 0
    assert_allclose(xent.cross_entropy(wide, [0]), np.exp(-40.0), rtol=1e-15)


# Zero times infinity


def test_zero_target_times_log_zero() -> None:
    logits, target = np.array([[0.0, 800.0]]), np.array([[0.0, 1.0]])
    with np.errstate(invalid="ignore"):
        assert np.isnan((-target * log_of_softmax(logits)).sum())
    assert xent.cross_entropy(logits, target) == 0


def test_zero_target_times_a_masked_class() -> None:
    logits, target = np.array([[1.0, 2.0, -np.inf]]), one_hot([0], 3)
    with np.errstate(invalid="ignore"):
        assert np.isnan((-target * (logits - np.log(np.exp(logits).sum()))).sum())
    assert_allclose(xent.cross_entropy(logits, [0]), 1.3133, atol=DIGITS)
    assert_allclose(xent.cross_entropy(logits, target), 1.3132616875182228, rtol=1e-15)


def test_entropy_of_a_certain_event() -> None:
    p = np.array([0.0, 1.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        assert np.isnan((-p * np.log(p)).sum())
        assert np.isnan(sum(p * -np.log2(p)))
    assert info.entropy(p) == 0


def test_entropy_of_a_narrow_normal() -> None:
    std, x = 0.1, np.linspace(-10, 10, 50_000)
    p = np.exp(-(x**2) / (2 * std**2)) / np.sqrt(2 * np.pi * std**2)
    with np.errstate(divide="ignore", invalid="ignore", under="ignore"):
        assert np.isnan(np.sum(-p * np.log(p)))
    assert_allclose(info.Normal(0.0, 0.1).entropy(), -0.8836, atol=DIGITS)


# The class axis


def test_sum_over_another_axis_than_the_maximum() -> None:
    logits = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
    shifted = logits - logits.max(axis=0, keepdims=True)
    wrong = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    assert_allclose(wrong, [[-0.41, -1.41, -2.41], [-1.10, -1.10, -1.10]], atol=5e-3)
    right = [[-0.69, -1.31, -2.13], [-0.69, -0.31, -0.13]]
    assert_allclose(xent.log_softmax(logits, axis=0), right, atol=5e-3)


def test_forward_forgets_the_axis_that_backward_uses() -> None:
    logits = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
    p, upstream = softmax_of(logits), np.array([[1.0, 2.0, 3.0], [-1.0, 0.0, 2.0]])  # axis -1
    assert_allclose(p[0], [0.2119, 0.2119, 0.5761], atol=DIGITS)
    wrong = upstream - p * upstream.sum(axis=0)
    assert_allclose(wrong[0], [1, 1.5761, 0.1194], atol=DIGITS)
    layer = manual.LogSoftmax(axis=0)
    right = np.exp(np.asarray(layer.forward(logits)))
    assert_allclose(right[0], [0.5, 0.2689, 0.1192], atol=DIGITS)
    assert_allclose(np.asarray(layer.backward(upstream))[0], [1, 1.4621, 2.4040], atol=DIGITS)


def test_classes_first_scale_the_classes_instead_of_the_rows() -> None:
    logits, target = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 0.0], [2.0, 1.0, 0.0]]), [0, 0, 1]
    upstream = np.array([1.0, 2.0, 3.0])
    dlog_probs = np.diag(-upstream) @ one_hot(target, 3).T  # (classes, rows): the wrong side
    wrong = dlog_probs - softmax_of(logits, axis=0) * dlog_probs.sum(axis=0)
    assert_allclose(wrong[0], [-0.9100, -0.5777, 1.5740], atol=DIGITS)
    _, vjp = xent.cross_entropy_vjp(logits, target, axis=0, reduction="none")
    right = np.asarray(vjp(upstream))
    assert_allclose(right[0], [-0.9100, -1.1554, 2.3610], atol=DIGITS)
    with pytest.raises(IndexError):  # 2 classes, 3 rows
        logits[:2][np.array([0, 1, 1]), np.arange(2)]
    loss = xent.cross_entropy(logits[:2], [0, 1, 1], axis=0, reduction="none")
    assert_allclose(loss, [1.3133, 1.3133, 2.1269], atol=DIGITS)


def test_extra_axes_normalise_over_the_wrong_one() -> None:
    """(N, V, D) with N = D: the last axis for the classes, and one index array for two axes."""
    logits, target = np.arange(12.0).reshape(2, 3, 2) % 5, np.array([[0, 1], [2, 0]])
    wrong = -log_of_softmax(logits)[np.arange(2), target].mean()
    assert_allclose(wrong, 1.1145, atol=DIGITS)
    assert_allclose(xent.cross_entropy(logits, target), 2.4131, atol=DIGITS)


# The scale of the gradient


def test_gradient_by_hand_divides_half_of_itself() -> None:
    wrong = softmax_of(LOGITS) / 2 - one_hot([2, 0], 3)
    assert_allclose(wrong[0, 2], -0.6674, atol=DIGITS)
    assert_allclose(gradient(LOGITS, [2, 0])[0, 2], -0.1674, atol=DIGITS)


def test_upstream_per_row_scales_the_classes() -> None:
    logits, upstream = np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([1.0, 10.0])
    wrong = upstream * (softmax_of(logits) - one_hot([0, 1], 2))
    assert_allclose(wrong, [[-0.7311, 7.3106], [0.8808, -8.8080]], atol=DIGITS)
    right = gradient(logits, [0, 1], upstream, reduction="none")
    assert_allclose(right, [[-0.7311, 0.7311], [8.8080, -8.8080]], atol=DIGITS)


def test_squared_error_divides_by_the_rows_alone() -> None:
    labels, prediction = np.full((3, 10), 0.1), torch.zeros(3, 10, dtype=torch.float64)
    wrong = -2 * (labels - prediction.numpy()) / 3
    assert_allclose(wrong[0, 0], -0.0667, atol=DIGITS)
    prediction.requires_grad_()
    ((torch.tensor(labels) - prediction) ** 2).mean().backward()
    assert prediction.grad is not None
    assert_allclose(prediction.grad[0, 0], -0.00667, atol=5e-6)
    assert_allclose(wrong, 10 * prediction.grad.numpy(), rtol=1e-12)


class LogSoftmaxSavingProbabilities(torch.autograd.Function):
    """Saves an intermediate, through which a second derivative cannot go."""

    @staticmethod
    def forward(ctx, logits):
        probabilities = logits.softmax(1)
        ctx.save_for_backward(probabilities)
        return probabilities.log()

    @staticmethod
    def backward(ctx, upstream):
        (probabilities,) = ctx.saved_tensors
        return upstream - probabilities * upstream.sum(1, keepdim=True)


def test_second_derivative_is_zero() -> None:
    logits = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    hessian = torch.autograd.functional.hessian
    wrong = hessian(lambda x: -LogSoftmaxSavingProbabilities.apply(x)[0, 0], logits)
    assert isinstance(wrong, torch.Tensor)
    assert wrong.flatten().tolist() == [0, 0, 0, 0]
    right = hessian(lambda x: xent.cross_entropy(x, torch.tensor([0])), logits)
    assert isinstance(right, torch.Tensor)
    assert_allclose(right.reshape(2, 2), [[0.1966, -0.1966], [-0.1966, 0.1966]], atol=DIGITS)


# Targets


def test_a_label_of_minus_1_is_the_last_class() -> None:
    log_probs = log_of_softmax(LOGITS[:1])
    assert_allclose(-log_probs[[0], [-1]].mean(), 0.4076, atol=DIGITS)
    with pytest.raises(IndexError, match="value -1 at row 0"):
        xent.cross_entropy(LOGITS[:1], [-1])


def test_target_of_mass_two() -> None:
    logits, target = LOGITS[:1], np.array([[1.0, 1.0, 0.0]])
    wrong = softmax_of(logits) - target
    assert_allclose(wrong, [[-0.9100, -0.7553, 0.6652]], atol=DIGITS)
    right = gradient(logits, target)
    assert_allclose(right, [[-0.8199, -0.5105, 1.3305]], atol=DIGITS)
    assert_allclose(right.sum(), 0, atol=1e-15)


def test_class_indices_taken_for_probabilities() -> None:
    logits = np.array([[0.0, 1.0], [2.0, 0.0]])
    written = -np.array([1, 0]) * log_of_softmax(logits)
    assert_allclose(written.sum() / 2, 0.7201, atol=DIGITS)
    column = -np.array([[1], [0]]) * log_of_softmax(logits)
    assert_allclose(column.sum() / 2, 0.8133, atol=DIGITS)
    assert_allclose(xent.cross_entropy(logits, [1, 0]), 0.2201, atol=DIGITS)
    with pytest.raises(ValueError, match=r"target has shape \(2, 1\)"):
        xent.cross_entropy(logits, [[1], [0]])


def test_one_hot_of_a_batch_that_lacks_a_class() -> None:
    narrow = torch.nn.functional.one_hot(torch.tensor([0, 0]))
    assert narrow.shape == (2, 1)
    wrong = (softmax_of(LOGITS) - narrow.numpy()) / 2
    assert_allclose(wrong[0], [-0.4550, -0.3776, -0.1674], atol=DIGITS)
    right = gradient(LOGITS, [0, 0])
    assert_allclose(right[0], [-0.4550, 0.1224, 0.3326], atol=DIGITS)
    narrow = torch.nn.functional.one_hot(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="could not be broadcast"):
        softmax_of(LOGITS) - narrow.numpy()


def test_an_unknown_reduction_is_none() -> None:
    code = {"mean": 0, "sum": 1, "none": 2}.get("avg", -1)
    rows = -log_of_softmax(LOGITS)[[0, 1], [2, 0]]
    wrong = rows.mean() if code == 0 else rows.sum() if code == 1 else rows
    assert_allclose(wrong, [0.4076, 0.4076], atol=DIGITS)
    with pytest.raises(ValueError, match="reduction has value 'avg'"):
        xent.cross_entropy(LOGITS, [2, 0], reduction="avg")
