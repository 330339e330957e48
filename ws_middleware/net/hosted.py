"""Event loops that are somebody else's: an ASGI server's, which calls us on it.

Nothing says when such a loop begins or ends. So it gets a runtime with the first call on it, and is
forgotten when it turns out to be closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Final

from ws_middleware.native import Lock, start_thread
from ws_middleware.receipt import Receipt, when_all

from .asgi_link import ASGILink
from .engine import GOING_AWAY
from .logs import Logger
from .others import connect, disconnect
from .runtime import Runtime

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Hosted"]

_log: Final = Logger("ws_middleware.asgi")

#: Seconds beyond the timeout of a close after which a loop is not waited for any more.
_OVERTIME: Final = 0.3
#: Seconds that `def` events have, at shutdown, between the end of their sockets and their own.
_LAST_WORDS: Final = 1.0
#: Seconds between two looks at them.
_LOOK: Final = 0.02


class _Runtime(Runtime):
    """The runtime of a loop that may share its thread with others, one after the other."""

    def is_current(self) -> bool:
        """Whether the calling thread is running this loop. From any thread."""
        return asyncio._get_running_loop() is self.loop  # noqa: SLF001 - documented, does not raise


class Hosted:
    """The runtimes of one engine, one for each loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._runtimes: dict[asyncio.AbstractEventLoop, Runtime] = {}
        self._closed: Receipt[None] | None = None

    def here(self) -> Runtime | None:
        """Return the runtime of the running loop; `None` once `close` was called."""
        loop = asyncio.get_running_loop()
        return self._runtimes.get(loop) or self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> Runtime | None:
        with self._lock:
            if self._closed is not None:
                return None
            ended = [each for each in self._runtimes if each.is_closed()]
            left = [self._runtimes.pop(each) for each in ended]
            runtime = self._runtimes[loop] = _Runtime(loop, self._engine.clock)
        for each in left:
            self._forget(each)
        self._engine.hub.attach(runtime)
        connect(self._engine, runtime)
        return runtime

    def _forget(self, runtime: Runtime) -> None:
        """Let go of a loop that has ended, and of the connections that ended with it."""
        self._engine.hub.detach(runtime)
        self._engine.hub.uplink.withdraw(runtime)
        for link in list(runtime.links):
            assert isinstance(link, ASGILink)  # the only kind there is on such a loop
            link.forsake()

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._closed is not None

    def close(self, code: int, reason: str, *, over: float, timeout: float) -> Receipt[None]:
        """Close every socket, within `timeout` seconds; the receipt says when. From any thread."""
        with self._lock:
            if self._closed is not None:
                return self._closed
            runtimes, self._runtimes = list(self._runtimes.values()), {}
            closed: Receipt[None] = Receipt()
            self._closed = closed
        self._engine.gate.shut(GOING_AWAY)
        joint = when_all([self._end(each, code, reason, over, timeout) for each in runtimes])
        if not runtimes:
            closed.resolve(None)
            return closed
        joint.add_done_callback(lambda: closed.resolve(None))
        with contextlib.suppress(OSError):  # then only whoever waits has a timeout
            start_thread(partial(self._give_up, runtimes, closed, timeout), "ws-closer")
        return closed

    def _give_up(self, runtimes: list[Runtime], closed: Receipt[None], timeout: float) -> None:
        """Keep the promise of `timeout` though a loop may be blocked, or not run at all."""
        try:
            closed.result(timeout + _OVERTIME)
        except TimeoutError:
            _log.warning("close() did not wait for an event loop that does not turn")
            for each in runtimes:
                self._engine.hub.detach(each)
            closed.resolve(None)

    async def _wait_for_threads(self, deadline: float) -> None:
        """Let `def` events that a close has caused come to their turn, for a moment."""
        events, now = self._engine.threads["events"], self._engine.clock.now
        until = min(deadline, now() + _LAST_WORDS)
        while (events.busy or events.waiting) and now() < until:  # noqa: ASYNC110 - they are threads
            await asyncio.sleep(_LOOK)

    def _end(
        self, runtime: Runtime, code: int, reason: str, over: float, timeout: float
    ) -> Receipt[None]:
        async def end() -> None:
            deadline = self._engine.clock.now() + timeout
            try:
                await runtime.close(code, reason, over=over, timeout=timeout)
                await self._wait_for_threads(deadline)
                await disconnect(self._engine, runtime)
            finally:
                self._forget(runtime)

        ended: Receipt[None] = Receipt()
        told = runtime.submit(end())
        told.add_done_callback(lambda: ended.resolve(None))  # a loop that has ended is an end, too
        return ended
