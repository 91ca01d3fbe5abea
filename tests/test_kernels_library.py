"""library.py: the compiled kernel is found and loaded once, and every reason why not is told."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import xent.kernels
from xent.kernels import library

OTHER = np._core._multiarray_umath.__file__  # a library, but not ours


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the package's own."""
    monkeypatch.setattr(xent.kernels, "__path__", [str(tmp_path)])
    return tmp_path


@pytest.fixture
def installed() -> library.Library:
    found, reason = library.find({})
    if found is None:
        pytest.skip(reason)
    return found


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("none", "XENT_CPU is 'none'"),
        ("avx2", "XENT_CPU is 'avx2', expected v4, v3, baseline or none"),
        ("V4", "XENT_CPU is 'V4', expected v4, v3, baseline or none"),
    ],
)
def test_no_kernel_when_none_or_an_unknown_one_is_asked_for(asked: str, reason: str) -> None:
    assert library.find({"XENT_CPU": asked}) == (None, reason)


def test_a_package_without_a_library_tells_what_to_do(folder: Path) -> None:
    told = "no compiled kernel is installed: install xent with a C++ compiler"
    assert library.find({}) == (None, told)


def test_a_build_without_a_library_leaves_its_reason(folder: Path) -> None:
    (folder / "not_built.txt").write_text("XENT_NO_NATIVE was set when xent was built")
    told = "no compiled kernel is installed: XENT_NO_NATIVE was set when xent was built"
    assert library.find({}) == (None, told)


def test_the_second_folder_of_an_editable_install_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / library.NAME).touch()
    monkeypatch.setattr(xent.kernels, "__path__", [str(tmp_path / "first"), str(tmp_path)])
    assert library.beside(library.NAME) == str(tmp_path / library.NAME)


def test_a_file_that_is_no_library_is_told(folder: Path) -> None:
    (folder / library.NAME).write_text("no library")
    found, reason = library.find({})
    assert found is None
    assert reason.startswith(f"the compiled kernel cannot be loaded: {folder / library.NAME}: ")


def test_a_library_without_the_functions_is_told(tmp_path: Path) -> None:
    found, reason = library.find({"XENT_CPU_LIBRARY": OTHER})
    assert found is None
    assert reason.startswith("the compiled kernel cannot be loaded: ")
    assert reason.endswith("undefined symbol: xent_supported")
    missing = str(tmp_path / "missing.so")
    found, reason = library.find({"XENT_CPU_LIBRARY": missing})
    assert found is None
    assert missing in reason


@pytest.mark.parametrize(
    ("runs", "supported"),
    [(0, ("baseline",)), (1, ("v3", "baseline")), (3, ("v4", "v3", "baseline"))],
)
def test_the_best_that_the_cpu_has_is_taken_or_the_one_asked_for(
    runs: int, supported: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = SimpleNamespace(xent_supported=lambda: runs)
    monkeypatch.setattr(library.ctypes, "CDLL", lambda path: handle)
    given = {"XENT_CPU_LIBRARY": "/somewhere/xent_cpu.so"}
    found, reason = library.find(given)
    assert reason is None
    assert found == library.Library(handle, given["XENT_CPU_LIBRARY"], supported[0], supported)
    for asked in library.INSTRUCTIONS:
        found, reason = library.find({**given, "XENT_CPU": asked})
        if asked in supported:
            assert (found.instructions, reason) == (asked, None)
        else:
            told = f"XENT_CPU asks for {asked}, which this CPU does not have"
            assert (found, reason) == (None, told)


def test_a_function_is_that_of_the_instruction_set() -> None:
    handle = SimpleNamespace(xent_rows_v3=object(), xent_rows_v4=object())
    v3 = library.Library(handle, "", "v3", ("v3", "baseline"))
    assert v3.function("xent_rows") is handle.xent_rows_v3


def test_the_installed_library_is_that_of_its_source(
    installed: library.Library, folder: Path
) -> None:
    assert installed.instructions == installed.supported[0]
    assert installed.function("xent_rows") is installed.function("xent_rows")
    shutil.copy(installed.path, folder / library.NAME)
    assert library.find({})[1] is None  # as in a wheel, which has no cpu.cpp
    (folder / "cpu.cpp").write_text("// edited, and not built again")
    told = "the compiled kernel is not that of cpu.cpp: install xent again"
    assert library.find({}) == (None, told)
    path = str(folder / library.NAME)
    assert library.find({"XENT_CPU_LIBRARY": path})[1] is None


def test_it_is_loaded_once_for_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slow(environment: object) -> tuple[object, str]:
        calls.append(environment)
        time.sleep(0.05)
        return object(), "why"

    monkeypatch.setattr(library, "find", slow)
    library.found.cache_clear()
    try:
        with ThreadPoolExecutor(8) as pool:
            loaded = list(pool.map(lambda _: library.load(), range(8)))
        assert library.why_not() == "why"
    finally:
        library.found.cache_clear()
    assert len(set(map(id, loaded))) == 1
    assert len(calls) == 1


def test_importing_xent_loads_no_library() -> None:
    code = """
import ctypes
ctypes.CDLL = None
import xent
print(xent.__name__)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "xent\n"


def test_torch_runs_a_c_function_on_its_threads() -> None:
    body = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    signature = (ctypes.c_int32, *[ctypes.c_int64] * 3, body, ctypes.c_void_p)
    parallel_for = ctypes.CFUNCTYPE(*signature)(library.torch_threads())
    ranges = []
    add = body(lambda begin, end, _: ranges.append((begin, end)))
    assert parallel_for(0, 100, 1, add, None) == 0
    assert sorted(i for begin, end in ranges for i in range(begin, end)) == list(range(100))
    assert len(ranges) == min(100, torch.get_num_threads())
    assert library.torch_threads() == library.torch_threads()


@pytest.mark.parametrize("module", [None, SimpleNamespace()], ids=["absent", "under way"])
def test_without_torch_there_are_no_threads_of_it(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", module)
    assert library.torch_threads() is None


def test_a_torch_without_the_function_has_no_threads_to_lend(tmp_path: Path) -> None:
    assert library.parallel_for(str(tmp_path / "empty")) is None
    (tmp_path / "lib").mkdir()
    shutil.copy(OTHER, tmp_path / "lib" / "libtorch_cpu.so")
    assert library.parallel_for(str(tmp_path)) is None
