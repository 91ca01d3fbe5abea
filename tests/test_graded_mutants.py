"""tests/graded_mutants: every fault has its check or a reason, and drawn ones are seen."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from xent.conformance.checks import CHECKS

sys.path.insert(0, str(Path(__file__).parent))
from graded_mutants import CAUGHT, UNASKED, catcher, every, missed, unasked


def test_every_fault_has_a_check_or_a_reason() -> None:
    for fault in every():
        told = f"{fault.file}: {fault.right}"
        assert bool(unasked(fault)) != bool(catcher(fault)), told
    assert {caught.check for caught in CAUGHT} <= set(CHECKS)
    assert {catcher(fault) for fault in every()} >= set(CAUGHT), "a check for a fault that is gone"
    for file, word in UNASKED:
        assert any(f.file == file and word in f.right for f in every()), (file, word)


def test_drawn_faults_are_seen(rng: np.random.Generator) -> None:
    asked = [fault for fault in every() if not unasked(fault)]
    for place in rng.choice(len(asked), 2, replace=False):
        amiss, lead = missed(asked[place])
        assert not amiss, (asked[place], amiss)
        assert lead
