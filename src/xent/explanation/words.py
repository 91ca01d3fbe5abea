"""The texts of a language, looked up by key."""

from __future__ import annotations

from typing import Any

from xent.explanation import checks


class Words:
    """Texts with their numbers put in.

    >>> Words("ko")("softmax.shift")
    '최댓값을 뺀 소프트맥스'
    """

    def __init__(self, lang: str) -> None:
        self.lang = checks.language(lang)
        if self.lang == "ko":
            from xent.explanation.korean import TEXTS
        else:
            from xent.explanation.english import TEXTS
        self._texts = TEXTS

    def __call__(self, key: str, **numbers: Any) -> str:
        return self._texts[key].format(**numbers)
