"""The start of the loop's thread; what it then does is in tests/test_lifecycle.py."""

from __future__ import annotations

import errno
import socket
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


def no_thread(*args: object) -> Any:
    msg = "can't start new thread"
    raise RuntimeError(msg)


@pytest.mark.parametrize(
    ("name", "fault", "text"),
    [("new_loop", full, "too many open files"), ("start_thread", no_thread, "new thread")],
)
def test_a_start_that_fails_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[..., Any], text: str
) -> None:
    sockets = WebSockets(auth=Anonymous())
    with monkeypatch.context() as patch:
        patch.setattr(sidecar_module, name, fault)
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
