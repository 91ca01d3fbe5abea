"""Calls of a split vocabulary on the processes of `parallel_ranks`, and the unsplit calls.

A case is arrays by name and options; arrays travel as NumPy's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

import xent
import xent.parallel as parallel
from xent.parallel import Shard

N, V, D = 6, 11, 5
SPLITS = {
    1: [[V]],
    2: [[6, 5], [0, V], [V, 0], [1, V - 1]],
    3: [[4, 4, 3], [5, 0, 6], [0, 0, V]],
    4: [[3, 3, 3, 2], [4, 4, 3, 0], [0, 7, 0, 4], [V, 0, 0, 0]],
}
BY_CLASS = ("weight", "probabilities", "linear_weight", "linear_bias")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothing": {"label_smoothing": 0.1},
    "all smoothing": {"label_smoothing": 1.0},
    "weight": {"weight": True},
    "weight and smoothing": {"weight": True, "label_smoothing": 0.2, "reduction": "none"},
    "z-loss": {"z_loss": 0.01, "weight": True},
    "softcap": {"softcap": 3.0, "logit_scale": 0.7},
    "scale": {"logit_scale": 1.7, "label_smoothing": 0.1},
    "ignored": {"ignore_index": 3},
    "normalizer": {"normalizer": 7.5},
    "probabilities": {"probabilities": True},
    "weighted probabilities": {"probabilities": True, "weight": True, "label_smoothing": 0.1},
    "probabilities, all": {
        "probabilities": True,
        "weight": True,
        "label_smoothing": 0.3,
        "z_loss": 0.02,
        "softcap": 4.0,
        "reduction": "none",
    },
}


def drawn(rng: np.random.Generator, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arrays of a case, and its options."""
    options = dict(OPTIONS[name])
    arrays = {
        "logits": rng.normal(0, 3, (N, V)),
        "hidden": rng.normal(0, 1, (N, D)),
        "linear_weight": rng.normal(0, 1, (V, D)),
        "linear_bias": rng.normal(0, 1, V),
        "upstream": rng.uniform(0.5, 2, N if options.get("reduction") == "none" else ()),
    }
    if options.pop("weight", False):
        arrays["weight"] = rng.uniform(0.2, 1.5, V)
    if options.pop("probabilities", False):
        arrays["probabilities"] = rng.dirichlet(np.ones(V), N)
    else:
        arrays["target"] = rng.integers(0, V, N)
        arrays["target"][0] = options.get("ignore_index", arrays["target"][0])
    return arrays, options


def tensors(arrays: dict[str, Any], at: slice) -> dict[str, Tensor]:
    """Arrays of a case as leaves, those of classes with the classes `at` alone."""
    found = {}
    for name, array in arrays.items():
        tensor = torch.tensor(np.asarray(array))
        if name in BY_CLASS:
            tensor = tensor[:, at] if name == "probabilities" else tensor[at]
        elif name == "logits":
            tensor = tensor[..., at]
        found[name] = tensor.clone()
    soft = "probabilities" in arrays
    for name in ("logits", "hidden", "linear_weight", "linear_bias", "probabilities", "weight"):
        if name in found and (soft or name != "weight"):
            found[name].requires_grad_()
    return found


def places(counts: list[int]) -> list[slice]:
    ends = np.cumsum([0, *counts]).tolist()
    return [slice(a, b) for a, b in pairwise(ends)]


def loss_of(of: Any, given: dict[str, Tensor], options: dict, linear: bool, **more: Any) -> Any:
    """The loss of a case by xent or xent.parallel, its gradients and, for indices, statistics."""
    target = given["probabilities"] if "probabilities" in given else given["target"]
    first = [given["logits"]]
    named = {"weight": given.get("weight")}
    if linear:
        first = [given["hidden"], given["linear_weight"]]
        named["linear_bias"] = given["linear_bias"]
    call = of.linear_cross_entropy if linear else of.cross_entropy
    loss = call(*first, target, **named, **options, **more)
    loss.backward(given["upstream"])
    found = {"loss": loss.detach().numpy(force=True)}
    found |= {n: t.grad.numpy(force=True) for n, t in given.items() if t.grad is not None}
    return found


def statistics_of(of: Any, given: dict[str, Tensor], options: dict, linear: bool, **more: Any):
    """log_prob, entropy, lse and argmax, and the gradients of a mixture of the first three."""
    names = "ignore_index", "softcap", "logit_scale"
    options = {n: options[n] for n in names if n in options}
    for tensor in given.values():
        tensor.grad = None
    if linear:
        given_first = (given["hidden"], given["linear_weight"], given["target"])
        options["linear_bias"] = given["linear_bias"]
        told = of.linear_token_statistics(*given_first, **options, **more)
    else:
        told = of.token_statistics(given["logits"], given["target"], **options, **more)
    mixed = (told.log_prob - 0.5 * told.entropy + 0.3 * told.lse) @ torch.arange(
        1.0, N + 1
    ).double()
    mixed.backward()
    found = {name: getattr(told, name).detach().numpy(force=True) for name in told._fields}
    found |= {f"d{n}": t.grad.numpy(force=True) for n, t in given.items() if t.grad is not None}
    return found


def split(group: Any, arrays: dict, options: dict, counts: list[int], linear: bool) -> Any:
    """A case on the processes of a group, of which each has some classes."""
    at = places(counts)[group.rank()]
    shard = Shard(group, at.start, V)
    given = tensors(arrays, at)
    found = [loss_of(parallel, given, options, linear, shard=shard)]
    if "target" in arrays:
        found.append(statistics_of(parallel, given, options, linear, shard=shard))
    return found


def several(group: Any, calls: list[tuple]) -> list[Any]:
    """Many cases in one go."""
    return [split(group, *call) for call in calls]


def unsplit(arrays: dict, options: dict, linear: bool) -> Any:
    """The same by one process."""
    given = tensors(arrays, slice(0, V))
    found = [loss_of(xent, given, options, linear)]
    if "target" in arrays:
        found.append(statistics_of(xent, given, options, linear))
    return found


def joined(parts: list[dict], name: str) -> np.ndarray:
    """What one process would have: the pieces of classes side by side, all else as on the first."""
    stem = name.removeprefix("d")
    if stem not in (*BY_CLASS, "logits") or name in ("log_prob",):
        return parts[0][name]
    axis = -1 if stem in ("logits", "probabilities") else 0
    return np.concatenate([part[name] for part in parts], axis=axis)
