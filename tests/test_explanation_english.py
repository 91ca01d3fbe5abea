"""explanation.english: every text is used, and every text that is used is there."""

from __future__ import annotations

import re
from pathlib import Path

import xent.explanation.english as english

SOURCE = Path(english.__file__).parent
LANGUAGES = ("english.py", "korean.py")
CODE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted(SOURCE.glob("*.py"))
    if path.name not in LANGUAGES
)


def test_every_text_is_used() -> None:
    made = set(re.findall(r'(?:make|entries)\(\s*"(\w+)"', CODE))
    made_up = {f"{name}.{kind}" for name in made for kind in ("title", "text")}
    made_up |= {f"part.{part}" for part in ("batch", "forward", "backward", "numerics")}
    made_up |= {"input.indices", "input.probabilities"}
    unused = [key for key in english.TEXTS if f'"{key}"' not in CODE and key not in made_up]
    assert [key for key in unused if f"'{key}'" not in CODE] == []


def test_every_text_that_is_used_is_there() -> None:
    used = set(re.findall(r'words\(\s*"([\w.]+)"', CODE))
    assert used
    assert used <= set(english.TEXTS)


def test_texts_are_plain_sentences() -> None:
    for key, text in english.TEXTS.items():
        assert text == text.strip() or key.startswith("why."), key
        assert "  " not in text, key
        if key.endswith(".text"):
            assert text.endswith("."), key
