"""What a split over processes may be, and what is told where processes differ."""

from __future__ import annotations

from numbers import Integral
from typing import Any, NoReturn

from xent.errors import bad

HEAD = "linear_weight"


def place(first: Any, classes: Any) -> None:
    """The first class of a shard and the number of all classes, checked."""
    for name, value in (("first", first), ("classes", classes)):
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise bad(TypeError, "Shard", name, f"type {type(value).__name__}", "an integer")
        if value < 0:
            raise bad(ValueError, "Shard", name, f"value {value}", "an integer >= 0")
    if first > classes:
        raise bad(ValueError, "Shard", "first", f"value {first}", f"at most {classes} classes")


def kind(function: str, argument: str, value: Any, wanted: type) -> None:
    """A shard, or a process group that this process is in, checked."""
    if not isinstance(value, wanted):
        has = f"type {type(value).__name__}"
        raise bad(TypeError, function, argument, has, f"a {wanted.__name__} of this process")


def inside(function: str, argument: str, first: int, count: int, classes: int) -> None:
    """That the classes of an array lie in [0, classes)."""
    if first + count > classes:
        has = f"{count} classes from {first} on"
        raise bad(ValueError, function, argument, has, f"at most {classes - first} of {classes}")


def head(function: str, shape: tuple[int, ...]) -> None:
    """That a linear head that is split has one weight for each class."""
    if len(shape) != 2:
        raise bad(ValueError, function, HEAD, f"shape {shape}", "(V, D) where it is split")


def unshifted(function: str, shift: int, places: tuple) -> None:
    """That rows that are shifted lie whole on each process, along their last axis."""
    if any(place.is_shard() for place in places):
        has = f"value {shift} with rows laid out as {places}"
        raise bad(ValueError, function, "shift", has, "0 for rows that are split")


def alike(function: str, calls: list[dict], rank: int) -> None:
    """That every process calls the same, each with the classes that follow those before it."""
    mine = calls[rank]
    for other, call in enumerate(calls):
        for name, value in call.items():
            if name in ("first", "count") or value == mine.get(name):
                continue
            has = f"{value!r} on rank {other} and {mine.get(name)!r} on rank {rank}"
            raise bad(ValueError, function, name, has, "the same on every rank")
    at = 0
    for other, call in enumerate(calls):
        if call["first"] != at:
            has = f"first class {call['first']} on rank {other}"
            raise bad(ValueError, function, "shard", has, f"{at}: the classes in order of ranks")
        at += call["count"]
    if at != mine["classes"]:
        has = f"{at} classes on all {len(calls)} ranks together"
        raise bad(ValueError, function, "shard", has, f"{mine['classes']}")


def silent(function: str, waited: float, error: Exception) -> NoReturn:
    """Raise: not every process of a group has made the call."""
    has = f"ranks that did not call within {waited:g} s"
    raise bad(RuntimeError, function, "shard.group", has, "the same call on every rank") from error


def first_derivatives_only(function: str) -> NoReturn:
    """Raise: a derivative of a derivative is asked of what is split over processes."""
    has = "a second derivative or a forward-mode one asked of it"
    raise bad(NotImplementedError, function, "shard", has, "backward without create_graph")


def placements(function: str, argument: str, has: Any, expected: str) -> NoReturn:
    """Raise: an array is laid over processes in a way that is not served."""
    raise bad(ValueError, function, argument, f"placements {has}", expected)


def not_a_head(style: str, module: Any) -> NoReturn:
    """Raise: a parallel style is given to a module that has no weight to split."""
    has = f"type {type(module).__name__}"
    raise bad(TypeError, style, "module", has, "torch.nn.Linear or xent.nn.LinearCrossEntropyLoss")
