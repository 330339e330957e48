"""Sockets, links and loops as the hub sees them, small enough to be looked through."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

from ws_middleware.hub.fan_out import FanOut
from ws_middleware.hub.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.types import EncodedMessage

__all__ = ["Branch", "Clock", "Link", "Member"]


class Clock:
    """A loop's clock that is moved by hand; what was asked for at one time runs in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []

    def later(self, delay: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._waiting, (self.now + delay, next(self._numbers), action))

    def turn(self) -> None:
        """Run what is due now, but nothing that only these ask for."""
        due = []
        while self._waiting and self._waiting[0][0] <= self.now:
            due.append(heapq.heappop(self._waiting))
        for _, _, action in due:
            action()

    def run(self) -> None:
        """Run until nothing waits."""
        while self._waiting:
            self.now = max(self.now, self._waiting[0][0])
            self.turn()

    def run_until(self, now: float) -> None:
        """Run what is due up to `now`."""
        while self._waiting and self._waiting[0][0] <= now:
            self.now = self._waiting[0][0]
            self.turn()
        self.now = now

    @property
    def idle(self) -> bool:
        return not self._waiting


class Link:
    """Takes down what it is told, and when."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self.delivered: list[EncodedMessage] = []
        self.closed: list[tuple[float, int, str]] = []

    def deliver(self, message: EncodedMessage) -> None:
        self.delivered.append(message)

    def close(self, code: int, reason: str) -> None:
        self.closed.append((self._clock.now, code, reason))

    def abort(self) -> None: ...

    @property
    def texts(self) -> list[str]:
        return [message.payload.decode() for message in self.delivered]


class Member:
    """A websocket as far as the hub looks at it."""

    def __init__(
        self,
        id: str,  # noqa: A002 - what it is
        *,
        route: str = "/ws",
        user: str = "",
        closes_for_gap: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.id = id
        self.closes_for_gap = closes_for_gap
        self.link = Link(clock)
        self.route_name = route
        self.user_id = user

    def __repr__(self) -> str:
        return f"<Member {self.id}>"


class Branch:
    """A loop. `direct` is what it is to its own thread; else what is run waits in `posted`."""

    def __init__(self, *ids: str, direct: bool = True) -> None:
        self.clock = Clock()
        self.later = self.clock.later
        self.registry = Registry()
        self.fan_out = FanOut(self.clock.later)
        self.ended = False
        self.posted: list[Callable[[], object]] = []
        self._direct = direct
        self.members = [Member(each, clock=self.clock) for each in ids]
        for member in self.members:
            self.registry.add(member)

    def run(self, action: Callable[[], object]) -> bool:
        if self.ended:
            return False
        if self._direct:
            action()
        else:
            self.posted.append(action)
        return True

    def run_posted(self) -> None:
        while self.posted:
            self.posted.pop(0)()

    def on_its_thread(self, action: Callable[[], object]) -> None:
        """Do what the loop's own thread does: whatever it is given then runs at once."""
        direct, self._direct = self._direct, True
        action()
        self._direct = direct
