"""What a process publishes on Redis: in order, at most once, and answered or failed within seconds.

Nothing is published twice: a command whose answer did not come may have been carried out, so its
receipt fails, and it is not sent again. What was never sent waits for the next connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from redis.exceptions import ClusterDownError, MovedError, ReadOnlyError, ResponseError

from ws_middleware.errors import BrokerUnavailable
from ws_middleware.receipt import Receipt

from .trying import Reconnecting, together

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from .addresses import Servers
    from .trying import Reasons

__all__ = ["Publisher"]

#: Seconds that Redis has for an answer, while it gives none to what was sent earlier either.
_PATIENCE: Final = 5.0
#: Seconds from one look at the clock to the next.
_TICK: Final = 0.5
#: What waits for Redis, or for its answer, and for how long it may before it is sent. After that it
#: is old news.
_QUEUED: Final = 100_000
_QUEUED_BYTES: Final = 64 * 1024**2
_QUEUED_FOR: Final = 10.0
#: Commands in one write, and bytes after which no other is added. Then others on the loop have
#: their turn; other threads hand over as many in one.
_BATCH: Final = 1000
_BATCH_BYTES: Final = 256 * 1024

#: Refusals that mean the server, and not the one message.
_WRONG_SERVER: Final = (ReadOnlyError, ClusterDownError, MovedError)


class _Queued(NamedTuple):
    """A message that waits to be published."""

    channel: str
    data: bytes
    receipt: Receipt[int | None]
    since: float


class _Sent(NamedTuple):
    """One that waits for its answer."""

    receipt: Receipt[int | None]
    size: int


class Publisher:
    """The connection to publish on, and what waits for it. On one loop."""

    def __init__(self, servers: Servers, reasons: Reasons) -> None:
        self._servers = servers
        self._reasons = reasons
        self._connections = Reconnecting(servers, self._serve, self._lost)
        self._queue: deque[_Queued] = deque()
        self._sent: deque[_Sent] = deque()
        #: Bytes in both.
        self._bytes = 0
        #: When Redis last answered, or had nothing to answer.
        self._progress = 0.0
        self._waiting = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._error: Exception | None = None
        self._ended = False

    # --- what is asked of it -----------------------------------------------------------------

    def add(self, channel: str, data: bytes) -> Receipt[int | None]:
        """Take a message, or refuse it at once where too much waits."""
        if self._ended:
            return Receipt.failed(BrokerUnavailable("the broker is closed"))
        is_full = len(self._queue) + len(self._sent) >= _QUEUED
        if is_full or self._bytes + len(data) > _QUEUED_BYTES:
            return Receipt.failed(self._unavailable("too much waits for it already"))
        queued = _Queued(channel, data, Receipt(), time.monotonic())
        self._queue.append(queued)
        self._bytes += len(data)
        self._waiting.set()
        self._empty.clear()
        return queued.receipt

    async def emptied(self) -> None:
        """Wait until nothing waits."""
        await self._empty.wait()

    def drop(self) -> None:
        """Drop the connection and make another."""
        self._connections.drop()

    def end(self) -> None:
        """Fail what still waits."""
        self._ended = True
        for receipt in [each.receipt for each in self._sent] + [
            each.receipt for each in self._queue
        ]:
            receipt.fail(self._unavailable("the broker was closed"))
        self._sent.clear()
        self._queue.clear()
        self._bytes = 0

    async def work(self) -> None:
        """Publish for as long as the broker is open."""
        try:
            await together(self._connections.work(), self._keep_time())
        finally:
            self.end()

    # --- with or without a connection --------------------------------------------------------

    def _unavailable(self, what: str) -> BrokerUnavailable:
        cause = f" ({self._error})" if self._error is not None else ""
        return BrokerUnavailable(f"Redis at {self._servers}: {what}{cause}")

    async def _keep_time(self) -> None:
        """Give up on what has waited for too long: late, it would only confuse."""
        while True:
            await asyncio.sleep(_TICK)
            oldest = time.monotonic() - _QUEUED_FOR
            while self._queue and self._queue[0].since < oldest:
                each = self._queue.popleft()
                self._bytes -= len(each.data)
                each.receipt.fail(self._unavailable(f"away for {_QUEUED_FOR:g} s"))
            self._note_empty()

    def _note_empty(self) -> None:
        if not self._queue and not self._sent:
            self._empty.set()

    def _lost(self, error: Exception) -> None:
        """Fail what is unconfirmed; what was never sent goes on waiting."""
        self._error = error
        is_news = bool(self._sent) or not self._connections.is_connected
        if is_news:  # an idle connection that ends is made anew, and nothing has happened
            self._reasons.tell("nothing can be published", error)
        sent, self._sent = self._sent, deque()
        for each in sent:
            self._bytes -= each.size
            each.receipt.fail(self._unavailable("no answer, so it may have been sent or not"))
        self._note_empty()

    # --- on one connection -------------------------------------------------------------------

    async def _serve(self, connection: AbstractConnection) -> None:
        await together(self._send(connection), self._confirm(connection), self._watch())

    async def _send(self, connection: AbstractConnection) -> None:
        while True:
            await self._waiting.wait()
            batch = self._next_batch()
            if batch:
                packed = connection.pack_commands(batch)
                await connection.send_packed_command(packed, check_health=False)
            if not self._queue:
                self._waiting.clear()
            await asyncio.sleep(0)

    def _next_batch(self) -> list[tuple[str, str, bytes]]:
        """Move some from what waits to what was sent; return the commands."""
        if not self._sent:
            self._progress = time.monotonic()
        batch: list[tuple[str, str, bytes]] = []
        size = 0
        while self._queue and len(batch) < _BATCH and size < _BATCH_BYTES:
            channel, data, receipt, _ = self._queue.popleft()
            batch.append(("PUBLISH", channel, data))
            self._sent.append(_Sent(receipt, len(data)))
            size += len(data)
        return batch

    async def _confirm(self, connection: AbstractConnection) -> None:
        """Read the answers; an idle connection that ends is seen here, before anything is sent."""
        while True:
            try:
                answer = await connection.read_response()
            except _WRONG_SERVER:
                raise
            except ResponseError as error:
                self._answered().fail(self._refused(error))
            else:
                self._error = None
                self._answered().resolve(self._receivers(answer))

    def _answered(self) -> Receipt[int | None]:
        self._progress = time.monotonic()
        if not self._sent:
            msg = "it answers what was not asked"
            raise ConnectionError(msg)
        receipt, size = self._sent.popleft()
        self._bytes -= size
        self._note_empty()
        return receipt

    def _refused(self, error: Exception) -> BrokerUnavailable:
        self._error = error
        self._reasons.tell("PUBLISH was refused", error)
        return self._unavailable("it refused the message")

    def _receivers(self, answer: object) -> int | None:
        """Return how many connections it went to; a node of a cluster knows only its own."""
        is_known = isinstance(answer, int) and not self._servers.is_cluster
        return answer if is_known else None  # type: ignore[return-value]

    async def _watch(self) -> None:
        """End a connection on which no answer comes."""
        while True:
            await asyncio.sleep(_TICK)
            if self._sent and self._progress < time.monotonic() - _PATIENCE:
                msg = f"no answer in {_PATIENCE:g} s"
                raise TimeoutError(msg)
