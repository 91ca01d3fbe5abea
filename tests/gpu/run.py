"""What `./dev test-gpu` runs: the kernels' tests and tests/gpu with a Python that has a GPU.

That is this Python or the machine's own, if its torch finds a GPU; the package is taken from src/.
Of what the tests import, pure Python that it lacks is lent to it from here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = ("test_kernels_triton_*.py", "test_backends_torch_device.py", "test_backends_linear_*.py")
ASK = "import torch, triton; print(torch.cuda.get_device_name())"
LENT = ("array_api_compat", "mpmath", "hypothesis", "sortedcontainers", "pytest", "_pytest")
LENT += ("_hypothesis_globals", "py", "pluggy", "iniconfig", "packaging", "pygments")


def pythons() -> list[str]:
    """This Python, and the first on the path that is no other name of it."""
    here = Path(sys.executable).parent
    folders = os.environ.get("PATH", "").split(os.pathsep)
    path = os.pathsep.join(f for f in folders if f and Path(f) != here)
    found = [shutil.which(name, path=path) for name in ("python3", "python")]
    return list(dict.fromkeys([sys.executable, *(f for f in found if f)]))


def device(python: str) -> str | None:
    """The name of the GPU that a Python's torch finds, where it has Triton too."""
    told = subprocess.run([python, "-c", ASK], capture_output=True, text=True)
    return told.stdout.strip() if told.returncode == 0 else None


def lend(python: str, folder: Path) -> list[str]:
    """Put what a Python lacks of `LENT` into a folder; the names of what is not here either."""
    ask = f"from importlib.util import find_spec as f; print(*[n for n in {LENT} if not f(n)])"
    told = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    missing = []
    for name in told.stdout.split():
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            missing.append(name)
            continue
        origin = Path(spec.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (folder / origin.name).symlink_to(origin)
    return missing


def main(arguments: list[str]) -> int:
    """The exit status of pytest, where there is a GPU; else the tests of tests/gpu say why not."""
    found = next(((p, name) for p in pythons() if (name := device(p))), None)
    tests = [ROOT / "tests" / "gpu"]
    environment = dict(os.environ)
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        if found is None:
            tried = ", ".join(pythons())
            print(f"test-gpu: no GPU: none of {tried} has Triton and a torch that finds one")
        else:
            python, name = found
            print(f"test-gpu: {name}, by {python}", flush=True)
            missing = lend(python, Path(folder))
            if missing:
                print(f"test-gpu: {python} lacks {', '.join(missing)}", file=sys.stderr)
                return 1
            path = [str(ROOT / "src"), folder, os.environ.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(p for p in path if p)
            environment.pop("TRITON_INTERPRET", None)
            tests = [*(f for g in FILES for f in sorted((ROOT / "tests").glob(g))), *tests]
        command = [python, "-m", "pytest", "-q", "-rs", f"--confcutdir={ROOT / 'tests'}"]
        return subprocess.call([*command, *arguments, *tests], cwd=ROOT, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
