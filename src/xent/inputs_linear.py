"""Which arrays a linear head may have, and its rows: hidden and weights in place of logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from xent.errors import bad
from xent.inputs import FLOATS, INTEGERS, Rows, as_array, dtype_name, floating, namespace
from xent.ops.tiles import product_dtype
from xent.spec import Spec


@dataclass(frozen=True, eq=False)
class LowRank:
    """The weight of a linear head with an adapter: weight + scale * b @ a, which is never formed.

    Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2022, section 4.1.

    Attributes:
        weight: (V, D), the weight that is adapted.
        a: (R, D), what takes hidden states to rank R.
        b: (V, R), what takes them from there to the classes.
        scale: the factor of the product.

    >>> import numpy as np, xent
    >>> weight, a, b = np.eye(3, 2), np.ones((1, 2)), np.ones((3, 1))
    >>> head = xent.LowRank(weight, a, b, scale=2.0)
    >>> round(float(xent.linear_cross_entropy(np.array([[1.0, 0.0]]), head, [0])), 4)
    0.5514
    """

    weight: Any
    a: Any
    b: Any
    scale: float = 1.0


@dataclass(frozen=True)
class LinearRows(Rows):
    """Rows of a linear head. `logits` is one element seen as an array of the logits' shape, dtype
    and device: what a reduction reads of logits."""

    hidden: Any = None  # (N, D)
    linear_weight: Any = None  # (V, D), or (V, K, D) for K heads
    linear_bias: Any = None  # (V, K) or None
    low_rank: tuple = ()  # a, b and scale of an adapter
    hidden_shape: tuple[int, ...] = ()  # the caller's, shifted or not
    weight_shape: tuple[int, ...] = ()
    source = "hidden"

    @property
    def pairs(self) -> tuple:
        """The hidden states and weights whose products add up to the logits of one head."""
        first = (self.hidden, self.linear_weight)
        if not self.low_rank:
            return first
        xp, (a, b, scale) = self.xp, self.low_rank
        work = product_dtype(xp, (self.hidden, a))
        narrow = xp.matmul(
            xp.astype(self.hidden, work), xp.permute_dims(xp.astype(a, work), (1, 0))
        )
        return (*first, scale * narrow, b)

    def heads(self) -> list[LinearRows]:
        """The same, head by head: a weight (V, K, D) has K of them."""
        if self.linear_weight.ndim == 2:
            return [self]
        return [self._head(j) for j in range(self.linear_weight.shape[1])]

    def _head(self, j: int) -> LinearRows:
        bias = None if self.linear_bias is None else self.linear_bias[:, j]
        target = None if self.target is None else self.target[:, j : j + 1]
        weight = self.linear_weight[:, j, :]
        return replace(self, linear_weight=weight, linear_bias=bias, target=target)

    def unshifted(self, dhidden: Any) -> Any:
        """(N, D) -> the shape of the caller's hidden states: 0 for those without a target."""
        xp, whole = self.xp, self.hidden_shape
        kept = self.shape[: len(whole) - 1]
        found = xp.reshape(dhidden, (*kept, whole[-1]))
        if kept == whole[:-1]:
            return found
        rest = (*kept[:-1], whole[-2] - kept[-1], whole[-1])
        zeros = xp.zeros(rest, dtype=found.dtype, device=found.device)
        return xp.concat((found, zeros), axis=len(kept) - 1)

    @property
    def arrays(self) -> tuple:
        """What the op of one head takes."""
        return (*self.pairs, self.linear_bias, self.target, self.weight)


def linear_rows(
    hidden: Any,
    linear_weight: Any,
    target: Any,
    linear_bias: Any,
    weight: Any,
    spec: Spec,
    shift: int = 0,
    soft: bool = True,
) -> LinearRows:
    """Hidden states, the weights of a head, a target and class weights, checked, as rows."""
    function = spec.function
    hidden = floating(function, "hidden", as_array(function, "hidden", hidden))
    linear_weight, low_rank = _weights(function, hidden, linear_weight)
    shape, of_weight = tuple(hidden.shape), tuple(linear_weight.shape)
    if hidden.ndim == 0 or shape[-1] != of_weight[-1]:
        expected = f"(..., {of_weight[-1]}) for linear_weight of shape {of_weight}"
        raise bad(ValueError, function, "hidden", f"shape {shape}", expected)
    classes, heads = of_weight[0], of_weight[1:-1]
    if heads and len(shape) != 2:
        expected = f"(N, {shape[-1]}) for linear_weight of shape {of_weight}"
        raise bad(ValueError, function, "hidden", f"shape {shape}", expected)
    linear_bias, weight = (
        _of_classes(function, name, array, fits, hidden, of_weight)
        for name, array, fits in (
            ("linear_bias", linear_bias, (classes, *heads)),
            ("weight", weight, (classes,)),
        )
    )
    target = as_array(function, "target", target, hidden, "hidden")
    lead = shape[:-1]
    indexed = _is_indexed(function, lead, classes, heads, target, of_weight, soft)
    if not indexed and spec.ignore_index >= 0:
        has = f"value {spec.ignore_index} with class probabilities"
        raise bad(ValueError, function, "ignore_index", has, "a negative one, as none is ignored")
    if shift:
        hidden, target = _shifted(function, hidden, target, shift, lead)
        lead = (*lead[:-1], lead[-1] - shift)
    parts = [hidden, linear_weight, linear_bias, weight, *low_rank[:2], None if indexed else target]
    xp = namespace(hidden)
    dtype = product_dtype(xp, parts)
    n, many = prod(lead), prod(heads)
    one = xp.zeros((), dtype=dtype, device=hidden.device)
    if indexed:
        target = xp.reshape(target, (n, many))
    else:
        split = xp.reshape(target, (n, classes, many) if heads else (n, 1, classes))
        target = xp.permute_dims(split, (0, 2, 1)) if heads else split
    if heads:
        linear_weight = xp.reshape(linear_weight, (classes, many, shape[-1]))
        if linear_bias is not None:
            linear_bias = xp.reshape(linear_bias, (classes, many))
    return LinearRows(
        xp,
        xp.broadcast_to(one, (n, many, classes)),
        target,
        weight,
        (*lead, *heads),
        None,
        dtype,
        hidden=xp.reshape(hidden, (n, shape[-1])),
        linear_weight=linear_weight,
        linear_bias=linear_bias,
        low_rank=low_rank,
        hidden_shape=shape,
        weight_shape=of_weight,
        origin=(*(0 for _ in lead[:-1]), shift, *(0 for _ in heads)) if shift else (),
    )


def _of_classes(
    function: str,
    name: str,
    array: Any,
    fits: tuple[int, ...],
    hidden: Any,
    of_weight: tuple[int, ...],
) -> Any:
    """A number for each class, checked, or None."""
    if array is None:
        return None
    array = _of_head(function, name, array, hidden)
    if tuple(array.shape) != fits:
        expected = f"{fits} for linear_weight of shape {of_weight}"
        raise bad(ValueError, function, name, f"shape {tuple(array.shape)}", expected)
    return array


def _weights(function: str, hidden: Any, given: Any) -> tuple[Any, tuple]:
    """The weight of a head, and a, b and scale of its adapter where there is one."""
    if not isinstance(given, LowRank):
        array = _of_head(function, "linear_weight", given, hidden)
        if array.ndim < 2:
            has = f"shape {tuple(array.shape)}"
            raise bad(ValueError, function, "linear_weight", has, "(V, D) or (V, d1, ..., dk, D)")
        return array, ()
    array, a, b = (
        _of_head(function, f"linear_weight.{name}", getattr(given, name), hidden)
        for name in ("weight", "a", "b")
    )
    shape, of_a = tuple(array.shape), tuple(a.shape)
    if len(shape) != 2:
        raise bad(ValueError, function, "linear_weight.weight", f"shape {shape}", "(V, D)")
    if len(of_a) != 2 or of_a[1] != shape[1]:
        expected = f"(R, {shape[1]}) for linear_weight.weight of shape {shape}"
        raise bad(ValueError, function, "linear_weight.a", f"shape {of_a}", expected)
    if tuple(b.shape) != (shape[0], of_a[0]):
        expected = f"{(shape[0], of_a[0])} for linear_weight.weight of shape {shape}"
        expected += f" and linear_weight.a of shape {of_a}"
        raise bad(ValueError, function, "linear_weight.b", f"shape {tuple(b.shape)}", expected)
    return array, (a, b, given.scale)


def _of_head(function: str, name: str, value: Any, hidden: Any) -> Any:
    return floating(function, name, as_array(function, name, value, hidden, "hidden"))


def _is_indexed(
    function: str,
    lead: tuple[int, ...],
    classes: int,
    heads: tuple[int, ...],
    target: Any,
    of_weight: tuple[int, ...],
    soft: bool,
) -> bool:
    """Whether a target is class indices; otherwise it is class probabilities."""
    given, dtype = tuple(target.shape), dtype_name(target)
    indices, probabilities = (*lead, *heads), (*lead, classes, *heads)
    if given == probabilities and dtype in FLOATS and soft:
        return False
    fits = given == indices or (lead == () and not heads and given == (1,))
    if fits and dtype in INTEGERS:
        return True
    kinds = f"{indices} (class indices)"
    if soft:
        kinds += f" or {probabilities} (class probabilities)"
    where = f" for hidden of shape {(*lead, of_weight[-1])} and linear_weight of shape {of_weight}"
    if fits or (soft and given == probabilities):
        has = f"dtype {dtype} and shape {given}"
        wanted = f"integers of shape {indices}"
        wanted += f" or floating {probabilities}" if soft else ""
        raise bad(TypeError, function, "target", has, wanted)
    raise bad(ValueError, function, "target", f"shape {given}", kinds + where)


def _shifted(
    function: str, hidden: Any, target: Any, shift: Any, lead: tuple[int, ...]
) -> tuple[Any, Any]:
    """Each hidden state with the target `shift` places later."""
    if isinstance(shift, bool):
        shift = int(shift)
    if not isinstance(shift, int) or shift < 0:
        raise bad(ValueError, function, "shift", f"value {shift!r}", "an integer >= 0")
    if not lead or shift > lead[-1]:
        expected = f"at most the length of the last axis of the rows {lead}"
        raise bad(ValueError, function, "shift", f"value {shift}", expected)
    kept = lead[-1] - shift
    axis = len(lead) - 1
    early = (slice(None),) * axis + (slice(0, kept),)
    late = (slice(None),) * axis + (slice(shift, None),)
    return hidden[early], target[late]
