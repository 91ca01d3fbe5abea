"""pyproject.toml and CMakeLists.txt: the wheel has one library, or none where none can be built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", ".gitignore", "src")
UNSET = re.compile(r"(CXX|LD)(FLAGS)?$|CMAKE_|SKBUILD_|XENT_|PYTHON")
FAILED = (
    "no compiled kernel is installed: its build failed; "
    "pip install -v shows why (most often, no C++ compiler)"
)
REFUSED = "no compiled kernel is installed: XENT_NO_NATIVE was set when xent was built"
USE = """
import json, numpy, xent, xent.doctor
loss = float(xent.cross_entropy(numpy.zeros((1, 2)), numpy.array([0])))
smallest = float(numpy.float64(2.0**-1022) / 2)
print(json.dumps([xent.__file__, loss, smallest, xent.doctor.native()]))
"""


def environment(**changed: str) -> dict[str, str]:
    """The environment without what another build left in it, and changed."""
    return {n: v for n, v in os.environ.items() if not UNSET.match(n)} | changed


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build needs, since a build writes beside its sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def built(sources: Path, folder: Path, **changed: str) -> Path:
    """The wheel of the sources, built in a changed environment."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command = ["wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    run = subprocess.run(
        [*pip, *command, str(sources)], env=environment(**changed), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def used(wheel: Path, folder: Path, **changed: str) -> dict[str, object]:
    """What `xent doctor` tells of the wheel's kernel, once a loss was right.

    An installed wheel is its files in a folder. No site: the editable install would come first.
    """
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder)
    path = os.pathsep.join([str(folder), sysconfig.get_paths()["purelib"]])
    run = subprocess.run(
        [sys.executable, "-S", "-c", USE],
        env=environment(PYTHONPATH=path, **changed),
        capture_output=True,
        text=True,
        check=True,
    )
    file, loss, smallest, native = json.loads(run.stdout)
    assert Path(file) == folder / "xent" / "__init__.py"
    assert loss == 0.6931471805599453
    assert smallest == 2.0**-1023  # flags of the compiler have not made subnormal numbers 0
    return native


@pytest.fixture(scope="session")
def native(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel with the library, although the environment asks for inexact arithmetic."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler: no c++, g++ or clang++ in PATH")
    return built(sources, tmp_path_factory.mktemp("native"), CXXFLAGS="-Ofast -ffast-math")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"CXX": "/nonexistent"}, FAILED),
        ({"CXX": "{failing}"}, FAILED),
        ({"XENT_NO_NATIVE": "1"}, REFUSED),
    ],
    ids=["no compiler", "failing compiler", "refused"],
)
def test_without_a_library_the_wheel_is_python_alone(
    changed: dict[str, str], reason: str, sources: Path, tmp_path: Path
) -> None:
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    changed = {name: value.format(failing=failing) for name, value in changed.items()}
    wheel = built(sources, tmp_path / "wheel", **changed)
    assert wheel.name.endswith("-py3-none-any.whl")
    told = used(wheel, tmp_path / "installed")
    assert told == {"instructions": None, "supported": [], "reason": reason}


@pytest.mark.slow
def test_source_that_does_not_compile_gives_python_alone(sources: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(sources, tmp_path / "sources")
    (broken / "src" / "xent" / "kernels" / "cpu.cpp").write_text("#error\n")
    wheel = built(broken, tmp_path / "wheel")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert used(wheel, tmp_path / "installed")["reason"] == FAILED


@pytest.mark.slow
def test_the_wheel_holds_one_library_for_every_python(native: Path) -> None:
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", native.name)
    with zipfile.ZipFile(native) as files:
        names = files.namelist()
    kept = [n for n in names if not n.endswith(".py") and ".dist-info/" not in n]
    cases = ["xent/conformance/cases.json", "xent/conformance/cases.schema.json"]
    page = sorted(
        f"xent/page/{file.name}"
        for file in (ROOT / "src" / "xent" / "page").iterdir()
        if file.suffix in (".css", ".html", ".js")
    )
    assert sorted(kept) == [*cases, "xent/kernels/xent_cpu.so", *page, "xent/py.typed"]
    assert "xent/kernels/library.py" in names


@pytest.mark.slow
def test_the_library_needs_no_other_and_shows_only_its_functions(
    native: Path, tmp_path: Path
) -> None:
    if not shutil.which("readelf"):
        pytest.skip("no readelf in PATH")
    with zipfile.ZipFile(native) as files:
        library = files.extract("xent/kernels/xent_cpu.so", tmp_path)

    def readelf(*options: str) -> str:
        command = ["readelf", "-W", *options, library]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    needed = re.findall(r"\(NEEDED\).*\[(.*?)\.so", readelf("-d"))
    assert all(re.fullmatch("libc|libm|libpthread|ld-linux.*", name) for name in needed), needed
    lines = (line.split() for line in readelf("--dyn-syms").splitlines())
    symbols = [line for line in lines if len(line) == 8 and line[0].endswith(":")]
    shown = {name for *_, section, name in symbols if section not in ("UND", "Ndx")}
    assert "xent_supported" in shown
    assert all(name.startswith("xent_") for name in shown), shown


@pytest.mark.slow
def test_the_library_runs_with_every_instruction_set_of_this_cpu(
    native: Path, tmp_path: Path
) -> None:
    best = used(native, tmp_path)
    assert best["reason"] is None
    assert best["instructions"] == best["supported"][0]
    for instructions in best["supported"]:
        told = used(native, tmp_path, XENT_CPU=instructions)
        assert told == {**best, "instructions": instructions}
