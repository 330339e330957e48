"""An ASGI app on a link of ours: events for messages, under somebody else's server.

The other way round from `asgi_link`: here the frames are ours and the app is a stranger's. It is
who decides over the connection; what it leaves out, such as a close frame, is said for it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from ws_middleware.core.session import Session
from ws_middleware.errors import ConnectionClosed
from ws_middleware.gate.upgrade import find_problem
from ws_middleware.types import Principal, Refusal
from ws_middleware.websocket import WebSocket

from .asgi_link import PeerGone
from .asgi_messages import DENIAL, legal_close
from .grace import Grace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    from ws_middleware.config import EffectivePolicy, Heartbeat, ServerLimits
    from ws_middleware.core.events import Closed, RefusedBySession
    from ws_middleware.types import UpgradeRequest

    from .link import SocketLink

    Event = MutableMapping[str, Any]
    App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[object]]

__all__ = ["AppOnLink"]

#: Where uvicorn writes of connections.
_UVICORNS: Final = logging.getLogger("uvicorn.error")

_FAILED: Final = Refusal(
    500,
    "internal_error",
    "",
    headers=(("Content-Type", "text/plain; charset=utf-8"),),
    body=b"Internal Server Error",
)


class AppOnLink:
    """One connection's app. For its link it is who decides (`net.link.Decider`).

    Args:
        link: the connection.
        app: the ASGI app.
        scope: what its scope has besides the request.
        policy: limits and heartbeat of the connection.
        head: limits of its head.
        accept_headers: what the server adds to a 101, asked when there is one.
        tasks: where the app's task is kept, for the server to wait for.
        log: where it is written of connections.
    """

    #: Spreads the first pings, 0 to 1; it guards nothing.
    jitter = staticmethod(random.random)

    def __init__(
        self,
        link: SocketLink,
        app: App,
        scope: Callable[[], dict[str, Any]],
        *,
        policy: EffectivePolicy,
        head: ServerLimits,
        accept_headers: Callable[[], Iterable[tuple[bytes, bytes]]],
        tasks: set[asyncio.Task[Any]],
        log: logging.Logger = _UVICORNS,
    ) -> None:
        self._link = link
        self._app = app
        self._base = scope
        self._policy = policy
        self._head = head
        self._accept_headers = accept_headers
        self._tasks = tasks
        self._log = log
        self._request: UpgradeRequest | None = None
        self._scope: dict[str, Any] = {}
        self._websocket: WebSocket | None = None
        self._is_connected = False
        self._grace = Grace(link.runtime)
        self._task: asyncio.Task[None] | None = None
        self._denial: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        self._is_refused = False
        self._accepted: asyncio.Future[None] = link.runtime.loop.create_future()
        self._ended: asyncio.Future[None] = link.runtime.loop.create_future()

    # --- what the link asks it (`net.link.Decider`) ------------------------------------------

    def new_session(self, client: tuple[str, int] | None, now: float) -> Session:
        """Return the session of a connection."""
        wall = self._link.runtime.clock.wall()
        payload = secrets.token_bytes(4)
        return Session(
            self._head,
            now=now,
            wall=wall,
            ping_payload=payload,
            jitter=self.jitter(),
            client=client,
        )

    def decide(self, link: SocketLink, request: UpgradeRequest, now: float) -> None:  # noqa: ARG002
        """Let the app decide."""
        problem = find_problem(request)
        if problem is not None:
            link.refuse(problem)
            return
        self._request = request
        self._scope = self._make_scope(request)
        self._task = task = link.runtime.loop.create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refused(self, link: SocketLink, event: RefusedBySession, now: float) -> None:
        """Nothing: uvicorn has no line for it."""

    def refuse_at_shutdown(self, link: SocketLink) -> None:
        """The app has not answered yet, and will not be waited for."""
        link.refuse(_FAILED)

    def warn_unread(self, websocket: WebSocket, seconds: float) -> None:
        """The app has let its messages lie."""
        self._log.warning(
            "%s - no message of WebSocket %s was received for %.0f s: closing it with 1008",
            self._peer,
            websocket.request.raw_path,
            seconds,
        )

    def closed(self, link: SocketLink, websocket: WebSocket, event: Closed) -> None:  # noqa: ARG002
        """The WebSocket has left OPEN."""
        websocket.ended(event.code, event.reason, by_us=event.by == "us")

    def set_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        """Ping by this, in the place of what the server says; the connection may be open or not."""
        self._policy = replace(self._policy, heartbeat=heartbeat)
        self._link.set_heartbeat(heartbeat)

    def gone(self) -> None:
        """The connection is lost."""
        if not self._ended.done():
            self._ended.set_result(None)
        if self._websocket is None and not self._is_refused:  # and it cannot answer any more
            self._grace.begin(self._task)

    def server_ends(self) -> None:
        """The connection is being closed, and the server waits for the app: not for ever."""
        self._grace.begin(self._task)

    # --- the scope ---------------------------------------------------------------------------

    def _make_scope(self, request: UpgradeRequest) -> dict[str, Any]:
        scope = self._base()
        root = scope["root_path"]
        raw = quote(request.raw_path, safe="/%!$&'()*+,;=:@-._~")
        return {
            **scope,
            "type": "websocket",
            "http_version": "1.1",
            "client": request.client,
            "path": root + unquote(raw),
            "raw_path": root.encode() + raw.encode(),
            "query_string": request.query_string.encode("latin-1"),
            "headers": [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in request.headers.pairs()
            ],
            "subprotocols": request.subprotocols,
        }

    @property
    def _peer(self) -> str:
        client = self._scope.get("client")
        return f"{client[0]}:{client[1]}" if client else ""

    def _note(self, said: str) -> None:
        """Write uvicorn's line for a WebSocket: of the scope as the app's layers have left it."""
        query = self._scope["query_string"].decode("latin-1")
        target = quote(self._scope["path"]) + (f"?{query}" if query else "")
        self._log.info('%s - "WebSocket %s" %s', self._peer, target, said)

    # --- the app -----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            result = await self._app(self._scope, self._receive, self._send)
        except PeerGone:
            return
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                self._log.exception("Exception in ASGI application\n")
            self._conclude(1011, "internal_error")
            if not isinstance(error, Exception):
                raise
        else:
            if self._websocket is None and not self._is_refused:
                self._log.error("ASGI callable returned without completing handshake.")
            elif result is not None:
                self._log.error("ASGI callable should return None, but returned %r.", result)
            self._conclude(1000, "")

    def _conclude(self, code: int, reason: str) -> None:
        """Say what the app has not said."""
        if self._websocket is None:
            self._link.refuse(_FAILED)
        else:
            self._link.close(code, reason)

    async def _receive(self) -> Event:
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        if self._websocket is None:  # nothing comes before the answer but the end
            await asyncio.wait({self._accepted, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if self._websocket is None:
            return {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        try:
            message = await self._websocket.receive()
        except ConnectionClosed as closed:
            return {"type": "websocket.disconnect", "code": closed.code, "reason": closed.reason}
        kind = "text" if isinstance(message, str) else "bytes"
        return {"type": "websocket.receive", kind: message}

    async def _send(self, event: Event) -> None:
        websocket, kind = self._websocket, event["type"]
        if websocket is None:
            self._answer(kind, event)
        elif kind == "websocket.send":
            data = event.get("bytes")
            try:
                await websocket.send(event["text"] if data is None else data)
            except ConnectionClosed:
                raise PeerGone from None
        elif kind == "websocket.close":
            websocket.close(*legal_close(event.get("code", 1000), event.get("reason")))
        else:
            msg = f"expected websocket.send or websocket.close, got {kind!r}"
            raise RuntimeError(msg)

    def _answer(self, kind: str, event: Event) -> None:
        """Take the app's word before there is a WebSocket."""
        if self._is_refused or self._ended.done():
            raise PeerGone
        if self._denial is not None or kind == f"{DENIAL}.start":
            self._deny(kind, event)
        elif kind == "websocket.accept":
            self._accept(event)
        elif kind == "websocket.close":
            self._refuse(Refusal(403, "refused", "", body=b""))
        else:
            msg = f"expected websocket.accept, websocket.close or {DENIAL}.start, got {kind!r}"
            raise RuntimeError(msg)

    def _accept(self, event: Event) -> None:
        assert self._request is not None
        websocket = WebSocket(
            id="",
            link=self._link,
            route=self,
            request=self._request,
            user=Principal(""),
            subprotocol=event.get("subprotocol"),
            limits=self._policy.limits,
        )
        headers = [*self._accept_headers(), *(event.get("headers") or ())]
        self._link.accept(websocket, self._policy, _texts(headers), None)
        self._websocket = websocket
        self._accepted.set_result(None)
        self._note("[accepted]")
        self._link.begin()

    def _deny(self, kind: str, event: Event) -> None:
        if kind == f"{DENIAL}.start" and self._denial is None:
            self._denial = (event["status"], list(event.get("headers") or ()), [])
            return
        if kind != f"{DENIAL}.body" or self._denial is None:
            msg = f"expected {DENIAL}.body, got {kind!r}"
            raise RuntimeError(msg)
        status, headers, chunks = self._denial
        chunks.append(bytes(event.get("body") or b""))
        if not event.get("more_body"):
            self._refuse(
                Refusal(status, "denied", "", headers=tuple(_texts(headers)), body=b"".join(chunks))
            )

    def _refuse(self, refusal: Refusal) -> None:
        self._is_refused = True
        self._note(str(refusal.status))
        self._link.refuse(refusal)

    #: What the websocket calls its route.
    name = "asgi"
    handler = None
    events: Final[dict[str, Any]] = {}


def _texts(headers: Any) -> list[tuple[str, str]]:  # noqa: ANN401 - bytes, or texts
    return [(_text(name), _text(value)) for name, value in headers]


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode("latin-1")
