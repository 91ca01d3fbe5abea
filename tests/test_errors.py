"""The form of error texts."""

from __future__ import annotations

import pytest

from xent.errors import bad


@pytest.mark.parametrize("kind", [TypeError, ValueError, IndexError, RuntimeError])
def test_the_form(kind):
    error = bad(kind, "cross_entropy", "target", "dtype bool", "integers")
    assert type(error) is kind
    assert str(error) == "cross_entropy: target has dtype bool, expected integers"
    assert error.args == (str(error),)


def test_it_makes_and_does_not_raise():
    assert isinstance(bad(ValueError, "f", "a", "b", "c"), ValueError)
