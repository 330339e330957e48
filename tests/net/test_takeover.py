from __future__ import annotations

import fcntl
import io
import os
import resource
import socket
import ssl
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ws_middleware.net import takeover
from ws_middleware.net.takeover import CannotTake, Found, find_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_PORT = (
    "serve WebSockets on a port of their own, sockets.listen(port=8001), and send their paths "
    "there at the proxy (docs/wsgi-servers.md)"
)


class Pair(NamedTuple):
    server: socket.socket
    client: socket.socket


@pytest.fixture
def pair() -> Iterator[Pair]:
    server, client = socket.socketpair()
    client.settimeout(5)
    server.settimeout(5)
    yield Pair(server, client)
    server.close()
    client.close()


def descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208 - names are enough


def text_of(environ: dict[str, Any]) -> str:
    with pytest.raises(CannotTake) as caught:
        find_socket(environ)
    return str(caught.value)


def take(found: Found) -> Any:
    """Take what is a plain socket here; for TLS see test_takeover_tls.py."""
    return takeover.take(found)


# --- what is found -------------------------------------------------------------------------------


def test_an_unknown_server_is_named() -> None:
    environ = {"SERVER_SOFTWARE": "Odd/1.0", "wsgi.input": io.BytesIO()}
    assert text_of(environ) == f"Odd/1.0: its socket is not in the environ; {OWN_PORT}"


def test_a_server_without_a_name() -> None:
    assert text_of({}) == f"this server: its socket is not in the environ; {OWN_PORT}"


def test_werkzeug_with_processes(pair: Pair) -> None:
    environ = {
        "SERVER_SOFTWARE": "Werkzeug/3",
        "werkzeug.socket": pair.server,
        "wsgi.multiprocess": True,
    }
    assert text_of(environ) == (
        "Werkzeug/3: with processes=N the process that has the connection ends with the request; "
        "run it threaded (the default)"
    )


def test_werkzeug_threaded(pair: Pair) -> None:
    stream = pair.server.makefile("rb")
    found = find_socket({"werkzeug.socket": pair.server, "wsgi.input": stream})
    assert (found.server, found.socket) == ("Werkzeug", pair.server)
    stream.close()


def test_gunicorn(pair: Pair) -> None:
    unreader = SimpleNamespace(read=lambda: b"early")
    stream = SimpleNamespace(reader=SimpleNamespace(unreader=unreader))
    found = find_socket({"gunicorn.socket": pair.server, "wsgi.input": stream})
    assert (found.server, found.socket, found.early()) == ("gunicorn", pair.server, b"early")


def test_a_version_that_keeps_it_elsewhere(pair: Pair) -> None:
    text = text_of({"gunicorn.socket": pair.server, "wsgi.input": io.BytesIO()})
    assert text == (
        "gunicorn: this version keeps its socket elsewhere "
        f"('_io.BytesIO' object has no attribute 'reader'); {OWN_PORT}"
    )


class Channel:
    """What waitress has for a connection, as far as we look at it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.requests = [object()]
        self.request: Any = SimpleNamespace(header_plus=b"early", headers_finished=False)
        self.total_outbufs_len = 0

    def check(self) -> None: ...


def test_waitress_that_has_parsed_what_is_behind(pair: Pair) -> None:
    one, other = Channel(pair.server), Channel(pair.server)
    one.requests.append(object())
    other.request.headers_finished = True
    for channel in (one, other):
        assert text_of({"waitress.client_disconnected": channel.check}) == (
            "waitress: behind the upgrade came another request in the same packet, and it has "
            "parsed it; have the client wait for the 101 (RFC 6455 section 4.1)"
        )


def test_waitress_that_still_sends_what_was_asked_for_before(pair: Pair) -> None:
    channel = Channel(pair.server)
    channel.total_outbufs_len = 1
    assert text_of({"waitress.client_disconnected": channel.check}) == (
        "waitress: the answer to a request before the upgrade has not been sent yet; have the "
        "client wait for that answer"
    )


def test_waitress(pair: Pair) -> None:
    channel = Channel(pair.server)
    found = find_socket({"waitress.client_disconnected": channel.check})
    assert (found.server, found.socket) == ("waitress", pair.server)
    assert (found.early(), channel.request, found.early()) == (b"early", None, b"")


def test_wsgiref_by_its_reader(pair: Pair) -> None:
    with pair.server.makefile("rb") as stream:
        found = find_socket({"wsgi.input": stream, "SERVER_SOFTWARE": "WSGIServer/0.2"})
        assert (found.server, found.socket) == ("WSGIServer/0.2", pair.server)


def test_pywsgi_by_its_name(pair: Pair) -> None:
    with pair.server.makefile("rb") as stream:
        found = find_socket({"wsgi.input": stream, "SERVER_SOFTWARE": "gevent/26.9 Python/3.11"})
        assert (found.server, found.socket) == ("gevent/26.9 Python/3.11", pair.server)


def test_a_pywsgi_that_keeps_it_elsewhere() -> None:
    text = text_of({"wsgi.input": io.BytesIO(), "SERVER_SOFTWARE": "gevent/99.1 Python/3.11"})
    assert text.startswith("gevent/99.1 Python/3.11: this version keeps its socket elsewhere (")


@pytest.mark.parametrize(
    ("options", "has_threads", "text"),
    [
        pytest.param(
            {"https-socket"},
            1,
            "with --https-socket TLS is inside uWSGI; end TLS at a proxy",
            id="tls",
        ),
        pytest.param(
            {"ssl-socket"}, 1, "with --ssl-socket TLS is inside uWSGI; end TLS at a proxy", id="ssl"
        ),
        *(
            pytest.param(
                {option},
                1,
                "without --http-websockets its router relays nothing after the upgrade; "
                "add --http-websockets",
                id=option,
            )
            for option in ("http", "httprouter", "https", "https2")
        ),
        pytest.param(
            {"http-socket"},
            0,
            "without --enable-threads our event loop never runs in it; add --enable-threads",
            id="threads",
        ),
    ],
)
def test_uwsgi_refused(
    monkeypatch: pytest.MonkeyPatch, options: set[str], has_threads: int, text: str
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi(options, has_threads))
    assert text_of({"uwsgi.version": b"2.0.30"}) == f"uWSGI 2.0.30: {text}"


@pytest.mark.parametrize("options", [{"http-socket"}, {"http", "http-websockets"}, {"socket"}])
def test_uwsgi(monkeypatch: pytest.MonkeyPatch, options: set[str]) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi(options, 1))
    found = find_socket({"uwsgi.version": b"2.0.30"})
    assert (found.server, found.socket, found.early()) == ("uWSGI 2.0.30", 7, b"")


def uwsgi(options: set[str], has_threads: int) -> Any:
    """Return what is in uWSGI's module, which exists only inside it."""
    return SimpleNamespace(
        version=b"2.0.30",
        opt=dict.fromkeys(options, True),
        has_threads=has_threads,
        connection_fd=lambda: 7,
    )


def test_a_tls_socket_is_refused_where_that_is_off(pair: Pair) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with context.wrap_socket(
        pair.server, server_side=True, do_handshake_on_connect=False
    ) as wrapped:
        environ = {"werkzeug.socket": wrapped, "wsgi.input": io.BytesIO()}
        with pytest.raises(CannotTake) as caught:
            find_socket(environ, tls=False)
        assert str(caught.value) == (
            "Werkzeug: it ends TLS itself, and tls_takeover is off; "
            "switch it on, or end TLS at a proxy before it"
        )
        assert find_socket(environ).socket is wrapped


def test_tls_of_another_library_is_refused() -> None:
    kind = type("Connection", (), {"__module__": "OpenSSL.SSL"})
    text = text_of({"werkzeug.socket": kind(), "wsgi.input": io.BytesIO()})
    assert text == (
        "Werkzeug: it ends TLS itself, with a OpenSSL.SSL.Connection; "
        "use its adapter for Python's own ssl, or end TLS at a proxy before it"
    )


def test_an_unknown_kind_of_socket_is_refused() -> None:
    class Wrapped:
        def fileno(self) -> int:
            return 0

    text = text_of({"werkzeug.socket": Wrapped(), "wsgi.input": io.BytesIO()})
    assert text.startswith("Werkzeug: its socket is a ")
    assert text.endswith(f".Wrapped, not a plain one; {OWN_PORT}")


def test_a_subclass_of_socket_is_plain() -> None:
    class Mine(socket.socket):
        pass

    with Mine() as mine:
        found = find_socket({"werkzeug.socket": mine, "wsgi.input": io.BytesIO()})
        assert found.socket is mine


# --- the swap ------------------------------------------------------------------------------------


def found_in(pair: Pair, early: bytes = b"") -> Found:
    return Found("test", pair.server, lambda: early)


def test_the_servers_side_ends_and_ours_goes_on(pair: Pair) -> None:
    taken = take(found_in(pair))
    assert pair.server.recv(10) == b""
    pair.server.sendall(b"HTTP/1.1 101 \r\n\r\n")
    assert taken.sink.recv(100) == b"HTTP/1.1 101 \r\n\r\n"
    pair.client.sendall(b"from the client")
    assert taken.connection.recv(100) == b"from the client"
    taken.connection.sendall(b"from us")
    assert pair.client.recv(100) == b"from us"
    taken.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_the_servers_side_blocks_as_it_did(pair: Pair, blocking: bool) -> None:  # noqa: FBT001
    os.set_blocking(pair.server.fileno(), blocking)
    taken = take(found_in(pair))
    assert os.get_blocking(pair.server.fileno()) == blocking
    assert not taken.connection.getblocking()
    taken.close()


def test_the_server_can_shut_down_and_close_without_harm(pair: Pair) -> None:
    taken = take(found_in(pair))
    pair.server.shutdown(socket.SHUT_WR)
    pair.server.close()
    assert taken.sink.recv(10) == b""
    taken.connection.sendall(b"still here")
    assert pair.client.recv(100) == b"still here"
    taken.close()
    assert pair.client.recv(10) == b""


def test_early_bytes_of_a_real_reader(pair: Pair) -> None:
    pair.client.sendall(b"GET / HTTP/1.1\r\n\r\nearly frames")
    reader = pair.server.makefile("rb")
    assert [reader.readline(), reader.readline()] == [b"GET / HTTP/1.1\r\n", b"\r\n"]
    taken = take(find_socket({"werkzeug.socket": pair.server, "wsgi.input": reader}))
    assert taken.early == b"early frames"
    pair.client.sendall(b"late")
    assert taken.connection.recv(100) == b"late"
    taken.close()
    reader.close()


@pytest.mark.parametrize("early", [None, b"", bytearray(b"x")])
def test_early_is_bytes(pair: Pair, early: Any) -> None:
    taken = take(found_in(pair, early))
    assert type(taken.early) is bytes
    assert taken.early == bytes(early or b"")
    taken.close()


def test_descriptors(pair: Pair) -> None:
    number = pair.server.fileno()
    taken = take(found_in(pair))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit > 1100:
        assert taken.connection.fileno() >= 1024
    assert pair.server.fileno() == number
    for fd in (number, taken.connection.fileno(), taken.sink.fileno()):
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert taken.connection.getblocking() is False
    assert taken.sink.getblocking() is False
    taken.close()


def test_a_number_is_enough(pair: Pair) -> None:
    taken = take(Found("uWSGI", pair.server.fileno(), bytes))
    pair.client.sendall(b"x")
    assert taken.connection.recv(10) == b"x"
    taken.close()


def test_no_descriptor_is_left_behind() -> None:
    before = descriptors()
    for _ in range(20):
        server, client = socket.socketpair()
        taken = take(Found("test", server, bytes))
        server.close()
        taken.close()
        client.close()
    assert descriptors() == before


def test_without_a_free_descriptor_nothing_has_changed(pair: Pair) -> None:
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.dup(pair.client.fileno()) for _ in range(8)]  # fill gaps below
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, hard))
    try:
        os.close(spare.pop())
        os.close(spare.pop())  # two: enough for the pair, not for ours
        with pytest.raises(OSError, match="Too many open files"):
            take(found_in(pair))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in spare:
            os.close(fd)
    assert descriptors() == before
    pair.client.sendall(b"ping")
    assert pair.server.recv(10) == b"ping"
    pair.server.sendall(b"pong")
    assert pair.client.recv(10) == b"pong"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_closed_socket_cannot_be_taken() -> None:
    server, client = socket.socketpair()
    server.close()
    with client:
        before = descriptors()
        with pytest.raises(OSError, match="the client has gone"):
            take(Found("test", server, bytes))
        assert descriptors() == before


def test_a_reader_that_fails_ends_the_connection(pair: Pair) -> None:
    def fail() -> bytes:
        msg = "cannot read"
        raise ValueError(msg)

    before = descriptors()
    with pytest.raises(ValueError, match="cannot read"):
        take(Found("test", pair.server, fail))
    assert descriptors() == before
    assert pair.client.recv(10) == b""


def test_a_descriptor_that_is_no_socket_leaves_nothing_behind() -> None:
    read, write = os.pipe()
    before = descriptors()
    try:
        with pytest.raises(OSError, match="ocket"):
            take(Found("uWSGI", read, bytes))
        left = descriptors() - before
        for fd in left:
            os.close(int(fd))
        assert left == set()
    finally:
        os.close(read)
        os.close(write)
