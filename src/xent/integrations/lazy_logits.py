"""Logits that are not made: hidden states and a head, with what was done to its logits since."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from xent.errors import bad
from xent.functional_linear import linear_cross_entropy
from xent.integrations.recorded import Recorded, Request, cast, number, of_rows
from xent.spec import Plan

Tensor = torch.Tensor
_parse_to = torch._C._nn._parse_to  # type: ignore  # what torch.nn.Module.to reads its arguments by


def _recordable(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is recorded, unless the logits were made and changed in place."""

    @functools.wraps(method)
    def either(self: LazyLogits, *args: Any, **kwargs: Any) -> Any:
        if self._made is not None and self._made._version != self._version:
            return getattr(self._made, method.__name__)(*args, **kwargs)
        return method(self, *args, **kwargs)

    return either


class LazyLogits:
    """The logits (..., V) of hidden states (..., D) under a patched head, made when asked for.

    Products with positive numbers, sums with a bias, tanh, casts, moves, slices and reshapes of all
    but the class axis are recorded; `torch.nn.functional.cross_entropy` is computed without logits;
    anything else makes them, once. It is no `torch.Tensor`: the hooks of FSDP, DDP and DeepSpeed
    wrap each tensor that a module returns in an autograd function, and would make them.

    Attributes:
        hidden: (..., D).
        classes: V.
        dtype: of the logits.
        device: of the logits.

    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from xent.integrations.transformers import patch
    >>> small = dict(vocab_size=50, hidden_size=8, intermediate_size=8, num_hidden_layers=1)
    >>> model = LlamaForCausalLM(LlamaConfig(num_attention_heads=2, **small))
    >>> report = patch(model.train())
    >>> model(torch.tensor([[1, 2, 3]])).logits[:, :-1] / 2
    LazyLogits((1, 2, 50), torch.float32)
    """

    def __init__(
        self,
        head: torch.nn.Module,
        hidden: Tensor,
        classes: int,
        plan: Plan | None,
        told: Callable[[str, tuple[int, ...]], None],
    ) -> None:
        kind = hidden.device.type
        available = torch.amp.is_autocast_available(kind)
        cast = available and torch.is_autocast_enabled(kind)
        self.head, self.hidden, self.classes = head, hidden, classes
        self.dtype = torch.get_autocast_dtype(kind) if cast else hidden.dtype
        self.device = hidden.device
        self._autocast = (kind, self.dtype if cast else None) if available else None
        self._plan, self._told = plan, told
        self._recorded = Recorded()
        self._made: Tensor | None = None
        self._version = 0  # of what was made, when it was
        self._view = False  # of other logits, as a slice is

    # What is known without making them.

    @property
    def shape(self) -> torch.Size:
        """(..., V)."""
        return torch.Size((*self.hidden.shape[:-1], self.classes))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.hidden.ndim

    @property
    def requires_grad(self) -> bool:
        """Whether the logits would have a gradient."""
        trained = self.hidden.requires_grad or any(p.requires_grad for p in self.head.parameters())
        return torch.is_grad_enabled() and trained

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one of its lengths."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numel(self) -> int:
        """The number of logits."""
        return math.prod(self.shape)

    def is_floating_point(self) -> bool:
        """True."""
        return True

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyLogits({tuple(self.shape)}, {self.dtype})"

    # The logits and their loss.

    def tensor(self) -> Tensor:
        """The logits as an ordinary tensor, with their gradient."""
        if self._made is None:
            with self._as_then():
                made = self.head(self.hidden, Request())
                for function, args in self._recorded.steps:
                    made = function(made, *args)
            self._made, self._version = made, made._version
            return made
        return self._made

    def cross_entropy(self, target: Tensor, **options: Any) -> Tensor:
        """`xent.linear_cross_entropy` of these logits, in their device, at least float32.

        Args:
            target: (...) class indices, or (..., V) class probabilities, on any device.
            options: those of `linear_cross_entropy` but for what is recorded.
        """
        done = self._recorded

        def of(hidden: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
            if done.bias is not None:
                bias = done.bias if bias is None else bias + done.bias
            known = {"linear_bias": bias, "plan": self._plan, **done.options, **options}
            return linear_cross_entropy(hidden, weight, target.to(hidden.device), **known)

        with self._as_then():
            return self.head(self.hidden, Request(of)).to(self.device)

    def _as_then(self) -> Any:
        """Autocast as it was when the head was called."""
        if self._autocast is None:
            return torch.autocast("cpu", enabled=False)
        kind, dtype = self._autocast
        return torch.autocast(kind, dtype=dtype, enabled=dtype is not None)

    # What is recorded.

    @_recordable
    def float(self) -> LazyLogits:
        """As float32."""
        return self.to(torch.float32)

    @_recordable
    def to(self, *args: Any, **kwargs: Any) -> Any:
        """In another dtype, on another device."""
        if "copy" in kwargs or any(isinstance(a, bool) for a in args):
            return self._logits("to").to(*args, **kwargs)
        other = args[0] if args else None
        if isinstance(other, Tensor | LazyLogits):
            args = (other.device, other.dtype)
        device, dtype, *_ = _parse_to(*args, **kwargs)
        device, dtype = device or self.device, dtype or self.dtype
        wider = dtype == torch.float64 != self.dtype  # the loss too would be
        if wider or not dtype.is_floating_point:
            return self._logits("to").to(device, dtype)
        if (device, dtype) == (self.device, self.dtype):
            return self
        changed = self._with(self._recorded.also(cast, device, dtype))
        changed.device, changed.dtype = device, dtype
        return changed

    def type_as(self, other: Any) -> Any:
        """In the dtype and on the device of another tensor."""
        return self.to(other)

    def contiguous(self) -> LazyLogits:
        """Itself."""
        return self

    @_recordable
    def tanh(self) -> Any:
        """tanh, once: a softcap."""
        if self._recorded.capped:
            return self._logits("tanh").tanh()
        return self._with(self._recorded.also(torch.tanh, capped=True))

    @_recordable
    def reshape(self, *shape: Any) -> Any:
        """Other leading axes, the same class axis."""
        sizes = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if not sizes or (sizes[-1] != self.classes and (sizes[-1] != -1 or -1 in sizes[:-1])):
            return self._logits("reshape").reshape(sizes)
        if sizes[-1] == -1 and math.prod(sizes[:-1]) != math.prod(self.shape[:-1]):
            return self._logits("reshape").reshape(sizes)
        return self._over(self.hidden.reshape(*sizes[:-1], self.hidden.shape[-1]))

    def view(self, *shape: Any) -> Any:
        """As `reshape`; a dtype makes the logits."""
        if len(shape) == 1 and isinstance(shape[0], torch.dtype):
            return self._logits("view").view(shape[0])
        return self.reshape(*shape)

    @_recordable
    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Any:
        """Leading axes in one."""
        if end_dim % self.ndim >= self.ndim - 1:
            return self._logits("flatten").flatten(start_dim, end_dim)
        return self._over(self.hidden.flatten(start_dim, end_dim))

    @_recordable
    def __getitem__(self, index: Any) -> Any:
        rows = of_rows(index, self.ndim)
        if rows is None:
            return self._logits("indexing")[index]
        return self._over(self.hidden[rows])

    @_recordable
    def __mul__(self, other: Any) -> Any:
        factor, done = number(other), self._recorded
        if factor is None:
            return self._logits("mul") * _plain(other)
        name = "outer" if done.capped else "scale"
        changed = done.also(torch.mul, other, **{name: getattr(done, name) * factor})
        return self._with(changed)

    @_recordable
    def __truediv__(self, other: Any) -> Any:
        divisor, done = number(other), self._recorded
        if divisor is None:
            return self._logits("div") / _plain(other)
        name = "outer" if done.capped else "scale"
        changed = done.also(torch.div, other, **{name: getattr(done, name) / divisor})
        return self._with(changed)

    @_recordable
    def __add__(self, other: Any) -> Any:
        done = self._recorded
        row = isinstance(other, Tensor) and not isinstance(other, LazyLogits)
        row = row and other.shape == (*(1,) * (other.ndim - 1), self.classes)
        if done.capped or not row or other.ndim > self.ndim or other.dtype != self.dtype:
            return self._logits("add") + _plain(other)
        added = other.reshape(-1).to(self.hidden.device) / done.scale
        bias = added if done.bias is None else done.bias + added
        return self._with(done.also(torch.add, other, bias=bias))

    __rmul__, __radd__ = __mul__, __add__
    mul, div, add, true_divide = __mul__, __truediv__, __add__, __truediv__

    # What makes them.

    def _logits(self, name: str) -> Tensor:
        """The logits, since something asks for them that cannot be recorded."""
        if self._view and (name == "__setitem__" or re.search(r"[^_]_$", name)):
            wanted = "logits that are no slice or view, or those of .tensor()"
            raise bad(TypeError, "LazyLogits", "logits", f"been changed in place by {name}", wanted)
        if self._made is None:
            self._told(name, tuple(self.shape))
        return self.tensor()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            return object.__getattribute__(self, name)  # which raises
        return getattr(self._logits(name), name)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self._logits("numpy").__array__(*args, **kwargs)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """torch's functions of lazy logits: those that can be recorded, the loss, or of logits."""
        kwargs = kwargs or {}
        if func is torch.nn.functional.cross_entropy:
            return _cross_entropy(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        known = FUNCTIONS.get(name)
        if known is not None and not kwargs:
            if name in COMMUTE and not isinstance(args[0], LazyLogits):
                args = (args[1], args[0])
            if isinstance(args[0], LazyLogits):
                return known(*args)
        plain = pytree.tree_map(lambda x: _plain(x, name), (args, kwargs))
        return func(*plain[0], **plain[1])

    def _with(self, recorded: Recorded) -> LazyLogits:
        changed = object.__new__(type(self))
        changed.__dict__.update(vars(self), _recorded=recorded, _made=None, _view=False)
        return changed

    def _over(self, hidden: Tensor) -> LazyLogits:
        changed = self._with(self._recorded)
        changed.hidden, changed._view = hidden, True
        return changed


class EvaluationLogits(LazyLogits):
    """Lazy logits that `isinstance` takes for a tensor, as Trainer asks before it gathers them.

    No hook makes an autograd function of what is evaluated.
    """

    __class__ = property(lambda self: Tensor)  # type: ignore[assignment]


COMMUTE = {"mul", "__mul__", "__rmul__", "multiply", "add", "__add__", "__radd__"}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("mul", "__mul__", "__rmul__", "multiply"), LazyLogits.__mul__),
    **dict.fromkeys(("add", "__add__", "__radd__"), LazyLogits.__add__),
    **dict.fromkeys(("div", "true_divide", "divide", "__truediv__"), LazyLogits.__truediv__),
    "tanh": LazyLogits.tanh,
    "reshape": LazyLogits.reshape,
    "flatten": LazyLogits.flatten,
}


def _of_logits(name: str) -> Callable[..., Any]:
    """An operator that Python looks up on the type."""

    def operator(self: LazyLogits, *args: Any) -> Any:
        return getattr(self._logits(name), name)(*map(_plain, args))

    return operator


OTHER = (
    "sub rsub neg abs pow rpow matmul rmatmul mod floordiv rtruediv eq ne lt le gt ge invert iter"
)
OTHER += " bool float int setitem"
for _name in (f"__{other}__" for other in OTHER.split()):
    setattr(LazyLogits, _name, _of_logits(_name))
LazyLogits.__hash__ = object.__hash__


def _cross_entropy(
    logits: Any,
    target: Any,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`torch.nn.functional.cross_entropy` where the logits, or what else is given, are lazy."""
    options: dict[str, Any] = {"ignore_index": ignore_index, "reduction": reduction}
    options |= {"weight": weight, "label_smoothing": label_smoothing}
    old = size_average is not None or reduce is not None
    if not isinstance(logits, LazyLogits) or logits.ndim > 2 or old:
        given = [_plain(x, "cross_entropy") for x in (logits, target)]
        options |= {"size_average": size_average, "reduce": reduce}
        return torch.nn.functional.cross_entropy(*given, **options)
    return logits.cross_entropy(_plain(target), **options)


def _plain(value: Any, name: str = "an operator") -> Any:
    return value._logits(name) if isinstance(value, LazyLogits) else value
