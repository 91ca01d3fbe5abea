"""Losses and softmax as layers with a backward of their own, for hand-written networks.

layer.forward(...) computes, layer.backward(upstream) gives the derivative by forward's first
argument, times upstream. A layer can be used any number of times; backward belongs to the last
forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xent import inputs
from xent.backends import run_op_vjp, run_vjp
from xent.errors import bad
from xent.functional import cross_entropy_vjp
from xent.ops import binary, nll
from xent.ops.softmax import Softmax as SoftmaxOp
from xent.spec import Spec

Array = Any


class _Layer:
    """Keeps what backward needs of the last forward."""

    _vjp: Callable[..., Any] | None = None

    def _keep(self, value: Array, vjp: Callable[..., Any]) -> Array:
        self._vjp = vjp
        return value

    def _backward(self, upstream: Any) -> Array:
        if self._vjp is None:
            raise bad(
                RuntimeError, type(self).__name__, "backward", "no forward before it", "a forward"
            )
        return self._vjp(upstream)


class CrossEntropyLoss(_Layer):
    """Cross entropy of logits with its backward, (softmax(logits) - target) / N for a mean.

    Args:
        weight: (V,) weight of each class.
        **options: those of `xent.cross_entropy`.

    >>> import numpy as np, xent
    >>> loss = xent.manual.CrossEntropyLoss()
    >>> round(float(loss.forward(np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9]]), [1, 0])), 4)
    2.0185
    >>> loss.backward().round(3)
    array([[ 0.33 , -0.379,  0.049],
           [-0.464,  0.243,  0.22 ]])
    """

    def __init__(self, weight: Array | None = None, **options: Any) -> None:
        self.weight = weight
        self.options = options
        Spec(function="CrossEntropyLoss", **{k: v for k, v in options.items() if k != "plan"})

    def forward(self, logits: Array, target: Array) -> Array:
        """The loss of logits (N, V, ...) with class indices or probabilities, in nats."""
        return self._keep(*cross_entropy_vjp(logits, target, self.weight, **self.options))

    def backward(self, upstream: Any = 1.0) -> Array:
        """dlogits, of the logits' shape, for a number or an array of the loss's shape."""
        return self._backward(upstream)


class NLLLoss(_Layer):
    """Negative log likelihood of given log-probabilities with its backward.

    Args:
        weight: (V,) weight of each class.
        **options: ignore_index, reduction, normalizer and axis of `xent.nll_loss`.

    >>> import numpy as np, xent
    >>> loss = xent.manual.NLLLoss(reduction="sum")
    >>> float(loss.forward(np.array([[-1.0, -2.0]]), [1])), loss.backward()
    (2.0, array([[ 0., -1.]]))
    """

    def __init__(self, weight: Array | None = None, **options: Any) -> None:
        self.weight = weight
        self._spec = Spec(function="NLLLoss", **options)

    def forward(self, log_probs: Array, target: Array) -> Array:
        """The loss of log-probabilities (N, V, ...) with class indices, in nats."""
        rows = inputs.class_rows(
            log_probs, target, self.weight, self._spec, name="log_probs", soft=False
        )
        return self._keep(*run_vjp(nll, rows, self._spec, None))

    def backward(self, upstream: Any = 1.0) -> Array:
        """The derivative by the log-probabilities, in their shape."""
        return self._backward(upstream)


class BCEWithLogitsLoss(_Layer):
    """Binary cross entropy of logits with its backward, sigmoid(logits) - target for a sum.

    Args:
        weight: factor of each element's loss.
        pos_weight: factor of the positive term.
        reduction: "mean", "sum" or "none".

    >>> import numpy as np, xent
    >>> loss = xent.manual.BCEWithLogitsLoss(reduction="sum")
    >>> round(float(loss.forward(np.array([2.0]), np.array([1.0]))), 4), loss.backward().round(4)
    (0.1269, array([-0.1192]))
    """

    def __init__(
        self,
        weight: Array | None = None,
        *,
        pos_weight: Array | None = None,
        reduction: str = "mean",
    ) -> None:
        self.weight, self.pos_weight = weight, pos_weight
        self._spec = Spec(function="BCEWithLogitsLoss", reduction=reduction)

    def forward(self, logits: Array, target: Array) -> Array:
        """The loss of logits with probabilities of the same shape, in nats."""
        rows = inputs.element_rows(logits, target, self.weight, self.pos_weight, self._spec)
        return self._keep(*run_vjp(binary, rows, self._spec, None))

    def backward(self, upstream: Any = 1.0) -> Array:
        """dlogits, of the logits' shape, for a number or an array of the loss's shape."""
        return self._backward(upstream)


class Softmax(_Layer):
    """exp(x) / sum(exp(x)) along an axis, with its backward.

    Args:
        axis: the axis whose entries sum to 1.

    >>> import numpy as np, xent
    >>> layer = xent.manual.Softmax()
    >>> layer.forward(np.array([0.0, 0.0])), layer.backward(np.array([1.0, 0.0]))
    (array([0.5, 0.5]), array([ 0.25, -0.25]))
    """

    _log = False

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        """The softmax, of the shape of x."""
        rows = inputs.plain_rows(type(self).__name__, x, self.axis, None)
        return self._keep(*run_op_vjp(SoftmaxOp(self._log), rows, type(self).__name__))

    def backward(self, upstream: Array) -> Array:
        """The derivative by x, for an upstream of the shape of x."""
        return self._backward(upstream)


class LogSoftmax(Softmax):
    """log(softmax(x)) along an axis, with its backward.

    Args:
        axis: the axis along which the exponentials of the result sum to 1.

    >>> import numpy as np, xent
    >>> layer = xent.manual.LogSoftmax()
    >>> layer.forward(np.array([0.0, 0.0])), layer.backward(np.array([1.0, 0.0]))
    (array([-0.69314718, -0.69314718]), array([ 0.5, -0.5]))
    """

    _log = True
