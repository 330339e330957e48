"""One connection to Redis after the other, for as long as a broker is open.

redis-py would reconnect in silence. Here every loss is told, with its reason, and no server that
refuses us is asked at full speed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.errors import BrokerUnavailable

from .connections import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from redis.asyncio.connection import AbstractConnection

    from .addresses import Servers

__all__ = ["Reasons", "Reconnecting", "together"]

_log: Final = logging.getLogger("ws_middleware.bus")

#: Seconds from one attempt to the next: doubled each time, and cut at random by up to a half.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 3.0
#: Seconds that a connection has to last, or the next pause goes on being doubled: every new one has
#: the app fetch what it missed.
_STEADY: Final = 5.0

#: Seconds for which a reason that was logged is not logged again, and how many there may be.
_REMEMBERED: Final = 60.0
_REASONS: Final = 10


class Reasons:
    """Why Redis is away, for the log: each reason once a minute, whoever meets it."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._told: dict[str, float] = {}

    def tell(self, what: str, error: Exception) -> None:
        """Log what is wrong, unless it is known."""
        if self.note(error):
            _log.warning("%s: %s (%s); trying again", self._servers, what, error)

    def note(self, error: Exception) -> bool:
        """Take down what somebody else logs; return whether it is new."""
        now, reason = time.monotonic(), str(error)
        self._told = {why: at for why, at in self._told.items() if at > now - _REMEMBERED}
        if reason in self._told or len(self._told) >= _REASONS:
            return False
        self._told[reason] = now
        return True


class Reconnecting:
    """Has `serve` called with one connection after the other.

    Args:
        servers: where to connect to.
        serve: what a connection is for; never returns, but raises when it is of no use any more.
        lost: called with the reason whenever there is no connection: each time one ends, and each
            time none could be made.
    """

    def __init__(
        self,
        servers: Servers,
        serve: Callable[[AbstractConnection], Coroutine[Any, Any, None]],
        lost: Callable[[Exception], None],
    ) -> None:
        self._servers = servers
        self._serve = serve
        self._lost = lost
        self._pause = _FIRST_PAUSE
        #: When the connection was made, if there is one.
        self._since: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def work(self) -> None:
        """Go on until cancelled."""
        while True:
            self._task = asyncio.get_running_loop().create_task(self._once())
            try:
                await asyncio.wait({self._task})
            except asyncio.CancelledError:
                self._task.cancel()
                await asyncio.wait({self._task})
                raise
            self._lost(_cause(self._task))
            await self._wait()

    async def _once(self) -> None:
        self._since = None
        async with connected(self._servers) as connection:
            self._since = time.monotonic()
            await self._serve(connection)

    async def _wait(self) -> None:
        """Pause: all processes lost Redis in the same moment."""
        if self._since is not None and time.monotonic() - self._since > _STEADY:
            self._pause = _FIRST_PAUSE
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - guards nothing

    @property
    def is_connected(self) -> bool:
        """Whether there was a connection, until the loss that is told just now."""
        return self._since is not None

    def drop(self) -> None:
        """Drop the connection, though nothing is wrong that we can see."""
        if self._task is not None:
            self._task.cancel()


async def together(*works: Coroutine[Any, Any, None]) -> None:
    """Run all of them until one ends, and raise what ended it."""
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _cause(task: asyncio.Task[None]) -> Exception:
    """Return why a task that never ends by itself has ended."""
    if task.cancelled():
        return BrokerUnavailable("it had gone deaf")
    error = task.exception()
    return error if isinstance(error, Exception) else BrokerUnavailable(f"it ended: {error!r}")
