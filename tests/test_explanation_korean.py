"""explanation.korean: the keys and the numbers of the English texts, in Korean."""

from __future__ import annotations

import re
import string

import numpy as np
import pytest

import xent
from xent.explanation.english import TEXTS as ENGLISH
from xent.explanation.korean import TEXTS as KOREAN

SYMBOLS = {"naive.raised", "naive.lowered", "naive.stretched", "naive.ahead", "scale"}
SYMBOLS |= {"softmax.log", "jacobian.product"}


def numbers(text: str) -> list[str]:
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name})


def test_the_keys_are_those_of_the_english_texts() -> None:
    assert list(KOREAN) == list(ENGLISH)


@pytest.mark.parametrize("key", ENGLISH)
def test_a_text_has_the_numbers_of_the_english_one(key: str) -> None:
    assert numbers(KOREAN[key]) == numbers(ENGLISH[key])


@pytest.mark.parametrize("key", sorted(set(KOREAN) - SYMBOLS))
def test_a_text_is_korean(key: str) -> None:
    assert re.search("[가-힣]", KOREAN[key])


def test_an_explanation_is_korean_and_has_the_same_numbers(rng: np.random.Generator) -> None:
    logits, target = rng.standard_normal((30, 4)), rng.integers(0, 4, 30)
    options = {
        "label_smoothing": 0.1,
        "z_loss": 0.01,
        "softcap": 9.0,
        "weight": np.arange(1.0, 5.0),
    }
    korean = xent.explain(logits, target, lang="ko", **options)
    english = xent.explain(logits, target, **options)
    assert [step.name for step in korean.steps] == [step.name for step in english.steps]
    for one, other in zip(korean.steps, english.steps, strict=True):
        assert one.formula == other.formula
        assert re.search("[가-힣]", one.title), one.name
        for name, value in one.values.items():
            np.testing.assert_array_equal(value, other.values[name])
    assert "교차 엔트로피" in str(korean)
    assert "소프트맥스" in str(korean)
    words = re.findall(r"[a-z]{4,}", " ".join(step.text for step in korean.steps))
    assert set(words) <= {"float", "torch", "xent", "ignore", "index", "bfloat", "softmax", "loss"}
