"""conformance/grading: children that hang, crash and exit, seeds, and every wrong loss."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import xent
from xent import manual
from xent.conformance.checks import CHECKS
from xent.conformance.grading import chosen, grade, here, name_of
from xent.conformance.report import FAILED, NOT_RUN, PASSED, text

sys.path.insert(0, str(Path(__file__).parent))
from wrong_losses import WRONG, Wrong, cross_entropy

FEW = ("value.rows", "value.many_rows", "value.sum")
MINE = """
import ctypes, os, sys, time
import torch

def plain(logits, target):
    return torch.nn.functional.cross_entropy(logits, target)

def hangs(logits, target):
    time.sleep(1e6 if len(logits) > 200 else 0)
    return plain(logits, target)

def crashes(logits, target):
    ctypes.string_at(0 if len(logits) > 200 else id(target))
    return plain(logits, target)

def ends(logits, target):
    if len(logits) > 2:
        print("out of luck", file=sys.stderr)
        os._exit(3)
    return plain(logits, target)

def never(logits, target):
    ctypes.string_at(0)
"""


def statuses(report) -> dict[str, str]:
    return {r.name: r.status for r in report.records}


@pytest.fixture
def mine(own_folder: Path) -> Path:
    Path("mine.py").write_text(MINE)
    return own_folder


def test_a_crash_is_a_finding_and_the_rest_goes_on(mine: Path) -> None:
    report = grade("mine.py:crashes", checks=("value.many_rows", "value.mean"))
    assert statuses(report) == {"value.many_rows": FAILED, "value.mean": PASSED}
    (record,) = report.of(FAILED)
    assert record.obtained == "the process was ended by SIGSEGV"
    assert report.lead is not None
    assert report.lead.name == "crashes"
    assert report.status() == 1


def test_a_hang_is_a_finding(mine: Path) -> None:
    start = time.perf_counter()
    report = grade("mine.py:hangs", checks=("value.many_rows", "value.mean"), timeout=1.5)
    assert time.perf_counter() - start < 60
    assert statuses(report) == {"value.many_rows": FAILED, "value.mean": PASSED}
    assert report.of(FAILED)[0].obtained == "no answer in 1.5 s"
    assert report.lead is not None
    assert report.lead.name == "hangs"


@pytest.mark.slow
def test_after_many_ends_the_rest_is_not_run(mine: Path) -> None:
    report = grade("mine.py:ends", checks=("value", "gradient", "shape"))
    assert len(report.of(FAILED)) == 6
    assert report.of(NOT_RUN)
    told = {r.obtained for r in report.of(FAILED)}
    assert told == {"the process ended with status 3: out of luck"}


def test_what_cannot_be_graded(mine: Path) -> None:
    report = grade("mine.py:never", checks=("value",))
    assert report.trouble == "the process was ended by SIGSEGV while it was loaded and first called"
    assert report.status() == 2
    assert grade("mine.py:absent", checks=("value",)).trouble.startswith(
        "grade: target has no absent in mine.py, expected one of plain, hangs, crashes"
    )
    assert grade("no_such:f").trouble == "ModuleNotFoundError: No module named 'no_such'"


def test_a_closure_is_graded_in_a_copy_of_the_process(seed: int) -> None:
    pid, factor = os.getpid(), 1.0

    def loss(logits, target):
        if os.getpid() == pid:
            raise RuntimeError("in the process of the tests")
        if len(logits) > 200:
            ctypes.string_at(0)
        return factor * torch.nn.functional.cross_entropy(logits, target)

    assert name_of(loss) is None
    report = grade(loss, seed=seed, checks=("value.many_rows", "value.mean"))
    assert statuses(report) == {"value.many_rows": FAILED, "value.mean": PASSED}, text(report)


def test_the_seed_says_it_all(seed: int) -> None:
    loss = next(w.loss for w in WRONG if w.name == "rows")
    one, other, third = (
        grade(loss, seed=s, checks=("value", "gradient"), isolate=False)
        for s in (seed, seed, seed + 1)
    )
    kept = [[replace(r, seconds=0) for r in report.records] for report in (one, other, third)]
    assert kept[0] == kept[1]
    assert [r.given for r in kept[0]] != [r.given for r in kept[2]]
    assert (
        grade(loss, checks=FEW[:1], isolate=False).seed
        != grade(loss, checks=FEW[:1], isolate=False).seed
    )


def test_names() -> None:
    assert name_of(torch.nn.functional.cross_entropy) == "torch.nn.functional:cross_entropy"
    assert name_of(lambda: 0) is None
    assert chosen(None) == tuple(CHECKS)
    assert chosen(["value.sum", "value.mean"]) == ("value.mean", "value.sum")
    assert chosen(["shape"]) == tuple(n for n in CHECKS if n.startswith("shape."))
    assert here("a.b:c") == "a.b:c"
    assert here("x.py:c") == f"{Path('x.py').resolve()}:c"
    with pytest.raises(ValueError, match="checks has value 'valu', expected a check or one of"):
        grade(cross_entropy, checks=["valu"])
    with pytest.raises(ValueError, match="adapter has value 'tf', expected one of"):
        grade(cross_entropy, adapter="tf")


def test_there_are_thirty_wrong_losses_and_each_is_another() -> None:
    assert len(WRONG) >= 30
    assert len({w.name for w in WRONG}) == len(WRONG)
    assert {w.check for w in WRONG} <= set(CHECKS)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_wrong_loss_on_every_cheap_check(wrong: Wrong, seed: int) -> None:
    families = ("value", "gradient", "shape", "stable", "bad")
    report = grade(
        wrong.loss, adapter=wrong.adapter, seed=seed, checks={*families, wrong.check}, isolate=False
    )
    assert report.lead is not None
    assert report.lead.name == wrong.cause, text(report)


XENT = [
    (xent.cross_entropy, None),
    (xent.cross_entropy, "numpy"),
    (xent.nn.CrossEntropyLoss if hasattr(xent, "nn") else xent.cross_entropy, None),
    (manual.CrossEntropyLoss, "numpy-class"),
    (xent.linear_cross_entropy, None),
]


@pytest.mark.parametrize(("found", "adapter"), XENT)
def test_xent_passes(found, adapter, seed: int) -> None:
    families = [c.family for c in CHECKS.values() if c.family not in ("compose", "memory")]
    names = {n for n, c in CHECKS.items() if c.family in families}
    report = grade(
        found, adapter=adapter, seed=seed, checks=names - {"linear.compile"}, isolate=False
    )
    assert not report.trouble
    assert not report.of(FAILED), text(report)


@pytest.mark.slow
@pytest.mark.parametrize(("found", "adapter"), XENT)
def test_xent_passes_everything(found, adapter, seed: int) -> None:
    report = grade(found, adapter=adapter, seed=seed)
    assert report.status(strict=True) == 0, text(report)
    assert report.seconds < 60


def test_torch_agrees_with_itself(seed: int) -> None:
    checks = [c for c in CHECKS if CHECKS[c].tier == "agrees with torch"]
    checks = [c for c in checks if CHECKS[c].family not in ("compose", "memory", "linear")]
    report = grade(torch.nn.functional.cross_entropy, seed=seed, checks=checks, isolate=False)
    assert not report.of(FAILED), text(report)
