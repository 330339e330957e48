"""Frames as a server writes them (RFC 6455 section 5.2): whole, unmasked, the same for everybody.

A frame that is whole and has no mask needs no state, so none is kept. What a message comes to as a
frame is made once, however many sockets it goes to.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from ws_middleware.codes import check_close

if TYPE_CHECKING:
    from ws_middleware.types import EncodedMessage

__all__ = ["encode", "encode_close", "encode_ping", "encode_pong"]

_CONTROL_PAYLOAD: Final = 125

#: The first byte of a frame that is whole: FIN and the opcode.
_TEXT: Final = 0x81
_BINARY: Final = 0x82
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A

#: Up to where the second byte is the length, and what it says of the field that has it else.
_SHORT: Final = 125
_IN_16_BITS: Final = 126
_IN_64_BITS: Final = 127

#: What an `EncodedMessage` keeps its frame under. With compression there are others.
_PLAIN: Final = "plain"


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= _SHORT:
        return bytes((first, size)) + payload
    if size <= 0xFFFF:  # noqa: PLR2004 - 16 bits
        return struct.pack("!BBH", first, _IN_16_BITS, size) + payload
    return struct.pack("!BBQ", first, _IN_64_BITS, size) + payload


def encode(message: str | bytes | EncodedMessage) -> bytes:
    """Return the frame of a whole message; an `EncodedMessage` keeps it for the next socket.

    Raises:
        ValueError: a text holds a lone surrogate.
    """
    if isinstance(message, str):
        return _frame(_TEXT, message.encode())
    if isinstance(message, bytes):
        return _frame(_BINARY, message)
    frame = message.frames.get(_PLAIN)
    if frame is None:
        frame = _frame(_TEXT if message.is_text else _BINARY, message.payload)
        message.frames[_PLAIN] = frame
    return frame


def encode_ping(payload: bytes) -> bytes:
    """Return a ping; at most 125 bytes (RFC 6455 section 5.5)."""
    return _control(_PING, payload)


def encode_pong(payload: bytes) -> bytes:
    """Return a pong; at most 125 bytes (RFC 6455 section 5.5)."""
    return _control(_PONG, payload)


def encode_close(code: int | None, reason: str = "") -> bytes:
    """Return a close frame; without a code an empty one, as answers one (RFC 6455 section 5.5.1).

    Raises:
        ValueError: see `check_close`.
    """
    if code is None:
        return _control(_CLOSE, b"")
    check_close(code, reason)
    return _control(_CLOSE, struct.pack("!H", code) + reason.encode())


def _control(first: int, payload: bytes) -> bytes:
    if len(payload) > _CONTROL_PAYLOAD:
        msg = f"a control frame carries at most {_CONTROL_PAYLOAD} bytes, not {len(payload)}"
        raise ValueError(msg)
    return _frame(first, payload)
