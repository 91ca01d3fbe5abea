"""Options: what is accepted, the full text of what is not, and that records cannot change."""

from __future__ import annotations

import dataclasses
import inspect
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

import xent
from xent import manual
from xent.spec import Plan, Spec

X = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([2, 0])

REDUCTION = "expected 'none', 'sum' or 'mean'"
SMOOTHING = "expected a number in [0, 1]"
Z_LOSS = "expected a finite number >= 0"
SCALE = "expected a finite number > 0"
BIG = "expected an integer of 64 bits"

# (option, value, exception, text after the function's name)
WRONG = [
    ("reduction", "avg", ValueError, f"reduction has value 'avg', {REDUCTION}"),
    ("reduction", "batchmean", ValueError, f"reduction has value 'batchmean', {REDUCTION}"),
    ("reduction", "Mean", ValueError, f"reduction has value 'Mean', {REDUCTION}"),
    ("reduction", None, TypeError, f"reduction has type NoneType, {REDUCTION}"),
    ("reduction", ["mean"], TypeError, f"reduction has type list, {REDUCTION}"),
    ("ignore_index", None, TypeError, "ignore_index has type NoneType, expected an integer"),
    ("ignore_index", -1.0, TypeError, "ignore_index has type float, expected an integer"),
    ("ignore_index", True, TypeError, "ignore_index has type bool, expected an integer"),
    ("ignore_index", 2**63, ValueError, f"ignore_index has value {2**63}, {BIG}"),
    ("ignore_index", -(2**63) - 1, ValueError, f"ignore_index has value {-(2**63) - 1}, {BIG}"),
    ("label_smoothing", 1.1, ValueError, f"label_smoothing has value 1.1, {SMOOTHING}"),
    ("label_smoothing", -0.1, ValueError, f"label_smoothing has value -0.1, {SMOOTHING}"),
    ("label_smoothing", math.nan, ValueError, f"label_smoothing has value nan, {SMOOTHING}"),
    ("label_smoothing", "0.1", TypeError, f"label_smoothing has type str, {SMOOTHING}"),
    ("label_smoothing", None, TypeError, f"label_smoothing has type NoneType, {SMOOTHING}"),
    ("label_smoothing", False, TypeError, f"label_smoothing has type bool, {SMOOTHING}"),
    ("label_smoothing", 1j, TypeError, f"label_smoothing has type complex, {SMOOTHING}"),
    ("z_loss", -1e-9, ValueError, f"z_loss has value -1e-09, {Z_LOSS}"),
    ("z_loss", math.inf, ValueError, f"z_loss has value inf, {Z_LOSS}"),
    ("softcap", 0, ValueError, f"softcap has value 0, {SCALE}, or None"),
    ("softcap", math.nan, ValueError, f"softcap has value nan, {SCALE}, or None"),
    ("softcap", "30", TypeError, f"softcap has type str, {SCALE}, or None"),
    ("logit_scale", 0.0, ValueError, f"logit_scale has value 0.0, {SCALE}"),
    ("logit_scale", math.inf, ValueError, f"logit_scale has value inf, {SCALE}"),
    ("logit_scale", None, TypeError, f"logit_scale has type NoneType, {SCALE}"),
    ("normalizer", -1, ValueError, f"normalizer has value -1, {Z_LOSS}"),
    ("normalizer", math.nan, ValueError, f"normalizer has value nan, {Z_LOSS}"),
    ("normalizer", "8", TypeError, f"normalizer has type str, {Z_LOSS}"),
    ("normalizer", True, TypeError, f"normalizer has type bool, {Z_LOSS}"),
    ("axis", 1.0, TypeError, "axis has type float, expected an integer or None"),
    ("axis", (0, 1), TypeError, "axis has type tuple, expected an integer or None"),
    ("axis", True, TypeError, "axis has type bool, expected an integer or None"),
]


@pytest.mark.parametrize("function", ["cross_entropy", "cross_entropy_vjp"])
@pytest.mark.parametrize("array", [np.asarray, torch.asarray])
@pytest.mark.parametrize(("option", "value", "kind", "text"), WRONG)
def test_the_text_of_a_wrong_option(option, value, kind, text, array, function):
    with pytest.raises(kind) as raised:
        getattr(xent, function)(array(X), array(Y), **{option: value})
    assert type(raised.value) is kind
    assert str(raised.value) == f"{function}: {text}"


FUNCTIONS = {
    "nll_loss": lambda **options: xent.nll_loss(X, Y, **options),
    "token_statistics": lambda **options: xent.token_statistics(X, Y, **options),
    "binary_cross_entropy_with_logits": lambda **options: xent.binary_cross_entropy_with_logits(
        X, X, **options
    ),
    "CrossEntropyLoss": lambda **options: manual.CrossEntropyLoss(**options),
    "NLLLoss": lambda **options: manual.NLLLoss(**options),
    "BCEWithLogitsLoss": lambda **options: manual.BCEWithLogitsLoss(**options),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_says_its_name(name):
    option = {"ignore_index": 0.5} if name == "token_statistics" else {"reduction": 0.5}
    wanted = "an integer" if name == "token_statistics" else "'none', 'sum' or 'mean'"
    with pytest.raises(TypeError) as raised:
        FUNCTIONS[name](**option)
    assert str(raised.value) == f"{name}: {next(iter(option))} has type float, expected {wanted}"


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_normalizer_belongs_to_the_mean(reduction):
    text = (
        f"cross_entropy: normalizer has a value with reduction {reduction!r}, "
        "expected reduction 'mean'"
    )
    for value in (2.0, np.array(2.0), torch.tensor(2.0)):
        with pytest.raises(ValueError, match=r"^cross_entropy: normalizer") as raised:
            Spec(reduction=reduction, normalizer=value)
        assert str(raised.value) == text


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("ignore_index", [-100, np.int64(3), 2**63 - 1, -(2**63)]),
        ("label_smoothing", [0, 1, 0.1, np.float32(0.1), Fraction(1, 4)]),
        ("z_loss", [0, 1e-4, np.float16(0.5)]),
        ("softcap", [None, 30, 30.0, np.float64(5)]),
        ("logit_scale", [1, 0.5, 2**-0.5]),
        ("normalizer", [None, 0, 7, np.int32(7), np.array(3.0)]),
        ("axis", [None, 0, -1, np.int64(1)]),
    ],
)
def test_accepted(option, values):
    for value in values:
        assert getattr(Spec(**{option: value}), option) == value


def test_numbers_become_python_floats_that_keep_the_precision_of_the_arrays():
    rough = np.float32(0.1)
    assert type(Spec(label_smoothing=rough).label_smoothing) is float
    for array in (np.asarray, torch.asarray):
        losses = [
            float(xent.cross_entropy(array(X), array(Y), label_smoothing=value, logit_scale=value))
            for value in (rough, float(rough))
        ]
        assert losses[0] == losses[1]


def test_specs_are_frozen_hashable_and_equal_by_value():
    spec = Spec(label_smoothing=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.label_smoothing = 0.2  # pyright: ignore[reportAttributeAccessIssue]
    assert {spec, Spec(label_smoothing=0.1)} == {spec}
    assert spec != Spec()


def test_the_public_signatures_have_the_options_and_values_of_a_spec():
    defaults = {f.name: f.default for f in dataclasses.fields(Spec) if f.name != "function"}
    for function in (xent.cross_entropy, xent.cross_entropy_vjp):
        keywords = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        assert keywords.pop("plan") is None
        assert keywords == defaults


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (
            {"kernel": "cuda"},
            ValueError,
            "kernel has value 'cuda', expected 'native', 'reference' or None",
        ),
        ({"inplace": 1}, TypeError, "inplace has type int, expected True or False"),
        (
            {"gradient": "backward"},
            ValueError,
            "gradient has value 'backward', expected 'forward', 'recompute' or None",
        ),
        ({"accurate": 1}, TypeError, "accurate has type int, expected True or False"),
        (
            {"chunk_over": "columns"},
            ValueError,
            "chunk_over has value 'columns', expected 'rows', 'classes' or None",
        ),
        (
            {"chunk_bytes": 0},
            ValueError,
            "chunk_bytes has value 0, expected an integer > 0, or None",
        ),
        (
            {"chunk_bytes": 1e6},
            TypeError,
            "chunk_bytes has type float, expected an integer > 0, or None",
        ),
        (
            {"chunk_bytes": True},
            TypeError,
            "chunk_bytes has type bool, expected an integer > 0, or None",
        ),
        ({"compact": 0}, TypeError, "compact has type int, expected True, False or None"),
        (
            {"check_targets": 1},
            TypeError,
            "check_targets has type int, expected True, False or None",
        ),
    ],
)
def test_the_text_of_a_wrong_plan(options, kind, text):
    with pytest.raises(kind) as raised:
        Plan(**options)
    assert str(raised.value) == f"Plan: {text}"


def test_plans_are_frozen_and_hashable():
    plan = Plan(chunk_bytes=2**20)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.accurate = True  # pyright: ignore[reportAttributeAccessIssue]
    assert {plan, Plan(chunk_bytes=2**20)} == {plan}


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(kernel="reference"),
        Plan(accurate=True),
        Plan(check_targets=True),
        Plan(gradient="recompute"),
    ],
)
@pytest.mark.parametrize("array", [np.asarray, torch.asarray])
def test_a_plan_changes_no_result(plan, array):
    right = float(xent.cross_entropy(array(X), array(Y)))
    assert float(xent.cross_entropy(array(X), array(Y), plan=plan)) == pytest.approx(right, 1e-15)
