"""An ASGI server in memory: what is between a test's client and an app that speaks ASGI.

It is our own core under the app, as `ws_middleware.uvicorn` has it: real frames, real pings, and
uvicorn's default settings. What a server would have made of its port, the test says.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.net.asgi_host import AppOnLink
from ws_middleware.net.asgi_messages import DENIAL
from ws_middleware.net.control import CONTROL
from ws_middleware.net.link import SocketLink
from ws_middleware.uvicorn import HEAD, Control, policy_of

from .control import FakeControl

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping

    from ws_middleware.config import Heartbeat
    from ws_middleware.net.runtime import Runtime

    App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[object]]

__all__ = ["ServerLink"]

_log: Final = logging.getLogger("ws_middleware.testing")

_UVICORNS: Final = SimpleNamespace(
    ws_ping_interval=20.0, ws_ping_timeout=20.0, ws_max_size=16 * 1024**2
)


class _App(AppOnLink):
    """An app, with nothing left to chance."""

    jitter = staticmethod(float)  # 0.0: the first ping comes after a whole interval


class ServerLink(SocketLink):
    """The server's end of one connection.

    Args:
        runtime: where the server is.
        app: the ASGI app.
        scope: what its scope has besides the request and the extensions.
    """

    def __init__(self, runtime: Runtime, app: App, scope: Mapping[str, Any]) -> None:
        self.runtime = runtime  # the app asks its link for it, and the link asks for its app
        self.control = _RealControl(self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.app = _App(
            self,
            app,
            lambda: {**scope, "extensions": {DENIAL: {}, CONTROL: self.control}},
            policy=policy_of(_UVICORNS),
            head=HEAD,
            accept_headers=tuple,
            tasks=self._tasks,
            log=_log,
        )
        super().__init__(self.app, runtime)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        super().connection_lost(exc)
        self.control.lost()
        self.app.gone()

    @property
    def buffered(self) -> int:
        """Nothing: a client in memory takes everything at once."""
        return 0

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read."""
        return not self._reading


class _RealControl(FakeControl):
    """One that does what it says: pings are frames, which the test's client answers, or does not.

    What the test has set comes on top: a pong that is later, or is lost; more bytes; a pause.
    """

    def __init__(self, link: ServerLink) -> None:
        super().__init__()
        self._link = link
        self._real = Control(link)

    def ping(self) -> asyncio.Future[float]:
        self.calls.append("ping")
        loop = self._link.runtime.loop
        answer = self._expect(loop)

        def pass_on(pong: asyncio.Future[float]) -> None:
            if pong.exception() is None and self.latency is not None:
                loop.call_later(self.latency, self._give, answer, pong.result() + self.latency)

        self._real.ping().add_done_callback(pass_on)
        return answer

    def set_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        super().set_heartbeat(heartbeat)
        self._real.set_heartbeat(heartbeat)

    def lost(self) -> None:
        """The connection is gone."""
        self._lose_pings()

    def abort(self) -> None:
        super().abort()
        self._real.abort()

    def buffered(self) -> int:
        return super().buffered() + self._real.buffered()

    def reading_paused(self) -> bool:
        return super().reading_paused() or self._real.reading_paused()
