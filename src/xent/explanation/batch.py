"""The rows of a batch as blocks of float64, and what one pass over them finds: every row's loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from xent import inputs, reduction
from xent.backends import numpy as reference
from xent.explanation import checks
from xent.functional import cross_entropy, cross_entropy_vjp
from xent.spec import Spec

BLOCK = 1 << 20  # logits that are looked at together
IGNORED = -1  # as a code of a target index, and as the ignore_index of coded ones

Array = np.ndarray


@dataclass(frozen=True)
class Batch:
    """Checked logits and target, in whatever library the caller has them."""

    rows: inputs.Rows
    spec: Spec
    weight: Array | None  # (V,) float64

    @staticmethod
    def of(logits: Any, target: Any, weight: Any, spec: Spec) -> Batch:
        """The batch, after all checks; IndexError for a target that is no class."""
        rows = inputs.class_rows(logits, target, weight, spec)
        checks.something(tuple(rows.logits.shape))
        return Batch(rows.coded(spec), spec, None if weight is None else wide(rows.weight))

    @property
    def classes(self) -> int:
        return int(self.rows.logits.shape[-1])

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self.rows.logits.shape[0] * self.rows.logits.shape[1])

    @cached_property
    def codes(self) -> Array | None:
        """(N,) class indices, IGNORED for rows that take no part; None for probabilities."""
        return numbers(self.rows.target).reshape(-1) if self.rows.indexed else None

    @cached_property
    def kept(self) -> Array:
        """(N,) which rows take part."""
        if self.codes is None:
            return np.ones(self.count, dtype=bool)
        return self.codes != IGNORED

    @cached_property
    def losses(self) -> Array:
        """(N,) loss of each row, 0 where it is ignored."""
        return self._passed[0]

    @cached_property
    def likeliest(self) -> Array:
        """(N,) the class of the largest logit of each row."""
        return self._passed[1]

    @cached_property
    def _passed(self) -> tuple[Array, Array]:
        """What one pass over all logits finds of each row."""
        losses, likeliest = np.empty(self.count), np.empty(self.count, dtype=np.int64)
        for where, x, target in self._blocks():
            losses[where] = self.row_loss(x, target)
            likeliest[where] = x.argmax(axis=1)
        return losses, likeliest

    @cached_property
    def row_weight(self) -> Array:
        """(N,) weight of each row in a mean."""
        return reduction.row_weight(self._like.xp, self._like).reshape(-1)

    @cached_property
    def normalizer(self) -> float | None:
        given = inputs.normalizer("explain", self.spec.normalizer, self.rows.logits)
        return None if given is None else float(given)

    @cached_property
    def denominator(self) -> float | None:
        """What the sum over rows is divided by; None where nothing is."""
        weight, total = self.row_weight, reference.total
        shaped = weight.reshape(self._like.logits.shape[:2])
        with reference.quiet():
            divisor = reduction.denominator(
                self._like, shaped, self.spec.reduction, self.normalizer, total
            )
        return None if divisor is None else float(divisor)

    @cached_property
    def loss(self) -> Array:
        """The losses, reduced: 0-d, or in the shape of the target."""
        shaped = self.losses.reshape(self._like.logits.shape[:2])
        with reference.quiet():
            value = reduction.reduce(
                self._like.xp, shaped, self._divisor, self.spec.reduction, reference.total
            )
        return np.asarray(self._like.per_row(value, np.float64))

    @cached_property
    def total(self) -> float:
        """The sum of the losses."""
        with reference.quiet():
            return float(reference.total(self.losses))

    @cached_property
    def scale(self) -> Array:
        """(N,) derivative of the result by the loss of each row."""
        with reference.quiet():
            one = np.asarray(1.0)
            scale = reduction.row_scale(self._like.xp, one, self._divisor, self.losses)
        return np.where(self.kept, scale, 0.0)

    def gradient(self) -> Array:
        """The derivative of the result by the logits, in their shape."""
        found = np.empty(self.rows.logits.shape).reshape(-1, self.classes)
        for where, x, target in self._blocks():
            found[where] = self.row_gradient(x, target, self.scale[where])
        return np.asarray(self._like.spread(found.reshape(self.rows.logits.shape)))

    def row_loss(self, x: Array, target: Array) -> Array:
        """(R,) losses of rows (R, V)."""
        return np.asarray(cross_entropy(x, target, self.weight, **self._options))

    def unweighted(self, x: Array, code: Array) -> Array:
        """The loss of a row (V,) if all classes weighed 1."""
        return np.asarray(cross_entropy(x, code, **self._options))

    def row_gradient(self, x: Array, target: Array, upstream: Array, **options: Any) -> Array:
        """(R, V) upstream (R,) times the derivative of each row's loss by its logits."""
        asked = {**self._options, **options}
        return np.asarray(cross_entropy_vjp(x, target, self.weight, **asked)[1](upstream))

    def take(self, rows: Array) -> tuple[Array, Array]:
        """Logits (R, V) and target, (R,) or (R, V), of some rows."""
        depth = int(self.rows.logits.shape[1])
        places = [divmod(int(row), depth) for row in rows]
        x = np.stack([wide(self.rows.logits[n, d]) for n, d in places])
        if self.codes is not None:
            return x, self.codes[rows]
        return x, np.stack([wide(self.rows.target[n, d]) for n, d in places])

    def label(self, row: int) -> str:
        """Where a row is in the caller's target."""
        place = np.unravel_index(row, self.rows.shape)
        return str(row) if len(place) < 2 else f"({', '.join(str(int(i)) for i in place)})"

    @property
    def _options(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "ignore_index": IGNORED if self.codes is not None else spec.ignore_index,
            "reduction": "none",
            "label_smoothing": spec.label_smoothing,
            "z_loss": spec.z_loss,
            "softcap": spec.softcap,
            "logit_scale": spec.logit_scale,
        }

    @property
    def _divisor(self) -> Any:
        return None if self.denominator is None else np.asarray(self.denominator)

    @cached_property
    def _like(self) -> inputs.Rows:
        """NumPy rows of the same shape with nothing in them, for what needs no logits."""
        shape = tuple(self.rows.logits.shape)
        nothing = np.broadcast_to(np.zeros(()), shape)
        target = nothing if self.codes is None else self.codes.reshape(shape[:2])
        xp, dtype = inputs.namespace(nothing), nothing.dtype
        return replace(
            self.rows, xp=xp, logits=nothing, target=target, weight=self.weight, dtype=dtype
        )

    def _blocks(self) -> Iterator[tuple[slice, Array, Array]]:
        """Where they are among the rows, logits (R, V) and target of the rows of each block."""
        count, depth, classes = self.rows.logits.shape
        many = max(1, BLOCK // classes)
        for n in range(0, count, max(1, many // depth)):
            for d in range(0, depth, many):
                stop = min(n + max(1, many // depth), count), min(d + many, depth)
                x = wide(self.rows.logits[n : stop[0], d : stop[1]]).reshape(-1, classes)
                where = slice(n * depth + d, n * depth + d + len(x))
                if self.codes is not None:
                    yield where, x, self.codes[where]
                else:
                    target = wide(self.rows.target[n : stop[0], d : stop[1]])
                    yield where, x, target.reshape(-1, classes)


def numbers(array: Any) -> Array:
    """An array of any library as NumPy's; torch is not imported for it."""
    return array.detach().cpu().numpy() if inputs.is_torch(array) else np.asarray(array)


def wide(array: Any) -> Array:
    """An array of any library as float64."""
    if inputs.is_torch(array):
        array = array.detach().cpu().double()
    return np.asarray(numbers(array), dtype=np.float64)
