"""explanation.checks: what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

import xent
from xent.explanation import checks


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0, ValueError, "explain: rows has value 0, expected an integer > 0"),
        (True, TypeError, "explain: rows has type bool, expected an integer > 0"),
        (1.5, TypeError, "explain: rows has type float, expected an integer > 0"),
    ],
)
def test_how_many_rows_is_a_count(value: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        xent.explain([1.0, 2.0], 0, rows=value)
    assert str(caught.value) == text


def test_languages() -> None:
    assert [checks.language(lang) for lang in checks.LANGUAGES] == ["en", "ko"]
    with pytest.raises(ValueError, match="lang has value 'KO', expected 'en' or 'ko'"):
        checks.language("KO")


def test_a_step_that_is_not_there_is_a_key_error() -> None:
    told = xent.explain([1.0, 2.0], 0)
    with pytest.raises(KeyError, match="no step 'softmax', but input, shift, exponentials"):
        told["softmax"]
