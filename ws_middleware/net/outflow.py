"""What goes out of one link: one write for all that a turn produces, and a bound on what waits.

While the transport takes what it is given, messages go through the session at once and are written
together at the end of the turn. When it does not, they wait here as whole messages, so that they
can be counted and dropped. "Waiting" is what the kernel has not taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ws_middleware.core.session import State
from ws_middleware.receipt import Receipt

from .outbox import Outbox

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ws_middleware.config import Limits, Slow
    from ws_middleware.core.session import Session
    from ws_middleware.types import EncodedMessage

__all__ = ["HIGH", "Outflow"]

#: Bytes that may wait for a peer before a sender who waits for its receipts is told to.
HIGH: Final = 64 * 1024
_LOW: Final = 16 * 1024


class Outflow:
    """The sending side of one link, from the 101 on."""

    __slots__ = (
        "_burst",
        "_drains",
        "_flush_soon",
        "_is_asked",
        "_is_over",
        "_limits",
        "_outbox",
        "_paused",
        "_session",
        "_stalled",
        "_transport",
        "_unflushed",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        session: Session,
        flush_soon: Callable[[Outflow], None],
    ) -> None:
        """`flush_soon` has `flush` called at the end of the turn."""
        transport.set_write_buffer_limits(high=HIGH, low=_LOW)
        self._transport = transport
        self._session = session
        self._flush_soon = flush_soon
        self._is_asked = False
        self._is_over = False
        self._outbox: Outbox | None = None
        self._limits: Limits | None = None
        self._drains: list[Receipt[None]] = []
        self._paused = False
        self._unflushed = 0
        self._burst = 0
        self._stalled: tuple[float, int] | None = None

    def open(self, limits: Limits, slow: Slow = "close") -> None:
        """Take messages, within `limits`; `slow` says what becomes of one too many."""
        self._limits = limits
        self._outbox = Outbox(limits, slow)

    @property
    def dropped(self) -> int:
        """How many messages were dropped for newer ones."""
        return 0 if self._outbox is None else self._outbox.dropped

    @property
    def may_drop(self) -> bool:
        """Whether one message too many costs messages, and not the socket. From any thread."""
        return self._outbox is not None and self._outbox.may_drop

    def drop_one(self) -> None:
        """Count a message that did not even get here."""
        if self._outbox is not None:
            self._outbox.dropped += 1

    @property
    def waiting(self) -> tuple[int, int]:
        """How many bytes and how many messages wait."""
        outbox = self._outbox
        size = self._transport.get_write_buffer_size() + self._unflushed
        return (size, 0) if outbox is None else (size + outbox.bytes, len(outbox))

    def send(self, message: str | bytes | EncodedMessage) -> bool:
        """Take a message for an open session; False if too much waits for this peer."""
        assert self._outbox is not None
        if self._paused:  # whatever waits in the outbox waits for that
            elsewhere = self._transport.get_write_buffer_size() + self._unflushed
            return self._outbox.put(message, elsewhere)
        size = self._session.send(message)
        self._unflushed += size
        self._burst += size
        if self._unflushed >= HIGH:
            self._write()
        if not self._is_asked:
            self._is_asked = True
            self._flush_soon(self)
        return True

    def drained(self) -> Receipt[None] | None:
        """Return a receipt for when less than `HIGH` waits; `None` if that is so.

        A sender who has had `HIGH` bytes of this turn waits too, for the others on the loop.
        """
        if not self._paused and self._burst < HIGH:
            return None
        receipt: Receipt[None] = Receipt()
        self._drains.append(receipt)
        return receipt

    def flush_soon(self) -> None:
        """Be flushed at the end of this turn, once."""
        if not self._is_asked:
            self._is_asked = True
            self._flush_soon(self)

    def flush(self) -> None:
        """Write what the turn has produced. A close goes out whatever the transport says."""
        self._is_asked = False
        if self._is_over:
            return
        self._burst = 0
        if not self._paused or self._session.state is not State.OPEN:
            self._write()
        if self._drains:
            self._settle()

    def end(self) -> None:
        """The connection is gone: write nothing any more."""
        self._is_over = True

    def _write(self) -> None:
        self._unflushed = 0
        data = self._session.data_to_send()
        if data:
            self._transport.write(data)

    def pause(self, now: float) -> None:
        """The kernel takes no more."""
        self._paused = True
        self._stalled = (now, self._transport.get_write_buffer_size())

    def resume(self) -> None:
        """It takes more: hand on what waited, until it has enough again."""
        self._paused = False
        self._stalled = None
        while self._outbox and not self._paused and self._session.state is State.OPEN:
            while self._outbox and self._unflushed < HIGH:
                self._unflushed += self._session.send(self._outbox.take())
            self._write()
        if self._session.has_output and not self._paused:  # pings and pongs wait in the session
            self.flush_soon()
        self._settle()

    def hand_over(self) -> None:
        """Give the session all that waits: a close frame comes behind it."""
        while self._outbox:
            self._session.send(self._outbox.take())

    def drop(self) -> None:
        """Forget the messages that wait."""
        if self._outbox is not None:
            self._outbox.clear()

    def _settle(self) -> None:
        if self._drains and not self._paused:
            drains, self._drains = self._drains, []
            for receipt in drains:
                receipt.resolve(None)

    def fail(self, error: Exception) -> None:
        """Nobody will be told any more that it has been sent."""
        drains, self._drains = self._drains, []
        for receipt in drains:
            receipt.fail(error)

    # --- a peer that takes nothing at all ----------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `is_stalled` is worth asking."""
        if self._stalled is None or self._limits is None:
            return None
        return self._stalled[0] + self._limits.write_timeout

    def is_stalled(self, now: float) -> bool:
        """Whether the kernel has taken nothing for `write_timeout`; progress starts it anew."""
        deadline = self.deadline
        if deadline is None or self._stalled is None:
            return False
        left = self._transport.get_write_buffer_size()
        if left < self._stalled[1]:
            self._stalled = (now, left)
            return False
        return now >= deadline
