"""explanation.words: a text by its key, with its numbers."""

from __future__ import annotations

import pytest

from xent.explanation.words import Words


def test_texts_with_numbers() -> None:
    assert Words("en")("class", c=3) == "class 3"
    assert Words("ko")("class", c=3) == "클래스 3"


def test_a_missing_number_is_an_error() -> None:
    with pytest.raises(KeyError, match="c"):
        Words("en")("class")
