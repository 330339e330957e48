"""One hub per `WebSockets` and process: every socket there is, here and in other processes.

A send is posted to each loop of this process, which delivers it to its own members (`fan_out`),
and said to the other processes (`bus`), where there are any. Nobody waits for a client here: a link
takes a message or drops its peer.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from ws_middleware.errors import BrokerRequired, MessageTooBig
from ws_middleware.native import Lock
from ws_middleware.receipt import Receipt

from .counts import Counts
from .envelope import Close, Envelope
from .fan_out import Job, Tally
from .questions import Answers, total_of
from .registry import Address
from .uplink import Uplink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ws_middleware.types import EncodedMessage

    from .bus import Bus
    from .envelope import Ask, Question
    from .fan_out import FanOut
    from .registry import Member, Registry

__all__ = ["Alone", "Branch", "Hub", "Outside", "Sent"]

#: Seconds over which the sockets of a route are closed after a gap: so many for each, at most.
_GAP_PAUSE: Final = 0.02
_GAP_OVER: Final = 10.0

_SIBLINGS: Final = (
    "this server runs several worker processes, and a message sent here reaches only the sockets "
    "of this one. Let Redis carry it to the others: "
    'WebSockets(broker="redis://localhost:6379/0"). Or run one worker (gunicorn --workers 1 '
    "--threads N), or say that you mean it: "
    'WebSockets(broker="memory://per-process")'
)


@dataclass(frozen=True)
class Sent:
    """What became of a send to an audience."""

    #: Sockets of this process that it went to.
    local: int
    #: Whether the broker has taken it for the other processes; `None` where there is no broker.
    published: bool | None = None


class Branch(Protocol):
    """One event loop that serves sockets, as the hub sees it."""

    registry: Registry
    fan_out: FanOut

    def run(self, action: Callable[[], object]) -> bool:
        """Run `action` on the loop: now if this is its thread, else soon. False if it has ended."""

    def later(self, delay: float, action: Callable[[], object]) -> object:
        """Run `action` after `delay` seconds; on the loop."""


class Outside(Protocol):
    """The other processes, while this one has no bus."""

    def tell(self, address: Address, envelope: Envelope) -> Receipt[bool] | None:
        """Have it done there; `None` where there are none.

        Raises:
            BrokerUnavailable: it was not taken, and nobody else would try again.
        """

    def ask(self, question: Question, address: Address | None) -> Receipt[Answers]:
        """Ask them; nobody answers where there are none."""


class Alone:
    """There are no other processes."""

    def tell(self, address: Address, envelope: Envelope) -> None:
        """Tell nobody."""

    def ask(self, question: Question, address: Address | None) -> Receipt[Answers]:  # noqa: ARG002
        """Ask nobody."""
        return Receipt.ready(Answers())


class Hub:
    """Every socket of this process, on whatever loop."""

    def __init__(self) -> None:
        self._branches: tuple[Branch, ...] = ()
        self._lock = Lock()
        #: Who this process is to others; the ids of its sockets begin with it.
        self.node = secrets.token_hex(4)
        #: The way to other processes, where there is one.
        self.uplink = Uplink()
        #: The way while there is no bus: it may make one.
        self.outside: Outside = Alone()
        #: What has happened here so far.
        self.counts = Counts()
        #: Returns what this process answers when another one asks; set by whoever knows it all.
        self.respond: Callable[[Ask], object] = self._respond
        #: Called with the wall times between which messages of others may be missing.
        self.gap_handlers: list[Callable[..., object]] = []
        #: Whether other processes of the same server have sockets that are not reached from here.
        self.has_siblings = False
        #: What a socket may have waiting, by route: no message can be larger.
        self.outbound_bytes: dict[str, int] = {}

    def attach(self, branch: Branch) -> None:
        """Add a loop."""
        with self._lock:
            self._branches = (*self._branches, branch)
        self.uplink.attach(branch)

    def detach(self, branch: Branch) -> None:
        """Remove a loop that has ended."""
        with self._lock:
            self._branches = tuple(each for each in self._branches if each is not branch)
        self.uplink.detach(branch)

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The loops that serve sockets here."""
        return self._branches

    @property
    def bus(self) -> Bus | None:
        """The way to other processes, where it is open."""
        return self.uplink.bus

    def after_fork(self) -> None:
        """A child has none of the loops."""
        self._lock = Lock()
        self._branches = ()
        self.uplink = Uplink()
        self.counts = Counts()
        self.node = secrets.token_hex(4)

    def send(
        self, address: Address, message: EncodedMessage, exclude: frozenset[str]
    ) -> Receipt[Sent]:
        """Send to all at `address` but the ids in `exclude`.

        Raises:
            MessageTooBig: no socket there could take it.
            BrokerRequired: other processes have sockets there, and nothing reaches them.
        """
        self._check_size(address, len(message))
        return self._tell(address, Envelope(message, exclude))

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
        """Close all at `address`; the closes are spread over `over` seconds on each loop.

        Raises:
            BrokerRequired: other processes have sockets there, and nothing reaches them.
        """
        return self._tell(address, Envelope(Close(code, reason, over)))

    def count(self, address: Address) -> int:
        """Return how many of this process are at `address`."""
        return sum(branch.registry.count(address) for branch in self._branches)

    def count_everywhere(self, address: Address) -> Receipt[int]:
        """Return how many of all processes are at `address`.

        It fails with `BrokerUnavailable` where a process could not be asked or does not answer: a
        number that is too small would be taken for the truth.

        Raises:
            BrokerRequired: other processes have sockets there, and nothing reaches them.
        """
        here = self.count(address)
        return self.ask("count", address).map(lambda answers: here + total_of(answers))

    def ask(self, question: Question, address: Address | None = None) -> Receipt[Answers]:
        """Ask all other processes.

        Raises:
            BrokerRequired: there are some, and nothing reaches them.
        """
        self._check_reach()
        return (self.bus or self.outside).ask(question, address)

    def _respond(self, ask: Ask) -> object:
        return self.count(ask.address or Address("everyone"))

    def close_for_gap(self) -> None:
        """Close the sockets here that must not go on after messages may have been missed."""
        address = Address("gap")
        over = min(_GAP_OVER, self.count(address) * _GAP_PAUSE)
        self.deliver(address, Envelope(Close(1013, "messages_missed", over)))

    def local(self, address: Address) -> Iterator[Member]:
        """Yield those of this process at `address`."""
        for branch in self._branches:
            yield from branch.registry.members(address)

    def _tell(self, address: Address, envelope: Envelope) -> Receipt[Sent]:
        """Do it here, and have it done elsewhere."""
        self._check_reach()
        local = self.deliver(address, envelope)
        bus = self.bus
        told = self.outside.tell if bus is None else bus.publish
        return _joined(local, told(address, envelope))

    def _check_reach(self) -> None:
        if self.has_siblings and self.bus is None:
            raise BrokerRequired(_SIBLINGS)

    def deliver(self, address: Address, envelope: Envelope) -> Receipt[int]:
        """Do it for the sockets of this process; the receipt has their number."""
        branches = self._branches
        if not branches:
            return Receipt.ready(0)
        tally = Tally(len(branches))
        for branch in branches:
            job = Job(branch.registry, address, envelope, tally)
            if not branch.run(partial(branch.fan_out.add, job)):
                tally.add(0)
        return tally.receipt


def _joined(local: Receipt[int], published: Receipt[bool] | None) -> Receipt[Sent]:
    """Return one receipt for both; it resolves when both have."""
    sent: Receipt[Sent] = Receipt()

    def finish() -> None:
        if local.done and (published is None or published.done):
            taken = None if published is None else published.result(0)
            sent.resolve(Sent(local.result(0), taken))

    local.add_done_callback(finish)
    if published is not None:
        published.add_done_callback(finish)
    return sent
