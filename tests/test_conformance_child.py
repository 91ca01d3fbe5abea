"""conformance/child: what a child tells, line by line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from xent.conformance.checks import CHECKS
from xent.conformance.child import Job, examined, serve
from xent.conformance.subject import prepare


def told(found: Any, *checks: str, seed: int = 1) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    serve(found, Job("", None, seed, checks), lines.append)
    return lines


def test_lines_of_a_loss(seed: int) -> None:
    lines = told(torch.nn.functional.cross_entropy, "value.mean", "value.sum", seed=seed)
    assert [next(iter(line)) for line in lines] == [
        "subject",
        "start",
        "record",
        "start",
        "record",
        "done",
    ]
    assert lines[0]["subject"]["adapter"] == "torch"
    assert lines[0]["subject"]["versions"]["torch"] == torch.__version__
    assert lines[2]["record"]["status"] == "passed"


def test_what_cannot_be_loaded() -> None:
    (line,) = told(object())
    assert line["trouble"].startswith("no adapter fits: torch: TypeError")


def exits(logits, target):
    if len(logits) > 4:
        sys.exit("enough")
    return torch.nn.functional.cross_entropy(logits, target)


def test_an_exit_is_a_finding(seed: int) -> None:
    record = examined(CHECKS["value.mean"], prepare(exits), seed)
    assert record.status == "failed"
    assert record.obtained == "sys.exit(enough)"
    assert record.flaws == ("exits",)


def test_a_process_of_its_own(own_folder: Path) -> None:
    Path("mine.py").write_text(
        "import torch\nprint('not a line of JSON')\n"
        "def loss(x, y): return torch.nn.functional.cross_entropy(x, y)\n"
    )
    job = {"target": "mine.py:loss", "adapter": None, "seed": 1, "checks": ["value.mean"]}
    done = subprocess.run(
        [sys.executable, "-m", "xent.conformance.child"],
        input=json.dumps({**job, "path": []}) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["subject", "start", "record", "done"]
    assert "not a line of JSON" in done.stderr
