from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from tests.net.fakes import FakeLoop
from ws_middleware.net.deadlines import Deadlines
from ws_middleware.net.timers import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable


class Timed:
    """Deadlines on a wheel whose loop the test turns, and what they have called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = FakeLoop(monkeypatch)
        self.wheel = Wheel(self.loop.as_loop)
        self.deadlines = Deadlines(self.wheel)
        #: Names, with the quarter of a second in which it was: the wheel's own grain.
        self.called: list[tuple[str, float]] = []
        self.one, self.other = self.action("one"), self.action("other")

    def action(self, name: str) -> Callable[[float], None]:
        return lambda now: self.called.append((name, math.floor(now * 4) / 4))


@pytest.fixture
def it(monkeypatch: pytest.MonkeyPatch) -> Timed:
    return Timed(monkeypatch)


def test_each_is_called_once_when_it_is_due(it: Timed) -> None:
    it.deadlines.at(1002, it.other)
    it.deadlines.at(1001, it.one)
    it.loop.sleep_to(1010)
    assert it.called == [("one", 1001), ("other", 1002)]
    assert it.one not in it.deadlines
    assert len(it.wheel) == 0


def test_a_deadline_may_be_put_off_and_taken_back(it: Timed) -> None:
    it.deadlines.at(1001, it.one)
    it.deadlines.at(1003, it.one)
    it.deadlines.at(1002, it.other)
    it.deadlines.drop(it.other, it.action("never set"))
    it.loop.sleep_to(1002.9)
    assert it.called == []
    it.loop.sleep_to(1010)
    assert it.called == [("one", 1003)]


def test_an_action_may_drop_another_that_is_due_and_set_new_ones(it: Timed) -> None:
    def act(now: float) -> None:
        it.deadlines.drop(it.one)
        it.deadlines.at(now + 1, it.other)

    it.deadlines.at(1001, act)
    it.deadlines.at(1001, it.one)
    it.loop.sleep_to(1010)
    assert it.called == [("other", 1002.25)]


def test_after_clear_nothing_is_on_the_wheel(it: Timed) -> None:
    it.deadlines.at(1001, it.one)
    it.deadlines.clear()
    assert len(it.wheel) == 0
    it.loop.sleep_to(1010)
    assert it.called == []


def test_the_wheel_knows_the_first_and_no_other(it: Timed) -> None:
    it.deadlines.at(1005, it.one)
    it.deadlines.at(1001, it.other)
    assert len(it.wheel) == 1
    assert it.loop.set_timers[0] == pytest.approx(1001, abs=0.01)
