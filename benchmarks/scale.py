"""A cost model of losses split over processes, checked on this machine: docs/scale.md.

python benchmarks/scale.py --measure    measures 1, 2 and 4 processes, into results/scale.json
python benchmarks/scale.py              writes the tables of docs/scale.md from it
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from xent.bench.report import placed

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scale.json"
PAGE = ROOT / "docs" / "scale.md"
MARKS = "benchmarks/scale.py"  # on the page
MEASURED = {"rows": 256, "classes": 8192, "width": 128}
SIZES = (1, 2, 4)


@dataclass(frozen=True)
class Link:
    """A way between processes: seconds for a message, and bytes a second each way."""

    latency: float
    speed: float


@dataclass(frozen=True)
class Machine:
    """What a process has, in published numbers but for the efficiency, which is assumed."""

    flops: float  # a second, of bfloat16 products
    memory: float  # bytes a second
    near: Link  # among `island` processes
    far: Link
    island: int

    def link(self, size: int) -> Link:
        return self.near if size <= self.island else self.far


# NVIDIA H100 SXM data sheet: 989 TFLOP/s (at 60 %), 3.35 TB/s, NVLink 900 GB/s both ways together;
# a 400 Gb/s InfiniBand port for each GPU. Latencies: NCCL's own for one step of a ring, rounded.
H100 = Machine(0.6 * 989e12, 3.35e12, Link(2e-6, 450e9), Link(8e-6, 50e9), 8)


@dataclass(frozen=True)
class Job:
    """A loss of so many rows on all processes: data x sequence x classes of them."""

    rows: int
    classes: int
    width: int
    data: int = 1
    sequence: int = 1
    split: int = 1
    item: int = 2  # bytes of a hidden state, a weight or a logit
    wide: int = 4  # bytes of what products are summed in

    @property
    def processes(self) -> int:
        return self.data * self.sequence * self.split

    @property
    def local_rows(self) -> int:
        return -(-self.rows // (self.data * self.sequence))

    @property
    def local_classes(self) -> int:
        return -(-self.classes // self.split)


def gather(size: int, each: float, link: Link) -> float:
    """Seconds of an all-gather of `each` bytes, by a ring."""
    return (size - 1) * (link.latency + each / link.speed)


def reduce(size: int, each: float, link: Link) -> float:
    """Seconds of an all-reduce of `each` bytes, by a ring."""
    return 2 * (size - 1) * (link.latency + each / size / link.speed)


def told(job: Job) -> int:
    """Bytes that a process tells of its rows."""
    return 8 * (2 + 3 * job.local_rows) if job.split > 1 else 0


def by_hidden(job: Job) -> int:
    """Bytes of the gradient by hidden states that is added up."""
    return job.wide * job.local_rows * job.width if job.split > 1 else 0


def rows_cost(job: Job, on: Machine) -> dict[str, float]:
    """A loss of logits and its gradient, on one process."""
    moved = 3 * job.item * job.local_rows * job.local_classes
    others = job.data * job.sequence
    exchanged = gather(job.split, told(job), on.link(job.split))
    shared = gather(others, 16, on.link(job.processes)) if others > 1 else 0.0
    return {
        "bytes": moved,
        "told": told(job),
        "collectives": (job.split > 1) + (others > 1),
        "compute": moved / on.memory,
        "exchange": exchanged + shared,
        "seconds": moved / on.memory + exchanged + shared,
    }


def head_cost(job: Job, on: Machine) -> dict[str, float]:
    """A linear head, its loss and its gradients, on one process.

    The sum of weights' gradients over data and sequence is counted where no more than one process
    has them: it is FSDP's and DDP's, and is left out of `seconds`, for it overlaps the backward of
    the layers that follow.
    """
    products = 4 if job.split > 1 else 3
    flops = 2 * products * job.local_rows * job.local_classes * job.width
    found = rows_cost(job, on)
    added = reduce(job.split, by_hidden(job), on.link(job.split))
    weights = job.local_classes * job.width
    others = job.data * job.sequence
    over = reduce(others, job.wide * weights, on.link(job.processes)) if others > 1 else 0.0
    compute = flops / on.flops
    exchanged = found["exchange"] + added
    return found | {
        "flops": flops,
        "bytes": job.item * weights + 2 * job.item * job.local_rows * job.width,
        "added": by_hidden(job),
        "collectives": found["collectives"] + (job.split > 1),
        "compute": compute,
        "exchange": exchanged,
        "weights": over,
        "seconds": compute + exchanged,
    }


def _serve(rank: int, size: int, folder: str, pipe: Any) -> None:
    import torch
    import torch.distributed as dist

    from xent.parallel import Shard, balanced, linear_cross_entropy

    torch.set_num_threads(1)
    store: Any = dist.FileStore(f"{folder}/store", size)  # pyright: ignore
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    group: Any = dist.group.WORLD
    n, v, d = MEASURED.values()
    torch.manual_seed(0)
    hidden, weight = torch.randn(n, d), torch.randn(v, d)
    target, at = torch.randint(v, (n,)), balanced(v, size)[rank]
    h, w = hidden.requires_grad_(), weight[at].clone().requires_grad_()
    shard, counts = Shard(group, at.start, v), []
    alone: Any = [dist.new_group([r]) for r in range(size)][rank]
    part = Shard(alone, 0, at.stop - at.start)

    def step() -> None:
        linear_cross_entropy(h, w, target, shard=shard).backward()

    def products() -> None:  # the same on the classes here, and nothing told
        linear_cross_entropy(h, w, target % part.classes, shard=part).backward()

    def timed(call: Callable[[], Any], repeats: int = 15) -> list[float]:
        found = []
        for _ in range(repeats):
            dist.barrier()
            start = time.perf_counter()
            call()
            found.append(time.perf_counter() - start)
        return found

    name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
    step()
    with (
        mock.patch.object(dist, name, _counting(getattr(dist, name), counts, -1)),
        mock.patch.object(dist, "all_reduce", _counting(dist.all_reduce, counts, 0)),
    ):
        step()
    found: dict[str, Any] = {"counts": counts, "step": [], "part": []}
    products()
    for _ in range(40):  # in turn: what else runs here changes from second to second
        found["step"] += timed(step, 1)
        found["part"] += timed(products, 1)
    for count in (64, 1 << 18):
        x, out = torch.ones(count), torch.empty(size * count)
        found[f"gather {4 * count}"] = timed(lambda x=x, out=out: getattr(dist, name)(out, x))
        found[f"reduce {4 * count}"] = timed(lambda x=x: dist.all_reduce(x))
    if rank == 0:
        pipe.send(found)
    dist.barrier()
    dist.destroy_process_group()


def _counting(function: Any, counts: list, which: int) -> Any:
    def called(*given: Any, **named: Any) -> Any:
        counts.append(given[which].numel() * given[which].element_size())
        return function(*given, **named)

    return called


def measure() -> dict[str, Any]:
    """Collectives and seconds of a linear head on 1, 2 and 4 processes of this machine."""
    context = multiprocessing.get_context("spawn")
    found: dict[str, Any] = {"case": MEASURED, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    for size in SIZES:
        folder = tempfile.mkdtemp()
        ours, theirs = context.Pipe()
        given = [(rank, size, folder, theirs) for rank in range(size)]
        processes = [context.Process(target=_serve, args=one) for one in given]
        for process in processes:
            process.start()
        told_of = ours.recv()
        for process in processes:
            process.join()
        times = {k: statistics.median(v) for k, v in told_of.items() if k != "counts"}
        found[str(size)] = {"collectives": told_of["counts"], "seconds": times}
    return found


def here(results: dict[str, Any], size: int) -> Machine:
    """This machine as one of the model's: the speed of products from what each process does when
    all compute and none tells anything, links from collectives alone."""
    n, v, d = results["case"].values()
    flops = 2 * 4 * n * v / size * d / results[str(size)]["seconds"]["part"]
    if size == 1:
        link = Link(0.0, 1e12)
    else:
        seconds = results[str(size)]["seconds"]
        small, large = seconds["reduce 256"], seconds["reduce 1048576"]
        latency = small / (2 * (size - 1))
        moved = 2 * (size - 1) / size * (1048576 - 256)
        link = Link(latency, moved / max(large - small, 1e-6))
    return Machine(flops, 1e12, link, link, size)


def checked(results: dict[str, Any]) -> list[list[str]]:
    """Model and measurement, for each number of processes."""
    n, v, d = results["case"].values()
    titles = ["processes", "bytes of its collectives: model", "measured"]
    rows = [[*titles, "ms: model", "measured", "off by"]]
    for size in SIZES:
        job = Job(n, v, d, split=size, item=4)
        model = [told(job), by_hidden(job)] if size > 1 else []
        machine = here(results, size)
        seconds = head_cost(job, machine)["seconds"]
        if size == 1:  # counted with four products in `here`, as the split call makes them
            seconds = 4 / 3 * seconds
        found = results[str(size)]
        real = found["seconds"]["step"]
        counts = [", ".join(map(str, c)) or "none" for c in (model, found["collectives"])]
        off = f"{100 * (seconds / real - 1):+.0f} %"
        rows.append([str(size), *counts, f"{1e3 * seconds:.1f}", f"{1e3 * real:.1f}", off])
    return rows


def heads() -> list[list[str]]:
    """The linear head of a large job, by how it is split."""
    titles = ["GPUs", "V", "data x sequence x classes", "rows here", "TFLOP", "weights here, GiB"]
    rows = [[*titles, "compute, ms", "exchange, ms", "in all, ms"]]
    for classes in (128_256, 1_000_000):
        for data, sequence, split in (
            (1, 1, 1),
            (8, 1, 1),
            (1, 8, 1),
            (1, 1, 8),
            (128, 1, 8),
            (16, 8, 8),
            (1250, 1, 8),
            (157, 1, 64),
        ):
            job = Job(8192 * data * split, classes, 4096, data, sequence, split)
            cost = head_cost(job, H100)
            rows.append(
                [
                    f"{job.processes:,}",
                    f"{classes:,}",
                    f"{data} x {sequence} x {split}",
                    f"{job.local_rows:,}",
                    f"{cost['flops'] / 1e12:.1f}",
                    f"{2 * job.local_classes * job.width / 2**30:.2f}",
                    f"{1e3 * cost['compute']:.1f}",
                    f"{1e3 * cost['exchange']:.2f}",
                    f"{1e3 * cost['seconds']:.1f}",
                ]
            )
    return rows


def logits() -> list[list[str]]:
    """Logits that are there, split by classes."""
    rows = [["V", "classes over", "logits here, GiB", "told, KiB", "compute, ms", "exchange, ms"]]
    for classes in (128_256, 1_000_000):
        for split in (1, 2, 8, 64, 512):
            job = Job(8192, classes, 4096, split=split)
            cost = rows_cost(job, H100)
            rows.append(
                [
                    f"{classes:,}",
                    str(split),
                    f"{2 * job.local_rows * job.local_classes / 2**30:.2f}",
                    f"{cost['told'] / 1024:.0f}",
                    f"{1e3 * cost['compute']:.2f}",
                    f"{1e3 * cost['exchange']:.2f}",
                ]
            )
    return rows


def ends() -> list[list[str]]:
    """The number of processes from which exchange takes longer than computing."""
    rows = [["", "V", "rows here", "exchange is a tenth", "exchange is half"]]
    for name, cost in (("logits", rows_cost), ("linear head", head_cost)):
        for classes in (128_256, 1_000_000):
            base = Job(8192, classes, 4096)
            found = []
            for part in (0.1, 0.5):
                over = [
                    t
                    for t in (2**i for i in range(1, 14))
                    if _share(cost(replace(base, split=t), H100)) > part
                ]
                found.append(f"{over[0]:,} processes" if over else "not up to 8,192")
            rows.append([name, f"{classes:,}", "8,192", *found])
    return rows


def _share(cost: dict[str, float]) -> float:
    return cost["exchange"] / cost["seconds"]


def table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def report(results: dict[str, Any]) -> str:
    case = ", ".join(f"{value:,} {name}" for name, value in results["case"].items())
    return "\n\n".join(
        [
            "### The model and this machine",
            f"A float32 head of {case}, forward and backward, classes split; {results['cores']} "
            f"cores, a load of {results['load']:.0f} before: medians of 40 and, of collectives "
            "alone, of 15.",
            table(checked(results)),
            "### Linear head, bfloat16, D = 4,096, on H100s",
            table(heads()),
            "### Logits, bfloat16, 8,192 rows, on H100s",
            table(logits()),
            "### Where exchange overtakes",
            table(ends()),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    if parser.parse_args().measure:
        RESULTS.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    page = placed(PAGE.read_text(encoding="utf-8"), report(results), MARKS)
    assert page, f"{PAGE}: no marks of {MARKS}"
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
