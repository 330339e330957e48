"""Frames that come, and whole messages (RFC 6455 sections 5 to 7), with bounds.

Plain frames are read at once (`plain`); every other goes to wsproto, and with the first error all
that follows. wsproto gets one frame at a time and never a byte of the next, so that it is known
when it has nothing any more and the next frame may be read at once again.

The only module that imports wsproto (deflate will be the second). wsproto parses frames well and
bounds nothing, so `_Bounds` goes into it through its public `Extension` hooks; it yields pieces of
messages, so they are put together here; and after an error it would go on buffering, so nothing is
fed to it any more.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from wsproto.connection import Connection, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits, XorMaskerSimple

from .masking import SHORT, unmask_in_c, unmask_short
from .plain import HEAD, find_extent, read_control, read_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsproto.frame_protocol import FrameDecoder, FrameProtocol

    from ws_middleware.config import Limits

__all__ = ["Failed", "Framing", "PeerClosed", "PeerPinged", "PeerPonged"]

_NO_RSV: Final = RsvBits(False, False, False)  # noqa: FBT003 - wsproto's named tuple

#: IANA's "bad gateway", registered after the RFC; wsproto takes it for a reserved code.
_BAD_GATEWAY: Final = 1014
_STAND_IN: Final = 1013


@dataclass(frozen=True, slots=True)
class PeerPinged:
    """A ping, to be answered with its own payload (RFC 6455 section 5.5.3)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerPonged:
    """A pong, asked for or not."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The peer's close frame; 1005 where it had no code."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The peer broke a rule: close with `code`; `why` is for the log. Nothing follows."""

    code: int
    why: str


Frame = str | bytes | PeerPinged | PeerPonged | PeerClosed | Failed


class _Bounds(Extension):
    """Our limits inside wsproto's parser: what a frame declares is refused before it is read.

    wsproto calls the header hook a second time if the mask key comes in a later read, so nothing
    is counted there; counts move when a frame is complete.
    """

    name = "x-bounds"  # never negotiated, never on the wire

    def __init__(self, limits: Limits) -> None:
        self._size = limits.message_size
        self._fragments = limits.fragments
        self._opcode = Opcode.CONTINUATION
        self._frame_size = 0
        self._message_size = 0
        #: Frames of a message whose last is still to come.
        self.frames = 0
        #: What the peer did wrong, for the log.
        self.why = ""
        self.saw_bad_gateway = False

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool | str:
        return False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002 - the hook's signature
        opcode: Opcode,
        rsv: RsvBits,  # noqa: ARG002
        payload_length: int,
    ) -> CloseReason | RsvBits:
        self._opcode = opcode
        if opcode.iscontrol():
            return _NO_RSV
        self._frame_size = payload_length
        declared = self._message_size + payload_length
        if self._size is not None and declared > self._size:
            self.why = f"message_too_big: {declared} bytes declared, message_size is {self._size}"
            return CloseReason.MESSAGE_TOO_BIG
        if self._fragments is not None and self.frames >= self._fragments:
            self.why = f"too_many_fragments: fragments is {self._fragments}"
            return CloseReason.MESSAGE_TOO_BIG
        return _NO_RSV

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        data: bytes,
    ) -> bytes | CloseReason:
        # Control payloads come whole, so the code is here if there is one.
        if self._opcode is Opcode.CLOSE and data[:2] == struct.pack("!H", _BAD_GATEWAY):
            self.saw_bad_gateway = True
            return struct.pack("!H", _STAND_IN) + data[2:]
        return data

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        fin: bool,  # noqa: FBT001
    ) -> bytes | CloseReason | None:
        if not self._opcode.iscontrol():
            self._message_size = 0 if fin else self._message_size + self._frame_size
            self.frames = 0 if fin else self.frames + 1
        return None


class Framing:
    """One connection's frames, from the end of the handshake on. No input makes it raise."""

    def __init__(self, limits: Limits, early: bytes = b"") -> None:
        self._bounds = _Bounds(limits)
        self._most = math.inf if limits.message_size is None else limits.message_size
        self._connection = Connection(ConnectionType.SERVER, [self._bounds])
        self._events: Iterator[Any] | None = None
        #: What has come, and where in it begins what nobody has looked at; nothing once all is.
        self._data = early
        self._at = 0
        #: Of the frame that wsproto is in: what it has of the head while that is not whole, and
        #: how many bytes are still to come once it is.
        self._head = b""
        self._left = 0
        #: How often the parser was called: each time costs as much as ten plain frames.
        self.parsed = 0
        self._text: io.StringIO | None = None
        self._binary: bytearray | None = None
        self._over = False

    @property
    def is_drained(self) -> bool:
        """Whether it is known that there is no other frame."""
        return not self._data

    def receive_data(self, data: bytes) -> None:
        """Store bytes; nothing is parsed before it is asked for."""
        if self._over:
            return
        self._data = data if not self._data else self._data[self._at :] + data
        self._at = 0

    def next_event(self) -> Frame | None:
        """Parse until one whole message or control frame, or return `None`."""
        while True:
            if self._events is not None:
                frame = self._parsed()
                if frame is not None:
                    return frame
            if self._at == len(self._data):
                self._data, self._at = b"", 0
                return None
            # At once, if the parser is not in the middle of a frame.
            if not (self._left or self._head) and (frame := self._read()) is not None:
                if self._at == len(self._data):
                    self._data, self._at = b"", 0
                return frame
            self._feed()

    def _read(self) -> Frame | None:
        """Return what the next frame holds, if that can be told without the parser."""
        if not self._bounds.frames:
            plain = read_plain(self._data, self._at, self._most, _unmask)
            if plain is not None:
                message, self._at = plain
                return message
        control = read_control(self._data, self._at, _unmask)
        if control is None:
            return None
        is_ping, payload, self._at = control
        return PeerPinged(payload) if is_ping else PeerPonged(payload)

    def _feed(self) -> None:
        """Give wsproto what there is of the frame at hand, and of no other."""
        if not self._left:
            head = self._head + self._data[self._at : self._at + HEAD - len(self._head)]
            extent = find_extent(head, 0)
            end = len(head) if extent is None else extent[1]
            self._left = end - len(self._head)
            self._head = head if extent is None else b""
        piece = self._data[self._at : self._at + self._left]
        self._at += len(piece)
        self._left -= len(piece)
        self.parsed += 1
        self._connection.receive_data(piece)
        self._events = self._connection.events()

    def _parsed(self) -> Frame | None:
        """Return what wsproto makes of what it has, if that is a whole message or the like."""
        while self._events is not None:
            event = next(self._events, None)
            if event is None:
                self._events = None
            elif (frame := self._take(event)) is not None:
                return frame
        return None

    def _take(self, event: Any) -> Frame | None:  # noqa: ANN401 - wsproto's events, tried in turn
        if isinstance(event, TextMessage):
            return self._take_text(event)
        if isinstance(event, BytesMessage):
            return self._take_binary(event)
        if isinstance(event, Ping):
            return PeerPinged(bytes(event.payload))
        if isinstance(event, Pong):
            return PeerPonged(bytes(event.payload))
        return self._take_close(event)

    def _take_text(self, event: TextMessage) -> str | None:
        if self._text is None:
            if event.message_finished:
                return event.data
            self._text = io.StringIO()
        self._text.write(event.data)
        if not event.message_finished:
            return None
        message, self._text = self._text.getvalue(), None
        return message

    def _take_binary(self, event: BytesMessage) -> bytes | None:
        if self._binary is None:
            if event.message_finished:
                return bytes(event.data)
            self._binary = bytearray()
        self._binary += event.data
        if not event.message_finished:
            return None
        message, self._binary = bytes(self._binary), None
        return message

    def _take_close(self, event: CloseConnection) -> PeerClosed | Failed:
        # wsproto reports its own refusals as the peer's close frames; only a frame that it really
        # parsed has moved its state.
        failed = self._connection.state.name in {"OPEN", "LOCAL_CLOSING"}
        self.stop()
        code = int(event.code)
        if failed:
            return Failed(code, self._bounds.why or f"protocol_error: {event.reason}")
        if self._bounds.saw_bad_gateway:
            code = _BAD_GATEWAY
        return PeerClosed(code, event.reason or "")

    def stop(self) -> None:
        """Parse and keep nothing any more."""
        self._over = True
        self._events = None
        self._data, self._at = b"", 0
        self._text = self._binary = None


def _unmask_in_python(payload: bytes, key: bytes) -> bytes:
    if len(payload) <= SHORT:
        return unmask_short(payload, key)
    return bytes(XorMaskerSimple(key).process(bytearray(payload)))


_unmask: Final = unmask_in_c or _unmask_in_python
