"""Losses through the compiled kernel in a process with sanitizers: test_kernels_sanitizers.py.

    python sanitized_kernel.py numpy|torch SEED

XENT_CPU and XENT_CPU_LIBRARY choose the kernel. The status is SKIPPED where this CPU cannot run it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import xent
from xent import Plan
from xent.kernels import library

SKIPPED = 77
CASES = 60
CLASSES = [*range(1, 36), 63, 64, 65, 127, 128, 129, 1000, 4099]
# Pieces of a row with and without a remainder, tiles, rows enough for several threads, one row
# shared by them, memory in huge pages, and classes too far apart for a tile.
SHAPES = [(3, 65), (2, 2048), (2, 2049), (2, 4096), (2, 4097), (1, 8192), (1, 8193), (1, 16401)]
SHAPES += [(1, 70001), (3, 65536), (100, 700), (1100, 1000), (5000, 7), (257, 64), (2, 3, 5)]
SHAPES += [(4, 7, 900), (3, 130, 17), (2, 16401, 2)]
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "rows": {"reduction": "none", "label_smoothing": 0.1},
    "smoothing": {"label_smoothing": 0.1},
    "accurate": {"plan": Plan(accurate=True)},
    "in place": {"plan": Plan(inplace=True)},
    "general": {"logit_scale": 0.7, "plan": Plan(gradient="recompute")},
    "invalid": {"plan": Plan(check_targets=False)},
}
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0]


def options(rng: np.random.Generator, classes: int) -> dict[str, Any]:
    """Options of a loss, each in half of the cases."""
    possible = {
        "weight": rng.uniform(0.1, 2, classes),
        "label_smoothing": 0.1,
        "z_loss": 1e-3,
        "softcap": 30.0,
        "logit_scale": 0.7,
        "reduction": str(rng.choice(["none", "sum"])),
        "plan": xent.Plan(accurate=True),
    }
    return {name: value for name, value in possible.items() if rng.random() < 0.5}


def arranged(rng: np.random.Generator, shape: tuple[int, ...], cast: Callable) -> Any:
    """Random numbers, in one piece, with gaps along an axis, or with two axes swapped."""
    layout, axis = rng.choice(["whole", "gaps", "swapped"]), int(rng.integers(len(shape)))
    steps, made = [1] * len(shape), list(shape)
    if layout == "gaps":
        steps[axis], made[axis] = 2, 2 * shape[axis]
    elif layout == "swapped":
        made[0], made[axis] = made[axis], made[0]
    array = cast(rng.normal(scale=8, size=made))[tuple(slice(None, None, s) for s in steps)]
    return array.swapaxes(0, axis) if layout == "swapped" else array


def case(rng: np.random.Generator, cast: Callable) -> tuple[Any, Any, dict[str, Any]]:
    """Logits, a target, and options."""
    classes = int(rng.choice(CLASSES))
    rows = int(rng.choice([1, 2, 5, 40, 300]))
    shape = (rows, classes, int(rng.integers(1, 4)))[: int(rng.integers(2, 4))]
    chosen = options(rng, classes)
    if "weight" in chosen:
        chosen["weight"] = cast(chosen["weight"])
    if rng.random() < 0.3:
        return arranged(rng, shape, cast), abs(arranged(rng, shape, cast)), chosen
    target = rng.integers(classes, size=shape[:1] + shape[2:])
    target[rng.random(target.shape) < 0.1] = -100
    return arranged(rng, shape, cast), target, chosen


def special(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Numbers of which some rows hold infinities and NaN, and some nothing else."""
    numbers = rng.normal(scale=8, size=shape)
    numbers.flat[rng.integers(0, numbers.size, 5)] = SPECIAL
    if shape[0] > 1:
        numbers[-1] = -np.inf
    return numbers


def every_path(
    rng: np.random.Generator, dtypes: list[Any], use: Callable[..., None], modes: list[str]
) -> int:
    """Every way through cpu.cpp: `use` takes logits, a target and options."""
    count = 0
    for shape in SHAPES:
        for name in modes if np.prod(shape) < 100_000 else modes[:2]:
            dtype, chosen = dtypes[count % len(dtypes)], MODES[name]
            count += 1
            numbers = special(rng, shape)
            target = rng.integers(shape[1], size=shape[:1] + shape[2:])
            target.flat[0] = -100
            if name == "invalid":
                target.flat[-1] = shape[1]
            use(numbers, target, dtype, chosen)
    return count


def use_numpy(numbers: Any, target: Any, dtype: Any, chosen: dict[str, Any]) -> None:
    """A loss of NumPy arrays, its gradient twice where it may be, and statistics."""
    logits = numbers.astype(dtype)
    with np.errstate(all="ignore"):
        _, vjp = xent.cross_entropy_vjp(logits, target, **chosen)
        for upstream in (1.0,) if chosen.get("plan") == Plan(inplace=True) else (1.0, 0.3):
            assert vjp(upstream).shape == numbers.shape
        if "plan" not in chosen:
            xent.token_statistics(logits, target)


def use_torch(numbers: Any, target: Any, dtype: Any, chosen: dict[str, Any]) -> None:
    """The same of torch tensors."""
    import torch

    leaf = torch.from_numpy(numbers).to(dtype).requires_grad_()
    classes = torch.from_numpy(target)
    loss = xent.cross_entropy(leaf * 1, classes, **chosen)
    loss.sum().backward()
    assert leaf.grad.shape == leaf.shape
    if "plan" not in chosen:
        statistics = xent.token_statistics(leaf, classes)
        sum(s.sum() for s in statistics[:3]).backward()


def paths(name: str, rng: np.random.Generator, modes: list[str]) -> int:
    """Every path for the arrays of a library."""
    if name == "numpy":
        dtypes: list[Any] = [np.float16, np.float32, np.float64]
        return every_path(rng, dtypes, use_numpy, modes)
    import torch

    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float32]
    return every_path(rng, dtypes, use_torch, modes)


def with_numpy(rng: np.random.Generator) -> None:
    """A loss of NumPy arrays and its gradient."""
    dtype = rng.choice([np.float16, np.float32, np.float64])
    logits, target, chosen = case(rng, lambda numbers: numbers.astype(dtype))
    with np.errstate(all="ignore"):
        loss, vjp = xent.cross_entropy_vjp(logits, target, **chosen)
        gradient = vjp(rng.normal(size=np.shape(loss)).astype(dtype))
    assert gradient.shape == logits.shape


def with_torch(rng: np.random.Generator) -> None:
    """The same of torch tensors."""
    import torch

    dtype = [torch.float16, torch.bfloat16, torch.float32, torch.float64][rng.integers(4)]
    logits, target, chosen = case(rng, lambda numbers: torch.from_numpy(numbers).to(dtype))
    logits.requires_grad_()
    loss = xent.cross_entropy(logits, torch.as_tensor(target), **chosen)
    loss.backward(torch.randn(loss.shape, dtype=loss.dtype))
    assert logits.grad.shape == logits.shape


def main(name: str, seed: str) -> int:
    loaded = library.load()
    if loaded is None:
        print(library.why_not())
        return SKIPPED if "which this CPU does not have" in str(library.why_not()) else 1
    if loaded.path != os.environ["XENT_CPU_LIBRARY"]:
        print(f"the library is {loaded.path}, expected {os.environ['XENT_CPU_LIBRARY']}")
        return 1
    rng = np.random.default_rng(int(seed))
    run = {"numpy": with_numpy, "torch": with_torch}[name]
    count = paths(name, rng, list(MODES)) + CASES
    for _ in range(CASES):
        run(rng)
    function = f"xent_rows_{loaded.instructions}"
    if function not in vars(loaded.handle):  # where ctypes keeps what was looked up
        print(f"{function} was not used")
        return 1
    print(f"{count} cases by {function}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
