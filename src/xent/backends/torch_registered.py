"""Ops as operators registered with torch: what torch.compile leaves whole, so that a kernel runs.

`xent::forward` and `xent::vjp` are any op of `WAYS` on tensors in main memory or on a GPU; those of
a linear head compute tiles of logits when they run, so that no compiler keeps any. A schema has no
frozen records: an op and a plan travel as a text and the numbers that the text leaves open, real
ones in a tensor, where a compiler compiles once for all their values. Arrays, outputs and gradients
that are None are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import repeat
from typing import Any, NamedTuple

import array_api_compat.torch as xp
import torch
from torch import Tensor
from torch.autograd import forward_ad

from xent import kernels
from xent.backends import torch_linear
from xent.backends.torch_linear_device import engine_of
from xent.ops import Op, Result
from xent.ops.blocks import BLOCK_BYTES, Blocks
from xent.ops.linear import LinearStats
from xent.ops.stats import RowStats
from xent.spec import Plan

LIBRARY = torch.library.Library("xent", "DEF")
# Gradients have the layout of their arrays: those that run are to have those of the trace.
TAGS = (torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag)
for name in ("forward", "vjp"):
    arguments = "Tensor[] given, str call, Tensor real, SymInt[] whole"
    LIBRARY.define(f"{name}({arguments}) -> Tensor[]", tags=TAGS)
_forward, _vjp = torch.ops.xent.forward.default, torch.ops.xent.vjp.default
KINDS = (Tensor, torch.nn.Parameter)
DEVICES = ("cpu", "cuda")  # `real` is in main memory: of the two, torch takes the other one's


class Way(NamedTuple):
    """How the operators run an op: functions of it and its arrays, and but for the first a plan."""

    outline: Callable[[Any, tuple], tuple]  # shape and dtype, or None, of outputs and residuals
    forward: Callable[..., Result]
    vjp: Callable[..., tuple]  # of residuals, cotangents and what is wanted
    again: Callable[..., tuple]  # the same without residuals, for torch to differentiate
    tracked: Callable[..., tuple]  # outputs and residuals, for torch to differentiate


def _statistics(op: RowStats, arrays: tuple) -> tuple:
    logits, target, _ = arrays
    lead = logits.shape[:2]
    *outputs, tail = _numbers(lead, True, target is not None, op.smooth, op.entropy, True)
    return *outputs, (lead, torch.int64), tail


def _linear_statistics(op: LinearStats, arrays: tuple) -> tuple:
    lead, stats = (arrays[0].shape[0], 1), op.stats
    outputs = _numbers(lead, True, arrays[-2] is not None, stats.smooth, stats.entropy)
    return *outputs, (lead, torch.int64), *_numbers(lead, True, True, stats.entropy)


def _numbers(lead: tuple, *asked: bool) -> tuple:
    return tuple((lead, torch.float64) if a else None for a in asked)


def _op_forward(op: Op, arrays: tuple, plan: Plan) -> Result:
    if kernel := kernels.choose(op, arrays, plan):
        return kernel.forward(op, arrays, plan)
    return op.forward(xp, arrays, _blocks(plan, write=True))


def _op_vjp(
    op: Op, arrays: tuple, residuals: tuple, cotangents: tuple, wanted: tuple, plan: Plan
) -> tuple:
    if kernel := kernels.choose(op, arrays, plan, wanted):
        dlogits = kernel.vjp(op, arrays, residuals, cotangents, plan)
        return dlogits, *(None for _ in arrays[1:])
    return op.vjp(xp, arrays, residuals, cotangents, wanted, _blocks(plan, write=True))


def _op_again(op: Op, arrays: tuple, cotangents: tuple, wanted: tuple, plan: Plan) -> tuple:
    blocks = _blocks(plan, write=False)
    residuals = op.forward(xp, arrays, blocks).residuals
    return op.vjp(xp, arrays, residuals, cotangents, wanted, blocks)


def _op_tracked(op: Op, arrays: tuple, plan: Plan) -> tuple:
    from xent.backends.torch import applied

    return applied(op, arrays, plan)


def _linear_forward(op: LinearStats, arrays: tuple, plan: Plan) -> Result:
    return op.forward(xp, arrays, engine_of(plan, arrays[0]))


def _linear_vjp(
    op: LinearStats, arrays: tuple, residuals: tuple, cotangents: tuple, wanted: tuple, plan: Plan
) -> tuple:
    engine = engine_of(plan, arrays[0])
    return op.vjp(xp, arrays, residuals, cotangents, wanted, engine)


def _linear_again(
    op: LinearStats, arrays: tuple, cotangents: tuple, wanted: tuple, plan: Plan
) -> tuple:
    return torch_linear._pull(op, arrays, cotangents, wanted, plan)


def _linear_tracked(op: LinearStats, arrays: tuple, plan: Plan) -> tuple:
    return torch_linear._Stats.apply(op, plan, *arrays)


def _blocks(plan: Plan, write: bool) -> Blocks:
    return Blocks(BLOCK_BYTES if plan.chunk_bytes is None else plan.chunk_bytes, write)


WAYS: dict[type, Way] = {
    RowStats: Way(_statistics, _op_forward, _op_vjp, _op_again, _op_tracked),
    LinearStats: Way(
        _linear_statistics, _linear_forward, _linear_vjp, _linear_again, _linear_tracked
    ),
}
RECORDS = {kind.__name__: kind for kind in (*WAYS, Plan)}


def serves(op: Op | LinearStats, arrays: tuple) -> bool:
    """Whether an op on these arrays is one of the operators."""
    if type(op) not in WAYS:
        return False
    return all(a is None or (type(a) in KINDS and a.device.type in DEVICES) for a in arrays)


def apply(op: Op | LinearStats, arrays: tuple, plan: Plan | None) -> Result:
    """The outputs of an op, differentiable, and its residuals, of one operator."""
    numbers: tuple[list, list] = [], []
    records = [",".join(_told(r, *numbers)) for r in (op, Plan() if plan is None else plan)]
    # A product, and no tensor made of the number, for which each number would be compiled anew.
    one = torch.ones((), dtype=torch.float64, device="cpu")
    real = torch.stack([one * n for n in numbers[0]] or [one])
    call = ";".join((*records, _marks(arrays)))
    made = _forward([a for a in arrays if a is not None], call, real, numbers[1])
    found = _spread(made, [o is not None for o in WAYS[type(op)].outline(op, arrays)])
    return Result(found[: op.outputs], found[op.outputs :])


# A record as text: its name and words for each field, where these stand for what is no string.
WORDS = {"-": None, "t": True, "f": False}
REAL, WHOLE = "#", "%"  # the next number


def _told(value: Any, real: list, whole: list) -> list[str]:
    """The words of a record or of a field, whose numbers are put on the lists."""
    if value is None:
        return ["-"]
    if isinstance(value, bool):
        return ["t" if value else "f"]
    if isinstance(value, str):
        return [value]
    if isinstance(value, int):
        whole.append(value)
        return [WHOLE]
    if isinstance(value, float):
        real.append(value)
        return [REAL]
    words = [type(value).__name__]
    for field in fields(value):
        words += _told(getattr(value, field.name), real, whole)
    return words


def _read(words: Iterator[str], real: Iterator, whole: Iterator) -> Any:
    """What `_told` tells of."""
    word = next(words)
    if word == REAL:
        return next(real)
    if word == WHOLE:
        return next(whole)
    if word not in RECORDS:
        return WORDS.get(word, word)
    kind = RECORDS[word]
    return kind(**{field.name: _read(words, real, whole) for field in fields(kind)})


def _marks(values: Any) -> str:
    return "".join(["-" if v is None or v is False else "t" for v in values])


def _spread(values: Any, there: Any) -> tuple:
    """Values with None where there is none."""
    rest = iter(values)
    return tuple([next(rest) if t else None for t in there])


def _records(call: str, real: Tensor, whole: list[int]) -> tuple[Any, Plan, list[str]]:
    """The op and the plan of a call, and its marks: of the arrays; of a vjp, more."""
    of_op, of_plan, *marks = call.split(";")
    numbers = iter(real.tolist()), iter(whole)
    op, plan = (_read(iter(text.split(",")), *numbers) for text in (of_op, of_plan))
    return op, plan, marks


def _outline(given: Any, call: str) -> tuple[Op | LinearStats, tuple]:
    """The op of a call, but for its numbers, which a trace does not have, and its outline."""
    of_op, _, arrays, *_ = call.split(";")
    op = _read(iter(of_op.split(",")), repeat(1.0), repeat(1))
    return op, WAYS[type(op)].outline(op, _given(given, arrays))


def _given(tensors: Any, marks: str) -> tuple:
    return _spread(tensors, [m == "t" for m in marks])


def _parts(given: Any, call: str, real: Tensor, whole: list[int]) -> tuple:
    """Op, plan, arrays, residuals, cotangents and what is wanted, of a call of vjp."""
    op, plan, marks = _records(call, real, whole)
    tensors = iter(given)
    parts = [tuple([next(tensors) if m == "t" else None for m in part]) for part in marks[:3]]
    return op, plan, *parts, tuple(m == "t" for m in marks[3])


@torch.library.impl(LIBRARY, "forward", "CPU")
@torch.library.impl(LIBRARY, "forward", "CUDA")
def _run_forward(given: list[Tensor], call: str, real: Tensor, whole: list[int]) -> list[Tensor]:
    op, plan, marks = _records(call, real, whole)
    result = WAYS[type(op)].forward(op, _given(given, marks[0]), plan)
    return [o.contiguous() for o in (*result.outputs, *result.residuals) if o is not None]


@torch.library.impl(LIBRARY, "vjp", "CPU")
@torch.library.impl(LIBRARY, "vjp", "CUDA")
def _run_vjp(given: list[Tensor], call: str, real: Tensor, whole: list[int]) -> list[Tensor]:
    op, plan, arrays, residuals, cotangents, wanted = _parts(given, call, real, whole)
    found = WAYS[type(op)].vjp(op, arrays, residuals, cotangents, wanted, plan)
    each = zip(found, arrays, wanted, strict=True)
    return [_laid_out(gradient, array) for gradient, array, want in each if want]


def _laid_out(gradient: Tensor, array: Tensor) -> Tensor:
    """A gradient in the layout that the fake gives it."""
    if gradient.stride() == torch.empty_like(array, device="meta").stride():
        return gradient
    return torch.empty_like(array).copy_(gradient)


@torch.library.register_fake("xent::forward", lib=LIBRARY)
def _fake_forward(given: list[Tensor], call: str, real: Tensor, whole: list[int]) -> list[Tensor]:
    _, outline = _outline(given, call)
    return [given[0].new_empty(o[0], dtype=o[1]) for o in outline if o is not None]


@torch.library.register_fake("xent::vjp", lib=LIBRARY)
def _fake_vjp(given: list[Tensor], call: str, real: Tensor, whole: list[int]) -> list[Tensor]:
    _, _, marks, *_, wanted = call.split(";")
    each = zip(_given(given[: marks.count("t")], marks), wanted, strict=True)
    return [torch.empty_like(array) for array, mark in each if mark == "t"]


# register_autograd would lose the tangents of forward mode without a word.
@torch.library.impl(LIBRARY, "forward", "Autograd")
def _track_forward(given: list[Tensor], call: str, real: Tensor, whole: list[int]) -> list[Tensor]:
    if forward_ad._current_level >= 0:
        op, plan, marks = _records(call, real, whole)
        made = WAYS[type(op)].tracked(op, _given(given, marks[0]), plan)
        return [o for o in made if o is not None]
    return list(_Forward.apply(call, whole, real, *given))


@torch.library.impl(LIBRARY, "vjp", "Autograd")
def _track_vjp(given: list[Tensor], call: str, real: Tensor, whole: list[int]) -> list[Tensor]:
    if forward_ad._current_level >= 0:
        return _anew(given, call, real, whole)
    return list(_Vjp.apply(call, whole, real, *given))


def _anew(given: Any, call: str, real: Tensor, whole: list[int]) -> list[Tensor]:
    """The vjp as tensor operations that torch can differentiate, its residuals too."""
    op, plan, arrays, _, cotangents, wanted = _parts(given, call, real, whole)
    found = WAYS[type(op)].again(op, arrays, cotangents, wanted, plan)
    return [gradient for gradient, want in zip(found, wanted, strict=True) if want]


class _Forward(torch.autograd.Function):
    """The operator of an op, whose derivative is that of its vjp."""

    @staticmethod
    def forward(call: str, whole: list[int], real: Tensor, *given: Tensor) -> tuple:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(_forward(list(given), call, real, whole))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.call, ctx.whole, real, *given = inputs
        op, outline = _outline(given, ctx.call)
        ctx.marks = _marks(outline[: op.outputs]), _marks(outline[op.outputs :])
        ctx.count = ctx.marks[0].count("t")
        residuals = output[ctx.count :]
        ctx.save_for_backward(real, *given, *residuals)
        ctx.mark_non_differentiable(*residuals)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        needed, cotangents = ctx.needs_input_grad[3:], cotangents[: ctx.count]
        if all(c is None for c in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        *_, arrays = ctx.call.split(";")
        wanted, by_output = _given(needed, arrays), _given(cotangents, ctx.marks[0])
        marks = ctx.marks[1], _marks(by_output), _marks(wanted)
        real, *given = ctx.saved_tensors
        given += [c for c in cotangents if c is not None]
        found = _vjp(given, ";".join((ctx.call, *marks)), real, ctx.whole)
        return None, None, None, *_spread(found, needed)


class _Vjp(torch.autograd.Function):
    """The operator of a vjp, whose derivative is torch's own of tensor operations."""

    @staticmethod
    def forward(call: str, whole: list[int], real: Tensor, *given: Tensor) -> tuple:
        with torch._C._AutoDispatchBelowAutograd():
            return tuple(_vjp(list(given), call, real, whole))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.call, ctx.whole, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple:
        needed, again = ctx.needs_input_grad[3:], torch.is_grad_enabled()
        real, *given = ctx.saved_tensors
        with torch.enable_grad():
            given = [t.view_as(t) for t in given]
            made = _anew(given, ctx.call, real, ctx.whole)
            wanted = [t for t, need in zip(given, needed, strict=True) if need]
            found = torch.autograd.grad(
                made, wanted, cotangents, create_graph=again, allow_unused=True
            )
        return None, None, None, *_spread(found, needed)
