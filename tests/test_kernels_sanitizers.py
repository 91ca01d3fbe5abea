"""cpu.cpp under the sanitizers for addresses and undefined behaviour: losses of many shapes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xent.kernels import library

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "sanitized_kernel.py"
# Checks of addresses as calls: inlined, they take three times as long to compile.
CALLS = "--param asan-instrumentation-with-call-threshold=0"
# Of what is undefined, all but what a null, a wild or a misaligned pointer does: the first two are
# seen when they are used, and these checks of every access take longer to compile than all else.
UNDEFINED = "bounds,signed-integer-overflow,shift,float-cast-overflow,integer-divide-by-zero"
FLAGS = f"-O1 -g1 -fsanitize=address,{UNDEFINED} -fno-sanitize-recover=all {CALLS}"
# The best that this CPU has and the common ground: each takes a minute to compile.
LOADED = library.load()
TARGETS = sorted({"baseline", LOADED.supported[0] if LOADED else "baseline"})
SKIPPED = 77  # the status of the script where this CPU lacks the instructions

FAULTY = """
#include <limits.h>
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT double JOIN(xent_read, XENT_TARGET)(const double* x, long i) { return x[i]; }
EXPORT int JOIN(xent_add, XENT_TARGET)(int i) { return INT_MAX - 4 + i; }
#define ONCE_baseline 1
#if JOIN(ONCE, XENT_TARGET)
EXPORT int xent_supported(void) { return 0; }
#endif
"""
USE = """
import ctypes, numpy
from xent.kernels import library
x = numpy.ones(1000)
read, add = map(library.load().function, ("xent_read", "xent_add"))
read.restype = ctypes.c_double
print(read(ctypes.c_void_p(x.ctypes.data), ctypes.c_long({})), add({}))
"""


@pytest.fixture(scope="session")
def preload() -> str:
    """The sanitizer's library, which a process must load before any other."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ in PATH")
    command = [compiler, "-print-file-name=libasan.so"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):  # the compiler gives the bare name of what it does not have
        pytest.skip("g++ has no libasan.so")
    return path


def compiled(source: Path, folder: Path) -> Path:
    """The library of a source, built as xent's is, with the sanitizers."""
    import ninja

    cmake = [sys.executable, "-m", "cmake"]
    settings = {
        "CMAKE_MAKE_PROGRAM": Path(ninja.BIN_DIR, "ninja"),
        "CMAKE_CXX_COMPILER": "g++",
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_CXX_FLAGS_DEBUG": FLAGS,
        "XENT_SOURCE": source,
        "XENT_TARGETS": ";".join(TARGETS),
    }
    defined = [f"-D{name}={value}" for name, value in settings.items()]
    for command in (
        [*cmake, "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), *defined],
        [*cmake, "--build", str(folder)],
    ):
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    return folder / library.NAME


def run(path: Path, preload: str, *command: str, **chosen: str) -> subprocess.CompletedProcess[str]:
    """Python with a sanitized library."""
    sanitized = {
        "LD_PRELOAD": preload,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",  # Python's own allocator hides the ends of small objects
        "XENT_CPU_LIBRARY": str(path),
    }
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **sanitized, **chosen},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="session")
def kernel(preload: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = ROOT / "src" / "xent" / "kernels" / "cpu.cpp"
    return compiled(source, tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="session")
def faulty(preload: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "faulty.cpp").write_text(FAULTY)
    return compiled(folder / "faulty.cpp", folder)


@pytest.mark.slow
@pytest.mark.parametrize("arrays", ["numpy", "torch"])
@pytest.mark.parametrize("instructions", TARGETS)
def test_losses_keep_within_their_arrays(
    instructions: str, arrays: str, kernel: Path, preload: str, seed: int
) -> None:
    done = run(kernel, preload, str(SCRIPT), arrays, str(seed), XENT_CPU=instructions)
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f" cases by xent_rows_{instructions}\n")


@pytest.mark.parametrize(
    ("index", "number", "fault"),
    [
        (999, 4, None),
        (1000, 4, "AddressSanitizer: heap-buffer-overflow"),
        (-1, 4, "AddressSanitizer: heap-buffer-overflow"),
        (999, 5, "runtime error: signed integer overflow"),
    ],
)
def test_the_sanitizers_see_a_fault(
    index: int, number: int, fault: str | None, faulty: Path, preload: str
) -> None:
    done = run(faulty, preload, "-c", USE.format(index, number))
    if fault is None:
        assert (done.returncode, done.stdout) == (0, "1.0 2147483647\n"), done.stderr
    else:
        assert done.returncode != 0
        assert fault in done.stderr
