"""The benchmark of GPUs, rehearsed on a CPU: what it writes, and what it says where nothing is."""

from __future__ import annotations

import json

import pytest
import torch

from xent.bench import gpu


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)


@pytest.mark.usefixtures("no_compiler")
def test_a_rehearsal_writes_every_implementation(tmp_path, capsys):
    file = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--json", str(file)]) == 0
    told = json.loads(file.read_text())["results"]
    assert set(told[0]["ceilings"]) == {"bytes", "flop"}
    found = {(r["case"], r["subject"]): r for r in told[1:]}
    asked = {(c.name, s) for c in gpu.TINY for s in (heads() if c.width else rows())}
    assert set(found) == asked
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(asked)
    for (case, subject), result in found.items():
        if subject in ("xent", "xent in place", "xent minimal", "torch"):
            assert result["failure"] is None, result
            assert result["both_ms"] > 0
            assert result["of_ceiling"] > 0
            assert len(result["errors"]) == (3 if case.startswith("head") else 2)
        if subject == "xent":
            assert result["errors"][0] < 1e-2
            assert max(result["errors"][1:]) < 1.05
        if subject == "liger-kernel":
            assert "No module" in result["failure"]


def rows():
    return gpu.losses_of_rows()


def heads():
    return gpu.losses_of_heads()


@pytest.mark.usefixtures("no_compiler")
def test_nothing_begins_when_the_time_is_over(tmp_path):
    file = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--minutes", "0", "--json", str(file)]) == 0
    told = json.loads(file.read_text())["results"][1:]
    assert {r["failure"] for r in told} == {"no time was left"}


def test_no_device(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_the_least_work_of_a_case():
    assert gpu.CASES[0].least == ("bytes", 4 * 8192 * 131_072)
    assert gpu.CASES[2].least == ("flop", 6 * 8192 * 131_072 * 4096)
    assert gpu.CASES[3].least == ("flop", 3 * 8192 * 131_072 * 4096)
