"""One call that is measured, of a subject: with what has to stand ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

Array = Any


class Work(NamedTuple):
    """One call: of what `prepare` gives, made anew before each and not timed; or of nothing.

    A call gives the loss, and the gradient or None.
    """

    call: Callable[..., tuple[Array, Array | None]]
    prepare: Callable[[], Array] | None = None

    def once(self) -> tuple[Array, Array | None]:
        """Prepare and call."""
        return self.call() if self.prepare is None else self.call(self.prepare())
