"""The reference backend: quiet arithmetic, blocks by plan, read-only arrays, every library."""

from __future__ import annotations

import math
import warnings

import array_api_strict
import numpy as np
import pytest

import xent
from xent import inputs
from xent.backends import backend_of, numpy
from xent.ops import Result
from xent.ops.blocks import BLOCK_BYTES
from xent.ops.stats import IGNORED, INVALID
from xent.spec import Plan, Spec

X = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])


class Recording:
    """An op that keeps the blocks it was given."""

    def forward(self, xp, arrays, blocks):
        self.blocks, self.xp = blocks, xp
        return Result((arrays[0],), ())

    def vjp(self, xp, arrays, residuals, cotangents, wanted, blocks):
        self.blocks, self.wanted = blocks, wanted
        return (cotangents[0], None)


def test_every_library_but_torch_runs_here():
    assert backend_of(X) is numpy
    assert backend_of(array_api_strict.asarray(X)) is numpy


@pytest.mark.parametrize("array", [np.asarray, array_api_strict.asarray])
@pytest.mark.parametrize(
    ("plan", "size"),
    [(None, BLOCK_BYTES), (Plan(), BLOCK_BYTES), (Plan(chunk_bytes=7), 7)],
)
def test_the_plan_gives_the_size_of_blocks(array, plan, size):
    op, given = Recording(), array(X)
    numpy.apply(op, (given,), plan)
    assert op.blocks.bytes == size
    assert op.blocks.write
    assert op.xp is inputs.namespace(given)
    assert numpy.vjp(op, (given, None), (), (given,), plan) is given
    assert op.blocks.bytes == size
    assert op.wanted == (True, False)


def test_read_only_arrays_run():
    frozen = X.copy()
    frozen.flags.writeable = False
    op = Recording()
    numpy.apply(op, (frozen,), None)
    assert op.blocks.write
    target = np.array([2, 0])
    target.flags.writeable = False
    loss, vjp = xent.cross_entropy_vjp(frozen, target, plan=Plan(chunk_bytes=1))
    assert loss == xent.cross_entropy(X, [2, 0])
    assert vjp(1.0).flags.writeable


def test_overflow_and_nan_warn_of_nothing():
    extreme = np.array([[3e38, -3e38], [-np.inf, np.inf], [np.nan, 1.0], [1e4, -1e4]], np.float32)
    before = np.geterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(all="warn"):
            inside = np.geterr()
            for target in ([1, 0, 0, 1], np.abs(extreme)):
                loss, vjp = xent.cross_entropy_vjp(extreme, target, z_loss=1.0, reduction="none")
                vjp(1e30)
                vjp(math.inf)
                xent.cross_entropy(extreme, target)
            xent.softmax(extreme)
            xent.log_softmax(extreme)
            xent.logsumexp(extreme)
            xent.token_statistics(extreme, [1, 0, 0, 1])
            xent.nll_loss(extreme, [1, 0, 0, 1])
            xent.binary_cross_entropy_with_logits(extreme, extreme)
            layer = xent.manual.Softmax()
            layer.forward(extreme)
            layer.backward(extreme)
            assert np.geterr() == inside
    assert np.geterr() == before
    assert loss.shape == (4,)


def rows_with(target):
    return inputs.class_rows(X, np.array(target), None, Spec())


def test_class_indices_are_checked_unless_the_plan_says_no():
    rows = rows_with([5, -100])
    for plan in (None, Plan(), Plan(check_targets=True)):
        with pytest.raises(IndexError):
            numpy.coded(rows, Spec(), plan)
    codes = numpy.coded(rows, Spec(), Plan(check_targets=False)).target
    assert codes.tolist() == [[INVALID], [IGNORED]]
    assert rows.target.tolist() == [[5], [-100]]


def test_the_dtype_of_a_loss_is_that_of_its_rows():
    assert numpy.result_dtype(rows_with([0, 0])) == np.float64
    assert xent.cross_entropy(X.astype(np.float16), [0, 0]).dtype == np.float16


@pytest.mark.parametrize("terms", [np.ones((0, 2)), np.ones((3, 5)), np.array([[2.5]])])
def test_the_total_of_an_array(terms):
    assert numpy.total(terms) == math.fsum(terms.ravel())
    assert float(numpy.total(array_api_strict.asarray(terms))) == math.fsum(terms.ravel())
