"""The ASGI door: the gate, the hub and our routes in front of an app, on any server.

HTTP and lifespan pass on the first lines. A WebSocket goes through the gate first. On a path of
ours it is served here; any other goes on to the wrapped app, guarded: let in by the same policy,
in the same hub, and ended when its peer is gone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from .net.asgi_call import Call
from .net.drain import Draining, drain_on_sigterm
from .net.engine import GOING_AWAY
from .net.servers import find_asgi_server
from .net.siblings import has_siblings
from .scope import clean_scope, path_of, request_from_scope
from .types import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .doors import Server
    from .net.asgi_outgoing import Receive, Send
    from .net.engine import Admission, Engine
    from .net.hosted import Hosted
    from .net.runtime import Runtime
    from .types import UpgradeRequest
    from .websocket import WebSocket

    Scope = MutableMapping[str, Any]
    App = Callable[[Scope, Any, Any], Awaitable[None]]

__all__ = ["PRINCIPAL", "HTTPOnly", "WebSocketMiddleware", "socket_of"]

#: Where a wrapped app finds the hub's handle of its socket, and who its user is.
SOCKET: Final = "ws_middleware.socket"
PRINCIPAL: Final = "ws_principal"


class Front(Draining, Protocol):
    """What a door is given of an app."""

    def open_here(self) -> tuple[Engine, Hosted]:
        """Return what serves on the running loop."""

    def has_path(self, path: str) -> bool:
        """Whether a route of ours is at `path`."""

    def note_call(self, has_siblings: bool, server: Server | None) -> None:  # noqa: FBT001
        """A server has called the door; with siblings, messages would miss a part."""


class Sockets(Protocol):
    """What the door knows of a `WebSockets`."""

    def asgi_front(self, app: object) -> Front:
        """Return whose settings hold for `app`."""

    def asgi_app(self, app: Any) -> App:  # noqa: ANN401 - an ASGI app, or a Flask app
        """Return what is called of `app`."""


class HTTPOnly(ABC):
    """What is called of an app that serves no WebSocket by itself, unless its views say so."""

    @abstractmethod
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve HTTP, and answer lifespan."""

    @abstractmethod
    async def judge(
        self, engine: Engine, runtime: Runtime, request: UpgradeRequest
    ) -> Refusal | Admission:
        """Have it decide over an upgrade request that is for none of our routes."""


class WebSocketMiddleware:
    """The door, as `sockets.asgi(app)` makes it and as frameworks add it.

    In Starlette and FastAPI: `app.add_middleware(WebSocketMiddleware, sockets=sockets)`. What it
    does not know is the app's own: `app.state`, `app.routes`.

    Args:
        app: what is wrapped: an ASGI app.
        sockets: the `WebSockets` whose routes and guards are in front of it.

    Raises:
        ConfigError: the settings as a whole are wrong. Made while an event loop runs, as Starlette
            makes its middleware, it raises when it is called, and has the server not start.
    """

    def __init__(self, app: App, sockets: Sockets) -> None:
        self._app = app
        self._has_begun = False
        #: What is wrong with the settings, where nobody could be told yet.
        self._error: Exception | None = None
        try:
            self._front = sockets.asgi_front(app)
            self._inner = sockets.asgi_app(app)
        except Exception as error:
            if asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, does not raise
                raise
            self._error = error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the app's
        if name.startswith("_"):  # before __init__, as in a copy, there is no app
            raise AttributeError(name)
        return getattr(self._app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass HTTP and lifespan on; let a WebSocket in, or refuse it."""
        if self._error is not None:
            await _fail(self._error, scope, receive, send)
        if not self._has_begun:
            self._begin(is_serving=scope["type"] != "lifespan")
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope.get("method") == "CONNECT" and self._front.has_path(path_of(scope)):
            await _answer_connect(send)
        else:
            await self._inner(scope, receive, send)

    def _begin(self, *, is_serving: bool) -> None:
        """Note that this process serves; the hub hears others from now on.

        Once more with the first request, where lifespan came before it.
        """
        self._has_begun = is_serving
        self._front.note_call(has_siblings(), find_asgi_server())
        engine, hosted = self._front.open_here()
        hosted.here()
        if engine.settings.drain_on_sigterm:
            drain_on_sigterm(self._front, engine, is_serving=is_serving)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (await receive())["type"] != "websocket.connect":
            return
        engine, hosted = self._front.open_here()
        request = request_from_scope(scope, engine.clock.wall())
        call = Call(engine, hosted, scope, receive, send)
        outcome = await self._judge(engine, hosted, scope, request, call)
        if isinstance(outcome, Refusal):
            clean_scope(scope, engine.gate.forget_tokens(request))
            await call.refuse(outcome, request)
        elif outcome is not None:
            await call.serve(outcome, self._inner, _told)

    async def _judge(
        self, engine: Engine, hosted: Hosted, scope: Scope, request: UpgradeRequest, call: Call
    ) -> Refusal | Admission | None:
        """Return the verdict over a request; `None` if the peer did not wait for it."""
        routed, runtime = engine.gate.find(request), hosted.here()
        if routed is None and not isinstance(self._inner, HTTPOnly):
            routed = engine.gate.find_guarded(request)
        if routed is not None:
            clean_scope(scope, routed.request)
            return await call.decide(engine.judge_here(routed, engine.clock.now()))
        if runtime is None:  # all is being closed
            return engine.gate.dress_unrouted(GOING_AWAY, request)
        if isinstance(self._inner, HTTPOnly):
            return await call.decide(self._inner.judge(engine, runtime, request))
        return engine.gate.refuse_unknown(request)


async def _fail(error: Exception, scope: Scope, receive: Receive, send: Send) -> NoReturn:
    """Have the server not start; a bare error in lifespan means that an app has none, to most."""
    if scope["type"] == "lifespan":
        await receive()
        message = f"{type(error).__name__}: {error}"
        await send({"type": "lifespan.startup.failed", "message": message})
    raise error.with_traceback(None)  # which would grow with each call


def _told(scope: Scope, websocket: WebSocket) -> Scope:
    """Return the scope for a wrapped app: with who it is, and with the hub's handle.

    And with what daphne leaves out, though the standard has it.
    """
    inner = {"scheme": "ws", "http_version": "1.1", "extensions": {}, **scope}
    state = scope.get("state")
    if state is None or isinstance(state, Mapping):
        inner["state"] = {**(state or {}), PRINCIPAL: websocket.user}
    inner.setdefault("user", websocket.user)
    inner[SOCKET] = websocket
    return inner


async def _answer_connect(send: Send) -> None:
    """Refuse a CONNECT of HTTP/2 that the server takes for HTTP: nothing would come of it."""
    body = b"this server passes WebSockets over HTTP/2 on as plain HTTP: connect over HTTP/1.1\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 501, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def socket_of(scope: Scope) -> WebSocket:
    """Return the hub's handle of a guarded WebSocket.

    Raises:
        RuntimeError: it is not guarded.
    """
    found: WebSocket | None = scope.get(SOCKET)
    if found is None:
        msg = "this WebSocket is not guarded: wrap the app with WebSocketMiddleware or sockets.asgi"
        raise RuntimeError(msg)
    return found
