"""Two predictions of a row: their losses, and the divergence of one from the other.

With d = log q - log p, KL(p, q) = sum p (exp(d) - 1 - d): every term is >= 0, and what is added to
the usual sum, sum q - p, is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from xent.evaluation.groups import Groups
from xent.evaluation.measures import AS_GIVEN
from xent.evaluation.passes import pieces
from xent.evaluation.predictions import IGNORED, Column, Predictions, broken_rows
from xent.evaluation.rows import row_numbers

MOST_BAD = 10
OF_ROWS = ("row kept", "row change", "row kl")  # a number for each row, each given once
MEANS = ("base", "new", "difference", "kl", "change")
SCALARS = (
    *(
        "rows",
        "ignored",
        "skipped",
        "kept",
        "same",
        "base right",
        "new right",
        "product",
        "change4",
    ),
    *(f"{name}{part}" for name in MEANS for part in ("", "2", " infinite")),
)


class Block(NamedTuple):
    """What a block of rows adds."""

    sums: dict[str, np.ndarray]
    at: list[tuple[str, int, np.ndarray, np.ndarray]]
    bad: list[Any]


@dataclass(frozen=True)
class Pair:
    """Two sets of predictions for the same rows, and their target."""

    base: Predictions
    new: Predictions
    target: Column
    groups: Groups | None
    piece_rows: int

    def block(self, start: int, stop: int) -> Block:
        """The sums of rows [start, stop)."""
        parts, bad = [], []
        for first, last in pieces(start, stop, self.piece_rows):
            found, wrong = self._piece(first, last)
            parts.append(found)
            bad += wrong
        columns = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
        return self._summed(start, columns, bad)

    def _piece(self, start: int, stop: int) -> tuple[dict[str, np.ndarray], list[Any]]:
        target, bad = self.target.targets(start, stop, self.base.classes)
        ignored = self.target.flat[start:stop] == self.target.ignore_index
        told = {}
        for name, found in (("base", self.base), ("new", self.new)):
            logits = found.logits(found.raw(start, stop))
            with np.errstate(invalid="ignore", over="ignore"):
                numbers = row_numbers(logits, target)
            broken = broken_rows(found, start, numbers.lse)
            bad += broken
            given = found.kind in AS_GIVEN
            own = numbers.nll - numbers.lse if given else numbers.nll
            told[name] = logits, numbers.lse, np.maximum(own, 0.0), numbers.k
        kept = target != IGNORED
        for row in bad:
            kept[row.row - start] = False
        (p, p_lse, base, base_k), (q, q_lse, new, new_k) = told["base"], told["new"]
        kl = np.zeros(stop - start)
        kl[kept] = divergence(p[kept], p_lse[kept], q[kept], q_lse[kept])
        self.base.release(start, stop)
        self.new.release(start, stop)
        with np.errstate(over="ignore", invalid="ignore"):
            near = np.abs(base - new) < 1
            little = np.exp(-base) * np.expm1(base - new)
            change = np.where(near, little, np.exp(-new) - np.exp(-base))
        return {
            **{"kept": kept, "ignored": ignored, "base": base, "new": new, "kl": kl},
            **{"change": change, "same": base_k == new_k},
            **{"base right": base_k == target, "new right": new_k == target},
        }, sorted(set(bad))

    def _summed(self, start: int, columns: dict[str, np.ndarray], bad: list[Any]) -> Block:
        kept = columns["kept"]
        row = start + np.flatnonzero(kept)
        c = {name: values[kept] for name, values in columns.items()}
        with np.errstate(invalid="ignore"):
            c["difference"] = np.where(c["base"] == c["new"], 0.0, c["new"] - c["base"])
        finite = {name: np.where(np.isfinite(c[name]), c[name], 0.0) for name in MEANS}
        of_means = [
            number
            for name in MEANS
            for number in (
                np.sum(finite[name]),
                np.sum(finite[name] ** 2),
                np.count_nonzero(~np.isfinite(c[name])),
            )
        ]
        scalars = [
            *(len(kept), np.count_nonzero(columns["ignored"]), len({b.row for b in bad}), len(row)),
            *(np.count_nonzero(c[name]) for name in ("same", "base right", "new right")),
            *(np.sum(finite["base"] * finite["new"]), np.sum(c["change"] ** 4), *of_means),
        ]
        count = self.base.count
        at = [
            ("row kept", count, row, np.ones(len(row))),
            ("row change", count, row, c["change"]),
            ("row kl", count, row, c["kl"]),
        ]
        if self.groups is not None:
            codes, groups = self.groups
            seen, place = np.unique(codes[row], return_inverse=True)
            sums = np.bincount(place, weights=finite["difference"], minlength=len(seen))
            at.append(("group difference", groups, seen, sums))
            at.append(("group rows", groups, seen, np.bincount(place).astype(np.float64)))
        return Block({"scalars": np.array(scalars, dtype=np.float64)}, at, bad[:MOST_BAD])


def divergence(p: np.ndarray, p_lse: np.ndarray, q: np.ndarray, q_lse: np.ndarray) -> np.ndarray:
    """KL(softmax(p), softmax(q)) of rows of logits (n, V) and their log-sum-exps, in nats, (n,)."""
    with np.errstate(invalid="ignore", over="ignore"):
        log_p = np.float64(p) - p_lse[:, None]
        gap = np.float64(q) - q_lse[:, None]
        chance = np.exp(gap)
        gap -= log_p
        share = np.exp(log_p)
        near = np.abs(gap) < 1
        terms = np.where(near, share * (np.expm1(gap) - gap), chance - share - share * gap)
        terms = np.where(share == 0, chance, terms)
    return np.sum(terms, axis=1)
