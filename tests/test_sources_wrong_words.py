"""Where a formula or a sentence of the documents is wrong (docs/sources.md).

Each test takes the formula as it is written, on an input that tells it from the right one.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import xent
from xent import info, manual

COIN, FAIR = np.array([0.8, 0.2]), np.array([0.5, 0.5])
ROW = np.array([1.0, 2.0, 3.0])
DIGITS = 5e-5


def softmax_of(row: np.ndarray) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


# The blog post


def test_entropy_without_its_sign() -> None:
    assert_allclose(np.sum(COIN * np.log(COIN)), -0.5004, atol=DIGITS)
    assert_allclose(info.entropy(COIN), 0.5004, atol=DIGITS)


def test_entropy_is_no_sum_of_informations() -> None:
    assert_allclose(np.sum(info.information(COIN)), 1.8326, atol=DIGITS)
    assert_allclose(info.entropy(COIN), 0.5004, atol=DIGITS)


def test_cross_entropy_is_no_distance() -> None:
    assert_allclose(info.cross_entropy(FAIR, FAIR), 0.6931, atol=DIGITS)
    assert info.kl_divergence(FAIR, FAIR) == 0


def test_kl_divergence_with_a_lost_logarithm() -> None:
    assert_allclose(np.sum(COIN * (np.log(1 / FAIR) - 1 / COIN)), -1.3069, atol=DIGITS)
    assert_allclose(np.sum(COIN * (np.log(1 / FAIR) - np.log(1 / COIN))), 0.1927, atol=DIGITS)
    assert_allclose(info.kl_divergence(COIN, FAIR), 0.1927, atol=DIGITS)


def test_derivative_of_log_softmax_is_not_that_of_softmax() -> None:
    logits = np.array([[0.0, 1.0]])
    o = softmax_of(logits[0])
    assert_allclose(o * (1 - o), [0.1966, 0.1966], atol=DIGITS)  # the diagonal of softmax's

    def first_row(layer: manual.Softmax | manual.LogSoftmax) -> np.ndarray:
        layer.forward(logits)
        return np.asarray(layer.backward(np.array([[1.0, 0.0]])))[0]

    assert_allclose(first_row(manual.Softmax()), [0.1966, -0.1966], atol=DIGITS)
    assert_allclose(first_row(manual.LogSoftmax()), [0.7311, -0.7311], atol=DIGITS)


def test_one_over_x_is_no_inverse_of_log() -> None:
    assert_allclose([1 / 2, np.exp(2)], [0.5, 7.3891], atol=DIGITS)
    assert_allclose((np.log(2 + 1e-6) - np.log(2 - 1e-6)) / 2e-6, 0.5, rtol=1e-8)


def test_one_over_p_is_upstream_only_for_ones() -> None:
    softmax, log_softmax = manual.Softmax(), manual.LogSoftmax()
    p = np.asarray(softmax.forward(ROW[None]))
    log_softmax.forward(ROW[None])
    upstream = np.array([[1.0, 0.0, 0.0]])
    assert_allclose(softmax.backward(1 / p), [[0.7299, 0.2658, -0.9957]], atol=DIGITS)
    right = [[0.9100, -0.2447, -0.6652]]
    assert_allclose(log_softmax.backward(upstream), right, atol=DIGITS)
    assert_allclose(softmax.backward(upstream / p), right, atol=DIGITS)


def test_bits_and_nats() -> None:
    coin, normal = info.entropy(COIN), info.Normal(0.0, 1.0).entropy()
    assert_allclose([float(coin), float(info.to_bits(coin))], [0.5004, 0.7219], atol=DIGITS)
    assert_allclose([float(normal), float(info.to_bits(normal))], [1.4189, 2.0471], atol=DIGITS)


# The breakdown of torch's function


def test_one_sum_for_the_mean_over_samples() -> None:
    """-(1/m) sum_k y_k log p_k has no index for the m samples: read for one, it divides by m."""
    logits, target = np.stack([ROW, ROW]), np.eye(3)[[2, 2]]
    one_sample = -(1 / 2) * np.sum(target[0] * np.log(softmax_of(ROW)))
    assert_allclose(one_sample, 0.2038, atol=DIGITS)
    assert_allclose(xent.cross_entropy(logits, target), 0.4076, atol=DIGITS)


def test_denominator_summed_over_the_wrong_index() -> None:
    """sum_i exp(z_k) repeats one term: log softmax is -log n, whatever the logits."""
    repeated = ROW - np.log(3 * np.exp(ROW))
    assert_allclose(repeated, [-1.0986, -1.0986, -1.0986], atol=DIGITS)
    assert_allclose(xent.log_softmax(ROW, axis=0), [-2.4076, -1.4076, -0.4076], atol=DIGITS)


def test_log_sum_exp_as_written_is_the_unstable_one() -> None:
    row = np.array([1000.0, 0.0])
    with np.errstate(over="ignore"):
        written = row - np.log(np.exp(row).sum())
    assert np.isneginf(written).all()
    assert np.asarray(xent.log_softmax(row, axis=0)).tolist() == [0, -1000]


# The course notes


def test_chain_rule_through_the_wrong_variable() -> None:
    """For k != c the path is p_k: d log p_k / d p_c is 0, and so is the product as written."""
    row = np.array([2.0, 1.0, -1.0])
    p = softmax_of(row)
    as_written = 0 * p[2] * (1 - p[2])  # d log p_1 / d p_3 times d p_3 / d logit_3
    by_value = 1 / p[0] * p[2] * (1 - p[2])  # the first factor as it is evaluated
    assert_allclose([as_written, by_value], [0, 0.0480], atol=DIGITS)
    right = 1 / p[0] * (-p[0] * p[2])
    layer = manual.LogSoftmax()
    layer.forward(row[None])
    backward = np.asarray(layer.backward(np.array([[1.0, 0.0, 0.0]])))
    assert_allclose([right, backward[0, 2]], -0.0351, atol=DIGITS)


def test_arguments_of_cross_entropy_in_the_other_order() -> None:
    """H(A, Y) of the notes is H(Y, softmax(A)): as named, a one-hot Y makes it infinite."""
    p, target = softmax_of(ROW), np.array([0.0, 0.0, 1.0])
    assert info.cross_entropy(p, target) == np.inf
    assert_allclose(info.cross_entropy(target, p), 0.4076, atol=DIGITS)
    assert_allclose(xent.cross_entropy(ROW, target), 0.4076, atol=DIGITS)


def test_a_column_times_a_matrix() -> None:
    a, y = softmax_of(ROW), np.array([[0.0], [0.0], [1.0]])
    jacobian = np.diag(a) - np.outer(a, a)
    column = -y / a[:, None]
    with pytest.raises(ValueError, match="mismatch"):
        column @ jacobian
    right = [[0.0900, 0.2447, -0.3348]]
    assert_allclose(column.T @ jacobian, right, atol=DIGITS)
    layer = manual.CrossEntropyLoss()
    layer.forward(ROW[None], [2])
    assert_allclose(layer.backward(), right, atol=DIGITS)


# The forum thread


def test_logits_minus_predictions() -> None:
    one_hot = np.array([0.0, 0.0, 1.0])
    assert_allclose(ROW - one_hot, [1, 2, 2])
    layer = manual.CrossEntropyLoss()
    layer.forward(ROW, 2)
    assert_allclose(layer.backward(), [0.0900, 0.2447, -0.3348], atol=DIGITS)


def test_one_hot_before_the_sum() -> None:
    one_hot = np.array([0.0, 0.0, 1.0])
    advised = -np.sum(one_hot * (ROW - np.log(np.exp(one_hot * ROW).sum())))
    assert_allclose(advised, 0.0949, atol=DIGITS)
    assert_allclose(xent.cross_entropy(ROW, 2), 0.4076, atol=DIGITS)
