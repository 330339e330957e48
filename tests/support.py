"""What tests share: a client that we did not write for politeness, and bytes made by hand.

The frames here are built from RFC 6455 section 5.2 and share no code with the package.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    import ssl

__all__ = ["Frame", "RawPeer", "frame", "head", "mask"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Frame(NamedTuple):
    """A frame as it came."""

    fin: bool
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int | None:
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None


def mask(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload)) if any(key) else payload


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    key: bytes | None = b"\x00\x00\x00\x00",
    rsv: int = 0,
    length: int | None = None,
) -> bytes:
    """Return a client's frame; `length` is what the header says, whatever the payload has."""
    size = len(payload) if length is None else length
    bit = 0x80 if key is not None else 0
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size <= 125:
        header = first + bytes([bit | size])
    elif size <= 0xFFFF:
        header = first + bytes([bit | 126]) + struct.pack("!H", size)
    else:
        header = first + bytes([bit | 127]) + struct.pack("!Q", size)
    return header + (b"" if key is None else key + mask(payload, key))


def close_frame(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def head(path: str = "/", *, host: str = "localhost", **changes: str | list[str] | None) -> bytes:
    """Return a valid upgrade request; `changes` are headers with `_` for `-`, `None` drops one."""
    headers: dict[str, str | list[str] | None] = {
        "Host": host,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    known = {name.lower(): name for name in headers}
    for name, value in changes.items():
        wire = name.replace("_", "-")
        headers[known.get(wire.lower(), wire)] = value
    lines = [f"GET {path} HTTP/1.1"]
    for name, value in headers.items():
        values = value if isinstance(value, list) else [value]
        lines.extend(f"{name}: {each}" for each in values if each is not None)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class RawPeer:
    """A plain socket that speaks WebSocket only as far as it is told to."""

    def __init__(
        self,
        address: tuple[str, int],
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.socket = socket.create_connection(address, timeout)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=address[0])
        self.socket.settimeout(timeout)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def upgrade(self, path: str = "/", **changes: str | list[str] | None) -> bytes:
        """Send a request and return the head of the answer."""
        self.send(head(path, **changes))  # type: ignore[arg-type]
        return self.read_head()

    def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        answer, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return answer

    def status(self) -> int:
        return int(self.read_head().split()[1])

    def read_frame(self) -> Frame:
        first, second = self._take(2)
        size = second & 0x7F
        assert not second & 0x80, "a server's frame must not be masked"
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        return Frame(bool(first & 0x80), first & 0x0F, self._take(size))

    def read_bytes(self, size: int) -> bytes:
        return self._take(size)

    def read_rest(self) -> bytes:
        """Read to the end of the stream."""
        while True:
            try:
                self._more()
            except EOFError:
                rest, self._buffer = self._buffer, b""
                return rest

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data
