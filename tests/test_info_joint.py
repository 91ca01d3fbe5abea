"""The measures of joint distributions against exact arithmetic, and the chain rules."""

from __future__ import annotations

import math

import array_api_strict
import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xent import info

TABLES = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(st.floats(1e-6, 1) | st.just(0.0), min_size=shape[1], max_size=shape[1]),
        min_size=shape[0],
        max_size=shape[0],
    ).filter(lambda rows: sum(map(sum, rows)) > 0)
)


@pytest.fixture(autouse=True, scope="module")
def precision():
    with mpmath.workprec(300):
        yield


def exact(table):
    return [[mpmath.mpf(float(v)) for v in row] for row in table]


def information_of(table):
    """sum p log(p / (x y)) - p + x y, for the marginals x and y as they are."""
    p = exact(table)
    x, y = [mpmath.fsum(row) for row in p], [mpmath.fsum(column) for column in zip(*p, strict=True)]
    return mpmath.fsum(
        (v * mpmath.log(v / (a * b)) if v else 0) - v + a * b
        for a, row in zip(x, p, strict=True)
        for b, v in zip(y, row, strict=True)
    )


def conditional_of(table):
    return mpmath.fsum(
        -v * mpmath.log(v / mpmath.fsum(row)) for row in exact(table) for v in row if v
    )


def relative(value, truth):
    return abs(float((mpmath.mpf(float(value)) - truth) / truth))


@pytest.mark.parametrize("size", [3.0, 1.0, 1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("shape", [(2, 2), (3, 5)])
def test_values_near_independence(size, shape, rng):
    for _ in range(20):
        table = np.outer(rng.dirichlet(np.ones(shape[0])), rng.dirichlet(np.ones(shape[1])))
        table *= np.exp(size * rng.uniform(-1, 1, shape))
        table /= table.sum()
        truth = information_of(table)
        # What the rounding of the marginals leaves: its square.
        allowed = 4e-15 + 1e-30 / float(truth)
        assert relative(info.mutual_information(table), truth) < allowed
        assert relative(info.conditional_entropy(table), conditional_of(table)) < 1e-15


@pytest.mark.parametrize("small", [1e-3, 1e-12, 1e-200])
def test_values_near_certainty_and_near_underflow(small):
    certain, nearly = [[small, 0.0], [0.0, 1 - small]], [[0.5, small], [0.0, 0.5 - small]]
    with mpmath.workprec(1500):
        truths = information_of(certain), conditional_of(nearly)
    assert relative(info.mutual_information(certain), truths[0]) < 1e-15
    assert info.conditional_entropy(certain) == 0
    assert relative(info.conditional_entropy(nearly), truths[1]) < 1e-15


@given(TABLES)
def test_chain_rules_and_bounds(rows):
    table = np.array(rows)
    table = table / table.sum()
    marginals = [m / m.sum() for m in (table.sum(1), table.sum(0))]
    x, y = (float(info.entropy(m)) for m in marginals)
    joint, mutual = info.joint_entropy(table), info.mutual_information(table)
    y_given_x, x_given_y = (info.conditional_entropy(table, axis=a) for a in ((-2, -1), (-1, -2)))
    near = {"rel": 1e-13, "abs": 1e-14}
    assert joint == pytest.approx(x + y_given_x, **near)
    assert joint == pytest.approx(y + x_given_y, **near)
    assert mutual == pytest.approx(x + y - joint, **near)
    assert mutual == pytest.approx(y - y_given_x, **near)
    assert 0 <= mutual <= min(x, y) + 1e-14
    assert 0 <= y_given_x <= y + 1e-14
    assert mutual == pytest.approx(info.mutual_information(table.T), rel=1e-12, abs=1e-25)
    by_rows = sum(
        p * info.entropy(row / row.sum()) for p, row in zip(table.sum(1), table, strict=True) if p
    )
    assert y_given_x == pytest.approx(by_rows, **near)


def test_dependent_and_independent():
    assert info.mutual_information([[0.25, 0.25], [0.25, 0.25]]) == 0
    assert info.mutual_information(np.eye(8) / 8, base=2) == 3
    assert info.conditional_entropy(np.eye(4) / 4) == 0
    assert info.conditional_entropy([[0.5, 0.5], [0.0, 0.0]], base=2) == 1
    assert info.joint_entropy(np.full((4, 8), 1 / 32), base=2) == 5


@pytest.mark.parametrize(
    "measure", [info.joint_entropy, info.conditional_entropy, info.mutual_information]
)
def test_axes_libraries_types_and_derivatives(measure, rng):
    table = rng.dirichlet(np.ones(6), 5).reshape(5, 2, 3)
    kept, expected = table.copy(), measure(table)
    assert expected.shape == (5,)
    moved = np.moveaxis(table, 0, 1)
    np.testing.assert_array_equal(measure(moved, axis=(0, 2)), expected)
    assert measure(moved, axis=(0, -1), keepdims=True).shape == (1, 5, 1)
    np.testing.assert_allclose(measure(table, base=2), expected / math.log(2), rtol=1e-15)
    np.testing.assert_allclose(
        measure(np.log(table) + 7, from_logits=True), expected, rtol=1e-12, atol=1e-15
    )
    strict = measure(array_api_strict.asarray(table))
    np.testing.assert_allclose(np.asarray(strict), expected, rtol=1e-15)
    assert isinstance(measure(table[0]), np.float64)
    assert isinstance(measure(table[0].astype(np.float32)), np.float32)
    assert measure(torch.full((2, 2), 0.25, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert measure(np.zeros((0, 2, 3))).shape == (0,)
    np.testing.assert_array_equal(table, kept)

    logits = torch.from_numpy(rng.normal(size=(2, 3))).requires_grad_()
    for function in (
        lambda x: measure(torch.softmax(x.flatten(), 0).reshape(2, 3)),
        lambda x: measure(x, from_logits=True),
    ):
        assert torch.autograd.gradcheck(function, logits)
        assert torch.autograd.gradgradcheck(function, logits)
    zeros = torch.tensor([[0.0, 0.0], [0.25, 0.75]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(measure(zeros), zeros)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated")
def test_torch_transforms(rng):
    tables = torch.from_numpy(rng.dirichlet(np.ones(6), 4).reshape(4, 2, 3))
    for measure in (info.joint_entropy, info.conditional_entropy, info.mutual_information):
        torch.testing.assert_close(torch.func.vmap(measure)(tables), measure(tables))
    compiled = torch.compile(info.mutual_information, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tables), info.mutual_information(tables))
