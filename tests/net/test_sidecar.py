"""The start of the loop's thread; what it then does is in tests/test_lifecycle.py."""

from __future__ import annotations

import errno
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ws_middleware import Anonymous, WebSockets
from ws_middleware.net import sidecar as sidecar_module
from ws_middleware.net.takeover import Taken
from ws_middleware.types import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable


def full(*args: object) -> Any:
    raise OSError(errno.EMFILE, "too many open files")


def no_thread_but(name: str) -> Callable[[threading.Thread], None]:
    """Start threads as a system does that has one left for this one, and no more."""

    def start(thread: threading.Thread) -> None:
        if thread.name != name:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        real(thread)

    real = threading.Thread.start
    return start


@pytest.mark.parametrize(
    ("where", "name", "fault", "text"),
    [
        pytest.param(sidecar_module, "new_loop", full, "too many open files", id="loop"),
        pytest.param(threading.Thread, "start", no_thread_but(""), "new thread", id="thread"),
        pytest.param(
            threading.Thread, "start", no_thread_but("ws-sidecar"), "new thread", id="watchdog"
        ),
    ],
)
def test_a_start_that_fails_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, fault: Callable[..., Any], text: str
) -> None:
    sockets = WebSockets(auth=Anonymous())
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fault)
        for _ in range(2):
            with pytest.raises(OSError, match=text):
                sockets.listen(port=0)
    assert sockets.listen(port=0)[1] > 0
    sockets.close(timeout=3).result(10)


def test_a_connection_is_closed_if_nobody_can_serve_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sidecar = WebSockets(auth=Anonymous())._open()
    monkeypatch.setattr(sidecar_module, "new_loop", full)
    client, connection = socket.socketpair()
    server, sink = socket.socketpair()
    with client, server:
        with pytest.raises(OSError, match="too many open files"):
            sidecar.adopt(Taken(connection, sink, b""), None, Refusal(403, "x", "x"))  # type: ignore[arg-type]
        client.settimeout(5)
        assert client.recv(10) == b""
    assert sidecar.close(1001, "", over=0, timeout=1).done
