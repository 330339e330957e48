"""A TLS connection from a server's environ to a handler, and what a fork and an end make of it."""

from __future__ import annotations

import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificates import Certificate, make_certificate
from tests.support import CLOSE, TEXT, RawPeer, close_frame, frame
from ws_middleware import Anonymous, WebSocket, WebSockets
from ws_middleware.environ import request_from_environ
from ws_middleware.net.takeover import find_socket, take
from ws_middleware.net.takeover_tls import TLSConnection
from ws_middleware.types import Refusal

from .tls_pairs import TLSPair, make_pair

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def pair(certificate: Certificate) -> Iterator[TLSPair]:
    made = make_pair(certificate)
    made.client.settimeout(10)
    yield made
    made.server.close()
    made.client.close()


@pytest.fixture
def sockets() -> Iterator[WebSockets]:
    made = WebSockets(auth=Anonymous())

    @made.route("/ws")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    yield made
    made.close(timeout=2).result(5)


def environ_of(pair: TLSPair) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/ws",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "wsgi.url_scheme": "https",
        "wsgi.input": pair.server.makefile("rb"),
        "werkzeug.socket": pair.server,
    }


def upgrade(sockets: WebSockets, pair: TLSPair) -> str:
    """Upgrade as a server would; return the status that it logs."""
    said: list[str] = []
    app = sockets.wsgi(lambda environ, start_response: [])
    environ = environ_of(pair)
    chunks = app(environ, lambda status, headers, exc_info=None: said.append(status))  # type: ignore[arg-type]
    assert isinstance(chunks, list)
    environ["wsgi.input"].close()
    return said[0]


def peer_of(pair: TLSPair) -> RawPeer:
    peer = RawPeer.__new__(RawPeer)
    peer.socket, peer._buffer = pair.client, b""
    return peer


def test_from_the_environ_to_the_handler_and_back(sockets: WebSockets, pair: TLSPair) -> None:
    assert upgrade(sockets, pair) == "101 Switching Protocols"
    peer = peer_of(pair)
    assert peer.status() == 101
    peer.send(frame(TEXT, b"hello"))
    assert peer.read_frame().payload == b"hello"
    peer.send(close_frame(1000))
    last = peer.read_frame()
    assert (last.opcode, last.close_code) == (CLOSE, 1000)
    assert peer.read_rest() == b""


def test_switched_off_the_connection_is_the_servers(pair: TLSPair) -> None:
    sockets = WebSockets(auth=Anonymous(), tls_takeover=False)
    sockets.route("/ws")
    try:
        assert upgrade(sockets, pair).startswith("501 ")
        pair.server.sendall(b"HTTP/1.1 501")
        assert pair.client.recv(100) == b"HTTP/1.1 501"
    finally:
        sockets.close(timeout=2).result(5)


def test_after_the_end_a_connection_that_was_taken_is_closed(
    sockets: WebSockets, pair: TLSPair, certificate: Certificate
) -> None:
    assert upgrade(sockets, pair) == "101 Switching Protocols"
    sidecar = sockets._front.sidecar
    assert sidecar is not None
    sockets.close(timeout=0.1).result(5)
    again = make_pair(certificate)
    environ = environ_of(again)
    taken = take(find_socket(environ))
    request = request_from_environ(environ, 0.0)
    sidecar.adopt(taken, request, Refusal(403, "no", "no"))
    assert isinstance(taken.connection, TLSConnection)
    assert taken.connection.fileno() == -1
    assert taken.sink.fileno() == -1
    again.client.close()
    again.server.close()
    environ["wsgi.input"].close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_lets_go_of_it(sockets: WebSockets, pair: TLSPair) -> None:
    number = socket.socket.fileno(pair.server)
    upgrade(sockets, pair)
    peer = peer_of(pair)
    assert peer.status() == 101
    child = os.fork()
    if child == 0:
        with open(os.devnull) as nothing:  # noqa: PTH123
            os._exit(0 if os.path.samestat(os.fstat(number), os.fstat(nothing.fileno())) else 1)
    assert os.waitpid(child, 0)[1] == 0
    peer.send(frame(TEXT, b"still ours"))
    assert peer.read_frame().payload == b"still ours"


def test_a_socket_that_was_closed_before_is_an_answer_and_no_leak(
    sockets: WebSockets, pair: TLSPair
) -> None:
    pair.server.shutdown(socket.SHUT_RDWR)
    assert upgrade(sockets, pair).startswith("503 ")
    with pytest.raises(ssl.SSLEOFError):
        pair.client.recv(10)
