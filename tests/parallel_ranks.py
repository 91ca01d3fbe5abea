"""Four processes, started once, that run functions of tests over gloo, or NCCL on four GPUs.

`run(function, size, *arguments)` calls function(group, *arguments) on ranks 0 .. size - 1, group
being theirs, and returns the result of each. Functions are named by their module: the processes
import it.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import multiprocessing
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import Any

MOST = 4


def _serve(rank: int, folder: str, pipe: Any) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", module=r"torch\..*")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    wait = datetime.timedelta(seconds=60)
    store = dist.FileStore(f"{folder}/store", MOST)
    backend = "gloo"
    if torch.cuda.device_count() >= MOST:  # one GPU for each: what a test makes is made there
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(rank)
        torch.set_default_device(f"cuda:{rank}")
    dist.init_process_group(backend, store=store, rank=rank, world_size=MOST, timeout=wait)
    groups = {size: dist.new_group(list(range(size)), timeout=wait) for size in range(1, MOST + 1)}
    pipe.send("ready")
    while True:
        told = pipe.recv()
        if told is None:
            return
        function, size, arguments = told
        try:
            pipe.send((True, function(groups[size], *arguments)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


@functools.cache
def _pool() -> list[Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xent.parallel"])  # imported once, for all of them
    folder = tempfile.mkdtemp()
    pipes = []
    for rank in range(MOST):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(rank, folder, theirs), daemon=True)
        process.start()
        pipes.append(ours)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    atexit.register(lambda: [pipe.send(None) for pipe in pipes])
    return pipes


def run(function: Callable, size: int, *arguments: Any) -> list[Any]:
    """The result of function(group, *arguments) on each of `size` processes."""
    pipes = _pool()[:size]
    for pipe in pipes:
        pipe.send((function, size, arguments))
    found = [pipe.recv() for pipe in pipes]
    for rank, (well, result) in enumerate(found):
        assert well, f"rank {rank}:\n{result}"
    return [result for _, result in found]
