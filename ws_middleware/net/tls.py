"""asyncio's transport over a TLS connection whose handshake somebody else has done.

asyncio has its own TLS, but only from the handshake on and only over memory; this one reads and
writes the TLS object where it is, watching its descriptor. What differs from a plain socket:

- decrypted bytes may be waiting inside OpenSSL, where no descriptor tells of them;
- a read may have to write first, and a write to read (key updates, renegotiation);
- a record that was begun has to be finished with the same bytes.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from .takeover_tls import TLSConnection

__all__ = ["TLSTransport"]

#: Bytes of plain text in the largest record (RFC 8446 section 5.1). Written one by one, so that
#: what a slow peer takes is seen to go.
_RECORD: Final = 16 * 1024

_HIGH: Final = 64 * 1024


class TLSTransport(asyncio.Transport):
    """For one `BufferedProtocol`, on the loop's thread only.

    `write_eof` ends our side for good: what the peer sends afterwards is read and forgotten until
    its end comes, for a socket that is closed over unread bytes resets the connection, and the peer
    loses what we said last.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: TLSConnection,
        protocol: asyncio.BufferedProtocol,
    ) -> None:
        super().__init__({"peername": connection.peername, "socket": connection})
        self._loop = loop
        self._connection = connection
        self._fd = connection.fileno()
        self._protocol = protocol
        self._unsent = bytearray()
        self._begun = 0  # bytes of the piece that has to be tried again as it was
        self._high, self._low = _HIGH, _HIGH // 4
        self._is_full = False
        self._is_paused = False
        self._read_wants_write = self._write_wants_read = False
        self._has_ended = self._has_told_end = False  # the peer
        self._is_ending = self._has_said_end = False  # we
        self._is_closing = self._is_lost = False
        self._watches_read = self._watches_write = False

    def start(self) -> None:
        """Tell the protocol, and read: what the server left inside OpenSSL no descriptor tells."""
        try:
            self._protocol.connection_made(self)
        except BaseException:
            self.abort()
            raise
        self._loop.call_soon(self._read_ready)

    # --- what asyncio asks of every transport ------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set the protocol; it has to be a `BufferedProtocol`."""
        self._protocol = cast("asyncio.BufferedProtocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether it is closed, or will be once all is sent."""
        return self._is_closing

    def close(self) -> None:
        """Close once all is sent, with a close_notify."""
        if not self._is_closing:
            self._is_closing = True
            self._say_end()
            self._watch()

    def abort(self) -> None:
        """Close at once. No close_notify: the stream is cut short, and the peer may know."""
        self._lose(None)

    # --- reading -----------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Whether the protocol gets what comes."""
        return not (self._is_paused or self._is_closing or self._has_ended)

    def pause_reading(self) -> None:
        """Read nothing more."""
        self._is_paused = True
        self._watch()

    def resume_reading(self) -> None:
        """Go on reading."""
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._read_ready)

    def _read_ready(self) -> None:
        """Read for a turn: a buffer at the most, so that no peer keeps others waiting."""
        if self._is_paused or self._is_closing or self._has_told_end:
            return
        buffer = memoryview(self._protocol.get_buffer(-1))
        size, error = (0, None) if self._has_ended else self._fill(buffer)
        if size and not self._has_said_end:
            self._protocol.buffer_updated(size)
        if error is not None:
            self._lose(error)
            return
        if self._has_ended:
            self._tell_end()
        elif not self._has_said_end and self._is_more_inside():
            self._loop.call_soon(self._read_ready)
        if self._write_wants_read:
            self._write_wants_read = False
            self._send()
        self._watch()

    def _fill(self, buffer: memoryview) -> tuple[int, OSError | None]:
        """Read until the buffer is full or a record was not; what came before an error counts."""
        read = self._connection.discard if self._has_said_end else self._connection.read_into
        size = 0
        self._read_wants_write = False
        try:
            while size < len(buffer):
                got = read(buffer[size:])
                size += got
                self._has_ended = not got
                if got < _RECORD:
                    break
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except ssl.SSLWantWriteError:
            self._read_wants_write = True
        except OSError as error:
            return size, error
        return size, None

    def _is_more_inside(self) -> bool:
        return not (self._is_lost or self._read_wants_write) and self._connection.pending > 0

    def _tell_end(self) -> None:
        if self._is_paused or self._is_closing or self._has_told_end:
            return
        self._has_told_end = True
        if not self._protocol.eof_received():
            self.close()

    # --- writing -----------------------------------------------------------------------------

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the numbers of unsent bytes at which the protocol is told to pause and to resume.

        Raises:
            ValueError: not high >= low >= 0.
        """
        if high is None:
            high = _HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            msg = f"high ({high!r}) must be >= low ({low!r}) must be >= 0"
            raise ValueError(msg)
        self._high, self._low = high, low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return low and high, as `set_write_buffer_limits` has set them."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return how many bytes OpenSSL has not taken; what it has, but for a record, is sent."""
        return len(self._unsent)

    def can_write_eof(self) -> bool:
        """Yes: TLS says it with a close_notify, and TCP behind it."""
        return True

    def write_eof(self) -> None:
        """End our half once all is sent."""
        if not (self._is_ending or self._is_closing):
            self._is_ending = True
            self._say_end()
            self._watch()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, now or when the socket takes it; nothing once it is closing.

        Raises:
            RuntimeError: after `write_eof`.
        """
        if self._is_ending:
            msg = "cannot write after write_eof()"
            raise RuntimeError(msg)
        if self._is_closing or not data:
            return
        waits = bool(self._unsent)
        self._unsent += data
        if not waits:
            self._send()
        if len(self._unsent) > self._high and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()
        self._watch()

    def _write_ready(self) -> None:
        if self._read_wants_write:
            self._read_wants_write = False
            self._read_ready()
        self._send()
        self._watch()

    def _send(self) -> None:
        """Send what waits, as far as the socket takes it, and what is to follow it."""
        try:
            while self._unsent:
                self._begun = self._begun or min(len(self._unsent), _RECORD)
                with memoryview(self._unsent) as unsent, unsent[: self._begun] as piece:
                    size = self._connection.write(piece)
                del self._unsent[:size]
                self._begun = 0
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self._write_wants_read = True
        except OSError as error:
            self._lose(error)
            return
        if self._is_full and len(self._unsent) <= self._low:
            self._is_full = False
            self._protocol.resume_writing()
        self._say_end()

    def _say_end(self) -> None:
        """Behind all that was to be sent: the end, if it is time for it."""
        if self._unsent or self._is_lost or not (self._is_ending or self._is_closing):
            return
        try:
            if not self._has_said_end:
                self._connection.say_end()
                self._has_said_end = True
                if not self._is_closing:
                    self._connection.end_writing()
        except ssl.SSLWantWriteError:
            return
        except OSError as error:
            self._lose(error)
            return
        if self._is_closing:
            self._lose(None)

    # --- the loop ----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have the loop watch for what can be done, and for nothing else: it would not sleep."""
        read = self.is_reading() and not self._read_wants_write
        if read is not self._watches_read:
            self._watches_read = read
            if read:
                self._loop.add_reader(self._fd, self._read_ready)
            else:
                self._loop.remove_reader(self._fd)
        write = not self._is_lost and self._has_to_write()
        if write is not self._watches_write:
            self._watches_write = write
            if write:
                self._loop.add_writer(self._fd, self._write_ready)
            else:
                self._loop.remove_writer(self._fd)

    def _has_to_write(self) -> bool:
        if self._unsent:
            return self._read_wants_write or not self._write_wants_read
        has_end_to_say = (self._is_ending or self._is_closing) and not self._has_said_end
        return has_end_to_say or self._read_wants_write

    def _lose(self, error: OSError | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self._unsent.clear()
        self._watch()
        self._loop.call_soon(self._finish, error)

    def _finish(self, error: OSError | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._connection.close()
