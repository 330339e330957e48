"""The fan-out on one loop: one send after the other, at most `TURN` links a turn of the loop."""

from __future__ import annotations

import logging
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from ws_middleware.native import Lock
from ws_middleware.receipt import Receipt
from ws_middleware.types import EncodedMessage

from .envelope import Close

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .envelope import Envelope
    from .registry import Address, Member, Registry

__all__ = ["FanOut", "Job", "Tally"]

#: Links that one turn of a loop serves; then the others on that loop have theirs. Not fewer: what
#: a turn gives a link is written in one piece. With 100, a burst to a room of 100 takes three times
#: as long, for a fifth less of the 99th percentile of HTTP beside a broadcast to 1,000.
TURN: Final = 1000

_log: Final = logging.getLogger("ws_middleware.hub")


class Tally:
    """Adds up the loops' shares of one receipt."""

    def __init__(self, shares: int) -> None:
        self._lock = Lock()
        self._missing = shares
        self._count = 0
        self.receipt: Receipt[int] = Receipt()

    def add(self, count: int) -> None:
        """Take the share of one loop."""
        with self._lock:
            self._missing -= 1
            self._count += count
            done = self._missing == 0
        if done:
            self.receipt.resolve(self._count)


class Job:
    """One send on one loop. Who is there is looked up when it begins, in its turn."""

    __slots__ = ("_address", "_count", "_envelope", "_members", "_registry", "_tally", "over")

    def __init__(
        self, registry: Registry, address: Address, envelope: Envelope, tally: Tally
    ) -> None:
        self._registry = registry
        self._address = address
        self._envelope = envelope
        self._tally = tally
        self._members: Iterator[Member] | None = None
        self._count = 0
        #: Seconds over which it is spread.
        self.over = envelope.action.over if isinstance(envelope.action, Close) else 0.0

    def size(self) -> int:
        """Return how many it will go to, at the most."""
        return self._registry.count(self._address)

    def go_on(self, room: int) -> int:
        """Serve at most `room` links; return how many places are left, 0 if there is more to do."""
        if self._members is None:
            self._members = iter(self._registry.members(self._address))
        served = 0
        for member in islice(self._members, room):
            served += 1
            if member.id not in self._envelope.exclude and member in self._registry:
                self._count += 1
                self._act(member)
        if served < room:
            self._finish()
            return room - served
        return 0

    def _finish(self) -> None:
        try:
            self._tally.add(self._count)
        except Exception:
            # What waits for a receipt is the app's own; the sends behind this one are others'.
            _log.exception("a callback of a receipt failed")

    def _act(self, member: Member) -> None:
        action = self._envelope.action
        try:
            if isinstance(action, EncodedMessage):
                member.link.deliver(action)
            elif isinstance(action, Close):
                member.link.close(action.code, action.reason)
        except Exception:
            # A link promises not to raise; if one does, the others still get their message.
            _log.exception("a link failed to take a message for socket %s", member.id)


class FanOut:
    """The sends of one loop, in their order. `later(delay, action)` is the loop's own clock."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._jobs: deque[Job] = deque()
        self._turning = False

    def add(self, job: Job) -> None:
        """Serve `job` after those before it; at once if there are none and it fits into a turn."""
        if job.over > 0:
            self._spread(job)
            return
        self._jobs.append(job)
        if not self._turning:
            self._turn()

    def _turn(self) -> None:
        room = TURN
        self._turning = True  # what a receipt's callback sends waits for its turn
        while self._jobs and room:
            room = self._jobs[0].go_on(room)
            if room:
                self._jobs.popleft()
        self._turning = bool(self._jobs)
        if self._jobs:
            self._later(0, self._turn)

    def _spread(self, job: Job) -> None:
        """Serve one link after the other, `over` seconds in all."""
        pause = job.over / max(job.size(), 1)

        def step() -> None:
            if job.go_on(1) == 0:
                self._later(pause, step)

        step()
