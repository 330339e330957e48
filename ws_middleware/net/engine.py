"""One per open `WebSockets`: from an upgrade request to a served socket, for links of every kind.

The verdict: the gate's `check`, the app's authenticator and `authorize`, the gate's `admit`. Then a
`WebSocket`, its place in the hub, and a server for its handlers. Everything that runs the app's own
code does so in the host's context.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import random
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.callables import is_async, name_of
from ws_middleware.core.session import Session
from ws_middleware.errors import Refused
from ws_middleware.gate.credentials import choose_subprotocol, forget_credential
from ws_middleware.gate.gate import Gate
from ws_middleware.gate.verdict import (
    AuthenticatorError,
    not_allowed,
    read_verdict,
    refusal_of,
)
from ws_middleware.receipt import Receipt
from ws_middleware.route import ROOM_PARAMETER, Route, Shape
from ws_middleware.types import Granted, Principal, Refusal
from ws_middleware.websocket import WebSocket

from .logs import RefusalLog, log_close, log_open, safe
from .serving import make_server
from .threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ws_middleware.core.events import Closed, RefusedBySession
    from ws_middleware.gate.gate import Candidate, Slot
    from ws_middleware.hub.hub import Hub
    from ws_middleware.settings import Settings
    from ws_middleware.types import UpgradeRequest

    from .link import SocketLink
    from .serving import Server

__all__ = ["Engine"]

_log: Final = logging.getLogger("ws_middleware.engine")

#: A share of the places for `def` conversations that is worth a warning.
_NEARLY_FULL: Final = 0.8


class Engine:
    """What a door is given. `context` makes the host's context for each call of the app's code."""

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self.settings = settings
        self.hub = hub
        self.context = context
        self.limits = settings.server_limits
        self.gate = Gate(self.limits, settings.get("refuse_with", "http"))
        self.threads = {
            "events": ThreadGroup("events", settings.threads("sync_threads")),
            "conversations": ThreadGroup("conversations", settings.threads("sync_conversations")),
            "auth": ThreadGroup("auth", settings.threads("auth_threads")),
        }
        self.refusals = RefusalLog()
        self._node = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._servers: dict[WebSocket, tuple[Server, float]] = {}
        self._warned: set[str] = set()

    def add_route(self, route: Route) -> None:
        """Serve a route whose policy has been put together.

        Raises:
            ConfigError: its path is taken, or its policy cannot be.
        """
        self.gate.add(route.template, route)

    def close(self) -> None:
        """Let go of the threads; the loops have ended."""
        for group in self.threads.values():
            group.close()

    def new_session(self, client: tuple[str, int] | None, now: float) -> Session:
        """Return the session of a connection whose head is still to come."""
        return Session(
            self.limits,
            now=now,
            wall=time.time(),
            ping_payload=secrets.token_bytes(4),
            jitter=random.random(),  # noqa: S311 - spreads pings, guards nothing
            client=client,
        )

    # --- the verdict -------------------------------------------------------------------------

    def decide(self, link: SocketLink, request: UpgradeRequest, now: float) -> None:
        """Find the verdict over a request and carry it out, now or later."""
        outcome = self.gate.check(request, now)
        if isinstance(outcome, Refusal):
            self._refuse(link, request, outcome)
            return
        task = link.runtime.spawn(self._decide(link, outcome, now))

        def let_go() -> None:
            # A task that has not begun never gets to its own clean-up.
            task.cancel()
            outcome.slot.release()

        link.on_lost = let_go

    async def _decide(self, link: SocketLink, candidate: Candidate, now: float) -> None:
        verdict = await self._ask(candidate)
        if not link.is_deciding:
            candidate.slot.release()
        elif isinstance(verdict, Refusal):
            self._refuse_candidate(link, candidate, verdict)
        else:
            self._admit(link, candidate, verdict, now)

    async def _ask(self, candidate: Candidate) -> Granted | Refusal:
        """Ask the authenticator and `authorize`; whatever goes wrong in them is a refusal."""
        request, policy = candidate.request, candidate.entry.policy
        asked: object = policy.auth
        try:
            verdict = read_verdict(await self._call(policy.auth, request))
            if isinstance(verdict, Granted) and policy.authorize is not None:
                asked = policy.authorize
                assert isinstance(verdict.principal, Principal)
                if await self._call(policy.authorize, verdict.principal, request) is not True:
                    return not_allowed(verdict.principal.id)
        except Refused as refused:
            return refusal_of(refused)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a SystemExit in here must not end the loop
            fault = isinstance(error, AuthenticatorError)
            _log.error(
                "%s of route %s %s",
                name_of(asked),
                safe(candidate.entry.name),
                error if fault else "failed",
                exc_info=None if fault else error,
            )
            why = f"{name_of(asked)} failed; see the error before this line"
            return Refusal(500, "authenticator_failed", "the server could not decide", why)
        return verdict

    async def _call(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
        """Call the app's function where its kind belongs: on this loop, or in a thread."""
        if is_async(function):
            with self.context():
                return await function(*args)
        if getattr(function, "runs_inline", False):
            result = function(*args)
        else:
            result = await self._in_thread(function, *args)
        return await result if inspect.isawaitable(result) else result

    async def _in_thread(self, function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
        receipt: Receipt[Any] = Receipt()

        def call() -> None:
            try:
                with self.context():
                    receipt.resolve(function(*args))
            except BaseException as error:  # raised again by whoever waits
                receipt.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

        if not self.threads["auth"].submit(call):
            raise Refused(503, "going_away", why="shutting down")
        return await receipt

    def _admit(self, link: SocketLink, candidate: Candidate, granted: Granted, now: float) -> None:
        principal = granted.principal
        assert isinstance(principal, Principal)
        route: Route = candidate.entry
        if route.shape is Shape.BLOCKING and not self._reserve_thread():
            self._refuse_candidate(link, candidate, self._conversations_full())
            return
        admitted = self.gate.admit(candidate, principal, now)
        if isinstance(admitted, Refusal):
            if route.shape is Shape.BLOCKING:
                self.threads["conversations"].release()
            self._refuse_candidate(link, candidate, admitted)
            return
        self._open(link, candidate, granted, admitted, now)

    def _open(
        self, link: SocketLink, candidate: Candidate, granted: Granted, slot: Slot, now: float
    ) -> None:
        route: Route = candidate.entry
        principal = granted.principal
        assert isinstance(principal, Principal)
        websocket = WebSocket(
            id=f"{self._node}-{next(self._numbers):x}",
            link=link,
            route=route,
            request=forget_credential(candidate.request),
            user=principal,
            subprotocol=choose_subprotocol(candidate.request, route.subprotocols),
            limits=route.policy.limits,
        )
        expires = principal.expires_at
        if expires is not None:
            expires += now - candidate.request.received_at
        server = make_server(websocket, link, link.runtime, self.context, self.threads)
        try:
            link.accept(websocket, route.policy, granted.headers, expires)
        except ValueError as error:
            _log.error("the authenticator of route %s: %s", safe(route.name), error)
            if route.shape is Shape.BLOCKING:
                self.threads["conversations"].release()
            refusal = Refusal(
                500, "authenticator_failed", "the server could not decide", str(error)
            )
            self._refuse_candidate(link, candidate, refusal)
            return
        link.on_lost = slot.release
        self._servers[websocket] = (server, now)
        link.runtime.registry.add(websocket)
        if ROOM_PARAMETER in websocket.path_params:
            websocket.join(str(websocket.path_params[ROOM_PARAMETER]))
        log_open(websocket)
        server.start()
        link.begin()

    # --- refusals ----------------------------------------------------------------------------

    def _refuse_candidate(self, link: SocketLink, candidate: Candidate, refusal: Refusal) -> None:
        candidate.slot.release()
        self._refuse(link, candidate.request, self.gate.dress(refusal, candidate))

    def _refuse(self, link: SocketLink, request: UpgradeRequest, refusal: Refusal) -> None:
        self.refusals.add(request, refusal, time.monotonic())
        try:
            link.refuse(refusal)
        except ValueError as error:
            _log.error("a Refused cannot be sent: %s", error)
            link.refuse(Refusal(500, "authenticator_failed", "the server could not decide"))

    def refused(self, link: SocketLink, event: RefusedBySession, now: float) -> None:
        """The session refused by itself: log it, and drop what is under way."""
        self.refusals.add(event.request, event.refusal, now)
        if link.on_lost is not None:
            link.on_lost()

    def refuse_at_shutdown(self, link: SocketLink) -> None:
        """Answer a request whose verdict will not come any more."""
        link.refuse(Refusal(503, "going_away", "the server is shutting down", retry_after=1))

    # --- threads for conversations -----------------------------------------------------------

    def _reserve_thread(self) -> bool:
        group = self.threads["conversations"]
        if not group.reserve():
            return False
        if group.reserved >= _NEARLY_FULL * group.size:
            self._warn_once(
                f"{group.reserved} of {group.size} threads for def conversations are taken; the "
                "next ones will be refused with 503. Make them async def, use on_message, or raise "
                "sync_conversations"
            )
        return True

    def _conversations_full(self) -> Refusal:
        size = self.threads["conversations"].size
        why = (
            f"all {size} threads for def conversations are taken; make them async def, use "
            "on_message, or raise sync_conversations"
        )
        return Refusal(
            503, "sync_conversations_full", "the server takes no more for now", why, retry_after=5
        )

    def _warn_once(self, text: str) -> None:
        key = text.partition(" threads")[2]
        if key not in self._warned:
            self._warned.add(key)
            _log.warning("%s", text)

    def warn_unread(self, websocket: WebSocket, seconds: float) -> None:
        """A handler has let its messages lie for too long."""
        handler = websocket.route.handler or websocket.route.events.get("on_message")
        _log.warning(
            "handler %s of route %s took no message of socket %s for %.0f s; closing it with 1008. "
            "Receive in a task of its own, or call ws.wait_closed() to ignore what comes",
            name_of(handler),
            safe(websocket.route_name),
            websocket.id,
            seconds,
        )

    # --- the end of a socket -----------------------------------------------------------------

    def closed(self, link: SocketLink, websocket: WebSocket, event: Closed) -> None:
        """A WebSocket has left OPEN."""
        link.runtime.registry.remove(websocket)
        server, opened = self._servers.pop(websocket)
        websocket.ended(event.code, event.reason, by_us=event.by == "us")
        log_close(
            websocket,
            event,
            after=time.monotonic() - opened,
            taken=link.taken,
            sent=link.sent,
        )
        server.ended()
