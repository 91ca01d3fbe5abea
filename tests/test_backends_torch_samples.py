"""The inputs that torch tests its own losses with, against torch's values and gradients."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest

import pytest
import torch
import torch.nn.functional as F

import xent

PLAIN = {
    "nn.functional.cross_entropy": (xent.cross_entropy, F.cross_entropy),
    "nn.functional.nll_loss": (xent.nll_loss, F.nll_loss),
    "nn.functional.binary_cross_entropy_with_logits": (
        xent.binary_cross_entropy_with_logits,
        F.binary_cross_entropy_with_logits,
    ),
    "softmax": (xent.softmax, torch.softmax),
    "log_softmax": (xent.log_softmax, torch.log_softmax),
    "logsumexp": (xent.logsumexp, torch.logsumexp),
}
SHARE = {"logsumexp": 0.4}  # of the samples that xent takes: it has no several axes, nor keeps one


@pytest.fixture(scope="module")
def samples():
    """Torch's descriptions of its functions, by name; several of some."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("expecttest") is None:
            # A test tool of which torch's tests only take a base class.
            stand_in = types.SimpleNamespace(TestCase=unittest.TestCase)
            patch.setitem(sys.modules, "expecttest", stand_in)
        module = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    return {name: [op for op in module.op_db if op.name == name] for name in PLAIN}


def takes(name, sample) -> bool:
    """Whether xent's function means the same by these arguments."""
    if name == "logsumexp":
        axis, keep = (*sample.args, False)[:2]
        return sample.input.ndim > 0 and not keep and len(axis) == 1
    if name.endswith("softmax"):
        return sample.input.ndim > 0
    return True


def call(name, function, sample):
    arguments, options = sample.args, dict(sample.kwargs)
    if name == "logsumexp":
        return function(sample.input, arguments[0][0])
    if function in (torch.softmax, torch.log_softmax):
        return function(sample.input, *arguments, dtype=options.get("dtype"))
    return function(sample.input, *arguments, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", PLAIN)
def test_values_and_gradients_of_torchs_own_samples(samples, rng, name, dtype):
    torch.manual_seed(int(rng.integers(2**31)))
    ours, theirs = PLAIN[name]
    given = [s for op in samples[name] for s in op.sample_inputs("cpu", dtype, requires_grad=True)]
    taken = [s for s in given if takes(name, s)]
    assert len(taken) >= SHARE.get(name, 0.85) * len(given) > 0
    for sample in taken:
        got, right = (call(name, f, sample) for f in (ours, theirs))
        assert (got.dtype, got.shape) == (right.dtype, right.shape)
        torch.testing.assert_close(got, right, check_stride=False)
        upstream = torch.randn_like(right)
        grads = [torch.autograd.grad(value, sample.input, upstream) for value in (got, right)]
        torch.testing.assert_close(*grads, check_stride=False)
