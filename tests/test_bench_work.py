"""bench/work.py: one call, of what is prepared for it or of nothing."""

from __future__ import annotations

from xent.bench.work import Work


def test_what_is_prepared_is_new_at_every_call():
    made = []

    def prepare():
        made.append(len(made))
        return made[-1]

    work = Work(lambda given: (given, None), prepare)
    assert [work.once(), work.once()] == [(0, None), (1, None)]
    assert Work(lambda: (3, None)).once() == (3, None)
