"""One wheel for all deadlines of a loop: a timer each would cost more than all the rest.

Deadlines fall into ticks of 250 ms. One is never early and at most a tick late; the loop is woken
only for ticks that have something in them, and not at all when there are none.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final, Protocol

from .clock import SYSTEM

if TYPE_CHECKING:
    import asyncio

    from .clock import Clock

__all__ = ["LATE", "TICK", "Timed", "Wheel"]

#: Seconds.
TICK: Final = 0.25
#: Lateness of a timer, in seconds, from which on our own loop counts as having stood still.
LATE: Final = 0.05


class Timed(Protocol):
    """Something with deadlines."""

    def handle_timeout(self, now: float, late: float) -> None:
        """Look what is due at `now`, `late` seconds after it should have been looked at.

        Harmless when nothing is. `late` is time in which the loop did not turn, so no peer could be
        heard.
        """


class Wheel:
    """The deadlines of one loop, in the clock's `now`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock = SYSTEM) -> None:
        self._loop = loop
        self._clock = clock
        self._buckets: dict[int, dict[Timed, None]] = {}
        self._ticks: list[int] = []
        self._handle: asyncio.TimerHandle | None = None
        self._next = math.inf
        self._served = 0

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())

    def add(self, timed: Timed, deadline: float) -> int:
        """Call `timed.handle_timeout` at `deadline`; return the tick, to remove it by."""
        # Not into a tick that is being served: what is due again at once waits for the next one,
        # or the loop would never turn.
        tick = max(math.ceil(deadline / TICK), self._served + 1)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
        bucket[timed] = None
        if tick < self._next:
            self._wake_at(tick)
        return tick

    def remove(self, timed: Timed, tick: int) -> None:
        """Forget what `add` returned `tick` for."""
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.pop(timed, None)

    def _wake_at(self, tick: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next = tick
        delay = max(0.0, tick * TICK - self._clock.now()) + self._clock.rounding
        self._handle = self._loop.call_later(delay, self._turn)

    def _turn(self) -> None:
        self._handle = None
        self._next = math.inf
        now = self._clock.now()
        self._served = math.floor(now / TICK)
        while self._ticks and self._ticks[0] * TICK <= now:
            tick = heapq.heappop(self._ticks)
            for timed in self._buckets.pop(tick):
                timed.handle_timeout(now, now - tick * TICK)
        self._skip_empty()
        if self._ticks:
            self._wake_at(self._ticks[0])

    def _skip_empty(self) -> None:
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]

    def stop(self) -> None:
        """Forget everything."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = None
        self._next = math.inf
        self._buckets.clear()
        self._ticks.clear()
