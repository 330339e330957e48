"""Redis as broker: its publish and subscribe, on one connection each."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from .addresses import Servers
from .listening import Listener
from .publishing import Publisher
from .trying import Reasons

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ws_middleware.receipt import Receipt

    from . import Subscriber

__all__ = ["RedisBroker"]

#: Seconds that the end has.
_LAST: Final = 0.9


class RedisBroker:
    """See `Broker` for what each method does; `url` as `addresses.Servers` takes it."""

    def __init__(self, url: str) -> None:
        self._servers = Servers(url)
        self._reasons = Reasons(self._servers)
        self._publisher = Publisher(self._servers, self._reasons)
        self._listener: Listener | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<RedisBroker {self._servers}>"

    def open(self, subscriber: Subscriber) -> None:
        """Begin, on the running loop."""
        self._listener = Listener(self._servers, subscriber, self._reasons)
        self._start(self._listener.work())
        self._start(self._publisher.work())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    def subscribe(self, channel: str) -> None:
        """Receive what is published on `channel`, soon."""
        assert self._listener is not None
        self._listener.want(channel, wanted=True)

    def unsubscribe(self, channel: str) -> None:
        """Receive no more of it."""
        assert self._listener is not None
        self._listener.want(channel, wanted=False)

    def publish(self, channel: str, data: bytes) -> Receipt[int | None]:
        """Publish after all that was published before; a cluster cannot say how many hear it."""
        return self._publisher.add(channel, data)

    def rebuild(self) -> None:
        """Drop both connections: what is not heard may not have been said, either."""
        assert self._listener is not None
        self._listener.drop()
        self._publisher.drop()

    async def close(self) -> None:
        """End within a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._publisher.emptied()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._publisher.end()
