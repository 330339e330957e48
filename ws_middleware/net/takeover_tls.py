"""Taking a TLS connection out of a WSGI server: the object moves, for its descriptor cannot.

OpenSSL holds the descriptor's number, so the swap of `takeover` would put the dummy under our TLS
too. What can be told apart is the *object*: the server uses its `ssl.SSLSocket` through a handful
of methods, and an instance may have its own. So the server's object is given those of a dummy
(one end of a socket pair), and goes on reading, writing, shutting down and closing that. TLS goes
on in the same object through the methods that are left alone: `read` and `write` of its class.

Two things follow. The descriptor keeps its number, low as it may be. And the object is never closed
by its own `close`: that marks it closed, and a reader that the server still has would then close
the dummy a second time, under a server that waits for it.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import ssl
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket

__all__ = ["TLSConnection", "is_movable", "is_tls", "move"]

#: What a server does with its connection. Never `read` and `write`: these are what is left to us.
_SERVERS_OWN: Final = (
    "recv",
    "recv_into",
    "send",
    "sendall",
    "shutdown",
    "close",
    "detach",
    "fileno",
    "gettimeout",
    "settimeout",
    "getblocking",
    "setblocking",
)


#: Classes whose `read` and `write` do what we need of them, and never block once told not to.
#: gevent's is no subclass of Python's.
_KNOWN: Final = frozenset({("ssl", "SSLSocket"), ("gevent.ssl", "SSLSocket")})


def is_tls(sock: object) -> bool:
    """Whether this is a TLS socket of a kind that servers have."""
    kinds = type(sock).__mro__
    return any(_name(kind) in _KNOWN or kind.__module__.startswith("OpenSSL.") for kind in kinds)


def is_movable(sock: object) -> bool:
    """Whether `move` can take this TLS socket: its way to read and write is one we know."""
    return all(_name(_definer(type(sock), way)) in _KNOWN for way in ("read", "write"))


def _definer(kind: type, attribute: str) -> type:
    return next((each for each in kind.__mro__ if attribute in vars(each)), object)


def _name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__name__


def move(sock: Any, dummy: socket.socket) -> TLSConnection:  # noqa: ANN401 - ssl's or gevent's
    """Give the server the dummy behind its own object, and return the connection.

    `dummy` is the server's from here on, to close as well.

    Raises:
        OSError: the server has closed it, or ended its TLS; then nothing has changed.
    """
    connection = TLSConnection(sock)
    for name in _SERVERS_OWN:
        setattr(sock, name, getattr(dummy, name))
    sock.pending = int  # nothing, for the server
    sock.unwrap = lambda: dummy
    return connection


class TLSConnection:
    """The client's end of a TLS object that was a server's. Never blocks; for one thread."""

    def __init__(self, sock: Any) -> None:  # noqa: ANN401 - ssl's or gevent's
        """Make it non-blocking.

        Raises:
            OSError: there is no TLS in it any more.
        """
        self._sock = sock
        self._kind = type(sock)
        # gevent's object has the socket inside, Python's is it.
        self._raw = sock if isinstance(sock, _socket.socket) else sock._sock  # noqa: SLF001
        if self.fileno() < 0 or sock.version() is None:
            raise OSError(errno.EBADF, "the client has gone, and the server has ended its TLS")
        self.peername = self._find_peer()
        self._kind.setblocking(sock, False)  # noqa: FBT003
        with contextlib.suppress(OSError):  # no TCP, or not any more
            # As asyncio does with every socket: a small message does not wait for an answer.
            _socket.socket.setsockopt(self._raw, _socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)

    def _find_peer(self) -> object:
        try:
            return _socket.socket.getpeername(self._raw)
        except OSError:  # it has hung up: the first read will tell
            return None

    def fileno(self) -> int:
        """Return the descriptor; -1 once it is closed."""
        return _socket.socket.fileno(self._raw)

    def read_into(self, buffer: memoryview) -> int:
        """Read up to one record and return its size; 0 is the end, with a close_notify or without.

        Without one the stream may have been cut short. That is not judged here: a WebSocket has an
        end of its own, and one without a close frame is 1006 (RFC 6455 section 7.1.5).

        Raises:
            ssl.SSLWantReadError, ssl.SSLWantWriteError: try again when the socket is ready for it.
            OSError: the connection is broken.
        """
        try:
            return int(self._sock.read(len(buffer), buffer))
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return 0

    @property
    def pending(self) -> int:
        """Bytes that have been decrypted and not yet read; no descriptor says that they are there.

        The server's reader may have left some, from the record that the request was in.
        """
        return int(self._kind.pending(self._sock))

    def discard(self, buffer: memoryview) -> int:
        """Read without decrypting, once `say_end` has ended our side of TLS; 0 is the end.

        Raises:
            BlockingIOError: nothing is there.
            OSError: the connection is broken.
        """
        return _socket.socket.recv_into(self._raw, buffer)

    def write(self, data: memoryview) -> int:
        """Encrypt and send; after a want-error the same bytes have to come again.

        Raises:
            ssl.SSLWantReadError, ssl.SSLWantWriteError: try again when the socket is ready for it.
            OSError: the connection is broken.
        """
        return int(self._sock.write(data))

    def say_end(self) -> None:
        """Send the close_notify that says that no more will come (RFC 8446 section 6.1).

        Raises:
            ssl.SSLWantWriteError: try again when the socket takes more.
        """
        try:
            self._kind.unwrap(self._sock)
        except ssl.SSLWantWriteError:
            raise
        except (OSError, ValueError):  # the peer's own is still to come, or nothing ever will
            return

    def end_writing(self) -> None:
        """End our half of the TCP connection.

        Raises:
            OSError: the connection is broken.
        """
        _socket.socket.shutdown(self._raw, _socket.SHUT_WR)

    def close(self) -> None:
        """Close the descriptor; the server's dummy is none of our business."""
        # Without its TLS state the object cannot reach whoever gets the number next.
        self._sock._sslobj = None  # noqa: SLF001
        with contextlib.suppress(OSError):  # a reset that nobody has heard of yet
            _socket.socket.close(self._raw)
