"""What an explanation is: steps as data. How it is shown is in a file for each way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from xent.explanation import checks

Array = np.ndarray
PARTS = ("batch", "forward", "backward", "numerics")


@dataclass(frozen=True)
class Table:
    """Cells as they are shown, the names of rows in the first column."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[tuple[int, int]] = frozenset()  # (row, column) of targets
    words: bool = False  # whether cells are words, set to the left


@dataclass(frozen=True, eq=False)
class Step:
    """One step: its formula for people and for TeX, its numbers, and what is said of them."""

    name: str
    part: str  # one of PARTS
    title: str
    formula: str
    latex: str
    text: str
    values: Mapping[str, Array]
    worked: tuple[str, ...] = ()  # the formula with numbers in it
    table: Table | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """A cross entropy told step by step; made by `explain`.

    Attributes:
        steps: the steps, of `PARTS` in order. `told["lse"]` is one by its name.
        loss: float64, 0-d or in the shape of the target.
        rows: the rows that are shown, counted in the order of the target.
        lang: the language.
    """

    steps: tuple[Step, ...]
    loss: Array
    rows: Array
    lang: str
    heading: str
    part_titles: Mapping[str, str]
    _gradient: Callable[[], Array] = field(repr=False)

    @cached_property
    def gradient(self) -> Array:
        """The derivative of the loss by the logits, float64 in their shape, made when asked for.

        Of the sum of the losses where they are not reduced.
        """
        return self._gradient()

    def __getitem__(self, name: str) -> Step:
        by_name = {step.name: step for step in self.steps}
        checks.known(name, tuple(by_name))
        return by_name[name]

    def parts(self) -> Iterator[tuple[str, list[tuple[int, Step]]]]:
        """The title of each part, and its steps with their numbers."""
        numbered = list(enumerate(self.steps, start=1))
        for part in PARTS:
            found = [(number, step) for number, step in numbered if step.part == part]
            if found:
                yield self.part_titles[part], found

    def as_dict(self) -> dict[str, Any]:
        """Everything but the gradient of rows that are not shown, as lists and numbers."""
        from xent.explanation.data import as_dict

        return as_dict(self)

    def html(self) -> str:
        """A page of its own, without scripts, light or dark as the reader's system is."""
        from xent.explanation.html import page

        return page(self)

    def __str__(self) -> str:
        from xent.explanation.plain import text

        return text(self)

    __repr__ = __str__

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from xent.explanation.terminal import blocks

        return blocks(self)

    def _repr_html_(self) -> str:
        from xent.explanation.html import fragment

        return fragment(self)

    def _repr_latex_(self) -> str:
        from xent.explanation.latex import text

        return text(self)

    def _repr_markdown_(self) -> str:
        from xent.explanation.markdown import text

        return text(self)


def explanation(asked: Mapping[str, Any]) -> Explanation:
    """The explanation of a call."""
    from xent.explanation import backward, forward, numerics, summary
    from xent.explanation.batch import Batch
    from xent.explanation.digits import computed
    from xent.explanation.told import chosen, told
    from xent.explanation.words import Words
    from xent.spec import FIELDS, Spec

    words = Words(asked["lang"])
    rows, classes = (checks.count(name, asked[name]) for name in ("rows", "classes"))
    spec = Spec(function="explain", **{n: asked[n] for n in FIELDS if n != "function"})
    batch = Batch.of(asked["logits"], asked["target"], asked["weight"], spec)
    shown = told(batch, chosen(batch, rows), classes)
    steps = [
        *summary.steps(batch, shown, words),
        *forward.steps(batch, shown, words),
        *backward.steps(batch, shown, words),
        *numerics.steps(batch, shown, words),
    ]
    whole = batch.loss.ndim == 0 or batch.count == 1
    heading = words("heading.rows")
    if whole:
        heading = words("heading.one", loss=computed(batch.loss.item()))
    return Explanation(
        steps=tuple(steps),
        loss=batch.loss,
        rows=shown.index,
        lang=words.lang,
        heading=heading,
        part_titles={part: words(f"part.{part}") for part in PARTS},
        _gradient=batch.gradient,
    )
