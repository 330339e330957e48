from __future__ import annotations

import itertools
import random

import pytest

from tests.net.fakes import FakeLoop
from ws_middleware.net.timers import TICK, Wheel


class Timed:
    """Notes when it was called."""

    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop
        self.calls: list[tuple[float, float]] = []

    def handle_timeout(self, now: float, late: float) -> None:
        assert now == self._loop.now
        self.calls.append((now, late))


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    return FakeLoop(monkeypatch, now=1000.1)


@pytest.fixture
def wheel(loop: FakeLoop) -> Wheel:
    return Wheel(loop.as_loop)


def test_no_deadline_is_early_and_none_more_than_a_tick_late(loop: FakeLoop, wheel: Wheel) -> None:
    rng = random.Random(7)
    deadlines = {Timed(loop): loop.now + rng.uniform(0, 60) for _ in range(500)}
    for timed, deadline in deadlines.items():
        wheel.add(timed, deadline)
    assert len(wheel) == 500
    loop.sleep_to(loop.now + 61)
    for timed, deadline in deadlines.items():
        ((now, _),) = timed.calls
        assert deadline <= now <= deadline + TICK + 0.002
    assert len(wheel) == 0


@pytest.mark.parametrize("deadline", [1000.1, 1000.0, 0.0, -1.0])
def test_a_deadline_that_has_passed_is_handled_in_the_next_turn(
    loop: FakeLoop, wheel: Wheel, deadline: float
) -> None:
    timed = Timed(loop)
    wheel.add(timed, deadline)
    assert not timed.calls  # never from within add
    loop.sleep_to(loop.now + TICK + 0.002)
    assert len(timed.calls) == 1


def test_a_deadline_on_a_tick_is_handled_at_that_tick(loop: FakeLoop, wheel: Wheel) -> None:
    timed = Timed(loop)
    wheel.add(timed, 1001.0)
    loop.sleep_to(1000.999)
    assert not timed.calls
    loop.sleep_to(1001.002)
    assert len(timed.calls) == 1


def test_it_sleeps_while_it_is_empty(loop: FakeLoop, wheel: Wheel) -> None:
    assert loop.set_timers == []
    wheel.add(Timed(loop), 1005)
    assert len(loop.set_timers) == 1
    loop.sleep_to(1010)
    assert loop.set_timers == []


def test_one_timer_for_all_set_for_the_first(loop: FakeLoop, wheel: Wheel) -> None:
    for deadline in (1030, 1010, 1020, 1010):
        wheel.add(Timed(loop), deadline)
    assert loop.set_timers == [pytest.approx(1010, abs=0.002)]
    loop.sleep_to(1011)
    assert loop.set_timers == [pytest.approx(1020, abs=0.002)]


def test_what_was_removed_is_not_called(loop: FakeLoop, wheel: Wheel) -> None:
    timed, other = Timed(loop), Timed(loop)
    tick = wheel.add(timed, 1005)
    wheel.add(other, 1006)
    wheel.remove(timed, tick)
    wheel.remove(timed, tick)  # twice is nothing
    wheel.remove(timed, 12345)
    assert len(wheel) == 1
    loop.sleep_to(1010)
    assert not timed.calls
    assert len(other.calls) == 1
    assert loop.set_timers == []


def test_after_the_last_was_removed_it_falls_asleep(loop: FakeLoop, wheel: Wheel) -> None:
    timed = Timed(loop)
    wheel.remove(timed, wheel.add(timed, 1005))
    loop.sleep_to(1010)  # at most the one wake-up that was set already
    assert loop.set_timers == []


def test_two_of_one_thing_in_a_tick_are_one(loop: FakeLoop, wheel: Wheel) -> None:
    timed = Timed(loop)
    wheel.add(timed, 1005.01)
    wheel.add(timed, 1005.02)
    loop.sleep_to(1010)
    assert len(timed.calls) == 1


def test_who_is_called_may_add_itself_again(loop: FakeLoop, wheel: Wheel) -> None:
    calls: list[float] = []

    class Again:
        def handle_timeout(self, now: float, late: float) -> None:
            calls.append(now)
            if len(calls) < 5:
                wheel.add(self, now + 1)

    wheel.add(Again(), 1001)
    loop.sleep_to(1020)
    assert len(calls) == 5
    assert all(1 <= b - a <= 1 + TICK + 0.002 for a, b in itertools.pairwise(calls))
    assert loop.set_timers == []


def test_who_is_called_may_remove_another_of_the_same_tick(loop: FakeLoop, wheel: Wheel) -> None:
    other = Timed(loop)

    class Remover:
        def handle_timeout(self, now: float, late: float) -> None:
            wheel.remove(other, tick)

    wheel.add(Remover(), 1005)
    tick = wheel.add(other, 1005)
    loop.sleep_to(1010)  # called or not, but nothing breaks
    assert len(other.calls) <= 1
    assert loop.set_timers == []


def test_a_loop_that_stood_still_is_told_by_how_much(loop: FakeLoop, wheel: Wheel) -> None:
    first, second = Timed(loop), Timed(loop)
    wheel.add(first, 1001)
    wheel.add(second, 1003)
    loop.block_to(1005)
    assert first.calls == [(1005, 4)]
    assert second.calls == [(1005, 2)]


def test_stop_forgets_everything(loop: FakeLoop, wheel: Wheel) -> None:
    timed = Timed(loop)
    wheel.add(timed, 1001)
    wheel.stop()
    wheel.stop()
    loop.sleep_to(1010)
    assert not timed.calls
    assert loop.set_timers == []
    assert len(wheel) == 0
