"""The faults of mutants.py, found by the grader instead of the tests.

    python tests/graded_mutants.py [WORD ...]

Every fault that concerns cross entropy is put into a copy of the source, and the copy is graded as
anyone's loss is. A fault that no check sees is printed; the exit status is 1 where there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from mutants import FAULTS, NATIVE, ROOT, WITHOUT_INSTALLED, Fault, installed_library

# What another function of the library is alone concerned with is not the grader's.
OTHERS = ("ops/softmax.py", "ops/binary.py", "ops/nll.py")
FAMILIES = ("value", "gradient", "shape", "dtype", "stable", "accuracy", "bad", "calls")
GRADE = """
import json, sys
from xent.conformance.grading import grade
layer = ("xent.manual:CrossEntropyLoss", "numpy-class")
for target, adapter in (("xent:cross_entropy", "torch"), layer):
    from xent.conformance.adapters import load
    checks = {checks!r}
    report = grade(load(target), adapter=adapter, seed=1, checks=checks, isolate=False)
    print(json.dumps([target, report.trouble, [r.name for r in report.of("failed")]]))
"""
COMPOSED = ("compose.double_backward", "compose.hessian", "compose.jvp", "compose.gradcheck")


def seen(fault: Fault) -> list[str]:
    """The checks that fail on a copy with the fault."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "xent"
        shutil.copytree(ROOT / "src/xent", package, ignore=shutil.ignore_patterns("__pycache__"))
        path = package / fault.file
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
        (Path(folder) / "sitecustomize.py").write_text(WITHOUT_INSTALLED, encoding="utf-8")
        kernel = {} if fault.file.endswith(NATIVE) else {"XENT_CPU": "none"}
        paths = {"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {**os.environ, **paths, **kernel, **installed_library()}
        done = subprocess.run(
            [sys.executable, "-c", GRADE.format(checks=(*FAMILIES, *COMPOSED))],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        return [f"ended with {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2][:80]}"]
    failed: list[str] = []
    for target, trouble, names in map(json.loads, done.stdout.splitlines()):
        failed += [f"{target}: {trouble}"] if trouble else names
    return list(dict.fromkeys(failed))


def main(words: list[str]) -> int:
    """Grade a copy with each fault, two at a time."""
    chosen = [
        fault
        for fault in FAULTS
        if fault.file not in OTHERS and (not words or any(w in fault.file for w in words))
    ]
    missed = 0
    with ThreadPoolExecutor(2) as pool:
        for fault, names in zip(chosen, pool.map(seen, chosen), strict=True):
            missed += not names
            told = f"{len(names)} checks, {names[0]}" if names else "no check fails"
            wrong = " ".join(fault.wrong.split()) or "(removed)"
            print(f"{told:44} {fault.file}: {wrong}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults seen")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
