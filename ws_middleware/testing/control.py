"""A server's hand on the frames of a connection, as a test wants it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ws_middleware.errors import ConnectionClosed

if TYPE_CHECKING:
    from ws_middleware.config import Heartbeat

__all__ = ["FakeControl"]

#: What the end of a connection without a close frame is called (RFC 6455 section 7.4.1).
_LOST: Final = 1006


class FakeControl:
    """What `ws_middleware.uvicorn` puts into a scope, without a server.

    For harnesses that make a scope by themselves::

        scope["extensions"]["ws_middleware.control"] = control = FakeControl()

    Everything may be set while it is in use.

    Args:
        latency: seconds of the loop's clock after which a ping is answered: 0 at once, `None`
            never.
    """

    def __init__(self, *, latency: float | None = 0.0) -> None:
        self.latency = latency
        #: Bytes that the kernel has not taken: what `buffered()` returns.
        self.waiting_bytes = 0
        #: What `reading_paused()` returns.
        self.is_paused = False
        #: Whether the connection was dropped.
        self.is_aborted = False
        #: What `set_heartbeat()` was last called with.
        self.heartbeat: Heartbeat | None = None
        #: What was called, in order.
        self.calls: list[str] = []
        self._pings: set[asyncio.Future[float]] = set()

    def __repr__(self) -> str:
        return f"<FakeControl {self.calls}>"

    def ping(self) -> asyncio.Future[float]:
        """Send a ping; the future has the seconds until its pong, or `ConnectionClosed`."""
        self.calls.append("ping")
        loop = asyncio.get_running_loop()
        answer = self._expect(loop)
        if self.is_aborted:
            answer.set_exception(ConnectionClosed(_LOST))
        elif self.latency == 0.0:
            answer.set_result(0.0)
        elif self.latency is not None:
            loop.call_later(self.latency, self._give, answer, self.latency)
        return answer

    def _expect(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[float]:
        answer: asyncio.Future[float] = loop.create_future()
        self._pings.add(answer)
        answer.add_done_callback(self._pings.discard)
        return answer

    @staticmethod
    def _give(answer: asyncio.Future[float], seconds: float) -> None:
        if not answer.done():
            answer.set_result(seconds)

    def abort(self) -> None:
        """Drop the connection; no ping is answered any more."""
        self.calls.append("abort")
        self.is_aborted = True
        self._lose_pings()

    def _lose_pings(self) -> None:
        """Nobody is there any more who would answer."""
        for answer in [each for each in self._pings if not each.done()]:
            answer.set_exception(ConnectionClosed(_LOST))

    def set_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        """Ping by this, in the place of the server's own options; `None`: not at all."""
        self.calls.append("set_heartbeat")
        self.heartbeat = heartbeat

    def buffered(self) -> int:
        """Return how many bytes the kernel has not taken."""
        self.calls.append("buffered")
        return self.waiting_bytes

    def reading_paused(self) -> bool:
        """Whether nothing is read for now."""
        self.calls.append("reading_paused")
        return self.is_paused
