"""What a handler holds: one WebSocket, usable from any thread.

Nothing here is I/O. What it asks for is done by a `Connection`, on that connection's own loop; from
another thread it is posted there, in order. What can be wrong with a call (types, sizes, codes,
names) is checked in the caller's thread, where the exception belongs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

from .codec import dump_json, load_json
from .codes import check_close
from .errors import ConnectionClosed, MessageTooBig, TooManyRooms
from .inbox import Inbox
from .names import Name, as_name
from .native import Lock
from .receipt import Receipt
from .types import EncodedMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import Limits
    from .types import Connection, Principal, UpgradeRequest

__all__ = ["WebSocket"]

_READY: Final[Receipt[None]] = Receipt.ready(None)

#: Messages that a handler takes in one turn of the loop; then the others have theirs.
_STREAK: Final = 64

#: Guards what threads have posted; held for an addition. (A child of a fork has no
#: open websocket, so it never needs this one.)
_posting: Final = Lock()


class WebSocket:
    """One open WebSocket.

    `send`, `ping` and `close` act at once, from any thread, and return a `Receipt`: `await` it on
    the loop, call `.result()` in a thread, or ignore it.
    """

    __slots__ = (
        "__weakref__",
        "_close_code",
        "_close_reason",
        "_closed_by_us",
        "_closing",
        "_limits",
        "_posted",
        "_posted_bytes",
        "_rooms",
        "_streak",
        "_waiter",
        "closes_for_gap",
        "id",
        "inbox",
        "latency",
        "link",
        "path_params",
        "request",
        "route",
        "route_name",
        "subprotocol",
        "user",
        "user_id",
    )

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - its public name
        link: Connection,
        route: Any,  # noqa: ANN401 - a Route; this module does not know it
        request: UpgradeRequest,
        user: Principal,
        subprotocol: str | None,
        limits: Limits,
        closes_for_gap: bool = False,
    ) -> None:
        #: Unique over all processes; begins with its node's.
        self.id = id
        self.link = link
        #: The route that serves it.
        self.route = route
        self.route_name: str = route.name
        #: The upgrade request, without its credential.
        self.request = request
        self.path_params: Mapping[str, Any] = request.path_params
        #: Who it is.
        self.user = user
        self.user_id = user.id
        self.subprotocol = subprotocol
        self.closes_for_gap = closes_for_gap
        #: Seconds from the last ping to its pong; `None` before the first.
        self.latency: float | None = None
        self._limits = limits
        #: Where the link puts what arrives.
        self.inbox = Inbox(limits)
        self._rooms: frozenset[str] = frozenset()
        self._waiter: asyncio.Future[None] | None = None
        self._close_code: int | None = None
        self._close_reason = ""
        #: What threads have sent and the loop has not taken; made when one does.
        self._posted: deque[tuple[EncodedMessage, Receipt[None]]] | None = None
        self._posted_bytes = 0
        self._streak = 0
        #: What `close` was called with, before the loop has come to it.
        self._closing: tuple[int, str] | None = None
        self._closed_by_us = False

    # --- what it is --------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether no message can come or go any more."""
        return self._close_code is not None

    @property
    def close_code(self) -> int | None:
        """The code that ended it (1006: no close frame), `None` while it is open."""
        return self._close_code

    @property
    def close_reason(self) -> str:
        """The reason that came with the code."""
        return self._close_reason

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms it is in."""
        return self._rooms

    def __repr__(self) -> str:
        state = f"closed {self._close_code}" if self.closed else "open"
        return f"<WebSocket {self.id} {self.route_name} {state}>"

    # --- sending -----------------------------------------------------------------------------

    def send(self, message: str | bytes) -> Receipt[None]:
        """Send a text (`str`) or binary (`bytes`) message.

        The receipt resolves when fewer than 64 KiB wait for this peer, so that waiting for it keeps
        pace with the peer; on a closed socket it raises `ConnectionClosed`.

        Raises:
            TypeError: the message is neither text nor bytes.
            ValueError: a text holds a lone surrogate.
            MessageTooBig: it is over `Limits.outbound_bytes`.
        """
        if self._closing is not None or self._close_code is not None:
            return Receipt.failed(self._ended())
        if isinstance(message, str):
            if len(message) * 4 > self._limits.outbound_bytes:
                self._check_size(len(message.encode()))
        elif isinstance(message, (bytes, bytearray, memoryview)):
            message = bytes(message)
            self._check_size(len(message))
        else:
            EncodedMessage(message)  # raises the TypeError
        link = self.link
        if link.is_current():
            return link.send(message) or _READY
        return self._post_send(EncodedMessage(message))

    def _post_send(self, message: EncodedMessage) -> Receipt[None]:
        """Send from another thread: bytes on their way to the loop wait for the peer, too."""
        receipt: Receipt[None] = Receipt()
        with _posting:
            if self._posted is None:
                self._posted = deque()
            dropped = self._make_room(self._posted, len(message))
            if dropped is not None:
                self._posted.append((message, receipt))
                self._posted_bytes += len(message)
        if dropped is None:
            self.link.run(self.link.too_slow)
            receipt.fail(self._ended())
            return receipt
        for each in dropped:
            each.resolve(None)
        if not self.link.run(self._send_posted):
            receipt.fail(self._ended())
        return receipt

    def _make_room(
        self, posted: deque[tuple[EncodedMessage, Receipt[None]]], size: int
    ) -> list[Receipt[None]] | None:
        """Return the receipts of what had to be dropped; `None` if nothing may be."""
        dropped: list[Receipt[None]] = []
        while self._posted_bytes + size > self._limits.outbound_bytes:
            if not self.link.may_drop:
                return None
            message, receipt = posted.popleft()
            self._posted_bytes -= len(message)
            dropped.append(receipt)
        return dropped

    def _send_posted(self) -> None:
        with _posting:
            message, receipt = self._posted.popleft() if self._posted else (None, _READY)
            self._posted_bytes -= 0 if message is None else len(message)
        if message is None:  # it has made room for a later one
            self.link.too_slow()
            return
        waiting = self.link.send(message)
        if waiting is None:
            receipt.resolve(None)
        else:
            waiting.add_done_callback(lambda: receipt.follow(waiting))

    def _check_size(self, size: int) -> None:
        if size > self._limits.outbound_bytes:
            msg = (
                f"the message has {size} bytes, Limits.outbound_bytes of {self.route_name} is "
                f"{self._limits.outbound_bytes}; send it in parts or raise it"
            )
            raise MessageTooBig(msg)

    def send_json(self, value: object) -> Receipt[None]:
        """Send `value` as JSON text.

        Raises:
            TypeError: it holds what JSON has no form for.
            ValueError: it holds a NaN or an infinity.
            MessageTooBig: it is over `Limits.outbound_bytes`.
        """
        return self.send(dump_json(value))

    def ping(self) -> Receipt[float]:
        """Send a ping; the receipt resolves with the seconds until its pong came."""
        receipt: Receipt[float] = Receipt()
        if self.closed or not self.link.run(lambda: self.link.ping(receipt)):
            receipt.fail(self._ended())
        return receipt

    def close(self, code: int = 1000, reason: str = "") -> Receipt[None]:
        """Start the closing handshake; the receipt resolves when the connection is gone.

        Closing twice is nothing: the first code counts.

        Raises:
            ValueError: the code or the reason may not be sent (RFC 6455 section 7.4, 5.5).
        """
        check_close(code, reason)
        self._closing = self._closing or (code, reason)
        receipt: Receipt[None] = Receipt()

        def close() -> None:
            self.link.close(code, reason)
            self.link.when_gone(receipt)

        if not self.link.run(close):
            receipt.resolve(None)
        return receipt

    def terminate(self) -> None:
        """Drop the connection without a closing handshake; the peer sees 1006."""
        self.link.run(self.link.abort)

    # --- rooms -------------------------------------------------------------------------------

    def join(self, room: Name) -> None:
        """Enter a room. A send to the room that this thread makes afterwards reaches it.

        A socket that has ended enters none.

        Raises:
            TypeError, ValueError: it is no name for a room.
            TooManyRooms: it would be one more than `Limits.rooms_per_socket`.
        """
        name = as_name(room, "room")
        if self.closed:
            return
        most = self._limits.rooms_per_socket
        if name not in self._rooms and most is not None and len(self._rooms) >= most:
            msg = f"socket {self.id} is in {most} rooms already (Limits.rooms_per_socket)"
            raise TooManyRooms(msg)
        self._rooms |= {name}
        self.link.run(lambda: self.link.join(name))

    def leave(self, room: Name) -> None:
        """Leave a room; leaving one it is not in is nothing."""
        name = as_name(room, "room")
        self._rooms -= {name}
        self.link.run(lambda: self.link.leave(name))

    # --- receiving, on the socket's own loop -------------------------------------------------

    async def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message, `str` for text and `bytes` for binary.

        Args:
            timeout: seconds to wait; `None` for as long as it takes. Nothing is lost by it.

        Raises:
            TimeoutError: none came in time.
            ConnectionClosed: the socket has ended, and all that came before has been taken.
            RuntimeError: another task is in `receive`, or this is not the socket's loop.
        """
        if not self.link.is_current():
            msg = (
                "receive() belongs on the socket's own loop; use send() to reach it from elsewhere"
            )
            raise RuntimeError(msg)
        inbox = self.inbox
        self._streak += 1
        if self._streak > _STREAK and inbox.messages:
            # With more there at once, nothing here would ever wait, and nobody else have a turn.
            self._streak = 0
            await asyncio.sleep(0)
        while not inbox.messages:
            self._streak = 0
            await self._wait(timeout)
        message = inbox.take()
        self.link.resume()
        return message

    async def _wait(self, timeout: float | None) -> None:
        """Wait until a message has come, which another task may have taken since, or none will."""
        if self._close_code is not None:
            raise self._ended()
        if self._waiter is not None:
            msg = "another task is already waiting in receive()"
            raise RuntimeError(msg)
        self._waiter = asyncio.get_running_loop().create_future()
        self.inbox.in_hand = False
        self.link.resume()
        try:
            if timeout is None:  # asyncio.timeout costs as much as all the rest of a message
                await self._waiter
            else:
                async with asyncio.timeout(timeout):
                    await self._waiter
        finally:
            self._waiter = None

    async def receive_json(self, timeout: float | None = None) -> Any:  # noqa: ANN401 - it is JSON
        """Return what the next message holds, as JSON.

        Raises:
            BadMessage: it is not JSON; unhandled, the socket closes with 1007.
            TimeoutError, ConnectionClosed: as `receive`.
        """
        return load_json(await self.receive(timeout))

    def __aiter__(self) -> Self:
        """Iterate over the messages until the socket ends, however it ends."""
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None

    async def wait_closed(self) -> None:
        """Wait until the socket ends; what arrives meanwhile is thrown away."""
        self.inbox.discarding = True
        self.inbox.clear()
        self.inbox.in_hand = False
        self.link.resume()
        try:
            while not self.closed:
                await self._wait(None)
        finally:
            self.inbox.discarding = False

    # --- what the link tells it, on the loop -------------------------------------------------

    @property
    def close_called(self) -> bool:
        """Whether our own side has called `close`."""
        return self._closing is not None

    @property
    def ended_by_us(self) -> bool:
        """Whether our own side has closed it, or asked for that: then no message is handled."""
        return self.close_called or self._closed_by_us

    @property
    def is_waited_for(self) -> bool:
        """Whether a handler is in `receive` right now."""
        return self._waiter is not None

    def received(self, message: str | bytes) -> None:
        """Take a message from the link."""
        waiter = self._waiter
        if self.inbox.put(message) and waiter is not None and not waiter.done():
            waiter.set_result(None)

    def ended(self, code: int, reason: str, *, by_us: bool) -> None:
        """Take the end from the link. What we ended has nothing more to say to the handler."""
        if self._close_code is not None:
            return
        self._closed_by_us = by_us
        self._close_code, self._close_reason = code, reason
        self._rooms = frozenset()
        if by_us:
            self.inbox.clear()
        self._wake()
        if self.inbox.on_message is not None:
            self.inbox.on_message()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _ended(self) -> ConnectionClosed:
        if self._close_code is None and self._closing is not None:
            return ConnectionClosed(*self._closing)
        return ConnectionClosed(self._close_code or 1006, self._close_reason)
