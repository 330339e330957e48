"""A connection in memory: what asyncio's transport is to a link, without a socket."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ws_middleware.net.link import SocketLink

__all__ = ["Far", "MemoryTransport"]


class Far(Protocol):
    """The client's end."""

    def data_received(self, data: bytes) -> None:
        """Take what the server wrote."""

    def eof_received(self) -> None:
        """The server has ended its half."""

    def lost(self) -> None:
        """The connection is gone."""


class MemoryTransport(asyncio.Transport):
    """Hands bytes over in turns of the loop, as a socket would; a pause holds the client's back."""

    def __init__(self, loop: asyncio.AbstractEventLoop, far: Far, client: tuple[str, int]) -> None:
        super().__init__({"peername": client})
        self._loop = loop
        self._far = far
        self._link: SocketLink
        self._incoming = bytearray()
        self._eof = False
        self._eof_told = False
        self._reading = True
        self._closing = False
        self._asked = False

    def start(self, link: SocketLink) -> None:
        """Connect the server's end."""
        self._link = link
        link.connection_made(self)

    # --- what the client does ----------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Send to the server."""
        self._incoming += data
        self._deliver_soon()

    def feed_eof(self) -> None:
        """End the client's half."""
        self._eof = True
        self._deliver_soon()

    def drop(self) -> None:
        """Vanish without a word."""
        self.abort()

    def _deliver_soon(self) -> None:
        # In a context of its own, as on a server: the test's (a request that it keeps open, say)
        # is not the handler's.
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._deliver, context=Context())

    def _deliver(self) -> None:
        """One read, as a loop does in a turn."""
        self._asked = False
        if not self._reading or self._closing or self._eof_told:
            return
        if self._incoming:
            buffer = self._link.get_buffer(-1)
            size = min(len(buffer), len(self._incoming))
            buffer[:size] = self._incoming[:size]
            del self._incoming[:size]
            self._link.buffer_updated(size)
            self._deliver_soon()
        elif self._eof:
            self._eof_told = True
            self._link.eof_received()

    # --- what the link does ------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over; a client in memory takes everything at once."""
        if not self._closing:
            self._far.data_received(bytes(data))

    def can_write_eof(self) -> bool:
        """A half can be ended, as on TCP."""
        return True

    def write_eof(self) -> None:
        """End the server's half."""
        self._far.eof_received()

    def close(self) -> None:
        """Let go; all has been written."""
        self.abort()

    def abort(self) -> None:
        """Let go."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._end, context=Context())

    def _end(self) -> None:
        self._link.connection_lost(None)
        self._far.lost()

    def is_closing(self) -> bool:
        """Whether it ends."""
        return self._closing

    def pause_reading(self) -> None:
        """Hold the client's bytes."""
        self._reading = False

    def resume_reading(self) -> None:
        """Go on."""
        self._reading = True
        self._deliver_soon()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing ever waits here."""

    def get_write_buffer_size(self) -> int:
        """Nothing ever waits here."""
        return 0
