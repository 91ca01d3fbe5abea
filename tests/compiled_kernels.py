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

from xent.kernels import triton_fused, triton_gradient, triton_linear, triton_statistics

FLOATS = (
    "lse nll smooth entropy tails totals partial found weight by_lse by_nll by_smooth by_entropy "
    "losses numbers expected sums values"
)
TYPES = {**dict.fromkeys(FLOATS.split(), "*fp64"), "argmax": "*i64", "codes": "*i64"}


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
    ungated = {"upstreams": None, "asked": 0, "done": 0}
    yield by.gradient, {**flags, **shape, **ungated, "d_class": 1}, 8
    whole = {**flags, **shape, "SUM": sums, "d_class": 1, "NLL": True, "LSE": every}
    del whole["ENTROPY"]
    yield triton_fused.fused, {**whole, "GRADIENT": True}, 8
    if every:
        terms = {name: whole[name] for name in ("TARGET", "WEIGHT", "NLL", "SMOOTH", "LSE")}
        yield triton_fused.combine, {**terms, "B": 128}, 4


def small(dtype):
    """The kernels that work on a number for each row, and that which scales a gradient."""
    of = triton_fused
    yield of.prepare, {"B": 1024, "COUNT": True}, {"target": "*i64"}, 4
    yield of.summed, {"B": 1024, "DIVIDE": True}, {"out": f"*{dtype}"}, 4
    yield of.heed, {}, {"upstream": f"*{dtype}"}, 1
    shape = {"R": 1, "B": 1024, "WORK": tl.float64 if dtype == "fp64" else tl.float32}
    yield of.scaled, {**shape, "d_class": 1}, {"out": f"*{dtype}"}, 4


def linear(dtype):
    """The kernels of a linear head."""
    of, half = triton_linear, f"*{dtype}"
    block = {"M": 128, "N": 128, "K": 64, "ADD": False}
    types = {"left": half, "right": half, "out": "*fp32", "count": "*i64"}
    whole = "before m n k left_m left_k right_k right_n out_m"
    types |= dict.fromkeys(whole.split(), "i32")
    for inner in (False, True):
        steps = {"left_m" if inner else "left_k": 1, "right_n": 1}
        yield of.product, {**block, **steps, "INNER": inner}, types, 8
    flags = dict.fromkeys(("WEIGHT", "CAP", "SCALE", "SMOOTH"), True)
    types = {"dlogits": half, "logits": "*fp32", "target": "*i64", "weight": "*fp32"}
    types |= {"classes_at": "*i64", "lost": "*fp32"}
    yield of.largest, {**flags, "TARGET": 1, "B": 2048}, types, 4
    types = {"out": half, "other": half, "sums": "*fp32", "lost": "*fp32", "factor": "*fp32"}
    types |= {"starts": "*i64", "items": "*i64", "count": "*i64"}
    sizes = {"R": of.ROWS, "B": of.COLUMNS, "K": 4, "other_column": 1}
    yield of.add, {**sizes, "FACTOR": True, "FEW": True}, types, 8


def tell(name, kernel, constants, types, architecture, warps):
    """Compile a kernel and print what it takes."""
    registers, spilled = usage(build(kernel, constants, types, architecture, warps))
    print(f"{kernel.fn.__name__} {name}: {registers} registers, spilled {spilled}")


def main():
    architecture = int(sys.argv[1])
    for dtype in ("bf16", "fp32", "fp64"):
        for target in (1, 2):
            if target == 2 and dtype not in ("bf16", "fp64"):
                continue
            types = {**TYPES, "logits": f"*{dtype}", "out": f"*{dtype}"}
            types["target"] = "*i64" if target == 1 else f"*{dtype}"
            for kernel, constants, warps in variants(dtype, target):
                name = f"{dtype} {'every' if target == 2 else 'no'} option"
                tell(name, kernel, constants, types, architecture, warps)
    for dtype in ("fp16", "bf16", "fp32", "fp64"):
        for kernel, constants, types, warps in small(dtype):
            tell(dtype, kernel, constants, {**TYPES, **types}, architecture, warps)
    for dtype in ("fp16", "bf16"):
        for kernel, constants, types, warps in linear(dtype):
            tell(dtype, kernel, constants, {**TYPES, **types}, architecture, warps)


if __name__ == "__main__":
    main()
