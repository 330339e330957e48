"""Plain frames, read without a parser: nearly every message comes in one.

A frame is plain if it is a whole message, a ping or a pong: final, masked as a client must, without
extensions, its length as short as it can be written, and all of it there (RFC 6455 section 5.2).
Such a one needs no state, and a parser that takes frames in any pieces spends several times as long
on it: of the smallest pings, 64 KiB would have kept everybody else waiting for 0.1 s. Whatever is
not plain, be it right or wrong, is left to that parser, which knows what to make of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HEAD", "find_extent", "read_control", "read_plain"]

#: Bytes of the longest head, mask key and all.
HEAD: Final = 14
_KEY: Final = 4

#: FIN and the opcode of a whole message.
_TEXT: Final = 0x81
_BINARY: Final = 0x82
_WHOLE: Final = (_TEXT, _BINARY)
_PING: Final = 0x89
_PONG: Final = 0x8A
_CONTROL: Final = (_PING, _PONG)

_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_IN_16_BITS: Final = 126
_IN_64_BITS: Final = 127
_U16: Final = struct.Struct("!H")
_U64: Final = struct.Struct("!Q")

#: How long a payload has to be for a head of so many bytes. Heads without a mask are shorter.
_LEAST: Final = {6: 0, 8: 126, 14: 0x10000}
#: Bytes of a head whose payload is as short as a control frame's has to be (section 5.5).
_SHORTEST: Final = 6


def find_extent(data: bytes, at: int) -> tuple[int, int] | None:
    """Return where the payload of the frame at `at` begins and ends; `None` for a part of a head.

    The end may be beyond what there is.
    """
    there = len(data) - at
    if there < 2:  # noqa: PLR2004 - the part that all heads have
        return None
    second = data[at + 1]
    size = second & _LENGTH
    head = 2
    if size == _IN_16_BITS:
        head += 2
        size = _U16.unpack_from(data, at + 2)[0] if there >= head else 0
    elif size == _IN_64_BITS:
        head += 8
        size = _U64.unpack_from(data, at + 2)[0] if there >= head else 0
    if second & _MASKED:
        head += _KEY
    if there < head:
        return None
    return at + head, at + head + size


def read_plain(
    data: bytes, at: int, most: float, unmask: Callable[[bytes, bytes], bytes]
) -> tuple[str | bytes, int] | None:
    """Return the message at `at` and where the next frame begins; `None` if it is not plain.

    Args:
        data: what has come.
        at: where a frame begins in it.
        most: bytes that a message may have.
        unmask: takes the mask off a payload, given it and the key.
    """
    extent = find_extent(data, at)
    if extent is None:
        return None
    begin, end = extent
    first, size = data[at], end - begin
    if first not in _WHOLE or size > most or end > len(data):
        return None
    least = _LEAST.get(begin - at)
    if least is None or size < least:
        return None
    payload = unmask(data[begin:end], data[begin - _KEY : begin])
    if first == _BINARY:
        return payload, end
    try:
        return payload.decode(), end
    except UnicodeDecodeError:
        return None


def read_control(
    data: bytes, at: int, unmask: Callable[[bytes, bytes], bytes]
) -> tuple[bool, bytes, int] | None:
    """Return of the frame at `at` whether it is a ping, its payload, and where the next one begins.

    `None` if it is neither a ping nor a pong, or not plain.
    """
    if data[at] not in _CONTROL:
        return None
    extent = find_extent(data, at)
    if extent is None:
        return None
    begin, end = extent
    if begin - at != _SHORTEST or end > len(data):
        return None
    return data[at] == _PING, unmask(data[begin:end], data[begin - _KEY : begin]), end
