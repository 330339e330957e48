"""The asyncio end of one connection: moves bytes between a transport and a session, and obeys it.

Nothing is decided here that the session or the engine could decide. What is the link's own: how
much is pulled in a turn, when reading pauses for want of room, and the clock. What goes out is in
`outflow`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

from ws_middleware.core.events import Closed, PongReceived, RefusedBySession
from ws_middleware.core.session import Session, State, Wants
from ws_middleware.errors import ConnectionClosed
from ws_middleware.types import UpgradeRequest

from .hub_link import HubLink
from .outflow import Outflow
from .timers import LATE, TICK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ws_middleware.config import EffectivePolicy, Heartbeat
    from ws_middleware.core.events import Event
    from ws_middleware.receipt import Receipt
    from ws_middleware.types import EncodedMessage, Refusal
    from ws_middleware.websocket import WebSocket

    from .runtime import Runtime

__all__ = ["SocketLink"]

#: Events that one peer gets in a turn of the loop; then the others have theirs.
_EVENTS: Final = 256
#: The same in frames that take a parser: one message may be in as many fragments.
_PARSED: Final = 1024
#: How long a peer's messages may go untaken while nobody is in receive().
_UNREAD: Final = 120.0
#: How long the last bytes may take after both sides have ended.
_LAST: Final = 5.0


class Decider(Protocol):
    """Who decides over connections and is told of them: the engine, or an ASGI app's host."""

    def new_session(self, client: tuple[str, int] | None, now: float) -> Session:
        """Return the session of a connection whose head is still to come."""

    def decide(self, link: SocketLink, request: UpgradeRequest, now: float) -> None:
        """Find the verdict over a request and carry it out, now or later."""

    def refused(self, link: SocketLink, event: RefusedBySession, now: float) -> None:
        """Hear that the session refused by itself."""

    def refuse_at_shutdown(self, link: SocketLink) -> None:
        """Answer a request whose verdict will not come any more."""

    def warn_unread(self, websocket: WebSocket, seconds: float) -> None:
        """Hear that a handler has let its messages lie for too long."""

    def closed(self, link: SocketLink, websocket: WebSocket, event: Closed) -> None:
        """Hear that a WebSocket has left OPEN."""


class SocketLink(HubLink, asyncio.BufferedProtocol):
    """One connection, from `connection_made` to `connection_lost`."""

    out: Outflow

    def __init__(
        self,
        engine: Decider,
        runtime: Runtime,
        session: Session | None = None,
        on_request: Callable[[SocketLink, UpgradeRequest, float], None] | None = None,
    ) -> None:
        """`session` and `on_request`: where the head was read, and judged, by somebody else."""
        super().__init__(runtime)
        self._engine = engine
        self._given = session
        self._on_request = on_request or engine.decide
        self._session: Session
        self._transport: asyncio.Transport
        self._obeyed = Wants.READ
        self._reading = True
        self._backlog = False
        self._eof = False
        self._lost = False
        self._holds_end = False
        self._pings: dict[bytes, list[Receipt[float]]] = {}
        self._why: str | None = None
        self._tick: int | None = None
        self._armed: float | None = None
        self._armed_in: State | None = None
        self._expires: float | None = None
        self._unread_since: float | None = None
        self._abort_at: float | None = None

    # --- what asyncio calls ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        now = self.runtime.clock.now()
        self._session = self._given or self._engine.new_session(self._peer(), now)
        self._given = None
        self.out = Outflow(self._transport, self._session, self.runtime.flush_soon)
        self.runtime.add(self)
        self._pull(now)

    def _peer(self) -> tuple[str, int] | None:
        name = self._transport.get_extra_info("peername")
        return (name[0], name[1]) if isinstance(name, tuple) else None

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Lend the loop's one buffer."""
        return self.runtime.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        now = self.runtime.clock.now()
        self._session.receive_data(bytes(self.runtime.buffer[:nbytes]), now)
        self._pull(now)

    def eof_received(self) -> bool:
        """Take the peer's end; the session says what becomes of our half."""
        now = self.runtime.clock.now()
        self._eof = True
        self._session.receive_eof(now)
        self._pull(now)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - a reset is an end
        """Clean up, whatever happened."""
        now = self.runtime.clock.now()
        self._lost = self._eof = True
        self.out.end()
        self._session.receive_eof(now)
        while (event := self._session.next_event(now)) is not None:  # bounded: nothing more comes
            self._handle(event, now)
        self._disarm()
        self.runtime.remove(self)
        self._tell_gone()

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        self.out.pause(self.runtime.clock.now())
        self._arm()

    def resume_writing(self) -> None:
        """It takes more."""
        self.out.resume()

    # --- from the peer -----------------------------------------------------------------------

    def _pull(self, now: float) -> None:
        """Take events while there is room for them, at most so many a turn."""
        session = self._session
        parsed = session.parsed
        for _ in range(_EVENTS):
            websocket = self._websocket
            if websocket is not None and websocket.inbox.is_full and self._is_full():
                break
            is_handled = websocket is None or websocket.inbox.is_handled
            event = session.next_event(now, handled=is_handled)
            if event is not None:
                self._handle(event, now)
            if session.is_drained:
                break
            if session.parsed - parsed > _PARSED:
                self._go_on_soon()
                break
        else:
            self._go_on_soon()
        is_full = self._websocket is not None and self._websocket.inbox.is_full
        if session.has_news or is_full or self._backlog or not self._reading:
            self._settle(now)

    def _settle(self, now: float) -> None:
        """Do what follows from a pull; nothing does from messages that there is room for."""
        session = self._session
        if session.has_backlog:
            self._go_on_soon()
        self._note_room(now)
        self._obey()
        self._holds_end = session.holds_end
        if self._armed is None or session.state is not self._armed_in or self._holds_end:
            self._arm()

    def _go_on_soon(self) -> None:
        """Leave the rest for the next turn, and read nothing more before."""
        if not self._backlog:
            self._backlog = True
            self.runtime.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._backlog = False
        if not self._lost:
            self._pull(self.runtime.clock.now())

    def _is_full(self) -> bool:
        # After an end the rest is bounded, and the end itself is behind it.
        if self._websocket is None or self._eof or self._session.state is not State.OPEN:
            return False
        return self._websocket.inbox.is_full

    def _handle(self, event: Event, now: float) -> None:
        if isinstance(event, (str, bytes)):
            self.taken += 1
            assert self._websocket is not None
            self._websocket.received(event)
        elif isinstance(event, UpgradeRequest):
            self._on_request(self, event, now)
        elif isinstance(event, RefusedBySession):
            self._engine.refused(self, event, now)
        elif isinstance(event, PongReceived):
            self._ponged(event)
        else:
            self._closed(event)

    def _ponged(self, event: PongReceived) -> None:
        if self._websocket is not None:
            self._websocket.latency = event.latency
        for receipt in self._pings.pop(event.payload, ()):
            receipt.resolve(event.latency)

    def _closed(self, event: Closed) -> None:
        if self._why is not None:
            event = Closed(event.code, event.reason, "us", self._why)
        self._expires = self._unread_since = None
        if self._websocket is not None:
            self._engine.closed(self, self._websocket, event)
        error = ConnectionClosed(event.code, event.reason)
        self.out.fail(error)
        pings, self._pings = self._pings, {}
        for receipts in pings.values():
            for receipt in receipts:
                receipt.fail(error)

    def _note_room(self, now: float) -> None:
        """Pause the session while there is no room, and note since when nobody takes anything."""
        if self._is_full():
            if self._unread_since is None:
                self._unread_since = now
                self._session.pause(now)
                self._arm()
        elif self._unread_since is not None:
            self._unread_since = None
            self._session.resume(now)
            self._arm()  # the clock of a ping's answer runs again

    # --- what the session wants --------------------------------------------------------------

    def _obey(self) -> None:
        if self._lost:
            return
        self._session.has_news = False
        wants = self._session.wants
        reading = wants is not Wants.HOLD and not self._backlog
        if reading is not self._reading:
            self._set_reading(reading)
        if wants is not self._obeyed:
            self._obeyed = wants
            if wants is Wants.EOF:
                self._end_our_half()
            elif wants is Wants.ABORT:
                self._let_go()
        if self._session.has_output:
            self.out.flush_soon()

    def _set_reading(self, reading: bool) -> None:  # noqa: FBT001 - a state, not a mode
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _end_our_half(self) -> None:
        self.out.flush()
        if not self._transport.can_write_eof():
            self._let_go()
            return
        try:
            self._transport.write_eof()
        except OSError:  # the peer has reset the connection, and asyncio has not noticed yet
            self._transport.abort()

    def _let_go(self) -> None:
        """End the connection; in peace where the peer has ended it too."""
        self.out.flush()
        if self._eof:
            self._abort_at = self.runtime.clock.now() + _LAST
            self._arm()
            self._transport.close()
        else:
            self._transport.abort()

    # --- the clock ---------------------------------------------------------------------------

    def _arm(self) -> None:
        """Be woken for the first of all deadlines; an earlier one that is set already may stand."""
        self._armed_in = self._session.state
        due = self._due()
        if due is None or self._lost or (self._armed is not None and self._armed <= due):
            return
        self._disarm()
        self._armed = due
        self._tick = self.runtime.wheel.add(self, due)

    def _disarm(self) -> None:
        if self._tick is not None:
            self.runtime.wheel.remove(self, self._tick)
        self._tick = self._armed = None

    def _due(self) -> float | None:
        unread = None if self._unread_since is None else self._unread_since + _UNREAD
        deadlines = (
            self._session.next_deadline(),
            self._expires,
            self._abort_at,
            self.out.deadline,
            unread,
        )
        return min((each for each in deadlines if each is not None), default=None)

    def handle_timeout(self, now: float, late: float) -> None:
        """Look what is due."""
        self._tick = self._armed = None
        if late > LATE:
            # A tick more, for the deadline lies up to one before its tick: so it lies ahead of now,
            # and what has come meanwhile is read before it is looked at again.
            self._session.loop_stood_still(late + TICK)
        self._session.handle_timeout(now)
        if self._expires is not None and now >= self._expires:
            self.close(4401, "credential_expired", why="credential_expired")
        if self.out.is_stalled(now):
            self._drop(f"write_timeout: {self.out.waiting[0]} bytes not taken")
        if self._unread_since is not None and now >= self._unread_since + _UNREAD:
            self._unread(now)
        if self._abort_at is not None and now >= self._abort_at:
            self._abort_at = None
            self._transport.abort()
        self._pull(now)
        self._arm()

    def _unread(self, now: float) -> None:
        if self._websocket is None or self._websocket.is_waited_for:
            self._unread_since = now
            return
        self._engine.warn_unread(self._websocket, _UNREAD)
        self.close(1008, "messages_not_taken", why="messages_not_taken")

    # --- what the engine tells it ------------------------------------------------------------

    def accept(
        self,
        websocket: WebSocket,
        policy: EffectivePolicy,
        headers: Iterable[tuple[str, str]],
        expires: float | None,
    ) -> None:
        """Answer 101. `expires` is monotonic.

        Raises:
            ValueError: a header is not allowed in HTTP; the verdict is still out.
        """
        now = self.runtime.clock.now()
        self._session.accept(policy, subprotocol=websocket.subprotocol, headers=headers, now=now)
        self._websocket = websocket
        self.out.open(policy.limits, policy.slow)
        self.out.flush_soon()  # before the handler's first step, which may hold the loop
        self._expires = expires
        self._disarm()

    def begin(self) -> None:
        """Pull what came early, now that there is somebody to take it."""
        if not self._lost:
            self._pull(self.runtime.clock.now())

    def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal.

        Raises:
            ValueError: a header is not allowed in HTTP; the verdict is still out.
        """
        if self._session.state is State.DECIDING:
            now = self.runtime.clock.now()
            self._session.refuse(refusal, now)
            self._disarm()
            self._pull(now)

    @property
    def is_deciding(self) -> bool:
        """Whether a verdict is still wanted."""
        return self._session.state is State.DECIDING and not self._lost

    def shut(self, code: int, reason: str) -> None:
        """Close at shutdown, whatever state it is in."""
        if self._session.state is State.OPEN:
            self.close(code, reason, why="shutdown")
        elif self._session.state is State.HEAD:
            self._drop("shutdown")
        elif self._session.state is State.DECIDING:
            self._engine.refuse_at_shutdown(self)

    @property
    def is_gone(self) -> bool:
        """Whether the connection is lost."""
        return self._lost

    @property
    def fileno(self) -> int:
        """The descriptor, for a forked child to let go of; -1 if there is none any more."""
        sock = self._transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    # --- what a websocket and the hub tell it (`types.Connection`) -----------------------

    def _take(self, message: str | bytes | EncodedMessage) -> bool:
        """Queue a message; False if the socket has ended, or ends because this is too much."""
        if self._session.state is not State.OPEN or self._websocket is None:
            return False
        if not self.out.send(message):
            self.too_slow()
            return False
        self.sent += 1
        return True

    def ping(self, receipt: Receipt[float]) -> None:
        """Send a ping whose pong resolves `receipt`."""
        if self._session.state is not State.OPEN:
            receipt.fail(self._ended())
            return
        payload = self._session.ping(self.runtime.clock.now())
        self._pings.setdefault(payload, []).append(receipt)
        self._obey()

    def set_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        """Ping by this from now on, in the place of the policy's; `None`: not at all."""
        if self._session.state is State.OPEN:
            self._session.set_heartbeat(heartbeat, self.runtime.clock.now())
            self._arm()

    def close(self, code: int, reason: str, why: str | None = None) -> None:
        """Start the closing handshake, after all that was sent before. `why` is for the log."""
        if self._session.state is not State.OPEN:
            return
        self._why = self._why or why
        self.out.hand_over()
        now = self.runtime.clock.now()
        self._session.close(code, reason, now)
        self._disarm()
        self._pull(now)

    def abort(self) -> None:
        """Drop the connection."""
        self._drop("terminated")

    def _drop(self, why: str) -> None:
        if not self._lost:
            self._why = self._why or why
            self._transport.abort()

    def resume(self) -> None:
        """The handler is ready for more."""
        if (self._unread_since is not None or self._holds_end) and not self._lost:
            self._pull(self.runtime.clock.now())
