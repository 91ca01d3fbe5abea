"""Row statistics of logits hidden @ linear_weight.T + linear_bias that are never stored.

Logits are made for a tile at a time, so many rows by so many classes, and handed to `RowStats`.
Where a tile has all classes its statistics are those of its rows. Elsewhere the classes are cut
into slabs, whose statistics are merged exactly (`slabs.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xent.ops import Result
from xent.ops.slabs import (
    Slab,
    Whole,
    finish,
    mass_of,
    merged,
    share_of,
    silenced,
    slab_of,
    slab_vjp,
)
from xent.ops.stats import RowStats
from xent.ops.tiles import Engine, Head, cuts, lengths, of_rows, of_slab, some


@dataclass(frozen=True)
class LinearStats:
    """The op: `RowStats` of logits made of its first arrays.

    Its arrays are hidden (N, D) and linear_weight (V, D), for each of `products` such pairs, then
    linear_bias (V,) or None, target codes (N, 1) or probabilities (N, 1, V) or None, and class
    weight (V,) or None. Its residuals are argmax, tail, largest logit and entropy, each (N, 1).
    """

    stats: RowStats = field(default_factory=RowStats)
    products: int = 1

    outputs = 4

    @property
    def folds(self) -> tuple[bool, ...]:
        return (True, False) * self.products + (False, True, False)

    def head(self, arrays: tuple) -> Head:
        pairs = tuple((arrays[2 * i], arrays[2 * i + 1]) for i in range(self.products))
        return Head(pairs, arrays[-3])

    def forward(self, xp: Any, arrays: tuple, engine: Engine) -> Result:
        kept = engine.kept(arrays[-2])
        if kept is None:
            return self._forward(xp, arrays, engine)
        found = self._forward(xp, self._some(arrays, kept), engine)
        n = arrays[0].shape[0]
        outputs, residuals = (tuple(engine.spread(a, kept, n) for a in part) for part in found)
        return Result(outputs, residuals)

    def vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple[bool, ...],
        engine: Engine,
    ) -> tuple:
        kept = engine.kept(arrays[-2])
        if kept is None:
            return self._vjp(xp, arrays, residuals, cotangents, wanted, engine)
        residuals, cotangents = (
            tuple(None if a is None else a[kept] for a in part) for part in (residuals, cotangents)
        )
        few = self._some(arrays, kept)
        found = self._vjp(xp, few, residuals, cotangents, wanted, engine)
        return self._spread(engine, found, kept, arrays[0].shape[0])

    def both(
        self, xp: Any, arrays: tuple, objective: Any, wanted: tuple[bool, ...], engine: Engine
    ) -> tuple[Any, Callable[..., tuple]]:
        """The losses of rows (N, 1), and what gives the gradients of their scaled sum.

        It is to be called once, with an upstream or without.

        `objective.cotangents(outputs, cut)` gives the losses of some rows, and the cotangents of
        their statistics; `objective.some(kept)` is the same for the rows that are kept.
        """
        kept = engine.kept(arrays[-2])
        if kept is None:
            return self._both(xp, arrays, objective, wanted, engine)
        few, n = self._some(arrays, kept), arrays[0].shape[0]
        losses, found = self._both(xp, few, objective.some(kept), wanted, engine)

        def gradients(upstream: Any = None) -> tuple:
            return self._spread(engine, found(upstream), kept, n)

        return engine.spread(losses, kept, n), gradients

    def _some(self, arrays: tuple, kept: Any) -> tuple:
        folds = zip(arrays, self.folds, strict=True)
        return tuple(a[kept] if f and a is not None else a for a, f in folds)

    def _spread(self, engine: Engine, found: tuple, kept: Any, n: int) -> tuple:
        folds = zip(found, self.folds, strict=True)
        return tuple(engine.spread(a, kept, n) if f else a for a, f in folds)

    def place(self, slab: slice) -> slice:
        """Which of all classes a slab of the weights is."""
        return slab

    def count(self, classes: int) -> int:
        """The number of all classes, where there are weights of so many."""
        return classes

    def sums(self, engine: Engine, arrays: tuple, wanted: tuple[bool, ...]) -> Any:
        """What gradients are added up in."""
        return engine.sums(self, arrays, wanted)

    def _forward(self, xp: Any, arrays: tuple, engine: Engine) -> Result:
        part = self._slab(xp, arrays, engine)
        return Result(*finish(xp, part, arrays[-2], self.count(arrays[1].shape[0])))

    def _slab(self, xp: Any, arrays: tuple, engine: Engine) -> Slab:
        """The statistics over all weights."""
        head, target, weight = self.head(arrays), *arrays[-2:]
        n, classes = lengths(head)
        size = engine.tile(head)
        rows = list(cuts(n, size.rows))
        found: list = [None] * len(rows)
        for slab in cuts(classes, size.classes):
            rights, bias = of_slab(engine, head, slab)
            for i, cut in enumerate(rows):
                lefts = of_rows(engine, head, cut)
                x = engine.logits(lefts, rights, bias, cut.start)
                t, w = _within(some(target, cut), slab), some(weight, slab)
                at, every = self.place(slab), self.count(classes)
                part = slab_of(engine, self.stats, x[:, None, :], t, w, at, every)
                found[i] = part if found[i] is None else merged(xp, found[i], part)
        joined = [
            None if column[0] is None else xp.concat(column, axis=0)
            for column in zip(*(part[:-1] for part in found), strict=True)
        ]
        return Slab(*joined, share=found[0].share)

    def _vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple[bool, ...],
        engine: Engine,
    ) -> tuple:
        step = engine.apart(self.head(arrays))
        if step is None:
            return self._swept(xp, arrays, residuals, cotangents, wanted, engine)
        # Two sweeps: by the weights of some classes, of all rows; then some rows, of all classes.
        lefts = [i for i in range(0, 2 * self.products, 2) if wanted[i]]
        second = tuple(i in lefts for i in range(len(arrays)))
        first = tuple(w and not s for w, s in zip(wanted, second, strict=True))
        found: list = [None] * len(arrays)
        if any(first):
            found = list(self._swept(xp, arrays, residuals, cotangents, first, engine))
        for i in lefts:
            found[i] = engine.empty(tuple(arrays[i].shape), arrays[i], arrays[i].dtype)
        for cut in cuts(arrays[0].shape[0], step) if lefts else ():
            rest, g = (tuple(some(a, cut) for a in part) for part in (residuals, cotangents))
            made = self._swept(xp, self._some(arrays, cut), rest, g, second, engine)
            for i in lefts:
                found[i][cut] = made[i]
        return tuple(found)

    def _swept(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple[bool, ...],
        engine: Engine,
    ) -> tuple:
        head, target, weight = self.head(arrays), *arrays[-2:]
        n, classes = lengths(head)
        size, sums = engine.tile(head), self.sums(engine, arrays, wanted)
        g = sums.scaled(silenced(xp, target, cotangents))
        rows, three = list(cuts(n, size.rows)), (any(wanted[:-2]), *wanted[-2:])
        for slab in cuts(classes, size.classes):
            rights, bias = of_slab(engine, head, slab)
            for cut in rows:
                lefts = engine.silenced(of_rows(engine, head, cut), some(target, cut))
                x = engine.logits(lefts, rights, bias, cut.start)
                ends = (some(target, cut), *(some(a, cut) for a in (*residuals, *g)))
                t, kept, by = ends[0], ends[1:-4], ends[-4:]
                given = (x[:, None, :], t, weight)
                if x.shape[1] == self.count(classes):
                    made = engine.vjp(self.stats, given, kept[:2], by, three)
                else:
                    whole = self._whole(xp, kept, t, weight, classes)
                    made = self._part(engine, given, slab, classes, whole, by, three)
                sums.add(cut, slab, lefts, rights, made)
            sums.close(slab)
        return sums.gradients()

    def _both(
        self, xp: Any, arrays: tuple, objective: Any, wanted: tuple[bool, ...], engine: Engine
    ) -> tuple[Any, Callable[..., tuple]]:
        head, target, weight = self.head(arrays), *arrays[-2:]
        n, classes = lengths(head)
        size = engine.tile(head)
        if size.classes < classes or n == 0:
            return self._twice(xp, arrays, objective, wanted, engine)
        sums, found = engine.sums(self, arrays, wanted), []
        objective = sums.unscaled(objective)
        whole, three = slice(0, classes), (any(wanted[:-2]), *wanted[-2:])
        rights, bias = of_slab(engine, head, whole)
        for cut in cuts(n, size.rows):
            lefts = engine.silenced(of_rows(engine, head, cut), some(target, cut))
            x = engine.logits(lefts, rights, bias, cut.start)[:, None, :]
            given = (x, some(target, cut), weight)
            losses, made = engine.both(self.stats, given, objective, cut, three)
            found.append(losses)
            sums.add(cut, whole, lefts, rights, made)
        sums.close(whole)
        return xp.concat(found, axis=0), sums.gradients

    def _twice(
        self, xp: Any, arrays: tuple, objective: Any, wanted: tuple[bool, ...], engine: Engine
    ) -> tuple[Any, Callable[..., tuple]]:
        """`_both` where logits are made twice: for the losses, and for the gradients."""
        outputs, residuals = self._forward(xp, arrays, engine)
        losses, g = objective.cotangents(outputs, slice(0, arrays[0].shape[0]))

        def gradients(upstream: Any = None) -> tuple:
            times = g if upstream is None else tuple(c if c is None else c * upstream for c in g)
            return self._vjp(xp, arrays, residuals, times, wanted, engine)

        return losses, gradients

    def _whole(self, xp: Any, kept: tuple, t: Any, weight: Any, classes: int) -> Whole:
        """What there is of all classes: the residuals, and the sums of the target and of weights
        where these are not among them."""
        _, tail, top, entropy, *sums = kept
        if not sums:
            mass = None if t is None else mass_of(xp, t, None, weight, tail.dtype)
            sums = [mass, share_of(xp, weight, classes, tail.dtype)]
        return Whole(tail, top, entropy, *sums)

    def _part(
        self,
        engine: Engine,
        arrays: tuple,
        slab: slice,
        classes: int,
        whole: Whole,
        g: tuple,
        wanted: tuple,
    ) -> tuple:
        """The gradients by the logits of a slab, and by target and class weights in it."""
        x, t, weight = arrays
        given = (x, _within(t, slab), some(weight, slab))
        at, every = self.place(slab), self.count(classes)
        part = slab_of(engine, self.stats, *given, at, every)
        return slab_vjp(engine, self.stats, given, at, every, part, whole, g, wanted)


def _within(t: Any, slab: slice) -> Any:
    """Probabilities of the classes of a slab; codes are of all classes."""
    return t[:, :, slab] if t is not None and t.ndim == 3 else t
