"""The rules of the house that a reader cannot be trusted to check: one place per idea."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import xent
import xent.manual
import xent.nn
from xent.ops.binary import BinaryCrossEntropy
from xent.ops.nll import NegativeLogLikelihood
from xent.ops.softmax import Softmax
from xent.ops.stats import RowStats
from xent.spec import Plan, Spec

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "xent"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]
PUBLIC = [name for name in xent.__all__ if callable(getattr(xent, name))]

# Where an error may be raised: where options, arrays and distributions are checked, where a layer
# is used out of order, and in what a person runs.
RAISE = {
    "spec.py",
    "inputs.py",
    "inputs_linear.py",
    "info/checks.py",
    "manual.py",
    "cli/__init__.py",
    "cli/parts.py",
    "cli/demo.py",
    "cli/bench.py",
    "cli/grade.py",
    "cli/explain.py",
    "cli/explore.py",
    "demo.py",
    "plots/batches.py",
    "plots/distributions.py",
    "cli/predictions.py",
    "evaluation/checks.py",
    "parallel/checks.py",
    "explanation/checks.py",
    "integrations/heads.py",
    "integrations/lazy_logits.py",
}


def tree(name: str) -> ast.Module:
    return ast.parse((SOURCE / name).read_text(encoding="utf-8"))


def imported(name: str) -> set[str]:
    """The modules that a file names in an import anywhere."""
    found: set[str] = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_importing_xent_imports_neither_torch_nor_any_extra():
    heavy = ["torch", "triton", "scipy", "sklearn", "matplotlib", "click", "rich", "mpmath"]
    code = f"import sys, xent; print([m for m in {heavy} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
    # and the check can fail:
    code = "import sys, xent.nn; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "True"


@pytest.mark.parametrize("function", ["cross_entropy", "cross_entropy_vjp"])
def test_a_loss_takes_the_options_of_its_spec(function):
    parameters = inspect.signature(getattr(xent, function)).parameters
    options = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    options.pop("plan")
    fields = {f.name: f.default for f in dataclasses.fields(Spec) if f.name != "function"}
    assert options == fields
    assert list(parameters)[:3] == ["logits", "target", "weight"]


@pytest.mark.parametrize("name", PUBLIC)
def test_an_option_has_the_default_of_the_spec_everywhere(name):
    fields = {f.name: f.default for f in dataclasses.fields(Spec)}
    if name in ("softmax", "log_softmax", "logsumexp", "evaluate", "compare"):
        fields["axis"] = -1  # torch and SciPy have no axis 1 rule for these, nor have files
    for option, parameter in inspect.signature(getattr(xent, name)).parameters.items():
        if option in fields and parameter.default is not parameter.empty:
            assert parameter.default == fields[option], option


def test_records_are_frozen():
    for record in (Spec, Plan, RowStats, Softmax, NegativeLogLikelihood, BinaryCrossEntropy):
        assert dataclasses.fields(record) is not None
        assert record.__dataclass_params__.frozen, record
        assert hash(record()) == hash(record())


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_raised_only_where_things_are_checked(name):
    raised = [n.lineno for n in ast.walk(tree(name)) if isinstance(n, ast.Raise)]
    asserted = [n.lineno for n in ast.walk(tree(name)) if isinstance(n, ast.Assert)]
    assert not asserted
    allowed = name in RAISE or name.startswith("conformance/")
    assert allowed or not raised, f"{name} raises at lines {raised}"


@pytest.mark.parametrize("name", NAMES)
def test_a_reduction_is_compared_only_in_its_file(name):
    compared = [
        node.lineno
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Compare)
        for part in (node.left, *node.comparators)
        if isinstance(part, ast.Constant) and part.value in ("mean", "sum", "none")
    ]
    assert name.startswith(("reduction", "conformance/")) or not compared, compared


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("ops/")])
def test_ops_are_mathematics_alone(name):
    for module in imported(name):
        outside = module.startswith("xent") and not module.startswith("xent.ops")
        assert not outside, module
        assert module.split(".")[0] not in ("numpy", "torch", "scipy", "array_api_compat"), module


@pytest.mark.parametrize("name", NAMES)
def test_torch_is_named_only_where_torch_lives(name):
    torch = {
        module for module in imported(name) if re.match(r"(torch|array_api_compat\.torch)", module)
    }
    homes = ("backends/torch.py", "nn.py", "inputs.py", "demo.py", "cli/", "info/", "bench/")
    homes += ("kernels/torch_", "kernels/triton_", "backends/torch_", "evaluation/processes.py")
    homes += ("integrations/", "parallel/")
    assert not torch or name.startswith(homes), torch


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("conformance/")])
def test_the_oracle_shares_nothing_with_what_it_judges(name):
    shared = {module for module in imported(name) if module.startswith("xent")}
    allowed = ("xent.errors", "xent.conformance")
    assert all(module.startswith(allowed) for module in shared), shared


@pytest.mark.parametrize("name", NAMES)
def test_files_and_functions_hold_one_idea(name):
    assert Path(name).name not in ("utils.py", "helpers.py", "common.py", "misc.py")
    assert len((SOURCE / name).read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(tree(name)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = [n for n in node.body if not isinstance(getattr(n, "value", None), ast.Constant)]
            code = node.end_lineno - (body or node.body)[0].lineno + 1
            kernel = any("triton.jit" in ast.unparse(d) for d in node.decorator_list)
            assert code <= (120 if kernel else 60), f"{name}: {node.name} has {code} lines"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_says_what_it_is_for(name):
    text = ast.get_docstring(tree(name))
    assert text
    assert text.split("\n\n")[0].rstrip().endswith((".", ":")), text


@pytest.mark.parametrize("name", NAMES)
def test_every_source_has_its_tests(name):
    if name.endswith("__init__.py"):
        return
    stem = "_".join(Path(name).with_suffix("").parts)
    assert list((ROOT / "tests").glob(f"test_{stem}*.py")), f"tests/test_{stem}.py"


def test_every_test_file_has_its_source():
    known = {"_".join(Path(name).with_suffix("").parts) for name in NAMES}
    known |= {name.rsplit("/", 1)[0] for name in NAMES if name.endswith("/__init__.py")}
    known |= {"structure", "sources", "examples", "benchmarks", "documents", "docs", "dev", "build"}
    known |= {"graded"}
    for path in (ROOT / "tests").glob("test_*.py"):
        stem = path.stem.removeprefix("test_")
        assert any(stem == k or stem.startswith(f"{k}_") for k in known), path.name


def documented() -> list[tuple[str, object]]:
    found = [(name, getattr(xent, name)) for name in PUBLIC]
    for module in (xent.manual, xent.nn, xent.info):
        for name, value in vars(module).items():
            public = not name.startswith("_") and getattr(value, "__module__", "") != "typing"
            if (
                public
                and callable(value)
                and str(getattr(value, "__module__", "")).startswith(module.__name__)
            ):
                found.append((f"{module.__name__}.{name}", value))
    return found


@pytest.mark.parametrize(("name", "value"), documented(), ids=[n for n, _ in documented()])
def test_every_public_name_is_documented_with_an_example(name, value):
    text = inspect.getdoc(value)
    assert text, name
    if name != "TokenStatistics":
        assert ">>>" in text, f"{name} has no example"
    assert "default" not in text.lower(), f"{name}: the signature shows the defaults"


def test_all_is_what_the_package_has():
    names = {n for n in vars(xent) if not n.startswith("_")}
    modules = {path.stem for path in SOURCE.iterdir() if path.stem != "__init__"}
    assert names - modules == set(xent.__all__) - modules
    assert sorted(xent.__all__) == xent.__all__


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:src|tests|docs|benchmarks|changelog\.d)/[\w./]+)`", text)
    assert paths
    for path in paths:
        assert (ROOT / path).exists(), path
