"""The fan-out: one hub per `WebSockets` and process, over the loops that serve its sockets.

A send is posted to each loop, which delivers it to its own members, at most `TURN` links a turn of
the loop, one send after the other. Nobody waits for a client here: a link takes a message or drops
its peer.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from ws_middleware.errors import BrokerRequired, MessageTooBig
from ws_middleware.native import Lock
from ws_middleware.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ws_middleware.types import EncodedMessage, Link

    from .registry import Address, Member, Registry

__all__ = ["Branch", "FanOut", "Hub", "Sent"]

_SIBLINGS: Final = (
    "this server runs several worker processes, and a message sent here reaches only the sockets "
    "of this one. Run one worker (gunicorn --workers 1 --threads N), or say that you mean it: "
    'WebSockets(broker="memory://per-process")'
)

#: Links that one turn of a loop serves; then the others on that loop have theirs.
TURN: Final = 1000

_log: Final = logging.getLogger("ws_middleware.hub")


@dataclass(frozen=True)
class Sent:
    """What became of a send to an audience."""

    #: Sockets of this process that it went to.
    local: int


class Branch(Protocol):
    """One event loop that serves sockets, as the hub sees it."""

    registry: Registry
    fan_out: FanOut

    def run(self, action: Callable[[], None]) -> bool:
        """Run `action` on the loop: now if this is its thread, else soon. False if it has ended."""


class _Tally:
    """Adds up the loops' shares of one receipt."""

    def __init__(self, shares: int) -> None:
        self._lock = Lock()
        self._missing = shares
        self._count = 0
        self.receipt: Receipt[Sent] = Receipt()

    def add(self, count: int) -> None:
        with self._lock:
            self._missing -= 1
            self._count += count
            done = self._missing == 0
        if done:
            self.receipt.resolve(Sent(self._count))


class Hub:
    """Every socket of this process, on whatever loop."""

    def __init__(self) -> None:
        self._branches: tuple[Branch, ...] = ()
        self._lock = Lock()
        #: Whether other processes of the same server have sockets that are not reached from here.
        self.has_siblings = False
        #: What a socket may have waiting, by route: no message can be larger.
        self.outbound_bytes: dict[str, int] = {}

    def attach(self, branch: Branch) -> None:
        """Add a loop."""
        with self._lock:
            self._branches = (*self._branches, branch)

    def detach(self, branch: Branch) -> None:
        """Remove a loop that has ended."""
        with self._lock:
            self._branches = tuple(each for each in self._branches if each is not branch)

    def after_fork(self) -> None:
        """A child has none of the loops."""
        self._lock = Lock()
        self._branches = ()

    def send(
        self, address: Address, message: EncodedMessage, exclude: frozenset[str]
    ) -> Receipt[Sent]:
        """Send to all at `address` but the ids in `exclude`.

        Raises:
            MessageTooBig: no socket there could take it.
        """
        self._check_size(address, len(message))
        return self._each(address, lambda link: link.deliver(message), exclude)

    def _check_size(self, address: Address, size: int) -> None:
        limits = self.outbound_bytes
        most = limits.get(address.route or "", max(limits.values(), default=size))
        if size > most:
            msg = (
                f"the message has {size} bytes, Limits.outbound_bytes is {most}; send it in parts "
                "or raise it"
            )
            raise MessageTooBig(msg)

    def close(self, address: Address, code: int, reason: str, over: float) -> Receipt[Sent]:
        """Close all at `address`; the closes are spread over `over` seconds on each loop."""
        return self._each(address, lambda link: link.close(code, reason), frozenset(), over)

    def count(self, address: Address) -> int:
        """Return how many of this process are at `address`."""
        return sum(branch.registry.count(address) for branch in self._branches)

    def local(self, address: Address) -> Iterator[Member]:
        """Yield those of this process at `address`."""
        for branch in self._branches:
            yield from branch.registry.members(address)

    def _each(
        self,
        address: Address,
        action: Callable[[Link], None],
        exclude: frozenset[str],
        over: float = 0.0,
    ) -> Receipt[Sent]:
        if self.has_siblings:
            raise BrokerRequired(_SIBLINGS)
        branches = self._branches
        if not branches:
            return Receipt.ready(Sent(0))
        tally = _Tally(len(branches))
        for branch in branches:
            job = _Job(branch.registry, address, action, exclude, over, tally)
            if not branch.run(partial(branch.fan_out.add, job)):
                tally.add(0)
        return tally.receipt


class _Job:
    """One send on one loop. Who is there is looked up when it begins, in its turn."""

    __slots__ = (
        "_action",
        "_address",
        "_count",
        "_exclude",
        "_members",
        "_registry",
        "_tally",
        "over",
    )

    def __init__(
        self,
        registry: Registry,
        address: Address,
        action: Callable[[Link], None],
        exclude: frozenset[str],
        over: float,
        tally: _Tally,
    ) -> None:
        self._registry = registry
        self._address = address
        self._action = action
        self._exclude = exclude
        self._tally = tally
        self._members: Iterator[Member] | None = None
        self._count = 0
        self.over = over

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
            if member.id not in self._exclude and member in self._registry:
                self._count += 1
                self._act(member)
        if served < room:
            self._tally.add(self._count)
            return room - served
        return 0

    def _act(self, member: Member) -> None:
        try:
            self._action(member.link)
        except Exception:
            # A link promises not to raise; if one does, the others still get their message.
            _log.exception("a link failed to take a message for socket %s", member.id)


class FanOut:
    """The sends of one loop, in their order. `later(delay, action)` is the loop's own clock."""

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._later = later
        self._jobs: deque[_Job] = deque()
        self._turning = False

    def add(self, job: _Job) -> None:
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

    def _spread(self, job: _Job) -> None:
        """Serve one link after the other, `over` seconds in all."""
        pause = job.over / max(job.size(), 1)

        def step() -> None:
            if job.go_on(1) == 0:
                self._later(pause, step)

        step()
