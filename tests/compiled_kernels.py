"""Compiles the Triton kernels for a GPU that need not be there, and says the registers of each."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from xent.kernels import triton_gradient, triton_statistics

FLOATS = (
    "lse nll smooth entropy tails totals partial found weight by_lse by_nll by_smooth by_entropy"
)
TYPES = {**dict.fromkeys(FLOATS.split(), "*fp64"), "argmax": "*i64"}


def build(kernel, constants, types, architecture, warps):
    """A kernel with some arguments constant and the others of some types."""
    names = [n for n in kernel.arg_names if n not in constants]
    signature = {n: types.get(n, "i64") for n in names} | dict.fromkeys(constants, "constexpr")
    signature = {n: signature[n] for n in kernel.arg_names}
    places = {(kernel.arg_names.index(n),): value for n, value in constants.items()}
    source = ASTSource(kernel, signature, places, {})
    options = {"num_warps": warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def usage(compiled):
    """Registers, and bytes of what did not fit into them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {name: int(size) for name, size in re.findall(r"(REG|STACK|LOCAL):(\d+)", told)}
    return found["REG"], found["STACK"] + found["LOCAL"]


def variants(dtype, target):
    """The kernels for a dtype with no option, or with every one, and their constants."""
    every = target == 2
    wide = dtype == "fp64" or every
    exact = not every and dtype in ("fp32", "fp64")
    sums = tl.float32 if dtype == "bf16" and not wide else tl.float64
    flags = {"TARGET": target, "EXACT": exact, "class_step": 1}
    flags |= dict.fromkeys(("WEIGHT", "SMOOTH", "ENTROPY", "CAP", "SCALE"), every)
    shape = {"R": 1, "B": 1024 if wide else 2048, "WORK": tl.float64 if wide else tl.float32}
    kept = {"R": 128, "KEPT": every, "LSE": True, "NLL": True}
    of, by = triton_statistics, triton_gradient
    yield of.statistics, {**flags, **shape, "SUM": sums, "KEEP": False, "SPLIT": False}, 8
    if every or dtype == "fp32":
        yield of.statistics, {**flags, **shape, "SUM": sums, "KEEP": False, "SPLIT": True}, 8
        yield of.merge, {**flags, "KEEP": every}, 1
    yield by.coefficients, {**flags, **kept}, 4
    yield by.gradient, {**flags, **shape, "d_class": 1}, 8


def main():
    architecture = int(sys.argv[1])
    for dtype in ("bf16", "fp32", "fp64"):
        for target in (1, 2):
            if target == 2 and dtype not in ("bf16", "fp64"):
                continue
            types = {**TYPES, "logits": f"*{dtype}", "out": f"*{dtype}"}
            types["target"] = "*i64" if target == 1 else f"*{dtype}"
            for kernel, constants, warps in variants(dtype, target):
                compiled = build(kernel, constants, types, architecture, warps)
                registers, spilled = usage(compiled)
                name = f"{kernel.fn.__name__} {dtype} {'every' if target == 2 else 'no'} option"
                print(f"{name}: {registers} registers, spilled {spilled}")


if __name__ == "__main__":
    main()
