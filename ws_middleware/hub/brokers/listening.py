"""What a process hears on Redis: every channel that it wants, or it is told that it hears nothing.

redis-py's own `PubSub` reconnects in silence, and whoever listens never learns that messages were
missed. So the connection is driven here: every loss is told, every channel is subscribed anew and
confirmed before `connected` is said, and what is not confirmed in time is a loss.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from ws_middleware.errors import BrokerUnavailable

from .trying import Reconnecting, together

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from . import Subscriber
    from .addresses import Servers
    from .trying import Reasons

__all__ = ["Listener"]

#: Seconds from one confirmation to the next, whatever else comes in between.
_PATIENCE: Final = 10.0
#: Seconds from one look at the clock to the next.
_TICK: Final = 0.5
#: Channels in one command.
_CHANNELS: Final = 500
#: Answers in a row, where they are there already, before others on the loop have their turn.
_TURN: Final = 100


class Listener:
    """The connection to listen on, and the channels that are wanted on it. On one loop."""

    def __init__(self, servers: Servers, subscriber: Subscriber, reasons: Reasons) -> None:
        self._subscriber = subscriber
        self._reasons = reasons
        self._connections = Reconnecting(servers, self._serve, self._lost)
        self._wanted: set[str] = set()
        #: What has not been asked for yet on this connection: channels to add, and to remove.
        self._changes: dict[str, bool] = {}
        self._changed = asyncio.Event()
        #: Confirmations that are still to come, and those of them that come before `connected`.
        self._owed = 0
        self._first: int | None = None
        #: When the last one came, or had been asked for.
        self._progress = 0.0
        self._is_away = False

    def want(self, channel: str, *, wanted: bool) -> None:
        """Note what is wanted; it is asked for together with what else changes now."""
        if wanted == (channel in self._wanted):
            return
        (self._wanted.add if wanted else self._wanted.discard)(channel)
        if self._changes.pop(channel, None) is None:  # else it is as it was
            self._changes[channel] = wanted
            self._changed.set()

    def drop(self) -> None:
        """Drop the connection, though nothing is wrong that we can see, and begin anew."""
        self._connections.drop()

    async def work(self) -> None:
        """Listen for as long as the broker is open."""
        await self._connections.work()

    def _lost(self, error: Exception) -> None:
        if self._is_away:
            self._reasons.tell("nothing can be heard", error)
        else:  # the subscriber says so
            self._reasons.note(error)
        self._is_away = True
        self._subscriber.lost(error)

    # --- on one connection -------------------------------------------------------------------

    async def _serve(self, connection: AbstractConnection) -> None:
        self._changes = dict.fromkeys(self._wanted, True)
        self._changed.set()
        self._owed, self._first = 0, None
        await together(self._ask(connection), self._listen(connection), self._watch())

    async def _ask(self, connection: AbstractConnection) -> None:
        """Tell Redis what has changed, a batch at a time."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self._changes = self._changes, {}
            added = sorted(channel for channel, wanted in changes.items() if wanted)
            removed = sorted(channel for channel, wanted in changes.items() if not wanted)
            self._owe(len(changes))
            await self._command(connection, "UNSUBSCRIBE", removed)
            await self._command(connection, "SUBSCRIBE", added)

    async def _command(
        self, connection: AbstractConnection, command: str, channels: list[str]
    ) -> None:
        for start in range(0, len(channels), _CHANNELS):
            batch = channels[start : start + _CHANNELS]
            await connection.send_command(command, *batch, check_health=False)

    def _owe(self, count: int) -> None:
        if not self._owed:
            self._progress = time.monotonic()
        self._owed += count
        if self._first is None:
            self._first = count
            if not count:
                self._connected()

    def _confirmed(self) -> None:
        """Take one confirmation: they come in the order of what was asked."""
        self._progress = time.monotonic()
        self._owed -= 1
        if self._first:
            self._first -= 1
            if not self._first:
                self._connected()

    def _connected(self) -> None:
        self._is_away = False
        self._subscriber.connected()

    async def _listen(self, connection: AbstractConnection) -> None:
        while True:
            for _ in range(_TURN):
                try:
                    answer = await connection.read_response()
                except ResponseError as error:
                    msg = f"SUBSCRIBE was refused: {error}"
                    raise BrokerUnavailable(msg) from error
                self._take(answer)
            await asyncio.sleep(0)

    def _take(self, answer: Any) -> None:  # noqa: ANN401 - Redis' own lists
        kind, name, rest = answer
        if kind == b"message":
            channel = name.decode()
            if channel in self._wanted:
                self._subscriber.received(channel, rest)
        else:
            self._confirmed()

    async def _watch(self) -> None:
        """End a connection on which nothing is confirmed."""
        while True:
            await asyncio.sleep(_TICK)
            if self._owed and self._progress < time.monotonic() - _PATIENCE:
                msg = f"no channel confirmed in {_PATIENCE:g} s"
                raise TimeoutError(msg)
