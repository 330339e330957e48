"""A loop whose clock the test turns, for what asks a loop for little."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from ws_middleware.net.clock import SYSTEM

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextvars import Context

    import pytest

__all__ = ["FakeLoop", "FakeTransport"]


class Handle:
    """A timer that can be cancelled."""

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self.cancelled = False
        self._call = (callback, args)

    def cancel(self) -> None:
        self.cancelled = True

    def run(self) -> None:
        callback, args = self._call
        callback(*args)


class FakeLoop:
    """`call_later`, `call_soon` and `call_soon_threadsafe`; nothing runs before it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: float = 1000.0) -> None:
        self.now = now
        self.timers: list[Handle] = []
        self.ready: list[Handle] = []
        self.wakes = 0
        self.closed = False
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(SYSTEM, "now", lambda: self.now)

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Handle:
        assert delay >= 0
        handle = Handle(self.now + delay, callback, args)
        self.timers.append(handle)
        return handle

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(self.now, callback, args)
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        if self.closed:
            msg = "Event loop is closed"
            raise RuntimeError(msg)
        self.wakes += 1
        return self.call_soon(callback, *args)

    def turn(self) -> None:
        """Run what is ready now, and not what that makes ready."""
        ready, self.ready = self.ready, []
        for handle in ready:
            handle.run()

    @property
    def set_timers(self) -> list[float]:
        """When the timers that are set will fire."""
        return sorted(each.when for each in self.timers if not each.cancelled)

    def sleep_to(self, now: float) -> None:
        """Fire all timers up to `now`, each at its time."""
        while self.set_timers and self.set_timers[0] <= now:
            first = min((each for each in self.timers if not each.cancelled), key=lambda e: e.when)
            self.timers.remove(first)
            self.now = max(self.now, first.when)
            first.run()
        self.now = now

    def block_to(self, now: float) -> None:
        """Do not turn until `now`; then fire what is due."""
        self.now = now
        for each in [each for each in self.timers if not each.cancelled and each.when <= now]:
            if not each.cancelled:
                self.timers.remove(each)
                each.run()


class FakeTransport:
    """Counts what it is given; what it holds back is up to the test."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.size = 0
        self.limits: tuple[int | None, int | None] = (None, None)

    @property
    def as_transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return self.size

    def write(self, data: bytes) -> None:
        self.writes.append(data)
