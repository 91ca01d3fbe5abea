"""What the course notes compute and prove, where they are right (docs/sources.md)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mpmath import mp, mpf

import xent
import xent.nn
from xent import info, manual

WORKED_LOGITS = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]])
WORKED_TARGET = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
EXAMPLE = np.array([2.0, 1.0, -1.0])


def exact_softmax(row: np.ndarray) -> list:
    """Softmax in 50 digits."""
    with mp.workdps(50):
        powers = [mp.exp(mpf(float(value))) for value in row]
        return [power / mp.fsum(powers) for power in powers]


# The forward and backward equations


def test_softmax_by_its_definition(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4, 5)) * 3
    exact = np.array([[float(p) for p in exact_softmax(row)] for row in logits])
    np.testing.assert_allclose(xent.softmax(logits), exact, rtol=2e-15)
    np.testing.assert_allclose(np.asarray(xent.softmax(logits)).sum(axis=1), 1, rtol=1e-15)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_rows_sum_and_mean_of_the_loss(reduction: str, rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(4, 5)), rng.dirichlet(np.ones(5), 4)
    rows = [
        math.fsum(-y * float(mp.log(p)) for y, p in zip(weights, exact_softmax(row), strict=True))
        for row, weights in zip(logits, target, strict=True)
    ]
    expected = {"none": rows, "sum": math.fsum(rows), "mean": math.fsum(rows) / 4}[reduction]
    loss = xent.cross_entropy(logits, target, reduction=reduction)
    np.testing.assert_allclose(loss, expected, rtol=1e-14)


def test_loss_of_a_row_is_the_cross_entropy_of_target_and_softmax(
    rng: np.random.Generator,
) -> None:
    logits, target = rng.normal(size=(1, 5)), rng.dirichlet(np.ones(5), 1)
    expected = float(info.cross_entropy(target[0], np.asarray(xent.softmax(logits))[0]))
    assert float(xent.cross_entropy(logits, target)) == pytest.approx(expected, rel=1e-13)


def test_mean_is_torch_s_default(rng: np.random.Generator) -> None:
    logits, target = torch.tensor(rng.normal(size=(4, 5))), torch.tensor(rng.integers(0, 5, 4))
    theirs = torch.nn.CrossEntropyLoss()(logits, target)
    torch.testing.assert_close(xent.nn.CrossEntropyLoss()(logits, target), theirs)


def test_gradient_is_softmax_minus_target_over_the_rows(rng: np.random.Generator) -> None:
    """Against central differences in 50 digits, for targets that are distributions."""
    logits, target = rng.normal(size=(3, 4)), rng.dirichlet(np.ones(4), 3)
    _, vjp = xent.cross_entropy_vjp(logits, target)
    numeric = np.zeros((3, 4))
    for row, column in np.ndindex(3, 4):
        weights = [mpf(float(weight)) for weight in target[row]]

        def loss(shift: str, row=row, column=column, weights=weights) -> mpf:
            logit = [mpf(float(value)) for value in logits[row]]
            logit[column] += mpf(shift)
            lse = mp.log(mp.fsum(mp.exp(value) for value in logit))
            return mp.fsum(
                weight * (lse - value) for weight, value in zip(weights, logit, strict=True)
            )

        with mp.workdps(50):
            slope = (loss("1e-15") - loss("-1e-15")) / mpf("2e-15") / 3
        numeric[row, column] = float(slope)
    np.testing.assert_allclose(vjp(1.0), numeric, rtol=1e-12, atol=1e-15)


# The two proofs


def test_derivative_of_log_softmax_by_cases(rng: np.random.Generator) -> None:
    """d log p_k / d logit_c is 1 - p_c where k = c, and -p_c elsewhere."""
    logits = rng.normal(size=3)
    p = np.exp(logits) / np.exp(logits).sum()
    layer = manual.LogSoftmax()
    for k in range(3):
        layer.forward(logits[None])
        row = np.asarray(layer.backward(np.eye(3)[None, k]))[0]
        for c in range(3):
            assert row[c] == pytest.approx(1 - p[c] if k == c else -p[c], rel=1e-13)


@pytest.mark.parametrize(
    ("true_class", "expected"), [(0, "p"), (2, "p - 1")], ids=["Example 1", "Example 2"]
)
def test_example_of_the_gradient(true_class: int, expected: str) -> None:
    """Logits [2, 1, -1]: dloss/dlogit_3 is p_3 for target [1,0,0] and p_3 - 1 for [0,0,1]."""
    p = float(exact_softmax(EXAMPLE)[2])
    assert p == pytest.approx(0.03512, abs=5e-6)
    _, vjp = xent.cross_entropy_vjp(EXAMPLE, np.eye(3)[true_class])
    gradient = float(np.asarray(vjp(1.0))[2])
    assert gradient == pytest.approx({"p": p, "p - 1": p - 1}[expected], rel=1e-14)


def test_jacobian_of_softmax(rng: np.random.Generator) -> None:
    """diag(a) - a a^T: a_i (1 - a_i) on the diagonal and -a_i a_j beside it."""
    logits = rng.normal(size=3)
    a = np.exp(logits) / np.exp(logits).sum()
    layer = manual.Softmax()
    layer.forward(np.tile(logits, (3, 1)))
    jacobian = np.asarray(layer.backward(np.eye(3)))
    np.testing.assert_allclose(jacobian, np.diag(a) - np.outer(a, a), rtol=1e-12)
    for i, j in np.ndindex(3, 3):
        entry = a[i] * (1 - a[i]) if i == j else -a[i] * a[j]
        assert jacobian[i, j] == pytest.approx(entry, rel=1e-12)
    tensor = torch.tensor(logits)
    by_torch = torch.func.jacrev(lambda row: xent.softmax(row, axis=-1))(tensor)
    np.testing.assert_allclose(by_torch, jacobian, rtol=1e-12)


def test_backward_through_softmax_in_two_steps(rng: np.random.Generator) -> None:
    """-y / a through the Jacobian of softmax is a - y where y sums to 1."""
    logits, y = rng.normal(size=(1, 3)), rng.dirichlet(np.ones(3), 1)
    layer = manual.Softmax()
    a = np.asarray(layer.forward(logits))
    nll = manual.NLLLoss()
    nll.forward(np.log(a), [1])
    np.testing.assert_allclose(nll.backward(), [[0, -1, 0]], rtol=1e-15)
    np.testing.assert_allclose(layer.backward(-y / a), a - y, rtol=1e-12, atol=1e-15)
    _, vjp = xent.cross_entropy_vjp(logits, y)
    np.testing.assert_allclose(vjp(1.0), a - y, rtol=1e-12, atol=1e-15)


# The worked example


def test_worked_example_softmax() -> None:
    printed = [[0.659, 0.242, 0.099], [0.073, 0.487, 0.440]]
    np.testing.assert_allclose(xent.softmax(WORKED_LOGITS), printed, atol=5e-4, rtol=0)


def test_worked_example_losses() -> None:
    rows = np.asarray(xent.cross_entropy(WORKED_LOGITS, WORKED_TARGET, reduction="none"))
    np.testing.assert_allclose(rows, [1.417, 2.620], atol=5e-4, rtol=0)
    np.testing.assert_allclose(rows, [1.41703001627783, 2.61998677320593], rtol=1e-14)


def test_worked_example_mean() -> None:
    loss = float(xent.cross_entropy(WORKED_LOGITS, WORKED_TARGET))
    assert loss == pytest.approx(2.019, abs=5e-4)
    assert loss == pytest.approx(2.01850839474188, rel=1e-14)
    assert float(xent.cross_entropy(WORKED_LOGITS, [1, 0])) == pytest.approx(loss, rel=1e-15)


def test_worked_example_gradient() -> None:
    printed = [[0.330, -0.379, 0.049], [-0.464, 0.243, 0.220]]
    layer = manual.CrossEntropyLoss()
    layer.forward(WORKED_LOGITS, WORKED_TARGET)
    gradient = np.asarray(layer.backward())
    np.testing.assert_allclose(gradient, printed, atol=5e-4, rtol=0)
    exact = (np.array([exact_softmax(row) for row in WORKED_LOGITS]) - WORKED_TARGET) / 2
    np.testing.assert_allclose(gradient, exact.astype(np.float64), rtol=4e-15)


def test_a_step_against_the_gradient_lowers_the_loss(rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(4, 5)), rng.integers(0, 5, 4)
    loss, vjp = xent.cross_entropy_vjp(logits, target)
    gradient = np.asarray(vjp(1.0))
    assert np.array_equal(gradient < 0, np.eye(5, dtype=bool)[target])
    for row, column in np.ndindex(4, 5):
        moved = logits.copy()
        moved[row, column] -= 0.01 * np.sign(gradient[row, column])
        assert float(xent.cross_entropy(moved, target)) < float(loss)


def test_layer_with_forward_and_backward(rng: np.random.Generator) -> None:
    """The class of the notes: mean over the rows, then (softmax - Y) / N."""
    logits, target = rng.normal(size=(4, 5)), rng.dirichlet(np.ones(5), 4)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    layer = manual.CrossEntropyLoss()
    loss = float(layer.forward(logits, target))
    assert loss == pytest.approx(math.fsum((-target * np.log(p)).ravel()) / 4, rel=1e-13)
    np.testing.assert_allclose(layer.backward(), (p - target) / 4, rtol=1e-12, atol=1e-15)
