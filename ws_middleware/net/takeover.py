"""Taking a connection out of a WSGI server: the fd swap.

A WSGI server has no word for "this connection is mine now". Whatever one does to its socket, the
server goes on using the descriptor's *number*: it writes an answer, shuts down, drains, closes. So
the number is given something else to refer to:

1. a second descriptor for the client's connection is made: that one is ours;
2. one end of a socket pair is put under the server's number. Its other end, the *sink*, has ended
   its half: the server reads an end of file, and what it writes goes to the sink, which is drained;
3. the server's own reader is read to that end: it yields the bytes it had buffered, and no more.

A server that ends TLS itself keeps its descriptor, and gets the dummy inside its own object:
`takeover_tls`. Nothing else is patched and nothing is guessed: the table knows the servers it
knows, each with the place of its socket and of its early bytes, and for any other says so, with a
remedy. After `take` the socket must be served or closed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ws_middleware import native

from .takeover_tls import TLSConnection, is_movable, is_tls, move

__all__ = ["CannotTake", "Found", "Taken", "find_socket", "take"]

Environ = Mapping[str, Any]

#: Descriptors from here on: some servers still use select(), which ends at 1023.
_HIGH: Final = 1024

#: What every refusal ends with: the way that works on every server.
_OWN_PORT: Final = (
    "serve WebSockets on a port of their own, sockets.listen(port=8001), and send their paths "
    "there at the proxy (docs/wsgi-servers.md)"
)


#: Whether a descriptor's number can be given another socket: not on Windows.
_CAN_SWAP: Final = os.name == "posix" and hasattr(socket, "socketpair")

#: Where werkzeug's debugger, which nobody runs in production, leaves its word.
_DEBUGGER: Final = "werkzeug.debug.preserve_context"


class CannotTake(Exception):  # noqa: N818 - it is an answer
    """The server's socket cannot be had; the text names server, reason and remedy.

    `opens_port`: the remedy may be ours, for somebody develops here.
    """

    def __init__(
        self, server: str, reason: str, remedy: str = _OWN_PORT, *, opens_port: bool = False
    ) -> None:
        super().__init__(f"{server}: {reason}; {remedy}")
        self.opens_port = opens_port


@dataclass(frozen=True)
class Found:
    """A server's connection: its socket or descriptor, and how to read what it had buffered.

    `early` is called after the swap, when the server's reader meets an end of file.
    """

    server: str
    socket: Any
    early: Callable[[], bytes]


@dataclass(frozen=True)
class _Server:
    """A row of the table: how a server is told, and where its socket is."""

    name: str
    is_it: Callable[[Environ], bool]
    find: Callable[[Environ], Found]


# --- the table -----------------------------------------------------------------------------------


def _software(environ: Environ, default: str) -> str:
    return str(environ.get("SERVER_SOFTWARE") or default)


def _find_werkzeug(environ: Environ) -> Found:
    server = _software(environ, "Werkzeug")
    if environ.get("wsgi.multiprocess"):
        raise CannotTake(
            server,
            "with processes=N the process that has the connection ends with the request",
            "run it threaded (the default)",
        )
    return Found(server, environ["werkzeug.socket"], environ["wsgi.input"].read)


def _find_gunicorn(environ: Environ) -> Found:
    unreader = environ["wsgi.input"].reader.unreader
    return Found(_software(environ, "gunicorn"), environ["gunicorn.socket"], unreader.read)


def _find_waitress(environ: Environ) -> Found:
    # The key is public; that its value is a method of the channel is not.
    channel = environ["waitress.client_disconnected"].__self__
    server = _software(environ, "waitress")
    if len(channel.requests) > 1 or (channel.request and channel.request.headers_finished):
        # The bytes are gone, and it runs those requests whatever becomes of this one.
        reason = "behind the upgrade came another request in the same packet, and it has parsed it"
        raise CannotTake(server, reason, "have the client wait for the 101 (RFC 6455 section 4.1)")
    if channel.total_outbufs_len:
        reason = "the answer to a request before the upgrade has not been sent yet"
        raise CannotTake(server, reason, "have the client wait for that answer")

    def early() -> bytes:
        parser, channel.request = channel.request, None
        return b"" if parser is None else bytes(parser.header_plus)

    return Found(server, channel.socket, early)


def _find_cheroot(environ: Environ) -> Found:
    reader = environ["wsgi.input"].rfile
    return Found(_software(environ, "cheroot"), reader.raw._sock, reader.read)  # noqa: SLF001


#: Options, with their other spellings, of sockets whose TLS is uWSGI's own, and of its routers.
_UWSGI_TLS: Final = frozenset({"https-socket", "ssl-socket", "suwsgi-socket"})
_UWSGI_ROUTERS: Final = frozenset({"http", "httprouter", "https", "https2"})


def _find_uwsgi(environ: Environ) -> Found:  # noqa: ARG001 - it is asked, not the environ
    import uwsgi  # noqa: PLC0415 - exists only inside uWSGI

    server = f"uWSGI {uwsgi.version.decode()}"
    options = {name if isinstance(name, str) else name.decode() for name in uwsgi.opt}
    for option in sorted(options & _UWSGI_TLS):
        raise CannotTake(server, f"with --{option} TLS is inside uWSGI", "end TLS at a proxy")
    if options & _UWSGI_ROUTERS and "http-websockets" not in options:
        reason = "without --http-websockets its router relays nothing after the upgrade"
        raise CannotTake(server, reason, "add --http-websockets")
    if not getattr(uwsgi, "has_threads", True):
        reason = "without --enable-threads our event loop never runs in it"
        raise CannotTake(server, reason, "add --enable-threads")
    # What it has buffered cannot be had; RFC 6455 section 4.1 forbids clients to send early.
    return Found(server, uwsgi.connection_fd(), bytes)


def _find_runserver(environ: Environ) -> Found:
    # Django shows the app no more than the body, which an upgrade has none of; the server's own
    # reader is behind it.
    reader = environ["wsgi.input"]._read.__self__  # noqa: SLF001
    return Found("Django runserver", reader.raw._sock, reader.read)  # noqa: SLF001


def _is_runserver(environ: Environ) -> bool:
    kind = type(environ.get("wsgi.input"))
    return (kind.__module__, kind.__name__) == ("django.core.handlers.wsgi", "LimitedStream")


def _find_pywsgi(environ: Environ) -> Found:
    # On an upgrade the input is no reader of a body, but the connection's own.
    reader = environ["wsgi.input"]
    return Found(environ["SERVER_SOFTWARE"], reader.raw._sock, reader.read)  # noqa: SLF001


def _is_pywsgi(environ: Environ) -> bool:
    return str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent/")


def _find_reader(environ: Environ) -> Found:
    stream = environ["wsgi.input"]
    reader: Any = getattr(stream, "rfile", stream)
    return Found(_software(environ, "wsgiref"), reader.raw._sock, reader.read)  # noqa: SLF001


def _has_reader(environ: Environ) -> bool:
    stream = environ.get("wsgi.input")
    reader = getattr(stream, "rfile", stream)
    return hasattr(getattr(reader, "raw", None), "_sock")


_TABLE: Final = (
    _Server("werkzeug", lambda environ: "werkzeug.socket" in environ, _find_werkzeug),
    _Server("gunicorn", lambda environ: "gunicorn.socket" in environ, _find_gunicorn),
    _Server("waitress", lambda e: "waitress.client_disconnected" in e, _find_waitress),
    _Server("cheroot", lambda environ: "ACTUAL_SERVER_PROTOCOL" in environ, _find_cheroot),
    _Server("uWSGI", lambda environ: "uwsgi.version" in environ, _find_uwsgi),
    _Server("Django runserver", _is_runserver, _find_runserver),
    _Server("gevent.pywsgi", _is_pywsgi, _find_pywsgi),
    _Server("wsgiref", _has_reader, _find_reader),
)


def find_socket(environ: Environ, *, tls: bool = True) -> Found:
    """Return the connection behind a WSGI request, still the server's own.

    `tls`: whether one that the server ends TLS of may be taken.

    Raises:
        CannotTake: the server or its kind of socket is none that we know how to take.
    """
    if not _CAN_SWAP:
        server_name, reason = _software(environ, "this server"), "it needs a POSIX system"
        if _DEBUGGER in environ:
            remedy = "in debug mode a port of our own serves this"
            raise CannotTake(server_name, reason, remedy, opens_port=True)
        raise CannotTake(server_name, reason)
    server = next((row for row in _TABLE if row.is_it(environ)), None)
    if server is None:
        raise CannotTake(_software(environ, "this server"), "its socket is not in the environ")
    try:
        found = server.find(environ)
    except AttributeError as error:
        reason = f"this version keeps its socket elsewhere ({error})"
        raise CannotTake(_software(environ, server.name), reason) from None
    _check_kind(found, tls=tls)
    return found


def _check_kind(found: Found, *, tls: bool) -> None:
    """Accept only sockets that are known: on an unknown TLS object we would write plain text."""
    kind = type(found.socket)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if is_tls(found.socket):
        if not is_movable(found.socket):
            remedy = "use its adapter for Python's own ssl, or end TLS at a proxy before it"
            raise CannotTake(found.server, f"it ends TLS itself, with a {name}", remedy)
        if not tls:
            reason = "it ends TLS itself, and tls_takeover is off"
            raise CannotTake(found.server, reason, "switch it on, or end TLS at a proxy before it")
        return
    plain = isinstance(found.socket, (int, socket.socket)) or (
        kind.__module__.startswith("gevent.") and kind.__name__ == "socket"
    )
    if not plain:
        raise CannotTake(found.server, f"its socket is a {name}, not a plain one")


# --- the swap, or the move -----------------------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """What `take` yields: the client's connection, the sink to drain, and the early bytes."""

    connection: socket.socket | TLSConnection
    sink: socket.socket
    early: bytes

    def close(self) -> None:
        """Let go of both: the client sees the connection end."""
        self.connection.close()
        self.sink.close()


def take(found: Found) -> Taken:
    """Swap, or move a TLS object.

    Raises:
        OSError: no descriptor is left; then nothing has changed.
    """
    fd = found.socket if isinstance(found.socket, int) else found.socket.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, "the client has gone, and the server has closed its socket")
    if is_tls(found.socket):
        return _take_tls(found)
    dummy, sink = _make_dummy()
    try:
        ours = _duplicate_high(fd)
    except BaseException:
        dummy.close()
        sink.close()
        raise
    try:
        mine = native.Socket(fileno=ours)
    except BaseException:
        os.close(ours)
        dummy.close()
        sink.close()
        raise
    try:
        # From here on the server talks to the dummy, which blocks or doesn't as the client's
        # connection did: a server that waits in a hub of greenlets must not block it.
        # (dup2's own default is inheritable.)
        os.set_blocking(dummy.fileno(), os.get_blocking(fd))
        os.dup2(dummy.fileno(), fd, inheritable=False)
        dummy.close()
        mine.setblocking(False)  # noqa: FBT003
        return Taken(mine, sink, bytes(found.early() or b""))
    except BaseException:
        mine.close()
        sink.close()
        raise


def _take_tls(found: Found) -> Taken:
    dummy, sink = _make_dummy()
    try:
        connection = move(found.socket, dummy)
    except BaseException:
        dummy.close()
        sink.close()
        raise
    try:
        return Taken(connection, sink, bytes(found.early() or b""))
    except BaseException:
        connection.close()
        sink.close()
        raise


def _make_dummy() -> tuple[socket.socket, socket.socket]:
    """Return what the server gets, at its end already, and the sink behind it."""
    dummy, sink = native.socketpair()
    sink.shutdown(socket.SHUT_WR)
    sink.setblocking(False)  # noqa: FBT003
    return dummy, sink


def _duplicate_high(fd: int) -> int:
    import fcntl  # noqa: PLC0415 - POSIX only, as all of this

    with contextlib.suppress(OSError):  # RLIMIT_NOFILE may be lower
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
    return os.dup(fd)
