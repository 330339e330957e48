"""One process's way to the others: what its sockets want to hear, and what it says.

On one loop, but for `publish`, `note` and what only reads. What is local never waits for it: a
broker that is away, hangs or has gone deaf costs the messages from elsewhere, and is told: once in
the log, in `is_ready`, in `counts`, and by `on_gap` when it is over.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.receipt import Receipt

from .canary import BEAT, Canary
from .envelope import (
    Answer,
    Ask,
    Beat,
    Envelope,
    channel_of,
    every_node_channel,
    node_channel,
)
from .questions import PATIENCE, Answers, Questions
from .registry import Address
from .wire import Dropped, read, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from .brokers import Broker
    from .envelope import Question

__all__ = ["Bus", "Home"]

_log: Final = logging.getLogger("ws_middleware.bus")


class Home(Protocol):
    """The loop that a bus lives on."""

    def run(self, action: Callable[[], object]) -> bool:
        """Run `action` on the loop: now if this is its thread, else soon. False if it has ended."""

    def later(self, delay: float, action: Callable[[], object]) -> object:
        """Run `action` after `delay` seconds; on the loop."""


class Bus:
    """Made for one process, by `Hub`.

    Args:
        broker: what carries the bytes.
        home: the loop it lives on.
        prefix: what all channels of this app begin with.
        node: who this process is, on the bus.
        deliver: called on the loop with what came from elsewhere.
        on_gap: called on the loop with the wall times between which messages may be missing.
        respond: called on the loop with what another process asks; returns anything JSON can hold.
        wall: the time since the epoch.
        largest: returns how many bytes a message may have.
        secret: what every envelope has to be signed with, if anything.
    """

    def __init__(
        self,
        broker: Broker,
        home: Home,
        *,
        prefix: str,
        node: str,
        deliver: Callable[[Address, Envelope], object],
        on_gap: Callable[[float, float], None],
        respond: Callable[[Ask], object],
        wall: Callable[[], float],
        largest: Callable[[], int],
        secret: bytes | None = None,
    ) -> None:
        self._broker = broker
        self._home = home
        self._prefix = prefix
        self._node = node
        self._deliver = deliver
        self._on_gap = on_gap
        self._respond = respond
        self._wall = wall
        self._largest = largest
        self._secret = secret
        self._canary = Canary(wall())
        self._present: Counter[Address] = Counter()
        self._addresses: dict[str, Address] = {}
        self._own = node_channel(prefix, node)
        self._all = every_node_channel(prefix)
        self._questions = Questions()
        #: What is to be asked once the broker is there.
        self._unasked: list[Callable[[], None]] = []
        self._lost_at: float | None = None
        self._is_open = False
        #: Whether messages from elsewhere come in. From any thread.
        self.is_ready = False
        #: What has happened so far, by name: for metrics. From any thread.
        self.counts: Counter[str] = Counter()

    # --- its life, on the loop ---------------------------------------------------------------

    def open(self) -> None:
        """Begin."""
        self._is_open = True
        self._broker.open(self)
        self._broker.subscribe(self._own)
        self._broker.subscribe(self._all)
        self._home.later(BEAT, self._beat)

    def begin_with_gap(self) -> None:
        """Say, once connected, that messages were missed: there was another one before."""
        self._lost_at = self._wall()

    async def close(self) -> None:
        """End within a second."""
        self._is_open = self.is_ready = False
        await self._broker.close()

    def _beat(self) -> None:
        if not self._is_open:
            return
        number = self._canary.beat()
        if self._canary.is_deaf:
            self._go_deaf()
        self._publish(self._own, Envelope(Beat(number), node=self._node))
        self._home.later(BEAT, self._beat)

    def _go_deaf(self) -> None:
        if self.is_ready:
            self.counts["deaf"] += 1
            self.is_ready = False
            _log.warning(
                "deaf: two beats of this process did not come back from %r within %g s; "
                "subscribing anew",
                self._broker,
                2 * BEAT,
            )
            self._broker.rebuild()

    # --- what the sockets want to hear -------------------------------------------------------

    def note(self, address: Address, *, present: bool) -> None:
        """Hear that a loop has its first socket at `address`, or has none any more.

        From any thread.
        """
        self._home.run(lambda: self._note(address, present=present))

    def _note(self, address: Address, *, present: bool) -> None:
        if address.kind in {"socket", "gap"}:  # reached on the node's own channel, or only here
            return
        self._present[address] += 1 if present else -1
        count = self._present[address]
        channel = channel_of(self._prefix, address)
        if present and count == 1:
            self._addresses[channel] = address
            self._broker.subscribe(channel)
        elif count == 0:
            del self._present[address], self._addresses[channel]
            self._broker.unsubscribe(channel)

    # --- what is said ------------------------------------------------------------------------

    def publish(self, address: Address, envelope: Envelope) -> Receipt[bool]:
        """Say something to the other processes; the receipt tells whether the broker has taken it.

        From any thread. Never raises for want of a broker.
        """
        outcome: Receipt[bool] = Receipt()
        channel = channel_of(self._prefix, address)
        if channel == self._own:  # a socket of ours, or of nobody
            return Receipt.ready(True)  # noqa: FBT003
        stamped = envelope.to(address, self._node)

        def act() -> None:
            taken = self._publish(channel, stamped)
            taken.add_done_callback(lambda: outcome.resolve(self._was_taken(taken)))

        if not self._home.run(act):
            outcome.resolve(value=False)
        return outcome

    def _publish(self, channel: str, envelope: Envelope) -> Receipt[int | None]:
        data = write(envelope, channel=channel, now=self._wall(), secret=self._secret)
        return self._broker.publish(channel, data)

    def _was_taken(self, receipt: Receipt[int | None]) -> bool:
        try:
            receipt.result(0)
        except BrokerUnavailable:
            self.counts["unpublished"] += 1
            return False
        self.counts["published"] += 1
        return True

    # --- what is asked -----------------------------------------------------------------------

    def ask(self, question: Question, address: Address | None = None) -> Receipt[Answers]:
        """Ask every other process; the receipt has what came back within `PATIENCE` seconds.

        From any thread. It fails with `BrokerUnavailable` where nobody can be asked now.
        """
        answers: Receipt[Answers] = Receipt()
        away = BrokerUnavailable(f"{self._broker!r} is away, so no other process can be asked")

        def begin() -> None:
            found = self._ask(question, address)
            found.add_done_callback(lambda: answers.follow(found))

        def give_up() -> None:
            if begin in self._unasked:
                self._unasked.remove(begin)
                answers.fail(away)

        def act() -> None:
            if self.is_ready:
                begin()
            else:  # a process that has just begun to serve is connected in a moment
                self._unasked.append(begin)
                self._home.later(PATIENCE, give_up)

        if not self._home.run(act):
            answers.fail(away)
        return answers

    def _ask(self, question: Question, address: Address | None) -> Receipt[Answers]:
        ask, answers = self._questions.add(question, address)
        published = self._publish(self._all, Envelope(ask, node=self._node))
        published.add_done_callback(lambda: self._asked(ask, published))
        self._home.later(PATIENCE, lambda: self._questions.give_up(ask))
        return answers

    def _asked(self, ask: Ask, published: Receipt[int | None]) -> None:
        try:
            heard = published.result(0)
        except BrokerUnavailable as error:
            self._questions.fail(ask, error)
        else:
            if heard is not None:
                self._questions.expect(ask, max(heard - 1, 0))  # we have heard it, too

    def _answer(self, ask: Ask, asker: str) -> None:
        try:
            answer = Envelope(Answer(ask.id, self._respond(ask)), node=self._node)
        except Exception:  # whoever asks hears nothing, and says that one is missing
            _log.exception("the question %r of node %r could not be answered", ask, asker)
            return
        self._publish(node_channel(self._prefix, asker), answer)

    # --- what the broker tells it (`Subscriber`) ---------------------------------------------

    def received(self, channel: str, data: bytes) -> None:
        """Take what was published, if it can be read and is not our own."""
        now = self._wall()
        envelope = read(
            data, channel=channel, largest=self._largest(), now=now, secret=self._secret
        )
        if isinstance(envelope, Dropped):
            self._drop(channel, envelope)
        elif isinstance(envelope.action, Beat):
            if envelope.node == self._node and channel == self._own:
                self._canary.hear(envelope.action.number, now)
        elif envelope.node != self._node:
            self._take(channel, envelope)

    def _take(self, channel: str, envelope: Envelope) -> None:
        action = envelope.action
        if isinstance(action, Ask):
            self._answer(action, envelope.node)
        elif isinstance(action, Answer):
            self._questions.take(action.id, action.value)
        elif channel == self._own:
            self._hand_over(Address("socket", envelope.socket), envelope)
        elif channel in self._addresses:
            self._hand_over(self._addresses[channel], envelope)
        # else the last socket there has just gone

    def _hand_over(self, address: Address, envelope: Envelope) -> None:
        self.counts["received"] += 1
        self._deliver(address, envelope)

    def _drop(self, channel: str, why: Dropped) -> None:
        name = f"dropped_{why.value}"
        self.counts[name] += 1
        if self.counts[name] == 1:  # the rest is in the counts: whoever writes it may write much
            _log.warning(
                "dropped an envelope on %r: %s; the next are only counted", channel, why.value
            )

    def connected(self) -> None:
        """Hear that all channels are subscribed to."""
        now = self._wall()
        since, self._lost_at = self._lost_at, None
        heard, self.is_ready = self._canary.last_heard, True
        self._canary.restart(now)
        unasked, self._unasked = self._unasked, []
        for begin in unasked:
            begin()
        if since is None:
            _log.info("connected to %r", self._broker)
            return
        since = min(since, heard)
        _log.warning(
            "%r is back after %.1f s; what others sent meanwhile is lost, and %d sends of this "
            "process so far",
            self._broker,
            now - since,
            self.counts["unpublished"],
        )
        self._on_gap(since, now)

    def lost(self, error: Exception) -> None:
        """Hear that nothing comes in any more."""
        self.is_ready = False
        if self._lost_at is None:
            self._lost_at = self._wall()
            self.counts["lost"] += 1
            _log.warning(
                "%r is away (%s): messages go to the sockets of this process only; trying again",
                self._broker,
                error,
            )
