"""The compiled kernel's statistics and gradients against those of the op."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from xent import Plan
from xent.kernels import cpu, library
from xent.ops.stats import IGNORED, INVALID, RowStats

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import (
    BACKWARDS,
    BOTH,
    FORMATS,
    LAYOUTS,
    cast,
    compare,
    cotangents_of,
)

if library.load() is None:
    pytest.skip(f"no compiled kernel: {library.why_not()}", allow_module_level=True)

DTYPES = pytest.mark.parametrize("dtype", FORMATS)
CLASSES = [1, 2, 3, 10, 21, 63, 64, 65, 100, 130, 1000, 4096, 4097, 9001]
SCALES = [1e-3, 0.1, 1, 4, 20, 60]
SHIFTS = [0, 0, -300, 300, 5e3, -1e6, 1e6]


def logits_of(rng, shape, dtype):
    """Random numbers of a random size, around a random number."""
    shift = float(rng.choice(SHIFTS)) if dtype != "float16" else float(rng.choice([0, 300, -5e3]))
    return rng.normal(shift, float(rng.choice(SCALES)), shape)


def codes_of(rng, shape, library="torch"):
    """Classes, some of them none."""
    target = rng.integers(0, shape[2], shape[:2])
    target[rng.random(shape[:2]) < 0.15] = IGNORED
    target[rng.random(shape[:2]) < 0.1] = INVALID
    return torch.from_numpy(target) if library == "torch" else target


def arranged(rng, numbers, dtype, kind="torch", layout=None):
    """Numbers as an array in a layout, a random one where none is told."""
    known = LAYOUTS if kind == "torch" else {**LAYOUTS, **BACKWARDS}
    return known[layout or str(rng.choice(list(known)))](cast(numbers, dtype, kind))


def check(rng, op, shape, dtype, kind="torch", target="codes", weight=None, **how):
    """The kernel against the op on random numbers."""
    layout, plan = how.get("layout"), how.get("plan")
    logits = arranged(rng, logits_of(rng, shape, dtype), dtype, kind, layout)
    given = None
    if target == "codes":
        given = codes_of(rng, shape, kind)
    elif target is not None:
        numbers = rng.dirichlet(np.ones(shape[2]), shape[:2])
        given = arranged(rng, numbers, target, kind, layout)
    if weight is not None:
        weight = cast(rng.uniform(0, 2, shape[2]) * (rng.random(shape[2]) < 0.9), weight, kind)
    g = cotangents_of(rng, op, shape, given, kind)
    compare(op, (logits, given, weight), g, how.get("limits", BOTH), plan)


def test_what_it_takes_is_what_the_c_struct_has():
    source = (Path(cpu.__file__).parent / "cpu.cpp").read_text()
    body = source.split("struct Call {")[1].split("};")[0]
    lines = [line.split("//")[0].strip() for line in body.splitlines()]
    words = [w for line in lines for w in line.rstrip(";").replace("*", " ").split(",")]
    assert [w.split()[-1] for w in words if w.split()] == list(cpu.FIELDS)


@DTYPES
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("options", ["plain", "smooth", "no target"])
def test_it_is_what_the_op_gives(rng, dtype, classes, options):
    op = RowStats(smooth=options == "smooth")
    target = None if options == "no target" else "codes"
    for places in (1, 5, 33):
        kind = str(rng.choice(["torch", "numpy"])) if dtype != "bfloat16" else "torch"
        rows = int(rng.integers(1, 5 if classes * places < 20000 else 2))
        check(rng, op, (rows, places, classes), dtype, kind, target)


@DTYPES
@pytest.mark.parametrize("rows", [7, 40, 300])
def test_many_rows_of_few_classes(rng, dtype, rows):
    for classes in (2, 5, 33, 64):
        check(rng, RowStats(), (rows, 1, classes), dtype)
        check(rng, RowStats(smooth=True), (2, rows, classes), dtype, layout="images")


@DTYPES
@pytest.mark.parametrize("classes", [6, 64, 131, 5000])
@pytest.mark.parametrize("layout", [*LAYOUTS, *BACKWARDS])
def test_every_layout(rng, dtype, classes, layout):
    kinds = ["torch"] * (layout in LAYOUTS) + ["numpy"] * (dtype != "bfloat16")
    for kind in kinds:
        for op in (RowStats(), RowStats(smooth=True), RowStats(0.7, 30.0, True, True)):
            check(rng, op, (3, 2, classes), dtype, kind, layout=layout)
        check(rng, RowStats(), (3, 2, classes), dtype, kind, dtype, layout=layout)


@DTYPES
@pytest.mark.parametrize("places", [1, 3])
def test_classes_with_gaps_too_many_for_a_tile(rng, dtype, places):
    check(rng, RowStats(smooth=True), (2, places, 16400), dtype, layout="gaps")


OPTIONS = {
    "scale": RowStats(logit_scale=0.37),
    "softcap": RowStats(softcap=12.0),
    "softcap, scale": RowStats(logit_scale=1.7, softcap=50.0),
    "entropy": RowStats(entropy=True),
    "smooth": RowStats(smooth=True),
    "all": RowStats(0.7, 20.0, smooth=True, entropy=True),
}


@DTYPES
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("classes", [1, 5, 100, 1500])
def test_every_option(rng, dtype, option, classes):
    op = OPTIONS[option]
    for target in (None, "codes", dtype):
        for weight in (None, dtype) if target is not None else (None,):
            check(rng, op, (4, 2, classes), dtype, target=target, weight=weight)


@DTYPES
@pytest.mark.parametrize("other", FORMATS)
@pytest.mark.parametrize("classes", [4, 150])
def test_weights_and_probabilities_of_any_dtype(rng, dtype, other, classes):
    for op in (RowStats(), RowStats(smooth=True)):
        check(rng, op, (5, 3, classes), dtype, target="codes", weight=other)
        check(rng, op, (5, 3, classes), dtype, target=other, weight=other)


SPECIAL = [
    [math.nan, 1, 2],
    [1, math.nan, math.nan],
    [math.inf, 1, 2],
    [1, math.inf, math.inf],
    [math.inf] * 3,
    [-math.inf, 1, 1],
    [3, -math.inf, -math.inf],
    [-math.inf] * 3,
    [math.inf, -math.inf, math.nan],
    [6e4, -6e4, 6e4],
    [-6e4, -6e4, 1e-7],
    [0, -0.0, 0],
]


def special(rng, classes):
    """Rows that end in special numbers; the second half hold nothing else that counts."""
    logits = np.tile(rng.normal(-2, 1, (len(SPECIAL), 1, classes)), (2, 1, 1))
    logits[len(SPECIAL) :] = -math.inf
    logits[:, 0, -3:] = SPECIAL * 2
    return logits


@DTYPES
@pytest.mark.parametrize("classes", [3, 60, 200])
@pytest.mark.parametrize("code", [0, 1, 2, IGNORED, INVALID])
def test_rows_of_infinities_and_nan(rng, dtype, classes, code):
    numbers = special(rng, classes)
    numbers = np.roll(numbers, int(rng.integers(classes)), 2) if code < 0 else numbers
    codes = code + classes - 3 if code >= 0 else code
    target = torch.full(numbers.shape[:2], codes)
    for op in (RowStats(), RowStats(smooth=True), RowStats(0.5, smooth=True, entropy=True)):
        g = cotangents_of(rng, op, numbers.shape, target)
        for layout in ("whole", "gaps"):
            compare(op, (LAYOUTS[layout](cast(numbers, dtype)), target, None), g)


@DTYPES
def test_infinities_and_nan_in_one_of_many_pieces(rng, dtype):
    numbers, op = special(rng, 8200), RowStats()
    target = torch.full(numbers.shape[:2], 8198)
    g = cotangents_of(rng, op, numbers.shape, target)
    for move in (0, 4000):
        compare(op, (cast(np.roll(numbers, move, 2), dtype), target, None), g)


@DTYPES
@pytest.mark.parametrize("classes", [3, 200, 1030])
def test_infinities_and_nan_with_probabilities_and_weights(rng, dtype, classes):
    numbers = special(rng, classes)
    shares = rng.dirichlet(np.ones(classes), numbers.shape[:2])
    shares[np.isneginf(numbers)] = 0
    shares[:, :, -1:] = 0
    weight = rng.uniform(0.1, 1, classes)
    weight[-2] = 0
    for op in (RowStats(), RowStats(smooth=True), RowStats(1.5, 50.0)):
        for w in (None, cast(weight, dtype)):
            arrays = cast(numbers, dtype), cast(shares, dtype), w
            compare(op, arrays, cotangents_of(rng, op, numbers.shape, True))
            codes = torch.full(numbers.shape[:2], classes - 2)
            compare(op, (arrays[0], codes, w), cotangents_of(rng, op, numbers.shape, True))


@pytest.mark.parametrize("classes", [5, 64, 300, 5000, 20000])
@DTYPES
def test_the_first_of_equal_logits_is_the_argmax(rng, dtype, classes):
    logits = cast(rng.integers(-3, 2, (20, 1, classes)), dtype)
    right = logits.double().argmax(2)
    for op in (RowStats(), RowStats(softcap=0.1)):  # in which they are more equal still
        for layout in ("whole", "gaps"):
            arrays = LAYOUTS[layout](logits), None, None
            assert torch.equal(cpu.forward(op, arrays, None).residuals[0], right)


@pytest.mark.parametrize("classes", [5, 64, 300, 5000, 20000])
@DTYPES
def test_the_first_nan_is_the_argmax(rng, dtype, classes):
    numbers = rng.normal(size=(20, 1, classes))
    for row in range(1, 20):
        numbers[row, 0, rng.integers(0, classes, rng.integers(1, 4))] = math.nan
    logits = cast(numbers, dtype)
    right = torch.from_numpy(numbers.argmax(2))
    right[0] = logits[0].double().argmax()
    for op in (RowStats(), RowStats(softcap=10.0)):
        for layout in ("whole", "gaps"):
            arrays = LAYOUTS[layout](logits), None, None
            assert torch.equal(cpu.forward(op, arrays, None).residuals[0], right)


@pytest.mark.parametrize("classes", [10, 500])
def test_accurate_float32_is_as_good_as_half_precision(rng, classes):
    limits, plan = {"float32": (0.51, 0.51)}, Plan(accurate=True)
    for layout in LAYOUTS:
        for op in (RowStats(), RowStats(smooth=True)):
            shape = (5, 2, classes)
            check(rng, op, shape, "float32", layout=layout, plan=plan, limits=limits)


@DTYPES
@pytest.mark.parametrize("classes", [10, 500])
def test_the_gradient_without_an_upstream_is_zero(rng, dtype, classes):
    logits = cast(rng.normal(size=(4, 2, classes)), dtype)
    target = codes_of(rng, (4, 2, classes)).clamp(min=0)
    residuals = cpu.forward(RowStats(), (logits, target, None), None).residuals
    zero = torch.zeros((4, 2), dtype=torch.float64)
    for g in ((None, zero, None, None), (zero, None, None, None)):
        assert not cpu.vjp(RowStats(), (logits, target, None), residuals, g, None).any()


@DTYPES
@pytest.mark.parametrize("size", [1e-44, 1e-38, 1e-20, 1e20, 1e37])
@pytest.mark.parametrize("classes", [10, 500])
def test_upstream_near_the_ends_of_float32(rng, dtype, size, classes):
    logits = cast(rng.normal(0, 4, (5, 2, classes)), dtype)
    g = (None, torch.full((5, 2), size, dtype=torch.float64), None, None)
    compare(RowStats(), (logits, codes_of(rng, logits.shape), None), g)
