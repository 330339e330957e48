"""All that belongs to one event loop: its links, timers, mailbox, and its part of the registry.

Everything here is touched by that loop's thread only, but for `run`, `is_current` and `size`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from ws_middleware.hub.fan_out import FanOut
from ws_middleware.hub.registry import Registry
from ws_middleware.native import get_ident
from ws_middleware.receipt import Receipt

from .clock import SYSTEM
from .mailbox import Mailbox
from .timers import Wheel

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine
    from typing import Any

    from ws_middleware.websocket import WebSocket

    from .clock import Clock

__all__ = ["FLUSH", "Runtime"]

T = TypeVar("T")

#: Bytes a read takes at most, and so the grain in which a peer can hold our attention.
_READ: Final = 64 * 1024

#: How many links are written to in one turn; each is a system call. The others have their turn soon
#: after, and what is sent to them meanwhile goes out in the same write: with a burst of messages to
#: 1,000 sockets that makes a third of the writes.
FLUSH: Final = 100

#: Seconds that handlers have, at shutdown, between the end of their sockets and their own.
_LAST_WORDS: Final = 1.0


class Flushed(Protocol):
    """What writes at the end of a turn."""

    def flush(self) -> None:
        """Write what this turn has produced."""


class RuntimeLink(Protocol):
    """What a runtime does with a link."""

    def shut(self, code: int, reason: str) -> None:
        """Close, whatever state it is in."""

    def abort(self) -> None:
        """Drop the connection."""


class Runtime:
    """One per loop; made on that loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock = SYSTEM) -> None:
        self.loop = loop
        self.clock = clock
        self.thread_id = get_ident()
        self.wheel = Wheel(loop, clock)
        self.mailbox = Mailbox(loop)
        self.registry = Registry()
        self.fan_out = FanOut(self.later)
        self.links: set[RuntimeLink] = set()
        #: One for all links: a read is copied out of it before the next one begins.
        self.buffer = memoryview(bytearray(_READ))
        #: Told of each handler that raised, for the test kit; the log has it in any case.
        self.on_failure: Callable[[WebSocket, BaseException], None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._dirty: deque[Flushed] = deque()
        self._flushes = False
        self._gone = asyncio.Event()
        self._sinks: set[socket.socket] = set()

    def is_current(self) -> bool:
        """Whether the calling thread is this loop's. From any thread."""
        return get_ident() == self.thread_id

    def run(self, action: Callable[[], object]) -> bool:
        """Run `action` on the loop: now if this is its thread, else soon. From any thread.

        False if the loop has ended: then nothing was or will be run.
        """
        if self.is_current():
            action()
            return True
        return self.mailbox.post(action)

    def later(self, delay: float, action: Callable[[], object]) -> asyncio.TimerHandle:
        """Run `action` after `delay` seconds, in another turn."""
        return self.loop.call_later(delay, action)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task, and hold on to it: asyncio itself does not."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Receipt[T]:
        """Run a coroutine as a task; the receipt has its outcome. From any thread."""
        receipt: Receipt[T] = Receipt()

        async def work() -> None:
            try:
                receipt.resolve(await coroutine)
            except asyncio.CancelledError as error:
                receipt.fail(error)
                raise
            except BaseException as error:  # a SystemExit in here must not end the loop
                receipt.fail(error)

        if not self.run(lambda: self.spawn(work())):
            coroutine.close()
            receipt.fail(RuntimeError("the loop has ended"))
        return receipt

    # --- links -------------------------------------------------------------------------------

    def add(self, link: RuntimeLink) -> None:
        """A connection was made."""
        self.links.add(link)

    def remove(self, link: RuntimeLink) -> None:
        """A connection is gone."""
        self.links.discard(link)
        if not self.links:
            self._gone.set()

    def flush_soon(self, outflow: Flushed) -> None:
        """Have it flushed at the end of this turn, or of one soon after; a wake-up for all."""
        if not self._flushes:
            self._flushes = True
            self.loop.call_soon(self._flush)
        self._dirty.append(outflow)

    def _flush(self) -> None:
        dirty = self._dirty
        try:
            for _ in range(min(len(dirty), FLUSH)):
                dirty.popleft().flush()
        finally:  # what one of them raises is for the loop to report, and no matter of the others
            self._flushes = bool(dirty)
            if dirty:
                self.loop.call_soon(self._flush)

    @property
    def size(self) -> int:
        """How many connections there are. From any thread."""
        return len(self.links)

    def drain(self, sink: socket.socket) -> None:
        """Read and forget what a host's server still writes, until it closes its end."""
        self._sinks.add(sink)
        self.loop.add_reader(sink, self._drain, sink)

    def _drain(self, sink: socket.socket) -> None:
        try:
            more = sink.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        if not more:
            self._forget(sink)

    def _forget(self, sink: socket.socket) -> None:
        self._sinks.discard(sink)
        self.loop.remove_reader(sink)
        sink.close()

    # --- the end -----------------------------------------------------------------------------

    async def close(self, code: int, reason: str, *, over: float, timeout: float) -> None:
        """Close all links, spread over `over` seconds; end within `timeout`, whatever they do."""
        deadline = self.clock.now() + timeout
        await self._shut_all(code, reason, min(over, timeout * 0.8))
        await self._wait_gone(deadline - self.clock.now())
        for link in list(self.links):
            link.abort()
        await self._end_tasks(deadline)
        for sink in list(self._sinks):
            self._forget(sink)
        self.wheel.stop()
        self.mailbox.close()

    async def _end_tasks(self, deadline: float) -> None:
        """Let handlers come to their end by themselves for a moment, then cancel them."""
        tasks = self._tasks - {asyncio.current_task()}
        if tasks:
            left = deadline - self.clock.now()
            await asyncio.wait(tasks, timeout=max(0.0, min(_LAST_WORDS, left - _LAST_WORDS)))
        # Not once: an event that is cancelled is followed by its on_close.
        while tasks := self._tasks - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.1)
            if self.clock.now() >= deadline:
                return

    async def _shut_all(self, code: int, reason: str, over: float) -> None:
        links = list(self.links)
        pause = over / len(links) if links else 0.0
        for number, link in enumerate(links):
            link.shut(code, reason)
            if pause > 0 and number + 1 < len(links):
                await asyncio.sleep(pause)
            elif number % 256 == 255:  # noqa: PLR2004 - a slice of a turn
                await asyncio.sleep(0)

    async def _wait_gone(self, timeout: float) -> None:
        self._gone.clear()
        if self.links and timeout > 0:
            try:
                await asyncio.wait_for(self._gone.wait(), timeout)
            except TimeoutError:
                return
