"""The accuracy benchmark: xent within its contract, the reference right, and faults found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from xent import doctor
from xent.conformance import exact, oracle
from xent.kernels import library


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
    arguments = ["--here", "--quick", "--only", "logits", "--seed", str(seed)]
    arguments += ["--json", str(found)]
    status = benchmark.accuracy.main(arguments)
    assert status == 0  # what is outside is printed
    record = json.loads(found.read_text())
    assert record["passed"]
    assert record["seed"] == seed
    facts = doctor.examine()
    assert record["instructions"] == facts["native"]["instructions"]
    told = {name: kernel.partition(" ")[0] for name, kernel in record["kernels"].items()}
    assert told == facts["kernels"]
    assert record["linear"] == []
    figures = {(f["format"], f["case"], f["quantity"]): f["ulp"] for f in record["figures"]}
    assert {format for format, _, _ in figures} == set(
        exact.FORMATS if benchmark.reference.EXTENDED else list(exact.FORMATS)[:3]
    )
    confident = figures["float32", "confident, gap 1..40, V = 10", "loss"]
    assert confident["xent torch"]["normal"] < 3
    assert confident["torch"]["normal"] > 1e6  # a loss of 0 where it should not be


def test_a_fault_is_found(benchmark, monkeypatch, capsys, tmp_path, seed):
    """torch's own log_softmax in the place of xent's: wrong where a probability is almost 1."""
    confident = [case for case in benchmark.cases if case.title == "confident, gap 1..40, V = 10"]
    monkeypatch.setattr(benchmark.accuracy, "CASES", confident)
    monkeypatch.setattr(
        benchmark.subjects.XentTorch,
        "log_softmax",
        lambda self, logits: torch.nn.functional.log_softmax(logits, dim=1),
    )
    found = tmp_path / "figures.json"
    arguments = ["--here", "--quick", "--only", "logits", "--format", "bfloat16"]
    arguments += ["--seed", str(seed)]
    assert benchmark.accuracy.main([*arguments, "--json", str(found)]) == 1
    printed, record = capsys.readouterr().out, json.loads(found.read_text())
    assert not record["passed"]
    assert f"seed {seed};" in printed
    assert "\x1b" not in printed
    assert "xent: 5 of 6 figures within the contract" in printed
    assert "outside: bfloat16, confident, gap 1..40, V = 10, log_softmax: xent torch" in printed
    assert f"kernels: numpy {record['kernels']['numpy']}, torch " in printed


@pytest.mark.parametrize("failing", [None, "none", "baseline"])
def test_every_kernel_of_this_machine_is_measured(
    benchmark, failing, monkeypatch, capsys, tmp_path, seed
):
    calls = []

    def call(command, env):
        calls.append(env["XENT_CPU"])
        assert command[2:5] == ["--here", "--seed", str(seed)]
        assert command[7:] == ["--quick", "--format", "float16"]
        status = int(env["XENT_CPU"] == failing)
        Path(command[6]).write_text(json.dumps({"instructions": calls[-1], "passed": not status}))
        return status

    monkeypatch.setattr(benchmark.accuracy.subprocess, "call", call)
    monkeypatch.setattr(library, "find", lambda environment: (found, None))
    found = library.Library(None, "", "v3", ("v3", "baseline"))
    file = tmp_path / "all.json"
    arguments = ["--quick", "--format", "float16", "--seed", str(seed), "--json", str(file)]
    assert benchmark.accuracy.main(arguments) == (failing is not None)
    assert calls == ["v3", "baseline", "none"]
    record = json.loads(file.read_text())
    assert [run["instructions"] for run in record["runs"]] == calls
    assert record["passed"] == (failing is None)
    told = "v3 within the contract; baseline within the contract; none within the contract"
    if failing:
        told = told.replace(f"{failing} within", f"{failing} OUTSIDE")
    assert capsys.readouterr().out.splitlines()[-1] == f"XENT_CPU: {told}"

    calls.clear()
    found = library.Library(None, "", "baseline", ("baseline",))
    assert benchmark.accuracy.main([*arguments, "--kernel", "v4"]) == 1
    assert calls == []
    assert capsys.readouterr().out == "XENT_CPU: v4 not on this CPU\n"


def test_what_a_kernel_flushes_is_allowed_and_told(benchmark):
    error = benchmark.accuracy.largest_error
    tiny, spacing = 2.0**-126, 2.0**-149
    right = np.array([1, 40 * tiny, tiny / 2, 2.5 * spacing], np.longdouble)
    got = torch.tensor([1, 40 * tiny, 0, 0], dtype=torch.float64)
    flushed = error(got, right, "float32", 0.0, 4, 64 * tiny)
    assert (flushed.normal, flushed.deep, flushed.allowed) == (0, 0, True)
    assert error(got, right, "float32", 0.0, 4, 0.0).normal == 2.0**22
    near = error(got, right, "float32", 0.0, 4, tiny / 4)
    assert (near.normal, near.deep, near.allowed) == (0, 2.0**21, True)
    exact_one = error(torch.from_numpy(right.astype(float)), right, "float32", 0.0, 4, tiny)
    assert (exact_one.largest, exact_one.allowed) == (0, False)
    assert not math.isfinite(error(got * math.nan, right, "float32", 0.0, 4, tiny).largest)


def test_a_seed_repeats_a_run(benchmark, monkeypatch, capsys, seed):
    monkeypatch.setattr(benchmark.accuracy, "CASES", benchmark.cases[:1])
    printed = []
    for given in (seed, seed, seed + 1):
        benchmark.accuracy.main(["--here", "--quick", "--format", "float64", "--seed", str(given)])
        printed.append(capsys.readouterr().out.split("reference:")[1])
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
