"""What processes tell each other, and what happens where one of them does not, or tells other
things."""

from __future__ import annotations

import math
import multiprocessing
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import parallel_calls as calls
from parallel_ranks import run

from xent.parallel import exchange

WRONG = {
    "rows": "ValueError: parallel.cross_entropy: rows has",
    "option": "ValueError: parallel.cross_entropy: options has",
    "dtype": "ValueError: parallel.cross_entropy: weight has",
    "target": "RuntimeError: parallel.cross_entropy: target has other class indices",
    "first": "ValueError: parallel.cross_entropy: shard has first class",
    "count": "ValueError: parallel.cross_entropy: shard has",
    "hidden": "ValueError: parallel.linear_cross_entropy: options has",
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("size", [2, 3])
def test_calls_that_differ_end_in_an_error_on_every_process(size, what):
    n = 5 + list(WRONG).index(what)
    for told in run(calls.differing, size, what, n):
        assert told.startswith(WRONG[what]), told
    # and the group is as good as before
    for loss in run(calls.after, size):
        assert loss == pytest.approx(math.log(10))


@pytest.mark.parametrize(
    "when",
    [
        "before a call like the last",
        "before another call",
        "not: it sleeps",
        "not: it calls otherwise",
    ],
)
def test_a_process_that_dies_ends_the_call_of_every_other(tmp_path, when):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["xent.parallel"])
    pipes, processes = [], []
    for rank in range(3):
        ours, theirs = context.Pipe()
        process = context.Process(target=calls.dying, args=(rank, str(tmp_path), when, theirs))
        process.start()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for rank in (0, 2):
        assert pipes[rank].poll(20), "a process hangs"
        error, seconds = pipes[rank].recv()
        assert "Error" in error, error
        assert seconds < 10
    for process in processes:
        process.join(20)
        assert not process.is_alive()


def test_a_checksum_tells_targets_apart(rng):
    codes = torch.from_numpy(rng.integers(-1, 1000, 100))
    moved = codes.roll(1)
    assert int(exchange.checksum(codes)) != int(exchange.checksum(moved))
    assert 0 <= int(exchange.checksum(codes)) < exchange.EXACT
    assert exchange.checksum(None) == 0
