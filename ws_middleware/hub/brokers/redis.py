"""Redis as broker: its publish and subscribe, on one connection each. Sole importer of redis.

redis-py's own `PubSub` reconnects in silence, and whoever listens never learns that messages were
missed. So the connection is driven here: every loss is told, every channel is subscribed anew and
confirmed before `connected` is said, and a connection that hangs is dropped by whoever notices.

Nothing is published twice: a command whose answer did not come may have been carried out, so its
receipt fails, and it is not sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import RedisError

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.receipt import Receipt

from .addresses import Servers

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from redis.asyncio.connection import AbstractConnection

    from . import Subscriber

__all__ = ["RedisBroker"]

#: Seconds that Redis has for an answer, and for a connection.
_PATIENCE: Final = 5.0
#: Seconds from one attempt to the next: doubled each time, and cut at random by up to a half.
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
#: What waits to be published while Redis is away, and for how long. After that it is old news.
_QUEUED: Final = 10_000
_QUEUED_BYTES: Final = 64 * 1024**2
_QUEUED_FOR: Final = 10.0
#: Commands in one write, and channels in one command.
_BATCH: Final = 100
_CHANNELS: Final = 500
#: Seconds that the end has.
_LAST: Final = 0.9

_FAILURES: Final = (RedisError, OSError, TimeoutError, asyncio.IncompleteReadError)


class _Queued(NamedTuple):
    """A message that waits to be published."""

    channel: str
    data: bytes
    receipt: Receipt[None]
    since: float


class RedisBroker:
    """See `Broker` for what each method does; `url` as `addresses.Servers` takes it."""

    def __init__(self, url: str) -> None:
        self._servers = Servers(url)
        self._subscriber: Subscriber | None = None
        self._publisher = _Publisher(self._servers)
        self._listener: _Listener | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<RedisBroker {self._servers}>"

    def open(self, subscriber: Subscriber) -> None:
        """Begin, on the running loop."""
        self._listener = _Listener(self._servers, subscriber)
        self._start(self._publisher.work())
        self._start(self._listener.work())

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

    def publish(self, channel: str, data: bytes) -> Receipt[None]:
        """Publish after all that was published before."""
        return self._publisher.add(channel, data)

    def rebuild(self) -> None:
        """Drop the connection that is listened on, and begin anew."""
        assert self._listener is not None
        self._listener.drop()

    async def close(self) -> None:
        """End within a second."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._publisher.emptied()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._publisher.end()


class _Backoff:
    """How long to wait before the next attempt: all processes lost Redis in the same moment."""

    def __init__(self) -> None:
        self._pause = _FIRST_PAUSE

    def reset(self) -> None:
        self._pause = _FIRST_PAUSE

    async def wait(self) -> None:
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - guards nothing


class _Publisher:
    """The connection to publish on, and what waits for it."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._queue: deque[_Queued] = deque()
        self._bytes = 0
        #: Sent, in order, and not answered yet.
        self._sent: deque[_Queued] = deque()
        self._waiting = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._error: Exception | None = None
        self._ended = False

    def add(self, channel: str, data: bytes) -> Receipt[None]:
        """Take a message, or refuse it at once where too much waits."""
        if self._ended:
            return Receipt.failed(BrokerUnavailable("the broker is closed"))
        self._expire()
        if len(self._queue) >= _QUEUED or self._bytes + len(data) > _QUEUED_BYTES:
            return Receipt.failed(self._unavailable("too much waits for it already"))
        queued = _Queued(channel, data, Receipt(), time.monotonic())
        self._queue.append(queued)
        self._bytes += len(data)
        self._waiting.set()
        self._empty.clear()
        return queued.receipt

    def _unavailable(self, what: str) -> BrokerUnavailable:
        cause = f" ({self._error})" if self._error is not None else ""
        return BrokerUnavailable(f"Redis at {self._servers}: {what}{cause}")

    def _expire(self) -> None:
        """Give up on what has waited for too long: late, it would only confuse."""
        oldest = time.monotonic() - _QUEUED_FOR
        while self._queue and self._queue[0].since < oldest:
            self._take().receipt.fail(self._unavailable(f"away for {_QUEUED_FOR:g} s"))
        self._note_empty()

    def _note_empty(self) -> None:
        if not self._queue and not self._sent:
            self._empty.set()

    def _take(self) -> _Queued:
        queued = self._queue.popleft()
        self._bytes -= len(queued.data)
        return queued

    async def emptied(self) -> None:
        """Wait until nothing waits."""
        await self._empty.wait()

    def end(self) -> None:
        """Fail what still waits."""
        self._ended = True
        for each in (*self._sent, *self._queue):
            each.receipt.fail(self._unavailable("the broker was closed"))
        self._sent.clear()
        self._queue.clear()

    async def work(self) -> None:
        """Publish for as long as the broker is open."""
        backoff = _Backoff()
        while True:
            try:
                async with self._servers.connection() as connection:
                    await _together(
                        self._send(connection), self._confirm(connection, backoff), self._watch()
                    )
            except _FAILURES as error:
                self._lost(error)
                await backoff.wait()

    def _lost(self, error: Exception) -> None:
        """Fail what is unconfirmed; what was never sent goes on waiting."""
        self._error = error
        sent, self._sent = self._sent, deque()
        for each in sent:
            each.receipt.fail(self._unavailable("no answer, so it may have been sent or not"))
        self._expire()

    async def _send(self, connection: AbstractConnection) -> None:
        while True:
            await self._waiting.wait()
            self._expire()
            batch = [self._take() for _ in range(min(_BATCH, len(self._queue)))]
            self._sent += batch
            commands = [("PUBLISH", each.channel, each.data) for each in batch]
            if commands:
                packed = connection.pack_commands(commands)
                await connection.send_packed_command(packed, check_health=False)
            if not self._queue:
                self._waiting.clear()

    async def _confirm(self, connection: AbstractConnection, backoff: _Backoff) -> None:
        """Read the answers; an idle connection that ends is seen here, before anything is sent."""
        while True:
            await connection.read_response()
            self._sent.popleft().receipt.resolve(None)
            backoff.reset()
            self._error = None
            self._note_empty()

    async def _watch(self) -> None:
        """End a connection on which no answer comes."""
        while True:
            await asyncio.sleep(_PATIENCE / 5)
            self._expire()
            if self._sent and self._sent[0].since < time.monotonic() - _PATIENCE:
                msg = f"no answer in {_PATIENCE:g} s"
                raise TimeoutError(msg)


class _Listener:
    """The connection to listen on, and the channels that are wanted on it."""

    def __init__(self, servers: Servers, subscriber: Subscriber) -> None:
        self._servers = servers
        self._subscriber = subscriber
        self._wanted: set[str] = set()
        self._asked: set[str] = set()
        self._changed = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    def want(self, channel: str, *, wanted: bool) -> None:
        """Note what is wanted; it is asked for together with what else changes now."""
        (self._wanted.add if wanted else self._wanted.discard)(channel)
        self._changed.set()

    def drop(self) -> None:
        """Drop the connection, though nothing is wrong that we can see, and begin anew."""
        if self._serving is not None:
            self._serving.cancel("deaf")

    async def work(self) -> None:
        """Listen for as long as the broker is open."""
        backoff = _Backoff()
        while True:
            self._serving = asyncio.get_running_loop().create_task(self._serve(backoff))
            try:
                await asyncio.wait({self._serving})
            except asyncio.CancelledError:
                self._serving.cancel()
                await asyncio.wait({self._serving})
                raise
            self._subscriber.lost(_cause(self._serving))
            await backoff.wait()

    async def _serve(self, backoff: _Backoff) -> None:
        async with self._servers.connection() as connection:
            self._asked = set()
            self._changed.set()
            await _together(self._ask(connection), self._listen(connection, backoff))

    async def _listen(self, connection: AbstractConnection, backoff: _Backoff) -> None:
        missing = set(self._wanted)
        async with asyncio.timeout(_PATIENCE):
            while missing & self._wanted:
                missing.discard(self._take(await connection.read_response()))
        backoff.reset()
        self._subscriber.connected()
        while True:
            self._take(await connection.read_response())

    def _take(self, answer: Any) -> str:  # noqa: ANN401 - Redis' own nested lists
        """Take one answer; return the channel whose subscription it confirms, or nothing."""
        kind, channel, rest = answer[0], answer[1].decode(), answer[2]
        if kind == b"message":
            if channel in self._wanted:
                self._subscriber.received(channel, rest)
            return ""
        return channel if kind == b"subscribe" else ""

    async def _ask(self, connection: AbstractConnection) -> None:
        """Tell Redis what has changed, a batch at a time."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            added, removed = self._wanted - self._asked, self._asked - self._wanted
            self._asked = set(self._wanted)
            for command, channels in (("UNSUBSCRIBE", removed), ("SUBSCRIBE", added)):
                ordered = sorted(channels)
                for start in range(0, len(ordered), _CHANNELS):
                    batch = ordered[start : start + _CHANNELS]
                    await connection.send_command(command, *batch, check_health=False)


async def _together(*works: Coroutine[Any, Any, None]) -> None:
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
