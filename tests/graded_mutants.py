"""The faults of mutants.py, found by the grader instead of the tests.

    python tests/graded_mutants.py [WORD ...]

Each fault is put into a copy of the source, and the copy is graded as anyone's loss is, on the
check written for such a mistake. A fault that it does not see is printed, and the exit status is 1.
What no grader of cross entropies can be asked is in `UNASKED`, with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from mutants import FAULTS, NATIVE, ROOT, WITHOUT_INSTALLED, Fault, installed_library

FEW = ("value.rows", "value.mean", "gradient.mean")
SUBJECTS = {
    "torch": ("xent:cross_entropy", "torch"),
    "numpy": ("xent.manual:CrossEntropyLoss", "numpy-class"),
    "module": ("xent.nn:CrossEntropyLoss", "torch-module"),
    "linear": ("xent:linear_cross_entropy", "linear"),
}
GRADE = """
import json
from xent.conformance.adapters import load
from xent.conformance.grading import grade
report = grade(
    load({target!r}), adapter={adapter!r}, seed=1, checks={checks!r}, isolate=False
)
found = {{record.name: record.status for record in report.records}}
print(json.dumps([report.trouble, found, report.lead.text if report.lead else ""]))
"""


class Caught(NamedTuple):
    """The fault of a file whose right line holds a word, and the check that is to see it."""

    file: str
    word: str
    check: str
    subject: str = "torch"


CAUGHT = (
    Caught("ops/rows.py", "xp.where(row.at_k, 0.0, row.exp", "value.rows"),
    Caught("ops/rows.py", "xp.log1p(tail)[:, None]", "accuracy.tiny_soft_target"),
    Caught("ops/rows.py", "return e if self.low", "accuracy.wide_gradient_float64"),
    Caught("ops/rows.py", "(measure == 0)", "stable.soft_masked"),
    Caught("ops/rows.py", "slope = 4", "options.capped_scale"),
    Caught("ops/rows.py", "low = low * logit_scale", "options.scale_accuracy"),
    Caught("ops/rows.py", "return others + take_last", "stable.infinite"),
    Caught("ops/stats.py", "t[:, None] == IGNORED", "stable.ignored_nan_gradient"),
    Caught("ops/stats.py", "at_t & row.at_k", "accuracy.tiny_gradient"),
    Caught("ops/stats.py", "rest < 0.5", "accuracy.tiny_soft_target"),
    Caught("ops/stats.py", "t == INVALID", "compose.compiled_label"),
    Caught("ops/cross_entropy.py", "by_lse = 2", "options.z_loss_gradient", "numpy"),
    Caught("ops/cross_entropy.py", "of_lse2 * row_weight", "options.z_loss_weight"),
    Caught("ops/exact.py", "xp.isfinite(high)", "stable.masked_class"),
    Caught("ops/exact.py", "odd = last if", "value.mean"),
    Caught("reduction.py", "return total(weight)", "value.weight_mean"),
    Caught("reduction.py", "rows.logits.shape[-1]", "shape.no_classes"),
    Caught("reduction.py", "return normalizer", "options.normalizer"),
    Caught("reduction.py", "upstream = divide", "gradient.mean", "numpy"),
    Caught("spec.py", "0 <= v <= 1", "bad.smoothing_below_0"),
    Caught("spec.py", "if not divides", "options.normalizer_refused"),
    Caught("spec.py", "in REDUCTIONS", "bad.reduction"),
    Caught("inputs.py", "inside | ignored", "bad.target_negative"),
    Caught("inputs.py", "array.ndim > 1", "shape.extra_axes"),
    Caught("inputs.py", "if soft and spec", "bad.ignored_probabilities"),
    Caught("backends/numpy.py", "plan.check_targets", "bad.target_too_large", "numpy"),
    Caught("backends/torch.py", "torch.is_grad_enabled()", "compose.double_backward"),
    Caught("backends/torch.py", "_set_fwd_grad_enabled", "compose.nested_jvp"),
    Caught("backends/torch.py", "return torch.float32", "compose.autocast"),
    Caught("backends/torch.py", "no_weight_gradient", "compose.weight_gradient"),
    Caught("backends/torch_fused.py", "factor != ctx.upstream", "gradient.upstream"),
    Caught("backends/torch_fused.py", "if differentiated(upstream)", "compose.double_backward"),
    Caught("backends/torch_whole.py", "forward_ad._current_level", "compose.dual"),
    Caught("kernels/loss.py", "r.ignore_index >= 0", "bad.ignored_probabilities"),
    Caught("kernels/cpu.py", "apart != step * length", "shape.layout"),
    # of `HEADS`
    Caught("nn.py", "self.normalizer,", "options.normalizer", "module"),
    Caught("manual.py", "self._vjp(upstream)", "gradient.upstream", "numpy"),
    Caught("backends/torch_linear.py", "factor == ctx.exp", "linear.upstream", "linear"),
    Caught("backends/torch_linear.py", "ctx.gradients, None", "linear.second_backward", "linear"),
    Caught("ops/tiles.py", "head.bias[slab]", "linear.bias", "linear"),
    Caught("ops/tiles.py", "xp.sum(whole, axis=0", "linear.bias", "linear"),
)

UNASKED = {  # the file, or the file and a word of the right line: why no check can see the fault
    ("ops/softmax.py", ""): "softmax and its logarithm, functions of their own",
    ("ops/binary.py", ""): "binary cross entropy, a function of its own",
    ("ops/nll.py", ""): "the loss of given log-probabilities, a function of its own",
    ("ops/rows.py", "(log_sum - low)"): "half a unit in the last place of a float64 loss: the "
    "grader asks for 16, and xent itself is 3 off",
    ("ops/stats.py", "_entropy(xp, p, s)"): "the entropy of `token_statistics`",
    ("ops/stats.py", "xp.isinf(row.top)"): "`logsumexp` of a row of -inf, whose loss is nan anyway",
    ("ops/blocks.py", "step = rows // d"): "the size of a block: memory that only a plan bounds",
    ("backends/torch_whole.py", "increment_version"): "Plan(inplace=True), xent's own",
    ("backends/torch_whole.py", "(logits, base)"): "Plan(inplace=True), xent's own",
    ("kernels/loss.py", "cpu.ACCURATE"): "Plan(accurate=True), xent's own",
}

HEADS = [  # what the tests of mutants.py are not asked: modules, layers and the linear head
    Fault(
        "nn.py",
        '"normalizer": self.normalizer,\n            "axis"',
        '"normalizer": None,\n            "axis"',
        "nn",
    ),
    Fault("manual.py", "return self._vjp(upstream)", "return self._vjp(1.0)", "manual"),
    Fault("backends/torch_linear.py", "if factor == ctx.expected:", "if True:", ""),
    Fault(
        "backends/torch_linear.py",
        "gradients, ctx.gradients = ctx.gradients, None",
        "gradients = ctx.gradients",
        "",
    ),
    Fault("ops/tiles.py", "xp.astype(head.bias[slab], ", "xp.astype(0 * head.bias[slab], ", ""),
    Fault("ops/tiles.py", "xp.sum(whole, axis=0, ", "xp.sum(whole[:1], axis=0, ", "ops_tiles"),
]


def every() -> list[Fault]:
    """The faults: of mutants.py, and those of heads that the file has not."""
    known = {(fault.file, fault.right) for fault in FAULTS}
    return [*FAULTS, *(fault for fault in HEADS if (fault.file, fault.right) not in known)]


def unasked(fault: Fault) -> str:
    """Why no check can see it; empty where one can."""
    found = [
        why
        for (file, word), why in UNASKED.items()
        if fault.file.startswith(file) and word in fault.right
    ]
    return found[0] if found else ""


def catcher(fault: Fault) -> Caught | None:
    """The check that is to see it."""
    found = [c for c in CAUGHT if c.file == fault.file and c.word in fault.right]
    return found[0] if len(found) == 1 else None


def missed(fault: Fault) -> tuple[str, str]:
    """What is amiss, empty where the fault is seen; and the report's leading cause."""
    caught = catcher(fault)
    if caught is None:
        return "no check is named for it, nor a reason why there is none", ""
    target, adapter = SUBJECTS[caught.subject]
    checks = (*FEW, caught.check)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "xent"
        shutil.copytree(ROOT / "src/xent", package, ignore=shutil.ignore_patterns("__pycache__"))
        path = package / fault.file
        text = path.read_text(encoding="utf-8")
        if text.count(fault.right) != 1:
            return f"stands {text.count(fault.right)} times in the file, expected once", ""
        path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
        (Path(folder) / "sitecustomize.py").write_text(WITHOUT_INSTALLED, encoding="utf-8")
        kernel = {} if fault.file.endswith(NATIVE) else {"XENT_CPU": "none"}
        paths = {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", GRADE.format(target=target, adapter=adapter, checks=checks)],
            cwd=folder,
            env={**os.environ, **paths, **kernel, **installed_library()},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode < 0:  # a child process of the grader's, for which it is a finding
        return "", f"the process was ended by {signal.Signals(-done.returncode).name}"
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        return f"grading ended with {done.returncode}: {last}", ""
    trouble, found, lead = json.loads(done.stdout.splitlines()[-1])
    if trouble:
        return "", f"it cannot be graded: {trouble}"
    if found.get(caught.check) != "failed":
        return f"{caught.check}: {found.get(caught.check)}", ""
    return "", lead


def main(words: list[str]) -> int:
    """Grade a copy with each fault, two at a time."""
    chosen = [f for f in every() if not words or any(w in f.file + f.right for w in words)]
    told = {fault: unasked(fault) for fault in chosen}
    asked = [fault for fault in chosen if not told[fault]]
    wrong = 0
    with ThreadPoolExecutor(2) as pool:
        for fault, (amiss, lead) in zip(asked, pool.map(missed, asked), strict=True):
            wrong += bool(amiss)
            caught = catcher(fault)
            name = caught.check if caught else ""
            print(f"{fault.file}: {' '.join(fault.wrong.split()) or '(removed)'}")
            print(f"    {'NOT SEEN, ' + amiss if amiss else f'{name}: {lead}'}", flush=True)
    for fault, why in told.items():
        if why:
            wrong_line = " ".join(fault.wrong.split()) or "(removed)"
            print(f"not asked  {fault.file}: {wrong_line}\n    {why}")
    print(f"{len(asked) - wrong} of {len(asked)} faults seen, {len(chosen) - len(asked)} not asked")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
