"""Which options and arrays a whole loss in one call takes, and the record that it makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from xent.kernels import cpu
from xent.kernels.loss import Array, Prepared, Recipe, flags, form, pack, recipe
from xent.ops import cross_entropy as ce
from xent.reduction import GIVEN, NOTHING, ROW_WEIGHT
from xent.spec import Plan, Spec

F16, BF16, F32, F64 = range(4)
LOSS = (np.dtype("f4"), F32)


def lies(shape):
    """The strides of an array without gaps."""
    return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))


def made(logits, target, dtype=F32, soft=None, classes=None, plan=None, gradient=None, **options):
    """The form of arrays without gaps."""
    chosen = recipe(Spec(**options))
    arrays = Array(dtype, logits, lies(logits)), Array(soft, target, lies(target))
    return form(chosen, plan, *arrays, classes, gradient or lies(logits), LOSS, 77)


def record(found):
    return dict(zip(cpu.FIELDS, cpu.RECORD.unpack(found.record), strict=True))


def test_a_recipe_has_the_numbers_of_a_spec():
    assert recipe(Spec()) == Recipe(
        0, 1.0, 0.0, (1.0, 0.0, 0.0), ROW_WEIGHT, 0.0, -100, None, False
    )
    spec = Spec(label_smoothing=0.25, z_loss=0.5, softcap=30.0, logit_scale=2.0, ignore_index=7)
    found = recipe(spec)
    assert found.flags == cpu.SMOOTH
    assert found[1:4] == (2.0, 30.0, (0.75, 0.25, 0.5))
    assert found.coefficients == ce.coefficients(spec)
    assert found.ignore_index == 7
    assert recipe(Spec(reduction="sum")).denominator == NOTHING
    assert recipe(Spec(reduction="none"))[4:] == (NOTHING, 0.0, -100, None, True)
    assert recipe(Spec(normalizer=3, axis=-1))[4:] == (GIVEN, 3.0, -100, -1, False)
    assert recipe(Spec(normalizer=0))[4:6] == (GIVEN, 0.0)


def test_a_normalizer_that_is_an_array_has_no_recipe():
    assert recipe(Spec(normalizer=np.asarray(3.0))) is None


def test_flags_of_a_plan():
    assert flags(None) == flags(Plan()) == flags(Plan(check_targets=True)) == cpu.CHECK
    assert flags(Plan(check_targets=False)) == 0
    assert flags(Plan(accurate=True)) == cpu.CHECK | cpu.ACCURATE


ROWS = {  # logits, axis -> the shape of a loss per row; n, d, v and their strides
    "one row": ((5,), None, (), (1, 1, 5, 0, 0, 1)),
    "rows": ((4, 5), None, (4,), (4, 1, 5, 5, 0, 1)),
    "rows, last axis": ((4, 5), -1, (4,), (4, 1, 5, 5, 0, 1)),
    "columns": ((4, 5), 0, (5,), (1, 5, 4, 0, 1, 5)),
    "image": ((2, 5, 3, 4), None, (2, 3, 4), (2, 12, 5, 60, 1, 12)),
    "tokens": ((2, 3, 5), -1, (2, 3), (6, 1, 5, 5, 0, 1)),
    "tokens, axis 2": ((2, 3, 5), 2, (2, 3), (6, 1, 5, 5, 0, 1)),
    "planes": ((5, 2, 3), -3, (2, 3), (1, 6, 5, 0, 1, 6)),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_the_form_of_class_indices(name, reduction):
    logits, axis, lead, rows = ROWS[name]
    found = made(logits, lead, reduction=reduction, axis=axis, ignore_index=3)
    assert found.lead == (lead if reduction == "none" else ())
    assert (found.dtype, found.size) == (LOSS[0], 4 * np.prod(logits))
    fields = record(found)
    assert tuple(fields[n] for n in cpu.Layout._fields) == rows
    assert tuple(fields[f"gradient_{a}"] for a in "ndv") == rows[3:]
    assert (fields["mode"], fields["flags"]) == (cpu.LOSS, cpu.CHECK)
    assert (fields["target_kind"], fields["ignore_index"]) == (cpu.INDICES, 3)
    assert (fields["of_nll"], fields["of_smooth"], fields["of_lse2"]) == (1, 0, 0)
    assert fields["losses"] == (reduction == "none")
    assert (fields["dtype"], fields["loss_dtype"], fields["parallel"]) == (F32, F32, 77)


@pytest.mark.parametrize("name", ROWS)
def test_the_form_of_probabilities(name):
    logits, axis, _, rows = ROWS[name]
    fields = record(made(logits, logits, soft=F32, axis=axis))
    assert (fields["target_kind"], fields["target_dtype"]) == (cpu.PROBABILITIES, F32)
    assert tuple(fields[f"target_{a}"] for a in "ndv") == rows[3:]


def test_the_form_of_options():
    options = {"label_smoothing": 0.5, "z_loss": 0.1, "softcap": 20.0, "logit_scale": 3.0}
    plan = Plan(accurate=True, check_targets=False)
    fields = record(made((4, 5), (4,), F16, classes=5, plan=plan, normalizer=9.0, **options))
    assert fields["flags"] == cpu.SMOOTH | cpu.ACCURATE
    assert (fields["of_nll"], fields["of_smooth"], fields["of_lse2"]) == (0.5, 0.5, 0.1)
    assert (fields["softcap"], fields["logit_scale"]) == (20.0, 3.0)
    assert (fields["denominator"], fields["divisor"]) == (GIVEN, 9.0)


def test_a_gradient_may_lie_otherwise_than_the_logits():
    fields = record(made((4, 5), (4,), gradient=(1, 4)))
    assert (fields["gradient_n"], fields["gradient_v"]) == (1, 4)
    assert made((2, 3, 5), (2, 3), axis=-1, gradient=(5, 10, 1)) is None


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64])
def test_the_size_is_that_of_the_gradient(dtype):
    assert made((4, 5), (4,), dtype).size == 20 * (2, 2, 4, 8)[dtype]


GENERAL = {
    "no axis": {"logits": (), "target": ()},
    "integer logits": {"dtype": None},
    "axis too large": {"axis": 2},
    "axis too small": {"axis": -3},
    "no rows": {"logits": (0, 5), "target": (0,)},
    "no classes": {"logits": (4, 0)},
    "no places": {"logits": (4, 5, 0), "target": (4, 0)},
    "too few indices": {"target": (3,)},
    "too many axes": {"target": (4, 1)},
    "indices of columns": {"target": (5,)},
    "a row that is one of many": {"logits": (5,), "target": (1,)},
    "weights of other classes": {"classes": 4},
    "probabilities of another dtype": {"target": (4, 5), "soft": F64},
    "probabilities of another shape": {"target": (5, 4), "soft": F32},
    "floating indices": {"soft": F32},
    "integers of the logits' shape": {"target": (4, 5)},
    "an ignored class beside probabilities": {"target": (4, 5), "soft": F32, "ignore_index": 0},
}


@pytest.mark.parametrize("name", GENERAL)
def test_what_the_general_way_must_do_has_no_form(name):
    usual = {"logits": (4, 5), "target": (4,)}
    assert made(**usual) is not None
    assert made(**{**usual, **GENERAL[name]}) is None


def test_axes_that_do_not_merge_have_no_form():
    chosen, shape = recipe(Spec()), (2, 5, 3, 4)
    turned = (60, 1, 5, 15)  # of (2, 4, 3, 5)
    indices = Array(None, (2, 3, 4), lies((2, 3, 4)))
    for logits, target in (
        (Array(F32, shape, turned), indices),
        (Array(F32, shape, lies(shape)), Array(F32, shape, turned)),
    ):
        assert form(chosen, None, logits, target, None, lies(shape), LOSS, 0) is None
    usual = Array(F32, shape, lies(shape))
    assert form(chosen, None, usual, indices, None, lies(shape), LOSS, 0) is not None


def test_what_is_prepared_knows_no_call():
    spec = Spec()
    prepared = Prepared(spec, recipe(spec))
    assert (prepared.spec, prepared.forms, prepared.upstream) == (spec, {}, 1.0)


def test_the_variables_are_those_of_the_c_struct():
    assert len(pack(1, 2, 3, 4, 5, 0.5)) == 48
