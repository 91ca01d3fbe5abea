"""Who is measured: for each implementation, how it computes a case, with what has to stand ready.

An implementation is a function of a case's arrays, torch tensors on the CPU (logits and target, or
those of a linear head), that gives the work of each quantity. torch, SciPy and JAX are imported
when their work is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

import xent
from xent.bench import heads
from xent.bench.cases import (
    AXIS,
    BOTH,
    FORWARD,
    IN_PLACE,
    LINEAR,
    LOGITS,
    REUSED,
    SIZES,
    Case,
    Head,
)
from xent.bench.records import OURS
from xent.bench.work import Work

Array = Any
OURS_NUMPY, OURS_IN_PLACE = "xent on NumPy", "xent in place"
HALF = ("float16", "bfloat16")
NUMPY = ("float16", "float32", "float64")


Implementation = Callable[..., dict[str, Work]]


@dataclass(frozen=True)
class Peer:
    """An implementation that xent is measured beside, and which of xent's stands beside it."""

    code: str  # what is called
    work: dict[str, Implementation]  # by the suite that it computes
    ours: str = OURS
    dtypes: tuple[str, ...] = tuple(SIZES)
    needs: tuple[str, ...] = ()  # modules
    compiles: bool = False
    pinned: bool = False  # to as many processors as threads are asked for: it has no other setting

    def missing(self) -> list[str]:
        """The modules that are not installed."""
        return [module for module in self.needs if not find_spec(module)]


def drawn(case: Case | Head, seed: int) -> tuple:
    """The arrays of a case, torch tensors; normal logits have a standard deviation of 2."""
    import torch

    if isinstance(case, Head):
        return heads.drawn(case, seed)
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(case.shape, generator=rng, dtype=getattr(torch, case.dtype)).mul_(2)
    rows = (*case.shape[:AXIS], *case.shape[AXIS + 1 :])
    return logits, torch.randint(case.shape[AXIS], rows, generator=rng)


def floors(case: Case | Head, arrays: tuple, quantity: str) -> dict[str, Work]:
    """What cannot be spared: of logits, what moves the same memory and computes nothing, torch's
    sum, copy and clone; of a linear head its matrix products."""
    import torch

    if isinstance(case, Head):
        return heads.floors(arrays, quantity)
    logits = arrays[0]
    if quantity == FORWARD:
        return {"sum": Work(lambda: (torch.sum(logits), None))}
    out = logits.clone()
    floor = {"copy": Work(lambda: (out.copy_(logits), None))}
    if quantity == BOTH:
        floor["clone"] = Work(lambda: (torch.clone(logits), None))
    return floor


def of_torch(logits: Array, target: Array, loss: Callable[[Array, Array], Array]) -> dict:
    """The work of a loss under autograd: the logits are a leaf, the gradient is a new tensor."""
    import torch

    leaf = logits.detach().requires_grad_()

    def both() -> tuple[Array, Array]:
        value = loss(leaf, target)
        return value, torch.autograd.grad(value, leaf)[0]

    return {FORWARD: Work(lambda: (loss(logits, target), None)), BOTH: Work(both)}


def xent_torch(logits: Array, target: Array) -> dict[str, Work]:
    """xent on torch tensors."""
    import torch

    leaf = logits.detach().requires_grad_()
    reuse, inplace = xent.Plan(reuse=True), xent.Plan(inplace=True)

    def reused() -> tuple[Array, Array]:
        value = xent.cross_entropy(leaf, target, plan=reuse)
        return value, torch.autograd.grad(value, leaf)[0]

    def in_place(x: Array) -> tuple[Array, Array]:
        value = xent.cross_entropy(x, target, plan=inplace)
        return value, torch.autograd.grad(value, leaf)[0]

    # As in a model, the logits are no leaf: they have been computed, and may be written over.
    return of_torch(logits, target, xent.cross_entropy) | {
        REUSED: Work(reused),
        IN_PLACE: Work(in_place, leaf.clone),
    }


def xent_numpy(logits: Array, target: Array) -> dict[str, Work]:
    """xent on NumPy arrays, with the hand-derived backward."""
    x, y = logits.numpy(), target.numpy()

    def both() -> tuple[Array, Array]:
        loss, vjp = xent.cross_entropy_vjp(x, y, axis=AXIS)
        return loss, vjp(1.0)

    forward = Work(lambda: (xent.cross_entropy(x, y, axis=AXIS), None))
    return {FORWARD: forward, BOTH: Work(both)}


def torch_eager(logits: Array, target: Array) -> dict[str, Work]:
    """torch's own, called as is."""
    from torch.nn import functional as F

    return of_torch(logits, target, F.cross_entropy)


def torch_upcast(logits: Array, target: Array) -> dict[str, Work]:
    """The usual remedy for half-precision logits: cast all of them up."""
    from torch.nn import functional as F

    return of_torch(logits, target, lambda x, y: F.cross_entropy(x.float(), y))


def torch_compile(logits: Array, target: Array) -> dict[str, Work]:
    """torch's own, compiled for this shape."""
    import torch
    from torch.nn import functional as F

    compiled = torch.compile(lambda x, y: F.cross_entropy(x, y), dynamic=False)
    return of_torch(logits, target, compiled)


def numpy_sources(logits: Array, target: Array) -> dict[str, Work]:
    """The formulas of the blog post (docs/sources.md): log of softmax, and softmax - one-hot."""
    x, y = logits.numpy(), np.expand_dims(target.numpy(), AXIS)

    def softmax() -> Array:
        powers = np.exp(x - np.max(x, axis=AXIS, keepdims=True))
        return powers / np.sum(powers, axis=AXIS, keepdims=True)

    def mean_nll(probabilities: Array) -> Array:
        return -np.take_along_axis(np.log(probabilities), y, AXIS).mean()

    def both() -> tuple[Array, Array]:
        gradient = softmax()
        loss = mean_nll(gradient)
        picked = np.take_along_axis(gradient, y, AXIS)
        np.put_along_axis(gradient, y, picked - 1, AXIS)
        gradient /= y.size
        return loss, gradient

    return {FORWARD: Work(lambda: (mean_nll(softmax()), None)), BOTH: Work(both)}


def scipy_special(logits: Array, target: Array) -> dict[str, Work]:
    """SciPy's log_softmax, the target's entries and their mean; it has no gradient."""
    from scipy.special import log_softmax

    x, y = logits.numpy(), np.expand_dims(target.numpy(), AXIS)

    def forward() -> tuple[Array, None]:
        return -np.take_along_axis(log_softmax(x, axis=AXIS), y, AXIS).mean(), None

    return {FORWARD: Work(forward)}


def optax_jit(logits: Array, target: Array) -> dict[str, Work]:
    """optax's loss and its gradient, each compiled by jax.jit for this shape."""
    import torch

    jax, optax = import_module("jax"), import_module("optax")
    jax.config.update("jax_enable_x64", logits.dtype == torch.float64)
    if logits.dtype == torch.bfloat16:  # NumPy has no bfloat16 of its own
        bits = logits.view(torch.int16).numpy()
        x = jax.numpy.asarray(bits.view(import_module("ml_dtypes").bfloat16))
    else:
        x = jax.numpy.asarray(logits.numpy())
    y = jax.numpy.asarray(target.numpy().astype(np.int32))

    def mean(x: Array, y: Array) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(x, y, axis=AXIS).mean()

    loss, both = jax.jit(mean), jax.jit(jax.value_and_grad(mean))
    return {
        FORWARD: Work(lambda: (jax.block_until_ready(loss(x, y)), None)),
        BOTH: Work(lambda: jax.block_until_ready(both(x, y))),
    }


OWN: dict[str, dict[str, Implementation]] = {
    OURS: {LOGITS: xent_torch, LINEAR: heads.xent_head},
    OURS_NUMPY: {LOGITS: xent_numpy},
}

PEERS = {
    "torch": Peer("F.cross_entropy(x, y)", {LOGITS: torch_eager, LINEAR: heads.torch_eager}),
    "torch-chunked": Peer("F.linear_cross_entropy(h, W, y)", {LINEAR: heads.torch_chunked}),
    "torch-upcast": Peer("F.cross_entropy(x.float(), y)", {LOGITS: torch_upcast}, dtypes=HALF),
    "torch-compile": Peer(
        "torch.compile(F.cross_entropy)",
        {LOGITS: torch_compile, LINEAR: heads.torch_compile},
        compiles=True,
    ),
    "numpy": Peer("the blog post's NumPy formulas", {LOGITS: numpy_sources}, OURS_NUMPY, NUMPY),
    "scipy": Peer(
        "scipy.special.log_softmax", {LOGITS: scipy_special}, OURS_NUMPY, NUMPY, ("scipy",)
    ),
    "optax": Peer(
        "optax.softmax_cross_entropy_with_integer_labels under jax.jit",
        {LOGITS: optax_jit},
        needs=("jax", "optax"),
        compiles=True,
        pinned=True,
    ),
}


def able(peer: str, case: Case | Head) -> bool:
    """Whether a peer computes a case."""
    return case.suite in PEERS[peer].work and case.dtype in PEERS[peer].dtypes


def work_of(subject: str, case: Case | Head, arrays: tuple) -> dict[str, Work]:
    """The work of a peer or of xent, by its name in a Report, on the arrays of a case."""
    if subject == OURS_IN_PLACE:
        return {IN_PLACE: xent_torch(*arrays)[IN_PLACE]}
    return (OWN[subject] if subject in OWN else PEERS[subject].work)[case.suite](*arrays)
