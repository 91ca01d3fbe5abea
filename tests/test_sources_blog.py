"""What the blog post and its notebook compute and claim, where they are right (docs/sources.md)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import xent
import xent.nn
from xent import info, manual

COIN = np.array([0.8, 0.2])

# What the notebook prints while its loss falls, in the order printed.
FALLING = """
1.3133 1.3118 1.3103 1.3089 1.3074 1.3060 1.3045 1.3030 1.3016 1.3001 1.2987 1.2972 1.2958 1.2943
1.2929 1.2914 1.2900 1.2885 1.2871 1.2856 1.2842 1.2827 1.2813 1.2798 1.2784 1.2770 1.2755 1.2741
1.2726 1.2712 1.2698 1.2683 1.2669 1.2654 1.2640 1.2626 1.2611 1.2597 1.2583 1.2568 1.2554 1.2540
1.2526 1.2511 1.2497 1.2483 1.2468 1.2454 1.2440 1.2426 1.2412 1.2397 1.2383 1.2369 1.2355 1.2341
1.2326 1.2312 1.2298
"""


def distribution(rng: np.random.Generator, classes: int = 7) -> np.ndarray:
    return rng.dirichlet(np.ones(classes))


def total(terms: np.ndarray) -> float:
    """The sum, rounded once."""
    return math.fsum(terms.tolist())


# Information and entropy


def test_information_is_minus_log_p(rng: np.random.Generator) -> None:
    p = rng.uniform(0.01, 1, 50)
    np.testing.assert_allclose(info.information(p), [-math.log(v) for v in p], rtol=1e-15)
    assert float(info.information(np.asarray(1.0))) == 0.0


def test_the_rarer_event_tells_more(rng: np.random.Generator) -> None:
    rare_first = np.sort(rng.uniform(0.01, 1, 50))
    assert np.all(np.diff(info.information(rare_first)) < 0)


def test_entropy_is_the_mean_information(rng: np.random.Generator) -> None:
    p = distribution(rng)
    expected = total(-p * np.log(p))
    assert float(info.entropy(p)) == pytest.approx(expected, rel=1e-14)
    assert total(p * np.asarray(info.information(p))) == pytest.approx(expected, rel=1e-14)


def test_entropy_is_largest_where_all_events_are_equally_likely(rng: np.random.Generator) -> None:
    assert float(info.entropy(np.full(7, 1 / 7))) == pytest.approx(math.log(7), rel=1e-15)
    assert float(info.entropy(distribution(rng))) < math.log(7)


def test_entropy_of_the_coin_in_bits() -> None:
    bits = 0.7219280948873623
    assert float(info.to_bits(info.entropy(COIN))) == pytest.approx(bits, rel=3e-16)


# Entropy of a normal


def test_entropy_of_a_normal_in_nats() -> None:
    assert float(info.Normal(0.0, 1.0).entropy()) == pytest.approx(1.4189385332046727, rel=3e-16)


def test_entropy_of_a_normal_is_half_of_one_plus_log_2_pi_variance(
    rng: np.random.Generator,
) -> None:
    std = rng.uniform(0.1, 10)
    closed_form = float(info.Normal(rng.normal(), std).entropy())
    assert closed_form == pytest.approx((1 + math.log(2 * math.pi * std**2)) / 2, rel=1e-14)
    assert closed_form == pytest.approx(math.log(math.e * 2 * math.pi * std**2) / 2, rel=1e-13)


@pytest.mark.parametrize(("std", "nats"), [(1.0, 1.4189), (2.5, 2.3352)])
def test_trapezoid_rule_meets_the_closed_form(std: float, nats: float) -> None:
    x = np.linspace(-10 * std, 10 * std, 2001)
    normal = info.Normal(0.0, std)
    log_density = normal.log_density(x)
    quadrature = integrate.trapezoid(np.exp(log_density) * -log_density, x)
    closed_form = float(normal.entropy())
    assert quadrature == pytest.approx(closed_form, rel=1e-12)
    assert closed_form == pytest.approx(nats, abs=5e-5)


def test_density_of_a_normal(rng: np.random.Generator) -> None:
    mean, std = rng.normal(), rng.uniform(0.1, 10)
    x = mean + std * rng.normal(size=20)
    written = np.exp(-((x - mean) ** 2) / (2 * std**2)) / np.sqrt(2 * np.pi * std**2)
    np.testing.assert_allclose(written, stats.norm(mean, std).pdf(x), rtol=1e-12)
    log_density = info.Normal(mean, std).log_density(x)
    np.testing.assert_allclose(np.exp(log_density), written, rtol=1e-12)
    halves = math.log(2 * math.pi * std**2) / 2 + (x - mean) ** 2 / (2 * std**2)
    np.testing.assert_allclose(-log_density, halves, rtol=1e-12, atol=1e-12)


def test_moments_used_in_the_closed_form(rng: np.random.Generator) -> None:
    mean, std = rng.normal(), rng.uniform(0.1, 10)
    x = np.linspace(mean - 10 * std, mean + 10 * std, 2001)
    p = np.exp(info.Normal(mean, std).log_density(x))
    assert integrate.trapezoid(p, x) == pytest.approx(1, rel=1e-12)
    assert integrate.trapezoid((x - mean) ** 2 * p, x) == pytest.approx(std**2, rel=1e-12)


# Cross entropy, KL divergence, maximum likelihood


def test_cross_entropy_is_the_mean_information_of_the_model(rng: np.random.Generator) -> None:
    p, q = distribution(rng), distribution(rng)
    expected = total(-p * np.log(q))
    assert float(info.cross_entropy(p, q)) == pytest.approx(expected, rel=1e-14)


def test_kl_divergence_is_minus_p_log_q_over_p(rng: np.random.Generator) -> None:
    p, q = distribution(rng), distribution(rng)
    assert float(info.kl_divergence(p, q)) == pytest.approx(total(-p * np.log(q / p)), rel=1e-11)


def test_kl_divergence_is_the_excess_of_cross_entropy(rng: np.random.Generator) -> None:
    p, q = distribution(rng), distribution(rng)
    excess = float(info.cross_entropy(p, q)) - float(info.entropy(p))
    assert float(info.kl_divergence(p, q)) == pytest.approx(excess, rel=1e-11)
    assert float(info.kl_divergence(p, p)) == 0.0


def test_most_likely_model_has_the_least_cross_entropy(rng: np.random.Generator) -> None:
    """Among tempered models softmax(theta x): the argmax of the one is the argmin of the other."""
    scores = rng.normal(size=5)
    observed = rng.integers(0, 5, 200)
    empirical = np.bincount(observed, minlength=5) / observed.size
    thetas = np.linspace(-2, 2, 41)
    models = [np.exp(theta * scores) / np.exp(theta * scores).sum() for theta in thetas]
    likelihoods = [total(np.log(model[observed])) for model in models]
    losses = [float(info.cross_entropy(empirical, model)) for model in models]
    assert np.argmax(likelihoods) == np.argmin(losses)
    np.testing.assert_allclose(losses, np.divide(likelihoods, -observed.size), rtol=1e-12)
    rows = np.tile(scores, (observed.size, 1))
    fitted = thetas[np.argmin(losses)]
    loss = float(xent.cross_entropy(fitted * rows, observed))
    assert loss == pytest.approx(min(losses), rel=1e-12)


# Softmax, log-softmax and their backward


def test_softmax_is_shift_invariant(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(4, 6))
    shifted = logits + 1024.0
    exact = shifted - 1024.0  # what of the logits survives the addition
    np.testing.assert_allclose(xent.softmax(shifted), xent.softmax(exact), rtol=1e-15)
    written = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(xent.softmax(logits), written, rtol=1e-14)


def test_shifting_prevents_overflow() -> None:
    np.testing.assert_array_equal(xent.softmax(np.array([1000.0, 1000.0])), [0.5, 0.5])


def test_cross_entropy_is_nll_of_log_softmax(rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(8, 30)), rng.integers(0, 30, 8)
    log_probs = xent.log_softmax(logits)
    picked = total(-np.asarray(log_probs)[np.arange(8), target]) / 8
    assert float(xent.nll_loss(log_probs, target)) == pytest.approx(picked, rel=1e-14)
    assert float(xent.cross_entropy(logits, target)) == pytest.approx(picked, rel=1e-13)


def test_log_softmax_is_the_log_of_softmax(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(5, 3))
    log_probs = np.log(np.asarray(xent.softmax(logits)))
    np.testing.assert_allclose(xent.log_softmax(logits), log_probs, rtol=1e-12)


def test_nll_is_no_smaller_than_the_probability_missed(rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(50, 5)), rng.integers(0, 5, 50)
    missed = 1 - np.asarray(xent.softmax(logits))[np.arange(50), target]
    assert np.all(xent.cross_entropy(logits, target, reduction="none") >= missed)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_backward_of_softmax_and_log_softmax(
    name: str, axis: int, rng: np.random.Generator
) -> None:
    """With an upstream that differs from entry to entry: with ones softmax's backward is 0."""
    logits, upstream = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=axis, keepdims=True)
    if name == "softmax":
        expected = p * (upstream - (upstream * p).sum(axis=axis, keepdims=True))
        layer = manual.Softmax(axis=axis)
    else:
        expected = upstream - p * upstream.sum(axis=axis, keepdims=True)
        layer = manual.LogSoftmax(axis=axis)
    layer.forward(logits)
    np.testing.assert_allclose(layer.backward(upstream), expected, rtol=1e-12, atol=1e-14)

    tensor = torch.tensor(logits, requires_grad=True)
    getattr(xent, name)(tensor, axis=axis).backward(torch.tensor(upstream))
    assert tensor.grad is not None
    np.testing.assert_allclose(tensor.grad, expected, rtol=1e-12, atol=1e-14)


def test_softmax_backward_of_upstream_over_p_is_log_softmax_backward(
    rng: np.random.Generator,
) -> None:
    logits, upstream = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    softmax, log_softmax = manual.Softmax(), manual.LogSoftmax()
    p = np.asarray(softmax.forward(logits))
    log_softmax.forward(logits)
    through_log = softmax.backward(upstream / p)  # d log p = dp / p
    np.testing.assert_allclose(through_log, log_softmax.backward(upstream), rtol=1e-11, atol=1e-13)


def test_backward_of_nll_is_minus_one_hot_over_the_rows(rng: np.random.Generator) -> None:
    log_probs, target = rng.normal(size=(4, 3)), rng.integers(0, 3, 4)
    expected = np.zeros((4, 3))
    expected[np.arange(4), target] = -2.5 / 4
    layer = manual.NLLLoss()
    layer.forward(log_probs, target)
    np.testing.assert_allclose(layer.backward(2.5), expected, rtol=1e-15)


# The toy batch, 8 rows of 3000 classes


def test_toy_batch_three_ways_forward(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(8, 3000)).astype(np.float32)
    target = rng.integers(0, 3000, 8)
    tensor, indices = torch.tensor(logits), torch.tensor(target)
    theirs = float(torch.nn.CrossEntropyLoss()(tensor, indices))
    wide = logits.astype(np.float64)
    exact = total(np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(8), target]) / 8
    assert float(xent.cross_entropy(logits, target)) == pytest.approx(exact, rel=2e-7)
    assert float(xent.cross_entropy(tensor, indices)) == pytest.approx(exact, rel=2e-7)
    layer = manual.CrossEntropyLoss()
    assert float(layer.forward(logits, target)) == pytest.approx(exact, rel=2e-7)
    assert theirs == pytest.approx(exact, rel=1e-6)


def test_toy_batch_three_ways_backward(rng: np.random.Generator) -> None:
    logits = rng.normal(size=(8, 3000)).astype(np.float32)
    target = rng.integers(0, 3000, 8)
    indices = torch.tensor(target)
    wide = logits.astype(np.float64)
    exact = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    exact[np.arange(8), target] -= 1
    exact /= 8

    by_autograd = torch.tensor(logits, requires_grad=True)
    xent.nn.CrossEntropyLoss()(by_autograd, indices).backward()
    layer = manual.CrossEntropyLoss()
    layer.forward(logits, target)
    _, vjp = xent.cross_entropy_vjp(logits, target)
    theirs = torch.tensor(logits, requires_grad=True)
    torch.nn.CrossEntropyLoss()(theirs, indices).backward()
    assert by_autograd.grad is not None
    assert theirs.grad is not None
    for gradient in (by_autograd.grad, layer.backward(), vjp(1.0)):
        np.testing.assert_allclose(gradient, exact, rtol=1e-6)
    np.testing.assert_allclose(theirs.grad, exact, rtol=1e-5)


# Options of the last version: ignored rows and the three reductions


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_rows_and_reductions(reduction: str, rng: np.random.Generator) -> None:
    logits, target = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    target[[1, 4]] = -1
    kept = target != -1
    rows = np.where(kept, np.log(np.exp(logits).sum(1)) - logits[np.arange(6), target], 0)
    expected = {"mean": rows.sum() / 4, "sum": rows.sum(), "none": rows}[reduction]
    options = {"ignore_index": -1, "reduction": reduction}
    np.testing.assert_allclose(xent.cross_entropy(logits, target, **options), expected, rtol=1e-13)

    upstream = rng.normal(size=6) if reduction == "none" else np.asarray(rng.normal())
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(4)[target]
    scale = np.broadcast_to(upstream / (4 if reduction == "mean" else 1), 6) * kept
    layer = manual.CrossEntropyLoss(**options)
    layer.forward(logits, target)
    np.testing.assert_allclose(layer.backward(upstream), scale[:, None] * p, rtol=1e-12, atol=1e-14)


# The notebook's falling loss


def test_falling_loss_of_the_notebook() -> None:
    """59 numbers: the loss of the logits [1 - 0.002 k, 0] with target 1, from 1.3133 to 1.2298."""
    assert len(FALLING.split()) == 59
    k = np.arange(59)
    logits = np.stack([1 - 0.002 * k, np.zeros(59)], axis=1)
    losses = xent.cross_entropy(logits, np.ones(59, dtype=np.int64), reduction="none")
    np.testing.assert_allclose(losses, np.log1p(np.exp(1 - 0.002 * k)), rtol=1e-14)
    assert [f"{loss:.4f}" for loss in losses] == FALLING.split()
