"""A patched model under FSDP2, on two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
from ranks import two_ranks


def test_two_ranks_have_the_loss_and_gradients_of_one(tmp_path, seed):
    for told in two_ranks("two_ranks_fsdp.py", tmp_path, seed):
        for found in told["settings"]:
            assert found["lazy"]
            assert found["loss"] < 1e-6, found
            assert found["gradients"] < 1e-5, found
        assert len(told["settings"]) == 3
        assert told["halves"] < 2e-2
        assert told["outside"] == (
            "LazyLogits: head has changed: it has a weight of type DTensor, "
            "expected what it was when it was called: a loss belongs into the model's forward"
        )
