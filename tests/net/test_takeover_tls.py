from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificates import Certificate, make_certificate
from ws_middleware.net.takeover import CannotTake, Found, find_socket, take
from ws_middleware.net.takeover_tls import TLSConnection, is_movable, is_tls

from .tls_pairs import TLSPair, make_pair, shake_hands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def pair(certificate: Certificate) -> Iterator[TLSPair]:
    made = make_pair(certificate)
    yield made
    made.server.close()
    made.client.close()


def descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))  # noqa: PTH208 - names are enough


def take_it(pair: TLSPair, early: Callable[[], bytes] = bytes) -> tuple[Any, socket.socket, bytes]:
    taken = take(Found("test", pair.server, early))
    assert isinstance(taken.connection, TLSConnection)
    return taken.connection, taken.sink, taken.early


def read(connection: TLSConnection, size: int = 100) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: connection.read_into(memoryview(buffer))])


def test_the_servers_side_ends_and_ours_goes_on(pair: TLSPair) -> None:
    connection, sink, _ = take_it(pair)
    assert pair.server.recv(10) == b""
    assert pair.server.recv_into(bytearray(10)) == 0
    assert pair.server.pending() == 0
    pair.server.sendall(b"HTTP/1.1 101 ")
    assert pair.server.send(b"\r\n") == 2
    assert sink.recv(100) == b"HTTP/1.1 101 \r\n"
    pair.feed(b"from the client")
    assert read(connection) == b"from the client"
    connection.write(memoryview(b"from us"))
    assert pair.read() == b"from us"
    connection.close()
    sink.close()


def test_whatever_the_server_does_to_its_end_ours_goes_on(pair: TLSPair) -> None:
    connection, sink, _ = take_it(pair)
    number = connection.fileno()
    assert pair.server.fileno() not in {-1, number}
    pair.server.settimeout(3)
    assert pair.server.gettimeout() == 3
    pair.server.settimeout(None)
    assert pair.server.getblocking() is True
    pair.server.unwrap()
    pair.server.shutdown(socket.SHUT_RDWR)
    pair.server.close()
    pair.server.close()
    assert sink.recv(10) == b""
    with pytest.raises(ssl.SSLWantReadError):  # still non-blocking
        read(connection)
    connection.write(memoryview(b"still here"))
    assert pair.read() == b"still here"
    assert connection.fileno() == number
    connection.close()
    sink.close()


def test_early_bytes_are_the_readers_and_then_openssls_each_once(pair: TLSPair) -> None:
    pair.feed(b"GET / HTTP/1.1\r\n\r\n" + b"early frames" * 1000)
    reader = pair.server.makefile("rb", buffering=1000)
    assert [reader.readline(), reader.readline()] == [b"GET / HTTP/1.1\r\n", b"\r\n"]
    connection, sink, early = take_it(pair, reader.read)
    assert len(early) == 1000 - 18
    assert connection.pending == 12_000 - len(early)
    assert early + read(connection, 20_000) == b"early frames" * 1000
    assert connection.pending == 0
    reader.close()
    connection.close()
    sink.close()


def test_a_reader_that_is_closed_after_us_closes_no_dummy_under_the_server(pair: TLSPair) -> None:
    reader = pair.server.makefile("rb")
    connection, sink, _ = take_it(pair)
    connection.close()
    reader.close()
    assert pair.server.fileno() >= 0
    assert pair.server.recv(10) == b""
    pair.server.close()
    sink.close()


def test_once_closed_the_object_reaches_nobody_elses_descriptor(pair: TLSPair) -> None:
    connection, sink, _ = take_it(pair)
    number = connection.fileno()
    connection.close()
    assert connection.fileno() == -1
    os.dup2(sink.fileno(), number)
    try:
        with pytest.raises(ValueError, match="closed or unwrapped"):
            pair.server.read(10)
        with pytest.raises(ValueError, match="closed or unwrapped"):
            pair.server.write(b"x")
    finally:
        os.close(number)
    connection.close()
    sink.close()


def test_no_descriptor_is_left_behind(certificate: Certificate) -> None:
    before = descriptors()
    for _ in range(10):
        pair = make_pair(certificate)
        connection, sink, _ = take_it(pair)
        for fd in (connection.fileno(), sink.fileno(), pair.server.fileno()):
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        pair.server.close()
        connection.close()
        sink.close()
        pair.client.close()
    assert descriptors() == before


def test_without_a_free_descriptor_nothing_has_changed(pair: TLSPair) -> None:
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.dup(pair.client.fileno()) for _ in range(8)]  # fill gaps below
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            take_it(pair)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in spare:
            os.close(fd)
    assert descriptors() == before
    pair.feed(b"ping")
    assert pair.server.recv(10) == b"ping"
    pair.server.sendall(b"pong")
    assert pair.read() == b"pong"


def test_a_reader_that_fails_ends_the_connection(certificate: Certificate) -> None:
    def fail() -> bytes:
        msg = "cannot read"
        raise ValueError(msg)

    pair = make_pair(certificate)
    number = pair.server.fileno()
    with pytest.raises(ValueError, match="cannot read"):
        take_it(pair, fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    with pytest.raises(ssl.SSLEOFError):
        pair.read()
    pair.server.close()
    pair.client.close()


@pytest.mark.parametrize("end", ["close", "shutdown"])
def test_a_server_that_has_ended_its_tls_has_nothing_to_take(pair: TLSPair, end: str) -> None:
    if end == "close":
        pair.server.close()
    else:
        pair.server.shutdown(socket.SHUT_WR)
    before = descriptors()
    with pytest.raises(OSError, match="the client has gone") as caught:
        take_it(pair)
    assert caught.value.errno == errno.EBADF
    assert descriptors() == before
    assert "recv" not in vars(pair.server)


def test_a_client_that_has_gone_is_found_at_the_first_read(certificate: Certificate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, address = listener.accept()
    pair = make_pair(certificate, (server, client))
    linger_never = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # so that it resets
    pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_never)
    pair.client.close()
    connection, sink, _ = take_it(pair)
    assert connection.peername in {None, address}
    with contextlib.suppress(ConnectionResetError):
        assert read(connection) == b""
    connection.close()
    pair.server.close()
    sink.close()


def test_the_kinds_of_socket_that_are_tls(pair: TLSPair) -> None:
    class Mine(ssl.SSLSocket):
        pass

    class Green(ssl.SSLSocket):  # as eventlet's, which switches greenlets in there
        def read(self, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002
            raise NotImplementedError

    for one in (pair.server, Mine.__new__(Mine)):
        assert is_tls(one)
        assert is_movable(one)
    green = Green.__new__(Green)
    assert is_tls(green)
    assert not is_movable(green)
    with pytest.raises(CannotTake, match=r"ends TLS itself, with a .*\.Green; use its adapter"):
        find_socket({"werkzeug.socket": green, "wsgi.input": pair.server})
    with socket.socket() as plain:
        assert not is_tls(plain)
    assert not is_tls(5)


@pytest.fixture
def no_hub_is_left() -> Iterator[None]:
    """Other tests have none in their thread, and wait as threads do."""
    gevent = pytest.importorskip("gevent")
    yield
    gevent.get_hub().destroy(destroy_loop=True)


@pytest.mark.usefixtures("no_hub_is_left")
def test_gevents_object_moves_too(certificate: Certificate) -> None:
    gevent_ssl = pytest.importorskip("gevent.ssl")
    gevent_socket = pytest.importorskip("gevent.socket")
    before = descriptors()
    one, other = socket.socketpair()
    context = gevent_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    server = context.wrap_socket(
        gevent_socket.socket(fileno=one.detach()), server_side=True, do_handshake_on_connect=False
    )
    client = certificate.client().wrap_socket(
        other, server_hostname="127.0.0.1", do_handshake_on_connect=False
    )
    shake_hands(server, client)
    pair = TLSPair(server, client)
    assert is_movable(server)
    assert not isinstance(server, ssl.SSLSocket)
    connection, sink, _ = take_it(pair)
    assert server.recv(10) == b""
    server.close()
    with pytest.raises(ssl.SSLWantReadError):
        read(connection)
    pair.feed(b"x")
    assert read(connection) == b"x"
    connection.write(memoryview(b"y"))
    assert pair.read() == b"y"
    connection.say_end()
    connection.end_writing()
    assert pair.read() == b""
    connection.close()
    sink.close()
    client.close()
    assert len(descriptors()) <= len(before) + 5  # gevent's hub has its own
