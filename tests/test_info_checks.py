"""Every error text of xent.info in full, and which values are read at all."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import torch

from xent import info

HALF = [0.5, 0.5]
INF, NAN = float("inf"), float("nan")
TABLE = [[0.25, 0.25], [0.25, 0.25]]


def one(x):
    return 1.0


ERRORS = [
    (
        lambda: info.entropy([0.5, 0.4]),
        ValueError,
        "entropy: p has sum 0.9, expected 1 within 2.7e-15",
    ),
    (
        lambda: info.entropy([HALF, [0.5, 0.25]]),
        ValueError,
        "entropy: p has sum 0.75 in row 1, expected 1 within 2.7e-15",
    ),
    (
        lambda: info.entropy(np.float32([[HALF, HALF], [HALF, [1.0, 1.0]]])),
        ValueError,
        "entropy: p has sum 2.0 in row (1, 1), expected 1 within 1.5e-06",
    ),
    (
        lambda: info.entropy([[0.5, 1.0], [0.5, 0.5]], axis=0),
        ValueError,
        "entropy: p has sum 1.5 in row 1, expected 1 within 2.7e-15",
    ),
    (
        lambda: info.entropy([1.5, -0.5]),
        ValueError,
        "entropy: p has -0.5 in class 1, expected finite probabilities >= 0",
    ),
    (
        lambda: info.kl_divergence(HALF, [HALF, [NAN, 1.0]]),
        ValueError,
        "kl_divergence: q has nan in class 0 of row 1, expected finite probabilities >= 0",
    ),
    (
        lambda: info.mutual_information([[0.5, INF], [0.0, 0.0]]),
        ValueError,
        "mutual_information: joint has inf in class (0, 1), expected finite probabilities >= 0",
    ),
    (
        lambda: info.entropy([[0.0, 1.0], [0.0, INF]], from_logits=True),
        ValueError,
        "entropy: p has inf in class 1 of row 1, expected logits that are -inf or of a size below "
        "4.5e+307",
    ),
    (
        lambda: info.entropy([[0.0, 1.0], [-INF, -INF]], from_logits=True),
        ValueError,
        "entropy: p has only -inf in row 1, expected a finite logit in each row",
    ),
    (
        lambda: info.information([0.5, 1.5]),
        ValueError,
        "information: p has value 1.5 at index 1, expected from 0 to 1",
    ),
    (
        lambda: info.information(NAN),
        ValueError,
        "information: p has value nan, expected from 0 to 1",
    ),
    (
        lambda: info.perplexity(-2.5),
        ValueError,
        "perplexity: nll has value -2.5, expected >= 0",
    ),
    (
        lambda: info.perplexity(2.5, base=1),
        ValueError,
        "perplexity: base has value 1.0, expected a number > 1",
    ),
    (
        lambda: info.bits_per_byte(-1.0, 3),
        ValueError,
        "bits_per_byte: nll_sum has value -1.0, expected >= 0",
    ),
    (
        lambda: info.bits_per_byte([1.0, 2.0], [3, 0]),
        ValueError,
        "bits_per_byte: n_bytes has value 0.0 at index 1, expected >= 1",
    ),
    (
        lambda: info.bits_per_byte([1.0, 2.0], [3, 1, 1]),
        ValueError,
        "bits_per_byte: n_bytes has shape (3,), expected one that broadcasts with (2,)",
    ),
    (
        lambda: info.bits_per_byte(1.0, 3.0),
        TypeError,
        "bits_per_byte: n_bytes has dtype float64, expected integers",
    ),
    (
        lambda: info.entropy(np.array([0, 1])),
        TypeError,
        "entropy: p has dtype int64, expected a real floating dtype",
    ),
    (
        lambda: info.entropy(torch.tensor([0, 1])),
        TypeError,
        "entropy: p has dtype torch.int64, expected a real floating dtype",
    ),
    (
        lambda: info.entropy("ab"),
        TypeError,
        "entropy: p has type str, expected real numbers, lists of them or an array",
    ),
    (
        lambda: info.entropy([[0.5, 0.5], [1.0]]),
        ValueError,
        "entropy: p has lists of unequal lengths, expected lists of equal lengths",
    ),
    (
        lambda: info.cross_entropy(np.array(HALF), torch.tensor(HALF)),
        TypeError,
        "cross_entropy: p and q has types numpy.ndarray and torch.Tensor, expected arrays of one "
        "library",
    ),
    (
        lambda: info.entropy(0.5),
        ValueError,
        "entropy: p has 0 dimensions, expected at least 1",
    ),
    (
        lambda: info.mutual_information(HALF),
        ValueError,
        "mutual_information: joint has 1 dimensions, expected at least 2",
    ),
    (
        lambda: info.entropy(TABLE, axis=2),
        ValueError,
        "entropy: axis has value 2, expected -2 to 1 for the 2 dimensions of p",
    ),
    (
        lambda: info.entropy(TABLE, axis=(1, -1)),
        ValueError,
        "entropy: axis has value (1, -1), expected different axes",
    ),
    (
        lambda: info.entropy(TABLE, axis=None),  # pyright: ignore
        TypeError,
        "entropy: axis has value None, expected an integer or a tuple of them",
    ),
    (
        lambda: info.joint_entropy(TABLE, axis=0),  # pyright: ignore
        TypeError,
        "joint_entropy: axis has value 0, expected a pair of integers",
    ),
    (
        lambda: info.entropy(np.zeros((3, 0))),
        ValueError,
        "entropy: p has shape (3, 0), expected at least one class along axis -1",
    ),
    (
        lambda: info.kl_divergence(HALF, [0.5, 0.25, 0.25]),
        ValueError,
        "kl_divergence: q has shape (3,), expected the classes of p, of shape (2,), along axis -1",
    ),
    (
        lambda: info.kl_divergence([HALF] * 2, [HALF] * 3),
        ValueError,
        "kl_divergence: q has shape (3, 2), expected one that broadcasts with (2, 2) of p",
    ),
    (
        lambda: info.kl_divergence(HALF, [HALF], axis=0),
        ValueError,
        "kl_divergence: q has shape (1, 2), expected 1 dimensions as p, or a negative axis",
    ),
    (
        lambda: info.entropy(HALF, base=0),
        ValueError,
        "entropy: base has value 0.0, expected a number > 0 other than 1",
    ),
    (
        lambda: info.entropy(HALF, base=NAN),
        ValueError,
        "entropy: base has value nan, expected a number > 0 other than 1",
    ),
    (
        lambda: info.entropy(HALF, base="2"),  # pyright: ignore
        TypeError,
        "entropy: base has type str, expected a number, or None for nats",
    ),
    (
        lambda: info.js_distance(HALF, HALF, base=0.5),
        ValueError,
        "js_distance: base has value 0.5, expected a number > 1",
    ),
    (
        lambda: info.entropy(HALF, from_logits=(True, False)),  # pyright: ignore
        TypeError,
        "entropy: from_logits has value (True, False), expected a bool",
    ),
    (
        lambda: info.js_divergence(HALF, HALF, from_logits="q"),  # pyright: ignore
        TypeError,
        "js_divergence: from_logits has value 'q', expected a bool or a pair of bools",
    ),
    (
        lambda: info.Normal(0, [1.0, -1.0]),
        ValueError,
        "Normal: std has value -1.0 at index 1, expected > 0 and finite",
    ),
    (
        lambda: info.Normal(NAN, 1),
        ValueError,
        "Normal: mean has value nan, expected a finite number",
    ),
    (
        lambda: info.Normal([0, 1, 2], [1, 2]),
        ValueError,
        "Normal: mean and std has shapes (3,) and (2,), expected shapes that broadcast",
    ),
    (
        lambda: info.Gamma(torch.tensor(1.0), 1),
        TypeError,
        "Gamma: shape has type torch.Tensor, expected real numbers, lists of them or an array",
    ),
    (
        lambda: info.Uniform([0, 1], 1),
        ValueError,
        "Uniform: high - low has value 0.0 at index 1, expected > 0 and finite",
    ),
    (
        lambda: info.Uniform(-1e308, 1e308),
        ValueError,
        "Uniform: high - low has value inf, expected > 0 and finite",
    ),
    (
        lambda: info.MultivariateNormal([0, 0], [[1.0]]),
        ValueError,
        "MultivariateNormal: covariance has shape (1, 1), expected (..., 2, 2) for a mean of shape "
        "(2,)",
    ),
    (
        lambda: info.MultivariateNormal([0, 0], [[1, 0.5], [0, 1]]),
        ValueError,
        "MultivariateNormal: covariance has a difference of 0.5 from its transpose, expected a "
        "symmetric matrix",
    ),
    (
        lambda: info.MultivariateNormal([0, 0], [[1, 2], [2, 1]]),
        ValueError,
        "MultivariateNormal: covariance has the eigenvalue -1, expected a positive definite matrix",
    ),
    (
        lambda: info.Normal(0, 1).kl_divergence(info.Laplace(0, 1)),
        TypeError,
        "Normal.kl_divergence: other has type Laplace, expected Normal",
    ),
    (
        lambda: info.Normal([0, 1, 2], 1).cross_entropy(info.Normal([0, 1], 1)),
        ValueError,
        "Normal.cross_entropy: other.mean has shape (2,), expected one that broadcasts with (3,)",
    ),
    (
        lambda: info.MultivariateNormal([0], [[1]]).kl_divergence(
            info.MultivariateNormal([0, 0], np.eye(2))
        ),
        ValueError,
        "MultivariateNormal.kl_divergence: other.mean has shape (2,), expected one that broadcasts "
        "with (1,)",
    ),
    (
        lambda: info.Normal(0, 1).density("a"),
        TypeError,
        "Normal.log_density: points has type str, expected real numbers, lists of them or an array",
    ),
    (
        lambda: info.differential_entropy(lambda x: 0.5, 0, 1),
        ValueError,
        "differential_entropy: density has integral 0.5 from 0 to 1, expected 1 within 1e-08 (a "
        "narrow peak is found with points=)",
    ),
    (
        lambda: info.differential_entropy(lambda x: -0.5, 0, 2),
        ValueError,
        "differential_entropy: density has value -0.5 at 1.0, expected >= 0 and finite",
    ),
    (
        lambda: info.differential_entropy(lambda x: 800.0, 0, 1, log=True),
        ValueError,
        "differential_entropy: density has value 800.0 at 0.5, expected a logarithm < 709",
    ),
    (
        lambda: info.differential_entropy(lambda x: None, 0, 1),
        TypeError,
        "differential_entropy: density has type NoneType at 0.5, expected one number for one point",
    ),
    (
        lambda: info.differential_entropy(1.0, 0, 1),  # pyright: ignore
        TypeError,
        "differential_entropy: density has type float, expected a function",
    ),
    (
        lambda: info.differential_entropy(one, 0, 1, points=[0.5, 0.2]),
        ValueError,
        "differential_entropy: low, *points, high has values [0.0, 0.5, 0.2, 1.0], expected "
        "increasing numbers",
    ),
    (
        lambda: info.differential_entropy(one, 0, "b"),  # pyright: ignore
        TypeError,
        "differential_entropy: low, high or points has values 0, 'b' and (), expected numbers",
    ),
    (
        lambda: info.differential_kl_divergence(one, lambda x: 2.0 * (x < 0.5), 0, 1, points=[0.5]),
        ValueError,
        "differential_kl_divergence: q has value 0.0 at 0.75, where p is 1, expected > 0 wherever "
        "p is: else the result is inf (log=True if q underflows)",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=[text for *_, text in ERRORS])
def test_error_text(call, kind, text):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("convert", [array_api_strict.asarray, torch.tensor, np.float32])
def test_every_library_is_checked(convert):
    with pytest.raises(ValueError, match=r"entropy: p has sum 1\.25 in row 1, expected 1 within"):
        info.entropy(convert([HALF, [0.75, 0.5]]))


@pytest.mark.parametrize("classes", [2, 1000, 50257, 1_000_000])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_softmax_passes_in_every_dtype(dtype, classes, rng):
    for logits in (rng.normal(size=classes), 1e-3 * rng.random(classes)):
        p = torch.softmax(torch.from_numpy(logits).to(getattr(torch, dtype)), 0)
        assert bool(torch.isfinite(info.entropy(p)))


def test_the_tolerance_is_the_one_of_the_docstring():
    for p in (np.full(4, 0.25), np.full(400, 1 / 400, np.float32)):
        eps, tiny = float(np.finfo(p.dtype).eps), float(np.finfo(p.dtype).smallest_subnormal)
        allowed = eps + 8 * np.sqrt(len(p)) * min(eps, 2.0**-23) + len(p) * tiny
        rest = p[1:].astype(np.float64).sum()
        p[0] = 1 + 0.9 * allowed - rest
        info.entropy(p)
        p[0] = 1 + 1.1 * allowed - rest
        with pytest.raises(ValueError, match="entropy: p has sum"):
            info.entropy(p)


def test_a_wrong_digit_does_not_pass():
    for p in ([0.333, 0.333, 0.333], [0.2, 0.8000001], np.float32([0.2, 0.80001])):
        with pytest.raises(ValueError, match="entropy: p has sum"):
            info.entropy(p)


def test_unread_values_that_are_no_distribution_give_nan():
    half = torch.tensor(HALF)
    for wrong in ([NAN, 1.0], [1.5, -0.5]):
        rows = torch.tensor([wrong])
        for measure in (
            info.entropy,
            lambda p: info.kl_divergence(p, half),
            lambda p: info.kl_divergence(half, p),
            lambda p: info.cross_entropy(half, p),
            lambda p: info.js_distance(p, half),
            lambda p: info.mutual_information(torch.stack([p, p]) / 2),
            lambda p: info.conditional_entropy(torch.stack([p, p]) / 2),
            lambda p: info.entropy(p - INF, from_logits=True),
        ):
            assert bool(torch.isnan(torch.func.vmap(measure)(rows)).all())


def test_shapes_and_dtypes_are_checked_also_where_values_are_not():
    with pytest.raises(ValueError, match="kl_divergence: q has shape"):
        info.kl_divergence(torch.ones(3, device="meta"), torch.ones(2, device="meta"))
    with pytest.raises(TypeError, match="entropy: p has dtype"):
        info.entropy(torch.ones(3, device="meta", dtype=torch.int32))
