"""Memory and time of a training step of a transformers model, patched and as it is.

    .venv/bin/python benchmarks/trainers.py [--quick] [--rounds N]

A small random Llama with a head of 128,256 classes, made of its config. Each measurement is a
process of its own, and the two take turns; their losses are compared before anything is told. The
table goes into docs/performance.md between its marks, the numbers into results/trainers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from xent.bench.report import placed

HERE = Path(__file__).parent
PAGE, RESULTS = HERE.parent / "docs" / "performance.md", HERE / "results" / "trainers.json"
MARKS = "benchmarks/trainers.py"  # on the page
WAYS = ("as it is", "patched")
MB = 1e6


@dataclass(frozen=True)
class Case:
    """One model and batch."""

    dtype: str
    tokens: int
    classes: int = 128_256
    width: int = 128
    layers: int = 2

    @property
    def logits(self) -> int:
        """The bytes of the logits once, in float32: the loss makes them so."""
        return 4 * self.tokens * self.classes


CASES = [Case("float32", 512), Case("bfloat16", 512)]
QUICK = [Case("float32", 64, 500, 32, 1)]


def step_of(case: Case, patched: bool) -> Any:
    """A training step without its optimizer: the loss and all gradients."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, logging

    from xent.integrations.transformers import patch

    logging.set_verbosity_error()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": case.width, "intermediate_size": 2 * case.width}
    sizes |= {"vocab_size": case.classes, "num_hidden_layers": case.layers}
    config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, use_cache=False, **sizes)
    model = LlamaForCausalLM(config).to(getattr(torch, case.dtype)).train()
    tokens = torch.randint(0, case.classes, (2, case.tokens // 2))
    if patched:
        patch(model)

    def step() -> float:
        model.zero_grad(set_to_none=False)  # gradients are there before, and are no extra
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        return loss.item()

    return step


def child(case: Case, patched: bool) -> dict[str, float | int | None]:
    """What one process measures: the peak above what it holds, and the seconds of a later step."""
    from xent.bench.memory import extra_bytes

    step = step_of(case, patched)
    loss = step()
    extra = extra_bytes(step)
    begin = time.perf_counter()
    step()
    return {"loss": loss, "bytes": extra, "seconds": time.perf_counter() - begin}


def measured(case: Case, rounds: int) -> dict[str, Any]:
    """Both ways in turns, each in a fresh process."""
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            command = [sys.executable, __file__, "--child", json.dumps([asdict(case), way])]
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            ran = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment
            )
            found[way].append(json.loads(ran.stdout.splitlines()[-1]))
    losses = {way: found[way][0]["loss"] for way in WAYS}
    own, ours = losses.values()
    if abs(ours / own - 1) > (1e-6 if case.dtype == "float32" else 1e-2):
        raise SystemExit(f"{case}: losses {losses}")
    return {**asdict(case), "found": found}


def spread(values: list[float], digits: int) -> str:
    """The median, the least and the largest."""
    low, mid, high = min(values), median(values), max(values)
    return f"{mid:,.{digits}f} ({low:,.{digits}f} - {high:,.{digits}f})"


def table(cases: list[dict], told: str) -> str:
    lines = [told, ""]
    lines += ["| parameters | logits in float32, MB | way | peak above the model, MB | step, s |"]
    lines += ["|---|---|---|---|---|"]
    for one in cases:
        size = Case(**{k: v for k, v in one.items() if k != "found"}).logits / MB
        for way in WAYS:
            runs = one["found"][way]
            peaks = [run["bytes"] / MB for run in runs if run["bytes"] is not None]
            peak = spread(peaks, 0) if peaks else "not told by this system"
            seconds = spread([run["seconds"] for run in runs], 2)
            lines.append(f"| {one['dtype']} | {size:,.0f} | {way} | {peak} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a patched model.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tiny head, print alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        case, way = json.loads(asked.child)
        print(json.dumps(child(Case(**case), way == WAYS[1])))
        return
    cases = [measured(case, asked.rounds) for case in (QUICK if asked.quick else CASES)]
    import torch
    import transformers

    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
    machine += f"transformers {transformers.__version__}"
    first = CASES[0]
    told = f"{machine}; {asked.rounds} rounds, median (least - largest). Llama of {first.layers} "
    told += f"layers of width {first.width}, {first.classes:,} classes, {first.tokens:,} tokens; "
    told += "forward and backward, gradients in memory that is there."
    if hasattr(os, "getloadavg"):
        told += f" Load of the machine at the end, others' work included: {os.getloadavg()[0]:.0f}."
    text = table(cases, told)
    print(text)
    if asked.quick:
        return
    RESULTS.write_text(json.dumps({"machine": told, "cases": cases}, indent=1) + "\n")
    page = placed(PAGE.read_text(encoding="utf-8"), text, MARKS)
    assert page, f"{PAGE}: no marks of {MARKS}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
