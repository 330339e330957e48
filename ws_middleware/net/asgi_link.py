"""The ASGI end of one connection: a server's `receive` and `send`, as a link.

The server owns the bytes: frames, pings and the closing handshake are its own. What is ours: one
task that receives (`asgi_incoming`), the order of what goes out (`asgi_outgoing`), a look at the
clock (`asgi_stalled`, `asgi_heartbeat`), and the last means to end a connection (`asgi_cut`).
"""

from __future__ import annotations

import asyncio
from enum import IntEnum, auto
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.config import DEFAULT_LIMITS
from ws_middleware.core.events import Closed
from ws_middleware.errors import ConnectionClosed
from ws_middleware.inbox import Inbox

from .asgi_cut import Cut
from .asgi_heartbeat import Hold, heartbeat_of
from .asgi_incoming import Incoming
from .asgi_messages import accept_event, close_event, message_of, refusal_of_close
from .asgi_outgoing import Outgoing, PeerGone
from .asgi_stalled import SendWatch
from .control import ping, set_heartbeat
from .deadlines import Deadlines
from .hub_link import HubLink

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping
    from typing import Literal

    from ws_middleware.config import EffectivePolicy
    from ws_middleware.receipt import Receipt
    from ws_middleware.types import EncodedMessage
    from ws_middleware.websocket import WebSocket

    from .asgi_guard import GuardedApp
    from .asgi_heartbeat import AppHeartbeat
    from .asgi_outgoing import Event, Receive, Send
    from .engine import Engine
    from .runtime import Runtime

__all__ = ["ASGILink", "PeerGone", "Phase"]

#: How long a peer's messages may go untaken while nobody is in receive(): as on our own port.
_UNREAD: Final = 120.0
#: Seconds that a peer which shows no life has to hear so, before its connection is cut.
_LAST_CALL: Final = 1.0


class Phase(IntEnum):
    """How far a connection is; it only goes forward."""

    #: Nobody has accepted it: what is sent waits.
    WAITING = auto()
    OPEN = auto()
    #: A close is on its way out.
    CLOSING = auto()
    CLOSED = auto()


class ASGILink(HubLink):
    """One connection. Made, and touched unless said otherwise, on its runtime's loop."""

    out: Outgoing

    def __init__(
        self,
        engine: Engine,
        runtime: Runtime,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
        look: asyncio.Task[Event] | None = None,
    ) -> None:
        """`look`: a receive that is under way already."""
        super().__init__(runtime)
        self.scope = scope
        self.phase = Phase.WAITING
        #: Who accepts it, where that is not us.
        self.app: GuardedApp | None = None
        #: What an authenticator adds to the 101.
        self.headers: tuple[tuple[str, str], ...] = ()
        self.deadlines = Deadlines(runtime.wheel)
        #: Done when nothing more comes or goes.
        self.finished: asyncio.Future[None] = runtime.loop.create_future()
        self._incoming = Incoming(runtime, receive, look, self)
        self.out = Outgoing(runtime, send)
        self.out.on_lost = self.lost
        # granian sends no close frame under a receive that waits.
        self.out.on_last = self._incoming.stop
        self.out.on_end = self.finish
        self._watch = SendWatch(self.out, self.deadlines, self._drop)
        may_cut = engine.settings.abort_by_descriptor
        self._cut = Cut(runtime, scope, send, by_descriptor=may_cut)
        self._heartbeat: AppHeartbeat | None = None
        self._engine = engine
        #: Where messages wait for whoever takes them.
        self._inbox = Inbox(DEFAULT_LIMITS)
        self._is_told = False
        self._limits = DEFAULT_LIMITS
        runtime.add(self)

    @property
    def is_gone(self) -> bool:
        """Whether nothing more comes or goes."""
        return self.phase is Phase.CLOSED

    @property
    def websocket(self) -> WebSocket:
        """What the hub has of it; there is one when the engine has opened it."""
        assert self._websocket is not None
        return self._websocket

    # --- what the engine tells it ------------------------------------------------------------

    def accept(
        self,
        websocket: WebSocket,
        policy: EffectivePolicy,
        headers: Iterable[tuple[str, str]],
        expires: float | None,
    ) -> None:
        """Take what was decided. `expires` is monotonic."""
        self._websocket = websocket
        self._inbox = websocket.inbox if self.app is None else self.app.inbox
        self._limits = policy.limits
        self._watch.open(policy.limits)
        self.headers = tuple(headers)
        self.out.open(policy.limits, policy.slow)
        if policy.heartbeat_is_given:
            set_heartbeat(self.scope, policy.heartbeat)
        if expires is not None:
            self.deadlines.at(expires, self._expired)
        self._heartbeat = heartbeat_of(self, policy.heartbeat, self._engine.jitter())

    def begin(self) -> None:
        """Read what the server says: that the peer hangs up is to be seen before any answer."""
        if self.phase is not Phase.CLOSED:
            self._incoming.start()

    # --- the answer to the upgrade request ---------------------------------------------------

    async def answer(self) -> None:
        """Answer 101 by itself: where there is no wrapped app to do it."""
        try:
            await self.out.put(accept_event(self.websocket.subprotocol, self.headers))
        except Exception as error:
            self.lost(f"send failed: {type(error).__name__}")
        else:
            self.opened()

    def tell_open(self) -> None:
        """A wrapped app has accepted it: it counts as open, which is said once."""
        if not self._is_told:
            self._is_told = True
            self._engine.answered(self.websocket)

    def opened(self) -> None:
        """The 101 is out: what has waited follows it."""
        if self.phase is Phase.WAITING:
            self.phase = Phase.OPEN
            if self._heartbeat is not None:
                self._heartbeat.begin()
        if self.phase is not Phase.CLOSED:
            self.out.release()

    # --- what the server says ----------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """Whether nothing more is read for now."""
        # When it closes the end is behind what still comes.
        return self._inbox.is_full and self.phase < Phase.CLOSING

    @property
    def has_room(self) -> bool:
        """Whether enough has been taken since for reading to go on."""
        inbox = self._inbox
        return len(inbox) * 2 <= self._limits.inbound_messages and not inbox.is_full

    def note_wait(self, *, waits: bool) -> None:
        """Note since when no handler takes anything; a wrapped app may take its time."""
        if waits and self.app is None:
            self.deadlines.at(self.runtime.clock.now() + _UNREAD, self._unread)
        else:
            self.deadlines.drop(self._unread)
        if self._heartbeat is not None:
            (self._heartbeat.hold if waits else self._heartbeat.go_on)(Hold.READING)

    def received(self, event: Event) -> None:
        """Take an event of the server's that is not the last."""
        message = message_of(event)
        if message is None or self.phase >= Phase.CLOSING:
            return
        if self._heartbeat is not None and self._heartbeat.received(message):
            return
        most = self._limits.message_size
        size = len(message) if isinstance(message, bytes) else _size_of(message, most)
        if most is not None and size > most:
            why = f"message_too_big: {size} bytes, message_size is {most}"
            self.close(1009, "message_too_big", why=why)
            return
        self.taken += 1
        if self.app is not None:
            self.app.received(message)
        else:
            self.websocket.received(message)

    def disconnected(self, event: Event) -> None:
        """Take the server's word that the peer is gone."""
        hangs = self.out.since is not None
        code = event.get("code")
        code = code if isinstance(code, int) else 1005
        self.end(Closed(code, str(event.get("reason") or ""), "peer", "closed"))
        if hangs:  # the server may end, and wait for a peer that takes nothing
            self._cut.rest_in(self._limits.close_timeout)

    def lost(self, why: str) -> None:
        """The connection ended without a word."""
        self.end(Closed(1006, "", "peer", why))

    # --- the end -----------------------------------------------------------------------------

    def close(self, code: int, reason: str, why: str | None = None) -> None:
        """Close, after all that was sent before. `why` is for the log."""
        if self.phase >= Phase.CLOSING:
            return
        closed = Closed(code, reason, "us", why or "closed")
        if self.app is not None and not self.app.is_answered:
            self.app.turn_away(refusal_of_close(code, reason), closed)
            return
        self.begin_to_end(closed)
        self.out.end(close_event(code, reason, self.scope))

    def server_ends(self) -> None:
        """The server has cancelled us: say so, and cut a peer later that it goes on to wait for."""
        self.close(1012, "restart", why="cancelled")
        self._cut.rest_in(self._limits.close_timeout)

    def begin_to_end(self, closed: Closed) -> None:
        """Say here that it ends; the peer is still to hear it."""
        self.phase = Phase.CLOSING
        self.deadlines.drop(self._expired)
        self.deadlines.at(self.runtime.clock.now() + self._limits.close_timeout, self._not_closed)
        self._tell(closed)
        self._incoming.wake()

    def end(self, closed: Closed) -> None:
        """Nothing more comes or goes."""
        if self.phase is Phase.CLOSED:
            return
        if self.phase is not Phase.CLOSING:
            self.phase = Phase.CLOSING
            self._tell(closed)
        self.finish()

    def _tell(self, closed: Closed) -> None:
        """Tell everybody here, once, that it has left OPEN, or will never come to it."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        websocket = self._websocket
        if websocket is not None and not websocket.closed:
            if self.app is None:
                self._engine.closed(self, websocket, closed)
            elif self.app.has_accepted:
                self.tell_open()
                self._engine.closed(self, websocket, closed)
            else:
                self._engine.turned_away(self, websocket, closed, self.app.refusal)
        self.out.fail(ConnectionClosed(closed.code, closed.reason))
        if self.app is not None:
            self.app.disconnected(closed.code, closed.reason)

    def finish(self) -> None:
        """Let go of everything, and end whoever waits."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self.deadlines.clear()
        self.out.give_up()
        self._incoming.stop()
        self.runtime.remove(self)
        self._tell_gone()
        if not self.finished.done():
            self.finished.set_result(None)

    async def wait_finished(self, timeout: float | None = None) -> None:
        """Wait until nothing more comes or goes."""
        await asyncio.wait({self.finished}, timeout=timeout)

    def let_go(self) -> None:
        """The server's task ends: whatever state this is in, it holds nothing any more."""
        if self.runtime.loop.is_closed():
            self.forsake()
        else:
            self.end(Closed(1006, "", "us", "abandoned"))

    def forsake(self) -> None:
        """The loop was closed under it: give back what it holds elsewhere. From any thread."""
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.CLOSED
            if self.on_lost is not None:
                self.on_lost()
            if self._websocket is not None:
                self._engine.forget(self._websocket)

    # --- the clock ---------------------------------------------------------------------------

    def _expired(self, now: float) -> None:  # noqa: ARG002 - see `Deadlines`
        self.close(4401, "credential_expired", why="credential_expired")

    def _not_closed(self, now: float) -> None:  # noqa: ARG002
        self._drop("close_timeout")

    def no_pong(self) -> None:
        """The peer is dead. It is told, for it may only have been asleep."""
        self.out.drop()
        self.close(1011, "no_pong", why="no_pong")
        if self.app is not None:
            self.app.give_up()
        self._cut.rest_in(_LAST_CALL)

    def _unread(self, now: float) -> None:
        if self.websocket.is_waited_for:
            self.deadlines.at(now + _UNREAD, self._unread)
            return
        self._engine.warn_unread(self.websocket, _UNREAD)
        self.close(1008, "messages_not_taken", why="messages_not_taken")

    # --- what a websocket and the hub tell it (`types.Connection`) ---------------------------

    def _take(self, message: str | bytes | EncodedMessage) -> bool:
        if self.phase >= Phase.CLOSING or self._websocket is None:
            return False
        if not self.out.queue(message):
            self.too_slow()
            return False
        self.sent += 1
        return True

    def ping(self, receipt: Receipt[float]) -> None:
        """Send a ping whose pong resolves `receipt`, if the server lets us."""
        if self.phase is not Phase.OPEN:
            receipt.fail(self._ended())
        else:
            ping(self.scope, receipt, self._ended, self.note_latency)

    def note_latency(self, seconds: float) -> None:
        """Hear how long a ping took."""
        self.websocket.latency = seconds

    def resume(self) -> None:
        """Something has been taken."""
        self._incoming.resume()

    def abort(self) -> None:
        """Drop the connection."""
        self._drop("terminated")

    def _drop(self, why: str) -> None:
        """Give the peer up: end it here, and the connection by whatever means there is."""
        if self.phase is Phase.CLOSED:
            return
        hangs = self.out.since is not None
        by: Literal["us", "peer"] = "us" if why == "terminated" else "peer"
        self.end(Closed(1006, "", by, why))
        if self.app is not None:
            self.app.give_up()
        self._cut.now(hangs=hangs)

    # --- what a runtime does with it ---------------------------------------------------------

    def shut(self, code: int, reason: str) -> None:
        """Close at shutdown."""
        self.close(code, reason, why="shutdown")


def _size_of(text: str, most: int | None) -> int:
    """Return the size in bytes, measured only where it matters."""
    return len(text) if most is None or len(text) * 4 <= most else len(text.encode())
