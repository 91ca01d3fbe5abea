"""The way of a call: class weights whole or in parts, classes on any axis, rows of images."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import parallel_calls as calls
from parallel_ranks import run

import xent


@pytest.mark.parametrize("whole", [True, False])
def test_class_weights_are_given_whole_or_in_parts(rng, whole):
    arrays = {
        "logits": rng.normal(size=(3, 7, 2)),
        "weight": rng.uniform(0.5, 2, 7),
        "target": rng.integers(0, 7, (3, 2)),
    }
    x, w, t = (torch.from_numpy(arrays[n]) for n in ("logits", "weight", "target"))
    x.requires_grad_()
    wanted = xent.cross_entropy(x, t, w, label_smoothing=0.1)
    wanted.backward()
    parts = run(calls.images, 3, arrays, whole)
    for loss, _, text in parts:
        assert loss == pytest.approx(wanted.item(), rel=1e-13)
        assert text.startswith("IndexError: parallel.cross_entropy: target has value 7")
    found = np.concatenate([part[1] for part in parts], axis=1)
    np.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-11, atol=1e-15)
