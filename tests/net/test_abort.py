"""Cutting connections that somebody else holds, on real sockets."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from contextlib import ExitStack
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest

from tests.net.asgi_door import Control
from ws_middleware.net import abort
from ws_middleware.net.abort import abort_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="descriptors are looked for in /proc")


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        server = socket.create_server((request.param, 0), family=family)
    except OSError:
        pytest.skip(f"there is no {request.param} here")
    with server:
        yield server


def connected(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(listener.getsockname()[:2], 5)
    server, _ = listener.accept()
    server.settimeout(5)
    return client, server


def scope_of(server: socket.socket) -> dict[str, Any]:
    ends = {"client": server.getpeername()[:2], "server": server.getsockname()[:2]}
    return {"http_version": "1.1", **ends}


def cut(scope: dict[str, Any], *, by_descriptor: bool = True) -> bool:
    told: Queue[bool] = Queue()
    abort_connection(scope, told.put, by_descriptor=by_descriptor)
    return told.get(timeout=10)


@on_linux
def test_the_one_connection_is_cut_and_no_other(listener: socket.socket) -> None:
    with ExitStack() as stack:
        pairs = [connected(listener) for _ in range(3)]
        for each in pairs:
            stack.enter_context(each[0])
            stack.enter_context(each[1])
        assert cut(scope_of(pairs[1][1]))
        assert pairs[1][1].recv(1) == b"", "the server is not told that it is over"
        assert pairs[1][0].recv(1) == b""
        for client, server in (pairs[0], pairs[2]):
            client.sendall(b"x")
            assert server.recv(1) == b"x"


@on_linux
@pytest.mark.parametrize("form", [list, lambda end: (end[0], str(end[1]))], ids=["list", "text"])
def test_ends_are_understood_as_servers_write_them(listener: socket.socket, form: Any) -> None:
    client, server = connected(listener)
    with client, server:
        scope = scope_of(server)
        assert cut({**scope, "client": form(scope["client"]), "server": form(scope["server"])})


@on_linux
def test_a_thousand_at_once_are_looked_for_by_one_thread(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []
    real = abort._shut_down
    began, go_on = threading.Event(), threading.Event()

    def scan(wanted: Any) -> Any:
        scans.append(len(wanted))
        began.set()
        go_on.wait(10)
        return real(wanted)

    monkeypatch.setattr(abort, "_shut_down", scan)
    pairs = [connected(listener) for _ in range(50)]
    told: Queue[bool] = Queue()
    abort_connection(scope_of(pairs[0][1]), told.put, by_descriptor=True)
    assert began.wait(10)
    for _, server in pairs[1:]:
        abort_connection(scope_of(server), told.put, by_descriptor=True)
    go_on.set()
    assert [told.get(timeout=10) for _ in pairs] == [True] * 50
    assert scans == [1, 49]
    for client, server in pairs:
        client.close()
        server.close()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"client": ("1.2.3.4", 0)}, id="a-proxys-word"),
        pytest.param({"client": None}, id="no-client"),
        pytest.param({"server": ("/run/app.sock", None)}, id="unix"),
        pytest.param({"server": None}, id="no-server"),
        pytest.param({"http_version": "2"}, id="shared-with-others"),
        pytest.param({"client": "1.2.3.4"}, id="text"),
        pytest.param({"client": ("192.0.2.1", 1)}, id="nobodys"),
    ],
)
def test_what_cannot_be_known_or_must_not_be_cut_is_left_alone(
    listener: socket.socket, changes: dict[str, Any]
) -> None:
    client, server = connected(listener)
    with client, server:
        assert not cut({**scope_of(server), **changes})
        client.sendall(b"x")
        assert server.recv(1) == b"x"


def test_what_cannot_be_cut_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    abort.warn_uncut.cache_clear()
    for _ in range(3):
        abort.warn_uncut(by_descriptor=True)
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    assert "--ws ws_middleware.uvicorn:WebSocketProtocol" in caplog.text
    assert "abort_by_descriptor" not in caplog.text


def test_what_may_not_be_cut_is_said_with_the_setting_that_forbids_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    abort.warn_uncut.cache_clear()
    abort.warn_uncut(by_descriptor=False)
    [said] = caplog.messages
    assert said == (
        "a peer is gone and its connection cannot be cut here (abort_by_descriptor is False): it "
        "stays until the server's own limits end it. Leave abort_by_descriptor at True, which cuts "
        "it on Linux. Or have it cut by the server: uvicorn's can be, with --ws "
        "ws_middleware.uvicorn:WebSocketProtocol"
    )


def test_where_the_app_forbids_it_no_descriptor_is_touched(listener: socket.socket) -> None:
    client, server = connected(listener)
    with client, server:
        assert not cut(scope_of(server), by_descriptor=False)
        client.sendall(b"x")
        assert server.recv(1) == b"x"


@pytest.mark.parametrize("by_descriptor", [True, False])
def test_a_server_that_gives_us_a_hand_is_asked(by_descriptor: bool) -> None:  # noqa: FBT001
    control = Control()
    scope = {"client": None, "extensions": {"ws_middleware.control": control}}
    assert cut(scope, by_descriptor=by_descriptor)
    assert control.aborted == 1


@on_linux
def test_other_kinds_of_descriptors_are_no_fault(listener: socket.socket) -> None:
    one, other = socket.socketpair()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client, server = connected(listener)
    with one, other, datagram, client, server:
        assert cut(scope_of(server))
        one.sendall(b"x")
        assert other.recv(1) == b"x"
