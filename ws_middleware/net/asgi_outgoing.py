"""What goes to an ASGI server's `send`: one event at a time, in the order it was asked for.

A wrapped app's own events are handed on by the app's own task, whose pace they keep. Messages of
the hub, and those of our own handlers, wait in the outbox, for whom nobody waits; a task empties
it, and exists only while there is something in it. No server ends a send that hangs, so it is known
here since when one does, and whose task has to be freed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.receipt import Receipt

from .asgi_messages import send_event
from .outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from ws_middleware.config import Limits, Slow
    from ws_middleware.types import EncodedMessage

    from .runtime import Runtime

    Event = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Event]]
    Send = Callable[[Event], Awaitable[None]]

__all__ = ["Outgoing", "PeerGone"]

#: Bytes that may wait before a sender who waits for its receipts is told to.
_HIGH: Final = 64 * 1024
#: The same in messages: of empty ones there would be no end.
_MANY: Final = 512


class PeerGone(OSError):  # noqa: N818 - what the servers' own exceptions at a lost peer are, too
    """The peer is not there any more: what a wrapped app's `send` raises."""

    def __init__(self) -> None:
        super().__init__("the peer of this WebSocket is gone")


class Outgoing:
    """The sending side of one link. All on its runtime's loop."""

    def __init__(self, runtime: Runtime, send: Send) -> None:
        self._runtime = runtime
        self._send = send
        self._lock = asyncio.Lock()
        self._outbox: Outbox | None = None
        #: How many messages have been put into the outbox.
        self._put = 0
        #: Bytes of those that came while nothing was being sent: how many there are is not the
        #: peer's fault, for not even the first of them has been tried.
        self._fresh = 0
        #: How many of them have to be out before each of the app's events that wait.
        self._turns: deque[int] = deque()
        self._is_released = False
        self._is_draining = False
        #: The task that empties the outbox: asyncio itself holds on to none.
        self._drainer: asyncio.Task[None] | None = None
        self._is_over = False
        #: The close, behind all that waits.
        self._last: Event | None = None
        self._drains: list[Receipt[None]] = []
        #: When the send that is under way began.
        self.since: float | None = None
        self._task: asyncio.Task[Any] | None = None
        #: Whom we have freed of a send, until that shows.
        self._freed: asyncio.Task[Any] | None = None
        #: Called with the time when a send begins.
        self.on_begin: Callable[[float], None] = _ignore
        #: Called when the server says that the peer is lost, with the reason for the log.
        self.on_lost: Callable[[str], None] = _ignore
        #: Called before the close is handed over.
        self.on_last: Callable[[], None] = _nothing
        #: Called when the close has been handed over.
        self.on_end: Callable[[], None] = _nothing

    def open(self, limits: Limits, slow: Slow) -> None:
        """Take messages; they wait until `release`."""
        self._outbox = Outbox(limits, slow)

    # --- the app's own events ----------------------------------------------------------------

    async def put(self, event: Event) -> None:
        """Hand an event to the server, after all that was queued before it.

        Raises:
            PeerGone: there is nobody to send it to.
            Exception: what the server says of an event that it does not take.
        """
        if not self._is_draining:  # nothing waits, or only for the accept
            await self._lock.acquire()  # for nearly each message: `async with` costs twice as much
            try:
                await self._pass(event)
            finally:
                self._lock.release()
            return
        turn = self._put
        self._turns.append(turn)
        try:
            while not await self._try(event, turn):  # noqa: ASYNC110 - it gives way at the lock
                await asyncio.sleep(0)
        finally:
            self._turns.remove(turn)

    async def _try(self, event: Event, turn: int) -> bool:
        """Hand it over if its turn has come."""
        async with self._lock:
            if self._left < turn and not self._is_over:
                return False
            await self._pass(event)
        return True

    @property
    def _left(self) -> int:
        """How many messages have left the outbox, one way or the other."""
        return self._put - (len(self._outbox) if self._outbox else 0)

    # --- what waits --------------------------------------------------------------------------

    def queue(self, message: str | bytes | EncodedMessage) -> bool:
        """Take a message for whom nobody waits; False if too much waits for this peer."""
        assert self._outbox is not None
        before = self._outbox.bytes
        if not self._outbox.put(message, -self._fresh):
            return False
        if self._outbox:
            self._put += 1
            if self._is_released and not self._lock.locked():
                self._fresh += max(self._outbox.bytes - before, 0)
            self._drain_soon()
        return True

    def release(self) -> None:
        """Let out what has waited for the answer to the upgrade request."""
        self._is_released = True
        self._drain_soon()

    def end(self, event: Event) -> None:
        """Hand over this close after all that waits, and then nothing more."""
        self._last = event
        self._drain_soon()

    def _drain_soon(self) -> None:
        if self._is_released and not self._is_draining and (self._outbox or self._last):
            self._is_draining = True
            self._drainer = self._runtime.loop.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while (self._outbox or self._last) and not self._is_over:
                async with self._lock:
                    await self._drain_some()
                if self._turns:
                    await asyncio.sleep(0)  # they have to get at the lock
        except PeerGone:  # and whoever has to know does
            return
        except Exception as error:
            self.on_lost(f"send failed: {type(error).__name__}")
            return
        finally:
            self._is_draining = False
        self._settle()

    async def _drain_some(self) -> None:
        """Empty the outbox, or up to where one of the app's own events is next."""
        self._fresh = 0
        assert self._outbox is not None
        while self._outbox or self._last:
            if self._turns and self._left >= self._turns[0]:
                return
            if self._outbox:
                await self._pass(send_event(self._outbox.take()))
            elif self._last is not None:
                self.on_last()
                await self._pass(self._last)
                self._last = None
                self.on_end()

    # --- one event ---------------------------------------------------------------------------

    async def _pass(self, event: Event) -> None:
        """Wait until the server has taken an event; under the lock."""
        if self._is_over:
            raise PeerGone
        task = asyncio.current_task()
        assert task is not None
        cancelling = task.cancelling()
        self._task = task
        self.since = now = self._runtime.clock.now()
        self.on_begin(now)
        failure: BaseException | None = None
        try:
            await self._send(event)
        except BaseException as error:  # sorted below
            failure = error
        finally:
            self.since = self._task = None
        if self._freed is task:
            self._freed = None
            if failure is None or isinstance(failure, (Exception, asyncio.CancelledError)):
                self._take_back(task, cancelling)
        if failure is not None:
            self._fail(failure)

    @staticmethod
    def _take_back(task: asyncio.Task[Any], cancelling: int) -> None:
        """Make of our own cancellation what it means; somebody else's comes first."""
        if task.uncancel() > cancelling:
            raise asyncio.CancelledError
        raise PeerGone

    def _fail(self, failure: BaseException) -> None:
        if isinstance(failure, OSError) or (self._is_over and isinstance(failure, Exception)):
            self.on_lost(f"send failed: {type(failure).__name__}")
            raise PeerGone from failure
        raise failure

    def give_up(self) -> None:
        """Take nothing more, and free who is in a send: it may never end by itself."""
        self._is_over = True
        self._last = None
        self.drop()
        task = self._task
        if task is not None and task is not _current_task():
            self._freed = task
            task.cancel()

    def drop(self) -> None:
        """Forget the messages that wait."""
        if self._outbox is not None:
            self._outbox.clear()

    # --- for whom it matters -----------------------------------------------------------------

    @property
    def dropped(self) -> int:
        """How many messages were dropped for newer ones."""
        return 0 if self._outbox is None else self._outbox.dropped

    @property
    def may_drop(self) -> bool:
        """Whether one message too many costs messages, and not the socket. From any thread."""
        return self._outbox is not None and self._outbox.may_drop

    def drop_one(self) -> None:
        """Count a message that did not even get here."""
        if self._outbox is not None:
            self._outbox.dropped += 1

    @property
    def is_idle(self) -> bool:
        """Whether no message is on its way to the peer, or waits to be."""
        return not (self._lock.locked() or self._outbox)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many bytes and how many messages wait."""
        return (0, 0) if self._outbox is None else (self._outbox.bytes, len(self._outbox))

    def drained(self) -> Receipt[None] | None:
        """Return a receipt for when little waits; `None` if that is so."""
        size, count = self.waiting
        if size < _HIGH and count < _MANY:
            return None
        receipt: Receipt[None] = Receipt()
        self._drains.append(receipt)
        return receipt

    def _settle(self) -> None:
        drains, self._drains = self._drains, []
        for receipt in drains:
            receipt.resolve(None)

    def fail(self, error: Exception) -> None:
        """Nobody will be told any more that it has been sent."""
        drains, self._drains = self._drains, []
        for receipt in drains:
            receipt.fail(error)


def _ignore(_: object) -> None:
    pass


def _nothing() -> None:
    pass


def _current_task() -> asyncio.Task[Any] | None:
    """Return the running task; `None` also where the loop has been closed under it."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
