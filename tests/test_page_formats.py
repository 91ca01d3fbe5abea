"""page/formats.js, run in Node: it rounds as NumPy and torch do, after every operation."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from page_modules import javascript

Round = Callable[[float], float]


def bfloat16(value: float) -> float:
    """torch rounds a double to float32 first: rounded here to odd, which cannot round twice."""
    with np.errstate(over="ignore"):
        near = np.float32(value)
    if not np.isfinite(near) or float(near) == value:
        return float(torch.tensor(float(near)).bfloat16())
    down = near if abs(float(near)) < abs(value) else np.nextafter(near, np.float32(0))
    odd = (down.view(np.uint32) | np.uint32(1)).view(np.float32)
    return float(torch.tensor(float(odd)).bfloat16())


def cast(kind: type[np.floating]) -> Round:
    def rounded(value: float) -> float:
        with np.errstate(all="ignore"):
            return float(kind(value))

    return rounded


ROUND: dict[str, Round] = {"fp16": cast(np.float16), "bf16": bfloat16, "fp32": cast(np.float32)}
BITS = {"fp16": 11, "bf16": 8, "fp32": 24}
FORMAT = "const { round } = FORMATS.find((each) => each.name === name);"


def values(rng: np.random.Generator, bits: int) -> list[float]:
    """Numbers of every size, and halfway cases with their neighbours."""
    wide = rng.choice([-1, 1], 600) * 2.0 ** rng.uniform(-160, 130, 600)
    middle = rng.choice([-1, 1], 600) * 2.0 ** rng.uniform(-27, 17, 600)
    whole = rng.integers(2 ** (bits - 1), 2**bits, 200) + 0.5
    halves = whole * 2.0 ** rng.integers(-40, 20, 200)
    near = [np.nextafter(halves, 0), np.nextafter(halves, np.inf)]
    tiny = rng.integers(0, 40, 100) * 2.0 ** rng.choice([-26, -135, -151], 100)
    ends = [0.0, -0.0, 65504, 65519.99, 65520, 3.39e38, 3.4028235e38, 3.4028236e38, 1e300, -1e300]
    return np.concatenate([wide, middle, halves, *near, tiny, ends]).tolist()


def test_rounding_is_to_nearest_and_ties_go_to_even(rng: Any, tmp_path: Path) -> None:
    cases = [{"name": name, "given": values(rng, BITS[name])} for name in ROUND]
    body = f"{FORMAT} return given.map(round);"
    told = javascript(tmp_path, "formats.js", "FORMATS", body, cases)
    for case, numbers in zip(cases, told, strict=True):
        found = np.array(numbers, float)
        expected = np.array([ROUND[case["name"]](value) for value in case["given"]])
        np.testing.assert_array_equal(found, expected, case["name"])
        np.testing.assert_array_equal(np.signbit(found), np.signbit(expected), case["name"])


def naive(x: list[float], y: int, f: Round) -> dict[str, float]:
    powers = [f(math.exp(f(v)) if f(v) < 709 else math.inf) for v in x]
    total = 0.0
    for power in powers:
        total = f(total + power)
    p = f(float(np.float64(powers[y]) / np.float64(total)))
    loss = f(-f(float(np.log(p))))
    return {"largest": max(powers), "sum": total, "p": p, "loss": loss, "gradient": f(p - 1)}


def stable(x: list[float], y: int, f: Round) -> dict[str, float]:
    x = [f(v) for v in x]
    k = x.index(max(x))
    gap = [f(v - x[k]) for v in x]
    powers = [f(math.exp(d)) for d in gap]
    tail = 0.0
    for c, power in enumerate(powers):
        tail = f(tail + power) if c != k else tail
    total = f(1 + tail)
    p = f(powers[y] / total)
    slope = -f(tail / total) if y == k else f(p - 1)
    loss = f(f(math.log1p(tail)) - gap[y])
    return {"largest": powers[k], "sum": total, "p": p, "loss": loss, "gradient": slope}


def test_both_formulas_round_after_every_operation(rng: Any, tmp_path: Path) -> None:
    cases = []
    for name in [*ROUND] * 100:
        V = int(rng.integers(3, 7))
        logits = rng.normal(0, 3, V) + rng.choice([0, 12, 90, -12, -90, -110])
        cases.append({"name": name, "logits": logits.tolist(), "target": int(rng.integers(V))})
    body = f"{FORMAT} return [naive, stable].map((way) => way(logits, target, round));"
    told = javascript(tmp_path, "formats.js", "FORMATS, naive, stable", body, cases)
    for case, found in zip(cases, told, strict=True):
        with np.errstate(all="ignore"):
            given = case["logits"], case["target"], ROUND[case["name"]]
            expected = [way(*given) for way in (naive, stable)]
        for numbers, exact in zip(found, expected, strict=True):
            for step, value in exact.items():
                np.testing.assert_array_equal(numbers[step], value, step)
        assert all(math.isfinite(value) for value in found[1].values())


LOST = {  # what the naive formula loses, by shift
    0: set(),
    12: {"fp16"},
    90: {"fp16", "bf16", "fp32"},
    -20: {"fp16"},
    -110: {"fp16", "bf16", "fp32"},
}


def test_a_shift_breaks_the_naive_formula_alone(tmp_path: Path) -> None:
    cases = [
        {"name": name, "shift": shift, "logits": [2 + shift, 1 + shift, shift], "target": 1}
        for name in ROUND
        for shift in LOST
    ]
    body = f"{FORMAT} return [naive, stable].map((way) => way(logits, target, round).loss);"
    told = javascript(tmp_path, "formats.js", "FORMATS, naive, stable", body, cases)
    for case, (first, second) in zip(cases, told, strict=True):
        assert math.isnan(first) == (case["name"] in LOST[case["shift"]]), case
        assert second == pytest.approx(1.4076059644443804, rel=2.0 ** (2 - BITS[case["name"]]))
