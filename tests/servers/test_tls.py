"""The suite of `test_wsgi`, where the server ends TLS itself; and what TLS alone has."""

from __future__ import annotations

import signal
import socket
import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from websockets.exceptions import ConnectionClosed

from tests.certificates import make_certificate
from tests.support import CLOSE, TEXT, close_frame, frame, head

from .conftest import run
from .test_wsgi import (
    refused,
    test_a_bad_upgrade_is_told,
    test_a_frame_in_the_packet_of_the_request_is_answered,
    test_a_view_may_own_its_socket,
    test_an_upgrade_is_one_line_of_the_access_log,
    test_idle_sockets_hold_no_thread_and_leave_no_descriptor,
    test_refusals_are_plain_http,
    test_text_a_large_message_and_http_beside_it,
    test_the_apps_own_hook_decides,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from .conftest import Running

__all__ = [
    "test_a_bad_upgrade_is_told",
    "test_a_frame_in_the_packet_of_the_request_is_answered",
    "test_a_view_may_own_its_socket",
    "test_an_upgrade_is_one_line_of_the_access_log",
    "test_idle_sockets_hold_no_thread_and_leave_no_descriptor",
    "test_refusals_are_plain_http",
    "test_text_a_large_message_and_http_beside_it",
    "test_the_apps_own_hook_decides",
]

SERVERS = [
    "werkzeug",
    "gunicorn-sync",
    "gunicorn-gthread",
    "gunicorn-gevent",
    "cheroot",
    "wsgiref",
]


def run_tls(
    name: str, folder: Path, *extra: str, **environ: str
) -> AbstractContextManager[Running]:
    """Run a server that ends TLS itself, with a certificate of its own."""
    made = make_certificate(folder)
    files = [str(made.certificate), str(made.key)]
    if name.startswith("gunicorn"):
        files = ["--certfile", files[0], "--keyfile", files[1]]
    return run(name, folder, *files, *extra, tls=made.client(), **environ)


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with run_tls(request.param, tmp_path_factory.mktemp("tls")) as running:
        yield running
        log = running.log
        assert "Traceback" not in log, log[-3000:]
        assert "ERROR" not in log, log[-3000:]
        assert "ResourceWarning" not in log, log[-3000:]


# --- what TLS alone has ---------------------------------------------------------------------------


def test_it_is_tls_13_that_this_is_about(server: Running) -> None:
    with server.peer() as peer:
        assert isinstance(peer.socket, ssl.SSLSocket)
        assert peer.socket.version() == "TLSv1.3"


def test_tls_12(server: Running) -> None:
    assert server.tls is not None
    server.tls.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with server.connect("/ws/chat/5", server.cookie()) as client:
            large = bytes(range(256)) * 1200
            client.send(large)
            assert client.recv(10) == large
    finally:
        server.tls.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED


def test_a_close_is_answered_and_followed_by_the_end_of_tls(server: Running) -> None:
    request = request_for("/ws/view", server)
    with server.peer() as peer:
        # An end without a close_notify raises.
        peer.socket.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        peer.send(request)
        assert peer.status() == 101
        assert peer.read_frame().payload == b"hello ann"
        peer.send(close_frame(1000))
        assert peer.read_frame().close_code == 1000
        assert peer.read_rest() == b""


def test_a_peer_that_goes_without_a_word_leaves_nothing(server: Running) -> None:
    request = request_for("/ws/view", server)
    _, fds = server.usage()
    with server.peer() as peer:
        peer.send(request)
        assert peer.status() == 101
        socket.socket.close(peer.socket)
    server.until(lambda: server.usage()[1] <= fds)


def test_what_is_too_big_is_told_before_the_end(server: Running) -> None:
    """The peer is in the middle of sending: a close over unread bytes would reset it."""
    request = request_for("/ws/chat/6", server)
    with server.peer() as peer:
        peer.send(request)
        assert peer.status() == 101
        peer.send(frame(TEXT, b"x" * 500_000, length=50_000_000))
        last = peer.read_frame()
        assert (last.opcode, last.close_code) == (CLOSE, 1009)
        assert peer.read_rest() == b""


def request_for(path: str, server: Running) -> bytes:
    # Before the peer connects: some of the servers have one connection at a time.
    return head(path, host=f"127.0.0.1:{server.port}", Origin=server.origin, **server.cookie())


@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"])
@pytest.mark.parametrize("sign", [signal.SIGHUP, signal.SIGTERM])
def test_a_worker_that_ends_says_restart(tmp_path: Path, name: str, sign: signal.Signals) -> None:
    with run_tls(name, tmp_path) as server, ExitStack() as stack:
        headers = server.cookie()
        clients = [stack.enter_context(server.connect("/ws/view", headers)) for _ in range(10)]
        for client in clients:
            client.recv(10)
        server.process.send_signal(sign)
        for client in clients:
            with pytest.raises(ConnectionClosed):
                client.recv(10)
            assert (client.close_code, client.close_reason) == (1012, "restart")
        assert "Traceback" not in server.log


def test_switched_off(tmp_path: Path) -> None:
    with run_tls("gunicorn-gthread", tmp_path, WSM_TLS_TAKEOVER="false") as server:
        assert refused(server, "/ws/view", server.cookie()) == (501, "server_unsupported")
        server.until(lambda: "tls_takeover is off; switch it on" in server.log)
        assert server.get("/") == "http"
