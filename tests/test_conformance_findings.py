"""conformance/findings: an exception in one line."""

from __future__ import annotations

import pytest

from xent.conformance.findings import Fault, NotOffered, decline, raised


def test_an_error_in_one_line() -> None:
    assert raised(ValueError("first\nsecond")) == "ValueError: first"
    assert raised(ValueError()) == "ValueError"
    assert raised(SystemExit(3)) == "sys.exit(3)"


def test_a_fault_in_words() -> None:
    assert str(Fault("logits", "1", "2")) == "logits: expected 1, obtained 2"
    with pytest.raises(NotOffered, match="weight"):
        decline("weight")
