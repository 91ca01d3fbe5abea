"""What the ways to compute a whole loss of torch tensors share."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from xent.backends.torch_whole import consumed, seen, tracked
from xent.spec import Spec


def test_who_watches():
    assert not seen()
    found = []
    with FlopCounterMode(display=False):
        found.append(seen())
    with torch.overrides.BaseTorchFunctionMode():
        found.append(seen())
    with forward_ad.dual_level():
        found.append(seen())
    torch.func.vmap(lambda x: found.append(seen()) or x)(torch.zeros(2))
    assert found == [True] * 4
    assert not seen()


def test_the_gradient_is_tracked():
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    g = tracked((x, torch.tensor([0, 1]), None), Spec(reduction="sum"), torch.ones(()))
    right = torch.softmax(x, 1) - torch.eye(2)
    torch.testing.assert_close(g, right)
    assert g.requires_grad


def test_logits_that_hold_their_gradient_raise_at_any_use():
    whole = torch.zeros(4, 3, requires_grad=True) * 1
    logits = whole[:2]
    before = logits._version
    result = torch.ones(())
    assert consumed(logits, result) is result
    for tensor in (logits, whole):
        with pytest.raises(RuntimeError, match="sum: logits has its gradient in its place"):
            tensor.sum()
    with torch._C.DisableTorchFunctionSubclass():
        assert logits._version > before
