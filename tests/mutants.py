"""One-line faults injected into the library, each of which a test must catch: `./dev mutants`.

Every fault is put into a copy of the source, and the tests named beside it run on the copy until
one fails. A fault that none of them sees is printed and makes the exit status 1: the line gets a
test, or goes. `./dev mutants WORD ...` runs the faults whose file or text holds one of the words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Fault(NamedTuple):
    """`wrong` in place of `right`, which stands once in the file, to be caught by `tests`."""

    file: str
    right: str
    wrong: str
    tests: str


LOSS, STATS, TORCH = "functional_cross_entropy", "ops_stats", "backends_torch"
FUSED = "backends_torch_fused"

FAULTS = [
    # ops: the mathematics
    Fault(
        "ops/rows.py", "xp.where(row.at_k, 0.0, row.exponentials(xp))", "row.exponentials(xp)", LOSS
    ),
    Fault("ops/rows.py", "xp.log1p(tail)[:, None]", "xp.log(1 + tail)[:, None]", "ops_softmax"),
    Fault(
        "ops/rows.py", "return e if self.low is None else e + e * self.low", "return e", "ops_rows"
    ),
    Fault("ops/rows.py", "(log_sum - low)", "log_sum", "ops_rows"),
    Fault(
        "ops/rows.py", "xp.where((measure == 0) & xp.isinf(values), 0.0, values)", "values", LOSS
    ),
    Fault("ops/rows.py", "slope = 4 * logit_scale", "slope = 4", STATS),
    Fault(
        "ops/rows.py",
        "            low = low * logit_scale + lost",
        "            low = low * logit_scale",
        "ops_rows",
    ),
    Fault("ops/rows.py", "return others + take_last(xp, row.high, row.k)", "return others", LOSS),
    Fault("ops/stats.py", "x = xp.where(t[:, None] == IGNORED, 0.0, x)", "x = x", TORCH),
    Fault(
        "ops/stats.py",
        "xp.where(at_t & row.at_k, -rest, p",
        "xp.where(at_t & ~at_t, -rest, p",
        LOSS,
    ),
    Fault(
        "ops/stats.py",
        "xp.where(at_k & (rest < 0.5), others - mass * rest, mass * p - t)",
        "mass * p - t",
        STATS,
    ),
    Fault("ops/stats.py", 'xp.where(t == INVALID, float("nan"), value)', "value", TORCH),
    Fault(
        "ops/stats.py",
        "weighted(xp, p, s - _entropy(xp, p, s)[:, None])\n",
        "weighted(xp, p, s)\n",
        TORCH,
    ),
    Fault(
        "ops/stats.py",
        "lse = xp.where(xp.isinf(row.top), row.top, row.top + xp.log1p(tail))",
        "lse = row.top + xp.log1p(tail)",
        "functional_softmax",
    ),
    Fault("ops/cross_entropy.py", "by_lse = 2 * of_lse2", "by_lse = of_lse2", LOSS),
    Fault("ops/cross_entropy.py", "of_lse2 * row_weight * lse**2", "of_lse2 * lse**2", LOSS),
    Fault("ops/softmax.py", "rest * total - others", "g - p * total", "ops_softmax"),
    Fault("ops/softmax.py", "h = v - take_last(xp, v, k)[:, None]", "h = v", "ops_softmax"),
    Fault(
        "ops/binary.py",
        "weighted(xp, 1 - y, _softplus(xp, x))",
        "(1 - y) * _softplus(xp, x)",
        "functional_binary",
    ),
    Fault(
        "ops/binary.py",
        "xp.where(x > 0, 1.0, small)",
        "1.0",
        "ops_binary",
    ),
    Fault("ops/nll.py", "xp.where(at_t, -g,", "xp.where(at_t, g,", "ops_nll"),
    Fault("ops/exact.py", "xp.where(xp.isfinite(high), low, 0.0)", "low", LOSS),
    Fault("ops/exact.py", "odd = last if odd is None else odd + last", "odd = last", "ops_exact"),
    Fault("ops/blocks.py", "step = rows // d", "step = rows", "ops_blocks"),
    # reduction
    Fault(
        "reduction.py",
        "return total(weight)",
        "return float(weight.shape[0] * weight.shape[1])",
        LOSS,
    ),
    Fault("reduction.py", 'if rows.logits.shape[-1] else float("nan")', "", LOSS),
    Fault("reduction.py", "        return normalizer\n", "        return total(weight)\n", LOSS),
    Fault("reduction.py", "upstream = divide(xp, upstream, divisor)", "pass", LOSS),
    # spec and inputs
    Fault("spec.py", "lambda v: 0 <= v <= 1", "lambda v: v <= 1", "spec"),
    Fault("spec.py", "if not divides(self.reduction):", "if False:", "spec"),
    Fault("spec.py", "self.reduction in REDUCTIONS", "True", "spec"),
    Fault(
        "inputs.py",
        "wrong = ~(inside | ignored)",
        "wrong = ~(inside | ignored | (wide < 0))",
        "inputs",
    ),
    Fault("inputs.py", "return 1 if array.ndim > 1 else 0", "return array.ndim - 1", LOSS),
    Fault("inputs.py", "if soft and spec.ignore_index >= 0:", "if False:", "inputs"),
    # backends
    Fault(
        "backends/numpy.py", "plan is None or plan.check_targets is not False", "False", "inputs"
    ),
    Fault(
        "backends/torch.py",
        "torch.compiler.is_compiling() or torch.is_grad_enabled()",
        "torch.compiler.is_compiling()",
        TORCH,
    ),
    Fault("backends/torch.py", "with forward_ad._set_fwd_grad_enabled(True):", "if True:", TORCH),
    Fault(
        "backends/torch.py", "        return torch.float32\n", "        return rows.dtype\n", TORCH
    ),
    Fault(
        "backends/torch.py", "        no_weight_gradient(spec.function)\n", "        pass\n", TORCH
    ),
    # the fast way
    Fault("backends/torch_fused.py", "or factor != ctx.upstream", "", FUSED),
    Fault("backends/torch_fused.py", "if differentiated(upstream):", "if False:", FUSED),
    Fault("backends/torch_whole.py", "forward_ad._current_level >= 0", "False", "backends_fast"),
    Fault(
        "backends/torch_whole.py",
        "    torch.autograd.graph.increment_version(logits)\n",
        "",
        FUSED,
    ),
    Fault(
        "backends/torch_whole.py",
        "for tensor in (logits, base):",
        "for tensor in (logits,):",
        FUSED,
    ),
    Fault("kernels/loss.py", " or r.ignore_index >= 0", "", "kernels_loss"),
    Fault("kernels/loss.py", "checks | (cpu.ACCURATE if plan.accurate else 0)", "checks", LOSS),
    Fault("kernels/cpu.py", "if length > 1 and apart != step * length:", "if False:", "kernels"),
]


WITHOUT_INSTALLED = (
    "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in f.__module__]\n"
)
NATIVE = ("kernels/cpu.py", "kernels/loss.py", "backends/fast.py", "_fused.py", "_whole.py")


def installed_library() -> dict[str, str]:
    """Where the compiled kernel lies: the copy of the source has none beside it."""
    from xent.kernels import library

    loaded = library.load()
    return {"XENT_CPU_LIBRARY": loaded.path} if loaded else {}


def survives(fault: Fault) -> str:
    """An empty text where a test catches the fault; otherwise what is amiss."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "xent"
        shutil.copytree(
            ROOT / "src" / "xent", package, ignore=shutil.ignore_patterns("__pycache__")
        )
        path = package / fault.file
        text = path.read_text(encoding="utf-8")
        if text.count(fault.right) != 1:
            return f"stands {text.count(fault.right)} times in the file, expected once"
        path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
        tests = sorted(ROOT.glob(f"tests/test_{fault.tests}*.py"))
        if not tests:
            return f"no tests/test_{fault.tests}*.py"
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0"]
        # The installed package comes before PYTHONPATH unless its finder is taken away; and a
        # fault of the array code shows only where no compiled kernel stands in for it.
        (Path(folder) / "sitecustomize.py").write_text(WITHOUT_INSTALLED, encoding="utf-8")
        kernel = {} if fault.file.endswith(NATIVE) else {"XENT_CPU": "none"}
        paths = {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {**os.environ, **paths, **kernel, **installed_library()}
        done = subprocess.run(
            [*command, *map(str, tests)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode == 1:
        return ""
    return "no test fails" if done.returncode == 0 else f"pytest ended with {done.returncode}"


def main(words: list[str]) -> int:
    """Run the faults, two at a time, and tell which survive."""
    chosen = [f for f in FAULTS if not words or any(w in f.file + f.right for w in words)]
    alive = 0
    with ThreadPoolExecutor(2) as pool:
        for fault, told in zip(chosen, pool.map(survives, chosen), strict=True):
            alive += bool(told)
            wrong = " ".join(fault.wrong.split())
            print(f"{told or 'caught':16} {fault.file}: {wrong or '(removed)'}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} faults caught")
    return 1 if alive or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
