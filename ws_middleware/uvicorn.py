"""Our core as uvicorn's WebSocket protocol, under any ASGI app.

`uvicorn app:app --ws ws_middleware.uvicorn:WebSocketProtocol` from 0.36 on, from 0.17.6 on
`uvicorn.run(app, ws=...)`, or `gunicorn -k ws_middleware.uvicorn.UvicornWorker`. What an app then
has that uvicorn's own classes do not give it: pings whose deadline stands still while the app is
slow, an end for peers that take nothing, bounds on fragments, and a close frame when the app
returns or fails.

uvicorn calls it as it calls its own, which is nowhere documented: the constructor's keywords, the
request as rebuilt bytes, and `server_state`. Nothing else of uvicorn is used. Compression is not
offered, whatever `ws_per_message_deflate` says. Pings are as uvicorn's options say, unless the app
has asked our door for a `Heartbeat`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

from .config import (
    DEFAULT_HEARTBEAT,
    DEFAULT_LIMITS,
    EffectivePolicy,
    Heartbeat,
    Limits,
    ServerLimits,
)
from .errors import ConnectionClosed
from .gate.auth.anonymous import Anonymous
from .net.asgi_host import AppOnLink
from .net.asgi_messages import DENIAL
from .net.link import SocketLink
from .net.runtime import Runtime
from .receipt import Receipt

__all__ = ["Control", "WebSocketProtocol"]

#: uvicorn has read the head: what it let through is not refused for its size.
HEAD: Final = ServerLimits(
    head_size=1024**2,
    head_fields=10_000,
    head_timeout=10.0,
    upgrade_timeout=120.0,  # the app's own business, but not for ever
)

#: Bytes that the fragments of a large message have on average, at the least.
_FRAGMENT: Final = 64

_RESTART: Final = (1012, "restart")

_runtimes: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime]] = WeakKeyDictionary()


def _runtime() -> Runtime:
    loop = asyncio.get_running_loop()
    if loop not in _runtimes:
        _runtimes[loop] = Runtime(loop)
    return _runtimes[loop]


class _Controlled(Protocol):
    """A link whose frames are ours, under an app."""

    runtime: Runtime

    @property
    def app(self) -> AppOnLink:
        """The app on it."""

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read."""

    def ping(self, receipt: Receipt[float]) -> None:
        """Send a ping whose pong resolves `receipt`."""

    def abort(self) -> None:
        """Drop the connection."""


class Control:
    """The connection's frames, for whoever finds this in `scope["extensions"]`."""

    def __init__(self, link: _Controlled) -> None:
        self._link = link

    def ping(self) -> asyncio.Future[float]:
        """Send a ping; the future has the seconds until its pong, or `ConnectionClosed`."""
        answer: asyncio.Future[float] = self._link.runtime.loop.create_future()
        receipt: Receipt[float] = Receipt()

        def settle() -> None:
            if answer.done():
                return
            try:
                answer.set_result(receipt.result(0))
            except ConnectionClosed as error:
                answer.set_exception(error)

        self._link.ping(receipt)
        receipt.add_done_callback(settle)
        return answer

    def abort(self) -> None:
        """Drop the connection at once."""
        self._link.abort()

    def set_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        """Ping by this, in the place of `--ws-ping-interval` and `-timeout`; `None`: not at all."""
        self._link.app.set_heartbeat(heartbeat)

    def buffered(self) -> int:
        """Return how many bytes the kernel has not taken."""
        return self._link.buffered

    def reading_paused(self) -> bool:
        """Whether nothing is read for now, for the app does not take what came."""
        return self._link.is_paused


class WebSocketProtocol(SocketLink):
    """One connection, as uvicorn makes it when a request asks for an upgrade."""

    #: What the ASGI door looks for, see `net.control`.
    gives_control: Final = True

    def __init__(
        self,
        config: Any,  # noqa: ANN401 - uvicorn's Config
        server_state: Any,  # noqa: ANN401 - uvicorn's ServerState
        app_state: dict[str, Any] | None = None,
        _loop: asyncio.AbstractEventLoop | None = None,
        **_: object,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._server_state = server_state
        self._app_state = app_state or {}
        # The link asks for its runtime first, and the app for its link.
        self.runtime = _runtime()
        self.app = AppOnLink(
            self,
            config.loaded_app,
            self._make_scope,
            policy=policy_of(config),
            head=HEAD,
            accept_headers=lambda: server_state.default_headers,  # made anew each second
            tasks=server_state.tasks,
        )
        super().__init__(self.app, self.runtime)

    def _make_scope(self) -> dict[str, Any]:
        """Return what a scope has besides the request."""
        secure = self._transport.get_extra_info("sslcontext")
        return {
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "scheme": "wss" if secure else "ws",
            "server": _address(self._transport.get_extra_info("sockname")),
            "root_path": self._config.root_path,
            "state": dict(self._app_state),
            "extensions": {DENIAL: {}, "ws_middleware.control": Control(self)},
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; uvicorn's shutdown waits for what is in `connections`."""
        self._server_state.connections.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take the request, which uvicorn has rebuilt from what it read."""
        now = self.runtime.clock.now()
        self._session.receive_data(data, now)
        self._pull(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up."""
        self._server_state.connections.discard(self)
        super().connection_lost(exc)
        self.app.gone()

    def shutdown(self) -> None:
        """The server ends: close, and let the peer answer for `close_timeout`."""
        self.app.server_ends()
        self.shut(*_RESTART)

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""
        return self.out.waiting[0]

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read."""
        return not self._reading


def policy_of(config: Any) -> EffectivePolicy:  # noqa: ANN401 - uvicorn's Config
    """Return what uvicorn's settings mean for a connection.

    An app that awaits its sends is held back by the peer's pace, so nothing is too much to wait;
    what does not move at all for 10 s ends the connection.
    """
    interval, timeout = config.ws_ping_interval, config.ws_ping_timeout
    given = Heartbeat(interval=interval, timeout=timeout or interval) if interval else None
    heartbeat = given and given.inherit(DEFAULT_HEARTBEAT)
    size = config.ws_max_size
    limits = Limits(
        message_size=size,
        # Small ones, which some clients send; but not as many as there are bytes.
        fragments=None if size is None else max(DEFAULT_LIMITS.fragments or 0, size // _FRAGMENT),
        inbound_bytes=max(size or 0, DEFAULT_LIMITS.inbound_bytes),
        outbound_bytes=sys.maxsize,
        outbound_messages=sys.maxsize,
    )
    return EffectivePolicy(
        auth=Anonymous(),
        authorize=None,
        origins="*",
        heartbeat=heartbeat,
        limits=limits.inherit(DEFAULT_LIMITS),
        refuse_with="http",
    )


def _address(name: Any) -> tuple[str, int | None] | None:  # noqa: ANN401 - of any kind of socket
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    return (name, None) if isinstance(name, str) and name else None


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, where its package is installed
    """Make the worker for gunicorn when somebody asks for it: uvicorn-worker may not be there."""
    if name != "UvicornWorker":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from uvicorn_worker import UvicornWorker as Base  # noqa: PLC0415

    settings = {**Base.CONFIG_KWARGS, "ws": WebSocketProtocol}
    return type("UvicornWorker", (cast("Any", Base),), {"CONFIG_KWARGS": settings})
