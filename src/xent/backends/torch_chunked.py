"""A function of rows on a few rows at a time, with derivatives of every order done the same way.

`Chunked` is an autograd.Function over a `Map`, a pure function of tensors, some of which hold rows.
Its backward is `Chunked` of the vjp of that function, its forward mode `Chunked` of its jvp, and
its vmap `Chunked` of the mapped function: so every derivative keeps the arrays of the call and is
computed from them anew, never holding more than a few rows of what lies between.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


@dataclass(frozen=True, eq=False)
class Map:
    """function(*arrays) -> (results of each row, results summed over rows): tuples of tensors.

    An array may be None. The function computes rows from the rows of its arrays; it has no state.
    """

    function: Callable[..., tuple[tuple, tuple]]
    rows: tuple[bool, ...]  # which arrays hold rows, along their first axis
    results: tuple[int, int]  # how many there are of rows, and how many sums
    step: int  # rows at a time
    tangent: Callable[..., tuple[tuple, tuple]] | None = None  # of (arrays, tangents), if known

    def __call__(self, *arrays: Any) -> tuple[tuple, tuple]:
        """The results for all rows, in chunks."""
        n = next(a.shape[0] for a, r in zip(arrays, self.rows, strict=True) if r and a is not None)
        each: list[tuple] = []
        sums: list[Tensor] = []
        for start in range(0, max(n, 1), self.step):
            chunk = (
                a[start : start + self.step] if r and a is not None else a
                for a, r in zip(arrays, self.rows, strict=True)
            )
            rows, summed = self.function(*chunk)
            each.append(rows)
            if start == 0:
                sums = [s.clone() if n > self.step else s for s in summed]
            else:
                for total, s in zip(sums, summed, strict=True):
                    total.add_(s)
        return tuple(torch.cat(column) for column in zip(*each, strict=True)), tuple(sums)


def vjp_of(of: Map, count: int, given: tuple[bool, ...], wanted: tuple[bool, ...]) -> Map:
    """The function of arrays and cotangents that gives the gradients of the wanted arrays.

    `given` says which results have a cotangent, those of rows first.
    """
    picks = [i for i, want in enumerate(wanted) if want]

    def function(*inputs: Any) -> tuple[tuple, tuple]:
        arrays, cotangents = list(inputs[:count]), inputs[count:]

        def results(*chosen: Tensor) -> tuple:
            full = list(arrays)
            for i, array in zip(picks, chosen, strict=True):
                full[i] = array
            rows, sums = of.function(*full)
            return tuple(r for r, g in zip((*rows, *sums), given, strict=True) if g)

        pull: Any = torch.func.vjp(results, *(arrays[i] for i in picks))[1]
        gradients: Any = pull(cotangents)
        found = dict(zip(picks, gradients, strict=True))
        rows = tuple(found[i] for i in picks if of.rows[i])
        return rows, tuple(found[i] for i in picks if not of.rows[i])

    of_rows = tuple(i < of.results[0] for i, g in enumerate(given) if g)
    found = sum(of.rows[i] for i in picks)
    return Map(function, (*of.rows, *of_rows), (found, len(picks) - found), of.step)


def jvp_of(of: Map, count: int, moved: tuple[bool, ...]) -> Map:
    """The function of arrays and tangents, of those arrays that are moved, that gives tangents."""
    picks = [i for i, move in enumerate(moved) if move]

    def function(*inputs: Any) -> tuple[tuple, tuple]:
        arrays, tangents = list(inputs[:count]), inputs[count:]
        if of.tangent is not None:
            each = dict(zip(picks, tangents, strict=True))
            return of.tangent(arrays, [each.get(i) for i in range(count)])

        def results(*chosen: Tensor) -> tuple:
            full = list(arrays)
            for i, array in zip(picks, chosen, strict=True):
                full[i] = array
            rows, sums = of.function(*full)
            return (*rows, *sums)

        def transposed(*cotangents: Tensor) -> tuple:
            pull: Any = torch.func.vjp(results, *chosen)[1]
            return pull(cotangents)

        # torch's jvp does not nest in a level of forward_ad, two of its vjps do: the gradient by u
        # of v . (u J) is J v.
        chosen = tuple(arrays[i] for i in picks)
        rows, sums = of.function(*arrays)
        zeros = tuple(torch.zeros_like(r) for r in (*rows, *sums))
        pull: Any = torch.func.vjp(transposed, *zeros)[1]
        found = pull(tangents)
        return found[: len(rows)], found[len(rows) :]

    rows = (*of.rows, *(of.rows[i] for i in picks))
    return Map(function, rows, of.results, of.step)


def mapped(of: Map, dims: tuple[int | None, ...], size: int) -> Map:
    """The function mapped over an axis: the second of arrays of rows, the first of others."""

    def function(*inputs: Any) -> tuple[tuple, tuple]:
        at = tuple(
            None if d is None or a is None else int(r)
            for a, d, r in zip(inputs, dims, of.rows, strict=True)
        )
        split: list[int] = []

        def results(*arrays: Any) -> tuple:
            rows, sums = of.function(*arrays)
            split.append(len(rows))
            return (*rows, *(s.unsqueeze(0) for s in sums))

        found = torch.func.vmap(results, in_dims=at, out_dims=1)(*inputs)
        return found[: split[0]], tuple(s[0] for s in found[split[0] :])

    return Map(function, of.rows, of.results, max(1, of.step // max(1, size)))


class Chunked(torch.autograd.Function):
    """The results of a `Map`: those of rows, then the sums."""

    @staticmethod
    def forward(of: Map, *arrays: Any) -> Any:
        rows, sums = of(*arrays)
        return (*rows, *sums)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.of, *arrays = inputs
        ctx.count = len(arrays)
        ctx.save_for_backward(*arrays)
        ctx.save_for_forward(*arrays)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        return None, *pull(ctx.of, ctx.saved_tensors, cotangents, ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple:
        # torch turns forward mode off around this method, and with it the tangents of an outer
        # jvp: they are let through, and those of this level, already given, are taken off.
        with forward_ad._set_fwd_grad_enabled(True):
            return push(ctx.of, tuple(map(primal, ctx.saved_tensors)), tangents[1:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple, *inputs: Any) -> tuple:
        of, *arrays = inputs
        dims = tuple(None if a is None else d for a, d in zip(arrays, in_dims[1:], strict=True))
        size, most = info.batch_size, max(1, of.step)
        moved = [
            a if d is None else a.movedim(d, int(r))
            for a, d, r in zip(arrays, dims, of.rows, strict=True)
        ]
        parts = []
        for start in range(0, size, most):  # no more of them at a time than rows
            stop = min(start + most, size)
            part = [
                a if d is None else a.narrow(int(r), start, stop - start)
                for a, d, r in zip(moved, dims, of.rows, strict=True)
            ]
            parts.append(Chunked.apply(mapped(of, dims, stop - start), *part))
        at = [1] * of.results[0] + [0] * of.results[1]
        columns = zip(at, zip(*parts, strict=True), strict=True)
        return tuple(torch.cat(column, axis) for axis, column in columns), tuple(at)


def chunked(of: Map, arrays: tuple) -> tuple:
    """The results of a Map, differentiable."""
    return Chunked.apply(of, *arrays)


def pull(of: Map, arrays: tuple, cotangents: tuple, wanted: tuple) -> tuple:
    """The gradient of each wanted array, differentiable; None for the others."""
    given = tuple(c is not None for c in cotangents)
    if not any(given) or not any(wanted):
        return (None,) * len(arrays)
    step = vjp_of(of, len(arrays), given, wanted)
    found = iter(chunked(step, (*arrays, *(c for c in cotangents if c is not None))))
    order = sorted((i for i, w in enumerate(wanted) if w), key=lambda i: not of.rows[i])
    by_array = {i: next(found) for i in order}
    return tuple(by_array.get(i) for i in range(len(arrays)))


def push(of: Map, arrays: tuple, tangents: tuple) -> tuple:
    """The tangent of each result, differentiable."""
    moved = tuple(t is not None for t in tangents)
    step = jvp_of(of, len(arrays), moved)
    return chunked(step, (*arrays, *(t for t in tangents if t is not None)))


def primal(array: Any) -> Any:
    """An array without the tangent of this level."""
    if array is None or not array.is_floating_point():
        return array
    return forward_ad.unpack_dual(array).primal
