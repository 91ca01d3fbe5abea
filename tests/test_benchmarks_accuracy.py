"""The accuracy benchmark: xent within its contract, the reference right, and faults found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xent.conformance import exact, oracle


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import accuracy
    import accuracy_cases
    import accuracy_reference
    import accuracy_subjects

    return SimpleNamespace(
        accuracy=accuracy,
        cases=accuracy_cases.CASES,
        reference=accuracy_reference,
        subjects=accuracy_subjects,
    )


def test_xent_is_within_its_contract(benchmark, seed, tmp_path):
    found = tmp_path / "figures.json"
    status = benchmark.accuracy.main(["--quick", "--seed", str(seed), "--json", str(found)])
    assert status == 0  # what is outside is printed
    record = json.loads(found.read_text())
    assert record["passed"]
    assert record["seed"] == seed
    figures = {(f["format"], f["case"], f["quantity"]): f["ulp"] for f in record["figures"]}
    assert {format for format, _, _ in figures} == set(
        exact.FORMATS if benchmark.reference.EXTENDED else list(exact.FORMATS)[:3]
    )
    confident = figures["float32", "confident, gap 1..40, V = 10", "loss"]
    assert confident["xent torch"]["normal"] < 3
    assert confident["torch"]["normal"] > 1e6  # a loss of 0 where it should not be


def test_a_fault_is_found(benchmark, monkeypatch, capsys, tmp_path, seed):
    """torch's own log_softmax in the place of xent's: wrong where a probability is almost 1."""
    confident = [case for case in benchmark.cases if case.name == "confident, gap 1..40"]
    monkeypatch.setattr(benchmark.accuracy, "CASES", confident)
    monkeypatch.setattr(
        benchmark.subjects.XentTorch,
        "log_softmax",
        lambda self, logits: torch.nn.functional.log_softmax(logits, dim=1),
    )
    found = tmp_path / "figures.json"
    arguments = ["--quick", "--format", "bfloat16", "--seed", str(seed), "--json", str(found)]
    assert benchmark.accuracy.main(arguments) == 1
    printed = capsys.readouterr().out
    assert f"seed {seed};" in printed
    assert "\x1b" not in printed
    assert "xent: 4 of 5 figures within the contract" in printed
    assert "outside: bfloat16, confident, gap 1..40, V = 10, log_softmax: xent torch" in printed
    assert not json.loads(found.read_text())["passed"]


def test_a_seed_repeats_a_run(benchmark, monkeypatch, capsys, seed):
    monkeypatch.setattr(benchmark.accuracy, "CASES", benchmark.cases[:1])
    printed = []
    for given in (seed, seed, seed + 1):
        benchmark.accuracy.main(["--quick", "--format", "float64", "--seed", str(given)])
        printed.append(capsys.readouterr().out.split("reference")[1])
    assert printed[0] == printed[1] != printed[2]


def test_the_reference_is_the_oracle(benchmark, rng):
    if not benchmark.reference.EXTENDED:
        pytest.skip("NumPy's longdouble has no more digits than float64 on this machine")
    for case in benchmark.cases:
        logits = case.draw(rng, 2, min(case.classes, 20), "float64")
        target = case.draw_target(rng, logits)
        assert benchmark.reference.disagreement(logits, target, **case.options) < 0.03
        if not case.cancels:
            losses = benchmark.reference.losses(logits, target, chunk=1)
            np.testing.assert_allclose(losses, benchmark.reference.answer(logits, target).loss)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_ulp_errors_are_those_of_the_oracle(benchmark, rng, dtype):
    smallest, largest = exact.FORMATS[dtype][1:]
    right = rng.uniform(1, 2, 200) * 2.0 ** rng.integers(smallest - 10, largest, 200)
    tensor = torch.from_numpy(right * (1 + rng.normal(size=200) * 1e-3))
    got = tensor.to(getattr(torch, dtype)).double().numpy()
    right[:7] = [0, 0, math.inf, -math.inf, math.nan, math.nan, 1]
    got[:7] = [0, 2.0**smallest, math.inf, math.inf, math.nan, 1, math.nan]
    errors = benchmark.reference.ulp_errors(got, right.astype(np.longdouble), dtype)
    np.testing.assert_allclose(errors, oracle.ulp_error(got, right, dtype), rtol=1e-15)


def test_ulp_errors_in_a_larger_unit(benchmark):
    errors = benchmark.reference.ulp_errors([1.25, 40.0], np.ones(2), "float32", [8.0, 0.5])
    assert errors.tolist() == [2.0**18, 39 * 2.0**23]
