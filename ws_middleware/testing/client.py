"""The client's end of a test connection, and what a test does with it."""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Self

from ws_middleware.codec import dump_json, load_json
from ws_middleware.errors import ConnectionClosed

from .frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from ws_middleware.net.link import SocketLink

    from .control import FakeControl
    from .stage import Stage
    from .transport import MemoryTransport

__all__ = ["Answer", "ClientSocket"]

#: A close frame without a code, and no close frame at all (RFC 6455 section 7.4.1).
_NO_CODE: Final = 1005
_NO_FRAME: Final = 1006
#: Virtual seconds that the server may take to answer a close frame.
_CLOSING: Final = 10.0


class Answer:
    """The head and the body of an HTTP answer, as they come."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self._head = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return what is behind the head of a 101."""
        if self.status is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return b""
            first, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(first.split(" ")[1])
            pairs = (line.partition(":") for line in lines)
            self.headers = [(name, value.strip()) for name, _, value in pairs]
        if self.status == 101:  # noqa: PLR2004 - Switching Protocols
            return data
        self.body += data
        return b""

    def header(self, name: str) -> str | None:
        """Return the value of a header, or `None`."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class ClientSocket:
    """One client of the app under test. Made by `connect`.

    Whatever it does is followed to its end before it returns: after `send` the handler has run, as
    far as it goes without time passing. A context manager: at the end it closes the socket, and
    raises what a handler of this socket has raised.
    """

    def __init__(
        self,
        stage: Stage,
        address: tuple[str, int],
        *,
        answer_pings: bool,
        raise_errors: bool,
    ) -> None:
        #: The address that the server sees.
        self.address = address
        #: The code that ended it, `None` while it is open; 1006 where no close frame came.
        self.close_code: int | None = None
        #: The reason that came with the code.
        self.close_reason = ""
        #: What handlers of this socket raised; each is logged, too, and closes it with 1011.
        self.errors: list[BaseException] = []
        #: How many pings came.
        self.pings = 0
        #: Whether a ping is answered, as every browser does by itself.
        self.answer_pings = answer_pings
        #: What an ASGI app has of the frames, where it is one; `None` elsewhere.
        self.control: FakeControl | None = None
        self.answer = Answer()
        self.link: SocketLink | None = None
        self.was_let_in = False
        self._stage = stage
        self._raise_errors = raise_errors
        self._transport: MemoryTransport
        self._frames = FrameReader()
        self._messages: deque[str | bytes] = deque()
        self._close_sent = False
        self._is_lost = False

    def __repr__(self) -> str:
        state = "open" if self.close_code is None else f"closed {self.close_code}"
        return f"<ClientSocket {state}, {len(self._messages)} messages>"

    # --- what it is --------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether it has ended, for whatever reason."""
        return self.close_code is not None

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the server chose."""
        return self.answer.header("Sec-WebSocket-Protocol")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The header fields of the 101."""
        return self.answer.headers

    # --- what a test does --------------------------------------------------------------------

    def send(self, message: str | bytes) -> None:
        """Send a text (`str`) or a binary (`bytes`) message.

        Raises:
            ConnectionClosed: the socket has ended.
            TypeError: it is neither.
        """
        if isinstance(message, str):
            opcode, payload = TEXT, message.encode()
        elif isinstance(message, (bytes, bytearray, memoryview)):
            opcode, payload = BINARY, bytes(message)
        else:
            msg = f"a message is str or bytes, not {type(message).__name__}; see send_json"
            raise TypeError(msg)
        self.send_frame(opcode, payload)

    def send_json(self, value: object) -> None:
        """Send `value` as JSON text.

        Raises:
            ConnectionClosed: the socket has ended.
            TypeError, ValueError: JSON has no form for it.
        """
        self.send(dump_json(value))

    def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send any frame, a ping (0x9) for instance.

        Raises:
            ConnectionClosed: the socket has ended.
        """
        self._stage.settle()  # it may have ended by now
        if self.closed:
            raise self._ended()
        self._transport.feed(encode(opcode, payload))
        self._stage.settle()

    def receive(self, timeout: float = 1.0) -> str | bytes:
        """Return the next message.

        Args:
            timeout: seconds of the virtual clock that may pass until it comes: it takes no real
                time. What has been sent already is returned without the clock being touched.

        Raises:
            TimeoutError: none came.
            ConnectionClosed: the socket has ended, and every message has been taken.
        """
        if not self._messages:
            self._stage.wait_for(timeout, lambda: bool(self._messages) or self.closed)
        if self._messages:
            return self._messages.popleft()
        if self.closed:
            raise self._ended() from (self.errors[0] if self.errors else None)
        msg = f"no message came within {timeout:g} s of the test's clock"
        raise TimeoutError(msg)

    def receive_json(self, timeout: float = 1.0) -> Any:  # noqa: ANN401 - it is JSON
        """Return what the next message holds, as JSON.

        Raises:
            BadMessage: it is not JSON.
            TimeoutError, ConnectionClosed: as `receive`.
        """
        return load_json(self.receive(timeout))

    def receive_nothing(self, within: float = 0.0) -> None:
        """Check that no message is there and the socket is open.

        Args:
            within: seconds of the virtual clock to let pass before.

        Raises:
            AssertionError: there is one, or the socket has ended.
        """
        self._stage.pass_time(within, lambda: bool(self._messages) or self.closed)
        if self._messages:
            msg = f"a message came: {self._messages[0]!r}"
            raise AssertionError(msg)
        if self.closed:
            msg = f"nothing came but the end: {self.close_code} {self.close_reason}".rstrip()
            raise AssertionError(msg) from (self.errors[0] if self.errors else None)

    def wait_closed(self, timeout: float = 1.0) -> int:
        """Wait until the socket has ended, and return the code. Messages stay to be received.

        Raises:
            TimeoutError: it has not, after `timeout` seconds of the virtual clock.
        """
        self._stage.wait_for(timeout, lambda: self.closed)
        if self.close_code is None:
            msg = f"the socket is still open after {timeout:g} s of the test's clock"
            raise TimeoutError(msg)
        return self.close_code

    def advance(self, seconds: float) -> None:
        """Let `seconds` of the virtual clock pass, and all that falls due meanwhile happen."""
        self._stage.pass_time(seconds)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it as a client does; nothing if it has ended."""
        try:
            if not self._stage.is_closed:
                self._stage.settle()
                self._say_goodbye(code, reason)
                self._stage.pass_time(_CLOSING, lambda: self._is_lost)
        finally:
            self._stage.leave(self)

    def _say_goodbye(self, code: int, reason: str) -> None:
        if not self.closed and not self._close_sent:
            self._close_sent = True
            self._transport.feed(encode(CLOSE, struct.pack("!H", code) + reason.encode()))

    def drop(self) -> None:
        """Vanish without a close frame, as a phone in a tunnel does; the server sees 1006."""
        try:
            if not self._stage.is_closed:
                self._transport.drop()
                self._stage.settle()
        finally:
            self._stage.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        errors = self.take_errors()
        if not errors:
            return
        # A handler that failed is why the test found the socket closed, or no message on it.
        if error is None or isinstance(error, (ConnectionClosed, TimeoutError, AssertionError)):
            raise errors[0]
        error.add_note(f"a handler of the socket failed as well: {errors[0]!r}")

    # --- what the stage does -----------------------------------------------------------------

    def begin(self, link: SocketLink, transport: MemoryTransport) -> None:
        """It is connected."""
        self.link = link
        self._transport = transport

    def request(self, head: bytes) -> None:
        """Send the upgrade request."""
        self._transport.feed(head)

    def hang_up(self) -> None:
        """Close without waiting for what comes of it."""
        self._say_goodbye(1001, "")

    def take_errors(self) -> list[BaseException]:
        """Return the errors that are to be raised, once."""
        errors = self.errors[:] if self._raise_errors else []
        self._raise_errors = False
        return errors

    def _ended(self) -> ConnectionClosed:
        return ConnectionClosed(self.close_code or _NO_FRAME, self.close_reason)

    # --- what the transport does (`transport.Far`) -------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take what the server wrote."""
        rest = self.answer.feed(data)
        if rest:
            for opcode, payload in self._frames.feed(rest):
                self._take[opcode](self, payload)

    def _take_message(self, message: str | bytes) -> None:
        if not self.closed:
            self._messages.append(message)

    def _take_ping(self, payload: bytes) -> None:
        self.pings += 1
        if self.answer_pings and not self.closed:
            self._transport.feed(encode(PONG, payload))

    def _take_close(self, payload: bytes) -> None:
        if self.closed:
            return
        self.close_code = struct.unpack("!H", payload[:2])[0] if payload else _NO_CODE
        self.close_reason = payload[2:].decode()
        if not self._close_sent:
            self._close_sent = True
            self._transport.feed(encode(CLOSE, payload[:2]))

    _take: Final[dict[int, Callable[[ClientSocket, bytes], None]]] = {
        TEXT: lambda self, payload: self._take_message(payload.decode()),
        BINARY: lambda self, payload: self._take_message(payload),
        PING: _take_ping,
        PONG: lambda _self, _payload: None,
        CLOSE: _take_close,
    }

    def eof_received(self) -> None:
        """The server has ended its half; so does a client that has nothing more to say."""
        self._transport.feed_eof()

    def lost(self) -> None:
        """The connection is gone."""
        self._is_lost = True
        if self.close_code is None:
            self.close_code = _NO_FRAME

    @property
    def is_answered(self) -> bool:
        """Whether the upgrade request has its whole answer."""
        return self._is_lost or self.answer.status == 101  # noqa: PLR2004 - Switching Protocols
