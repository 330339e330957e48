"""The `websockets` library's asyncio client, to be called like its sync one: for TLS.

The sync one reads in a thread of its own while the caller's writes. OpenSSL has one object for one
thread at a time: when a server's session tickets come while the request is being sent, a request is
lost now and then (under TLS 1.3, with Pythons that do not lock the object themselves).
"""

from __future__ import annotations

import asyncio
import functools
import threading
from typing import TYPE_CHECKING, Any, Self

from websockets.asyncio.client import connect

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from websockets.asyncio.client import ClientConnection

__all__ = ["LoopedClient"]


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="looped-clients", daemon=True).start()
    return loop


def _wait_for(coroutine: Coroutine[Any, Any, Any], timeout: float = 10.0) -> Any:
    limited = asyncio.wait_for(coroutine, timeout)
    return asyncio.run_coroutine_threadsafe(limited, _loop()).result(timeout + 5)


class LoopedClient:
    """A connection; a context manager."""

    def __init__(self, url: str, **options: Any) -> None:
        async def open_it() -> ClientConnection:
            return await connect(url, **options)

        self._connection: ClientConnection = _wait_for(open_it())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        _wait_for(self._connection.close())

    def send(self, message: str | bytes) -> None:
        _wait_for(self._connection.send(message))

    def recv(self, timeout: float) -> str | bytes:
        message: str | bytes = _wait_for(self._connection.recv(), timeout)
        return message

    @property
    def close_code(self) -> int | None:
        return self._connection.close_code

    @property
    def close_reason(self) -> str | None:
        return self._connection.close_reason
