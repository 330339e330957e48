"""The `websockets` client as the tests use it, and waiting with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as _connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.http11 import Response

    from tests.conftest import Served

__all__ = ["connect", "end_of", "refused", "until"]


def connect(served: Served, path: str = "/", **options: Any) -> ClientConnection:
    """Connect as a page of the same origin would; what comes is read, asked for or not."""
    defaults = {"origin": served.origin, "close_timeout": 5, "max_queue": None}
    options = {"proxy": None, "ping_interval": None, **defaults, **options}
    client: ClientConnection = _connect(served.url(path), **options)
    return client


def refused(served: Served, path: str = "/", **options: Any) -> Response:
    """Connect, be refused, and return the answer."""
    with pytest.raises(InvalidStatus) as caught:
        connect(served, path, **options)
    return caught.value.response


def end_of(client: ClientConnection, timeout: float = 5.0) -> tuple[int, str]:
    """Read to the end; return the close code and the reason, 1006 if there was no close frame."""
    try:
        while True:
            client.recv(timeout)
    except ConnectionClosed as closed:
        return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


def until(condition: Callable[[], object], timeout: float = 5.0) -> None:
    """Wait until `condition()` is true; fail if it is not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout} s"
        time.sleep(0.005)
