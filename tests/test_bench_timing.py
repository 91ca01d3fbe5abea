"""bench/timing.py: the rounds, by a clock that the test moves."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from xent.bench import timing
from xent.bench.peers import Work


class Clock:
    """Time that passes only where a subject takes it."""

    def __init__(self) -> None:
        self.now = self.cpu = 0
        self.order: list[str] = []

    def subject(self, name: str, nanoseconds: int, cpu: int = 0, prepare: int = 0) -> Work:
        """A call that takes so long; what is prepared for it takes time too."""

        def call(*given: str) -> Any:
            assert given == (("made",) if prepare else ())
            self.now += nanoseconds
            self.cpu += cpu
            self.order.append(name)
            return 0.0, None

        def made() -> str:
            self.now += prepare
            return "made"

        return Work(call, made if prepare else None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: made.now)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: made.now / 1e9)
    monkeypatch.setattr(timing.time, "process_time_ns", lambda: made.cpu)
    return made


def test_a_sample_is_the_mean_of_its_calls(clock: Clock) -> None:
    assert timing.sample(clock.subject("a", 3000, cpu=2000), 5) == (3e-6, 2e-6)
    assert len(clock.order) == 5


def test_what_is_prepared_is_not_timed(clock: Clock) -> None:
    assert timing.sample(clock.subject("a", 3000, prepare=10**9), 5)[0] == 3e-6


def test_rounds_take_turns_and_turn_around(clock: Clock) -> None:
    second = 10**9
    subjects = {name: clock.subject(name, second) for name in "abc"}
    times = timing.interleaved(subjects, seconds=0.0)
    rounds = "".join(clock.order)[-3 * times.rounds :]
    assert rounds == ("abccba" * times.rounds)[: 3 * times.rounds]
    assert times.rounds == timing.LEAST_ROUNDS
    assert times.calls == {"a": 1, "b": 1, "c": 1}
    assert times.wall == {name: [1.0] * times.rounds for name in "abc"}


def test_short_calls_are_repeated_until_a_sample_can_be_timed(clock: Clock) -> None:
    subjects = {"short": clock.subject("short", 999), "long": clock.subject("long", 10**7)}
    times = timing.interleaved(subjects, seconds=0.0)
    assert times.calls["long"] == 1
    assert 1e-3 <= times.calls["short"] * 999e-9 < 2.1e-3
    assert times.wall["short"] == pytest.approx([999e-9] * times.rounds)


def test_a_repeated_call_is_made_once_more_before_its_sample(clock: Clock) -> None:
    subjects = {"short": clock.subject("short", 500_000), "long": clock.subject("long", 10**7)}
    times = timing.interleaved(subjects, seconds=0.0)
    assert times.calls == {"short": 2, "long": 1}
    of_a_round = "".join(name[0] for name in clock.order)[-4 * times.rounds :]
    assert of_a_round[:4] in ("sssl", "lsss")
    assert of_a_round.count("s") == 3 * times.rounds


def test_waits_are_those_of_the_thread_that_waited_most(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "TASKS", tmp_path)

    def waited(task: str, nanoseconds: int) -> None:
        (tmp_path / task).mkdir(exist_ok=True)
        (tmp_path / task / "schedstat").write_text(f"5 {nanoseconds} 7\n")

    def call() -> Any:
        clock.now += 10**9
        waited("1", clock.now // 4)
        waited("2", clock.now // 2)
        waited("3", 0)
        return 0.0, None

    waited("1", 0)
    waited("2", 0)
    assert timing.interleaved({"a": Work(call)}, seconds=0.0).waited == 0.5
    (tmp_path / "1" / "schedstat").write_text("")
    assert timing.interleaved({"a": clock.subject("a", 10**9)}, seconds=0.0).waited is None


def test_rounds_are_done_for_the_time_given(clock: Clock) -> None:
    tenth = {"a": clock.subject("a", 10**8)}
    assert timing.interleaved(tenth, seconds=2.0).rounds == 20
    assert timing.interleaved(tenth, seconds=1e9).rounds == timing.MOST_ROUNDS


def test_a_call_that_takes_no_time_ends(clock: Clock) -> None:
    assert timing.interleaved({"a": clock.subject("a", 0)}, seconds=0.0).calls == {"a": 10_000}


def test_garbage_is_not_collected_within_a_round(clock: Clock) -> None:
    collecting = []
    work = Work(lambda: (collecting.append(gc.isenabled()), clock.subject("a", 10**9).call())[1])
    timing.interleaved({"a": work}, seconds=0.0)
    assert not any(collecting[-timing.LEAST_ROUNDS :])
    assert gc.isenabled()
