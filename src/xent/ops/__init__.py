"""The mathematics, once, in array-API Python. No checks, no reductions, no library's own calls.

An op is a frozen record of its options with three methods, on arrays (N, D, V) or (N, D):

    forward(xp, arrays, blocks)                             -> Result(outputs, residuals)
    vjp(xp, arrays, residuals, cotangents, wanted, blocks)  -> a gradient or None for each array
    jvp(xp, arrays, residuals, tangents, blocks)            -> the tangent of each output

`folds` says which arrays hold rows; the others are shared by all rows. `outputs` is the number of
outputs. A cotangent or a tangent that is None is zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from xent.ops.blocks import Blocks


class Result(NamedTuple):
    """What an op computes: what it is for, and what its derivatives reuse."""

    outputs: tuple[Any, ...]
    residuals: tuple[Any, ...]


class Loss(Protocol):
    """A loss of rows: a module with an op, a formula of its outputs, and the formula's partials."""

    def op(self, spec: Any) -> Op: ...

    def value(self, outputs: tuple, row_weight: Any, spec: Any) -> Any: ...

    def partials(self, xp: Any, outputs: tuple, row_weight: Any, spec: Any) -> tuple: ...


class Op(Protocol):
    """A function of arrays with its derivatives beside it."""

    @property
    def folds(self) -> tuple[bool, ...]: ...

    @property
    def outputs(self) -> int: ...

    def forward(self, xp: Any, arrays: tuple, blocks: Blocks) -> Result: ...

    def vjp(
        self,
        xp: Any,
        arrays: tuple,
        residuals: tuple,
        cotangents: tuple,
        wanted: tuple[bool, ...],
        blocks: Blocks,
    ) -> tuple: ...

    def jvp(
        self, xp: Any, arrays: tuple, residuals: tuple, tangents: tuple, blocks: Blocks
    ) -> tuple: ...
