"""A whole loss in one call of the compiled kernel: the fast way of the most common calls.

It serves what needs no look at the arrays' values and no derivative but that by the logits; every
other call, and every wrong one, goes the general way, which alone checks and raises.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Any, NamedTuple

from xent.kernels import cpu
from xent.ops import cross_entropy
from xent.reduction import divided_by, keeps_rows
from xent.spec import Plan, Spec

MOST_FORMS = 1024  # that are kept for one set of options


class Recipe(NamedTuple):
    """A Spec as numbers that a kernel takes."""

    flags: int
    logit_scale: float
    softcap: float
    coefficients: tuple[float, float, float]
    denominator: int
    divisor: float
    ignore_index: int
    axis: int | None
    keeps_rows: bool


class Array(NamedTuple):
    """An array as a kernel sees it: strides in elements, None for a dtype that is not floating."""

    dtype: int | None
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Form(NamedTuple):
    """All of a call but where its arrays are: what calls of the same shapes and options share."""

    record: bytes
    lead: tuple[int, ...]  # the shape of the loss
    dtype: Any  # of the loss
    size: int  # of the gradient, in bytes


class Prepared:
    """Options checked, and what is known of the calls that had them."""

    __slots__ = "forms", "recipe", "spec", "upstream"

    def __init__(self, spec: Spec, recipe: Recipe) -> None:
        self.spec, self.recipe = spec, recipe
        self.forms: dict[Any, Form | None] = {}
        self.upstream = 1.0  # of the last backward


def recipe(spec: Spec) -> Recipe | None:
    """What a kernel needs of a Spec; None where it is not for a kernel."""
    given = spec.normalizer
    if given is not None and not isinstance(given, float):  # an array
        return None
    return Recipe(
        cpu.SMOOTH if spec.label_smoothing > 0 else 0,
        spec.logit_scale,
        spec.softcap or 0.0,
        cross_entropy.coefficients(spec),
        divided_by(spec.reduction, given),
        given or 0.0,
        spec.ignore_index,
        spec.axis,
        keeps_rows(spec.reduction),
    )


def flags(plan: Plan | None) -> int:
    """How to compute."""
    if plan is None:
        return cpu.CHECK
    checks = 0 if plan.check_targets is False else cpu.CHECK
    return checks | (cpu.ACCURATE if plan.accurate else 0)


def form(
    r: Recipe,
    plan: Plan | None,
    logits: Array,
    target: Array,
    classes: int | None,
    gradient: tuple[int, ...],
    loss: tuple[Any, int],
    parallel: int,
) -> Form | None:
    """The form of a call; None where its arrays are not for a kernel, or wrong.

    Class indices must be int64 without gaps, probabilities of the dtype of the logits. `classes` is
    the number of class weights where there are any, `gradient` the strides of one, `loss` the dtype
    of the loss and its code.
    """
    shape, axis = logits.shape, r.axis
    axis = (1 if len(shape) > 1 else 0) if axis is None else axis
    if not -len(shape) <= axis < len(shape) or 0 in shape or logits.dtype is None:
        return None
    axis %= len(shape)
    if classes not in (None, shape[axis]):
        return None
    lead = (*shape[:axis], *shape[axis + 1 :])
    rows, written = (cpu.layout(shape, strides, axis) for strides in (logits.strides, gradient))
    if rows is None or written is None:
        return None
    fields: dict[str, Any] = {"target_kind": cpu.INDICES}
    if target.dtype is not None:
        given = cpu.layout(shape, target.strides, axis) if target.shape == shape else None
        if given is None or target.dtype != logits.dtype or r.ignore_index >= 0:
            return None
        fields = {"target_kind": cpu.PROBABILITIES, "target_dtype": target.dtype}
        fields.update(zip(("target_n", "target_d", "target_v"), given[3:], strict=True))
    elif target.shape != lead:
        return None
    fields.update(zip(("gradient_n", "gradient_d", "gradient_v"), written[3:], strict=True))
    fields.update(zip(("of_nll", "of_smooth", "of_lse2"), r.coefficients, strict=True))
    fields.update(
        rows._asdict(),
        mode=cpu.LOSS,
        flags=flags(plan) | r.flags,
        dtype=logits.dtype,
        ignore_index=r.ignore_index,
        logit_scale=r.logit_scale,
        softcap=r.softcap,
        denominator=r.denominator,
        divisor=r.divisor,
        losses=int(r.keeps_rows),
        loss_dtype=loss[1],
        parallel=parallel,
    )
    record = cpu.pack(*(fields.get(name, 0) for name in cpu.FIELDS))
    size = prod(shape) * (2, 2, 4, 8)[logits.dtype]
    return Form(record, lead if r.keeps_rows else (), loss[0], size)


VARIABLES = struct.Struct("@5qd")  # logits, target, weight, gradient, loss; upstream
pack = VARIABLES.pack
