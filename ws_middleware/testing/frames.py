"""A client's half of RFC 6455 section 5: frames out, masked; frames in. Written apart from `core`.

A test that used the server's own codec would find nothing that is wrong with it.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Frame", "FrameReader", "encode"]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_SHORT: Final = 125
_MEDIUM: Final = 0xFFFF
#: Any key will do (RFC 6455 section 10.3 wants it random for proxies' sake), but not zeros: those
#: would hide a server that forgets to unmask.
_KEY: Final = b"\x37\xfa\x21\x3d"


class Frame(NamedTuple):
    """A frame as it came."""

    opcode: int
    payload: bytes


def encode(opcode: int, payload: bytes) -> bytes:
    """Return a whole frame of a client."""
    size = len(payload)
    if size <= _SHORT:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size <= _MEDIUM:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    return head + _KEY + _mask(payload)


def _mask(payload: bytes) -> bytes:
    size = len(payload)
    key = (_KEY * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(size)


class FrameReader:
    """Cuts a server's bytes into frames; fragments are put together."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._parts: list[Frame] = []

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; return the frames and the messages that are whole now."""
        self._buffer += data
        found: list[Frame] = []
        while (frame := self._next()) is not None:
            found.append(frame)
        return found

    def _next(self) -> Frame | None:
        while (raw := self._cut()) is not None:
            first, payload = raw
            frame = Frame(first & 0x0F, payload)
            if frame.opcode >= CLOSE:
                return frame
            self._parts.append(frame)
            if first & 0x80:
                parts, self._parts = self._parts, []
                return Frame(parts[0].opcode, b"".join(part.payload for part in parts))
        return None

    def _cut(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:  # noqa: PLR2004 - the shortest head
            return None
        size, start = buffer[1] & 0x7F, 2
        if size > _SHORT:
            layout, start = ("!H", 4) if size == _SHORT + 1 else ("!Q", 10)
            if len(buffer) < start:
                return None
            (size,) = struct.unpack_from(layout, buffer, 2)
        if len(buffer) < start + size:
            return None
        first, payload = buffer[0], bytes(buffer[start : start + size])
        del buffer[: start + size]
        return first, payload
