"""evaluation.passes: blocks in order, pieces that are bounded, rows that are told of."""

from __future__ import annotations

from itertools import pairwise

import pytest

from xent.evaluation import passes, processes
from xent.evaluation.sums import block_rows


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_come_in_order_and_cover_all_rows(threads: int) -> None:
    told: list[tuple[int, int, int]] = []
    way = passes.Way(2**26, threads, lambda *done: told.append(done))
    found = list(passes.over(300_000, 100, 400, way, lambda a, b: (a, b)))
    assert found[0][0] == 0
    assert found[-1][1] == 300_000
    assert all(one[1] == two[0] for one, two in pairwise(found))
    assert told[-1] == (300_000, 300_000, 400)
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)


def test_processes_share_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    way, every = passes.way(64, None), []
    for rank in range(3):
        monkeypatch.setattr(processes, "world", lambda rank=rank: (rank, 3))
        every += list(passes.over(500_000, 100, 400, way, lambda a, b: (a, b)))
    assert sum(b - a for a, b in every) == 500_000
    assert {a for a, _ in every} == set(range(0, 500_000, block_rows(100)))


def test_an_error_ends_the_pass() -> None:
    def work(start: int, stop: int) -> int:
        return 1 // (start != block_rows(100))

    with pytest.raises(ZeroDivisionError):
        list(passes.over(500_000, 100, 400, passes.way(64, None), work))


@pytest.mark.parametrize("chunk_mb", [0.001, 1, 64, 4096])
def test_a_piece_fits_into_the_chunk(chunk_mb: float) -> None:
    way = passes.way(chunk_mb, None)
    rows = way.piece_rows(1000, 4)
    room = chunk_mb * 2**20 / (passes.COPIES * way.threads)
    assert rows == 1 or rows * 4000 <= min(room, passes.IN_CACHE)
    assert list(passes.pieces(5, 12, 3)) == [(5, 8), (8, 11), (11, 12)]
