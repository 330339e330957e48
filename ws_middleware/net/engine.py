"""One per app with an open door: from an upgrade request to a served socket, for all links.

The verdict: the gate's `check`, the app's authenticator and `authorize`, the gate's `admit`. Then a
`WebSocket`, its place in the hub, and a server for its handlers. Everything that runs the app's own
code does so in the host's context.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from ws_middleware.callables import name_of
from ws_middleware.core.handshake import accept_bytes
from ws_middleware.core.session import Session
from ws_middleware.gate.credentials import choose_subprotocol, forget_credential
from ws_middleware.gate.gate import Candidate, Gate
from ws_middleware.route import ROOM_PARAMETER, Endpoint, Shape
from ws_middleware.types import Connection, Granted, Principal, Refusal
from ws_middleware.websocket import WebSocket

from .asking import Asker
from .clock import SYSTEM
from .logs import Logger, RefusalLog, log_close, log_open, safe
from .serving import make_server
from .threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from ws_middleware.config import EffectivePolicy
    from ws_middleware.core.events import Closed, RefusedBySession
    from ws_middleware.gate.gate import Routed
    from ws_middleware.hub.hub import Hub
    from ws_middleware.settings import Settings
    from ws_middleware.types import UpgradeRequest

    from .clock import Clock
    from .link import SocketLink
    from .runtime import Runtime
    from .serving import Server

__all__ = ["GOING_AWAY", "Admission", "Engine", "EngineLink"]

_log: Final = Logger("ws_middleware.engine")

#: What an upgrade is answered while everything ends.
GOING_AWAY: Final = Refusal(503, "going_away", "the server is shutting down", retry_after=1)

#: A share of the places for `def` conversations that is worth a warning.
_NEARLY_FULL: Final = 0.8


@dataclass(frozen=True)
class Admission:
    """A yes to a candidate, who holds a place in every cap from now on."""

    candidate: Candidate
    principal: Principal
    headers: tuple[tuple[str, str], ...]
    #: When the request came, monotonic.
    now: float
    #: Its first room: what the path says.
    room: str | None

    @property
    def endpoint(self) -> Endpoint:
        """The route that serves it, as it is served here."""
        endpoint: Endpoint = self.candidate.entry
        return endpoint

    @property
    def request(self) -> UpgradeRequest:
        """What was asked for, with the token taken out of its query."""
        return self.candidate.request

    @property
    def expires(self) -> float | None:
        """When its credential expires, monotonic."""
        wall = self.principal.expires_at
        return None if wall is None else wall + self.now - self.candidate.request.received_at


class EngineLink(Connection, Protocol):
    """What the engine does with a link, whoever owns its bytes."""

    runtime: Runtime
    taken: int
    sent: int
    #: What is to be dropped when the connection is lost.
    on_lost: Callable[[], None] | None

    @property
    def dropped(self) -> int:
        """Messages that a slow peer missed."""

    def accept(
        self,
        websocket: WebSocket,
        policy: EffectivePolicy,
        headers: Iterable[tuple[str, str]],
        expires: float | None,
    ) -> None:
        """Answer 101. `expires` is monotonic."""

    def begin(self) -> None:
        """Go on with what came early."""

    def close(self, code: int, reason: str, why: str | None = None) -> None:
        """Start the closing handshake. `why` is for the log."""


class Engine:
    """What a door is given. `context` makes the host's context for each call of the app's code."""

    #: Spreads the first pings, 0 to 1; it guards nothing.
    jitter = staticmethod(random.random)

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        clock: Clock = SYSTEM,
    ) -> None:
        self.clock = clock
        self.settings = settings
        self.hub = hub
        self.context = context
        self.limits = settings.server_limits
        self.gate = Gate(self.limits, settings.get("refuse_with", "http"), settings.trusted_proxies)
        self.threads = {
            "events": ThreadGroup("events", settings.threads("sync_threads")),
            "conversations": ThreadGroup("conversations", settings.threads("sync_conversations")),
            "auth": ThreadGroup("auth", settings.threads("auth_threads")),
        }
        self.asker = Asker(self._in_context, self.threads["auth"])
        self.refusals = RefusalLog(hub.counts)
        self._numbers = itertools.count(1)
        self._servers: dict[WebSocket, tuple[Server, float]] = {}
        self._warned: set[str] = set()

    def _in_context(self) -> AbstractContextManager[object]:
        return self.context()

    def add(self, endpoint: Endpoint) -> None:
        """Serve a route.

        Raises:
            ConfigError: its path is taken, or its policy cannot be.
        """
        self.gate.add(endpoint.template, endpoint)

    def guard(self, endpoint: Endpoint) -> None:
        """Let in, by this policy, to what the host app serves itself."""
        self.gate.guard(endpoint.template, endpoint)

    def guard_rest(self, endpoint: Endpoint) -> None:
        """Let in, by this policy, where no guard is laid over what the host app serves."""
        self.gate.guard(None, endpoint)

    def close(self) -> None:
        """Let go of the threads; the loops have ended."""
        for group in self.threads.values():
            group.close()

    def new_session(self, client: tuple[str, int] | None, now: float) -> Session:
        """Return the session of a connection whose head is still to come."""
        return Session(
            self.limits,
            now=now,
            wall=self.clock.wall(),
            ping_payload=secrets.token_bytes(4),
            jitter=self.jitter(),
            client=client,
        )

    def resume_session(self, request: UpgradeRequest, early: bytes, now: float) -> Session:
        """Return the session of a connection whose head a host's server has read."""
        return Session.from_request(
            request,
            early,
            self.limits,
            now=now,
            ping_payload=secrets.token_bytes(4),
            jitter=self.jitter(),
        )

    # --- the verdict -------------------------------------------------------------------------

    def decide(self, link: SocketLink, request: UpgradeRequest, now: float) -> None:
        """Find the verdict over a request on the link's loop and carry it out, now or later."""
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
        verdict = await self.asker.ask(candidate)
        if not link.is_deciding:
            candidate.slot.release()
            return
        outcome = self.conclude(candidate, verdict, now)
        if isinstance(outcome, Refusal):
            self._refuse(link, candidate.request, outcome)
        else:
            self.open(link, outcome)

    async def judge_here(self, routed: Routed, now: float) -> Refusal | Admission:
        """Find the verdict over a request on the running loop."""
        outcome = self.gate.check_routed(routed, now)
        if isinstance(outcome, Refusal):
            return outcome
        timeout = self.limits.upgrade_timeout
        try:
            async with asyncio.timeout(timeout):
                verdict = await self.asker.ask(outcome)
        except TimeoutError:
            why = f"no verdict in {timeout:g} s (upgrade_timeout)"
            verdict = Refusal(503, "upgrade_timeout", "the server took too long to decide", why)
        except BaseException:
            outcome.slot.release()
            raise
        return self.conclude(outcome, verdict, now)

    def judge(
        self, routed: Routed, now: float, runtime: Callable[[], Runtime]
    ) -> Refusal | Admission:
        """Find the verdict over a request in the calling thread, which may block."""
        outcome = self.gate.check_routed(routed, now)
        if isinstance(outcome, Refusal):
            return outcome
        return self.settle(outcome, now, runtime)

    def settle(
        self,
        candidate: Candidate,
        now: float,
        runtime: Callable[[], Runtime],
        principal: Principal | None = None,
    ) -> Refusal | Admission:
        """Ask the app's callables about a candidate, in the calling thread, and conclude.

        Args:
            candidate: has passed the gate's own checks.
            now: monotonic seconds.
            runtime: where coroutines run.
            principal: who it is, where a view of the app's own has said so.
        """
        timeout = self.limits.upgrade_timeout
        try:
            verdict = self.asker.ask_blocking(candidate, runtime, timeout, principal)
        except BaseException:
            candidate.slot.release()
            raise
        return self.conclude(candidate, verdict, now)

    def conclude(
        self, candidate: Candidate, verdict: Granted | Refusal, now: float
    ) -> Refusal | Admission:
        """Turn the app's verdict into an admission with all its places, or into the answer."""
        refusal = (
            verdict if isinstance(verdict, Refusal) else self.find_fault(candidate, verdict.headers)
        )
        holds_thread = False
        if refusal is None and candidate.entry.route.shape is Shape.BLOCKING:
            holds_thread = self._reserve_thread()
            refusal = None if holds_thread else self._conversations_full()
        if refusal is None:
            assert isinstance(verdict, Granted)
            assert isinstance(verdict.principal, Principal)
            admitted = self.gate.admit(candidate, verdict.principal, now)
            if not isinstance(admitted, Refusal):
                return self._seat(candidate, verdict.principal, verdict, now)
            refusal = admitted
        if holds_thread:
            self.threads["conversations"].release()
        candidate.slot.release()
        return self.gate.dress(refusal, candidate)

    @staticmethod
    def _seat(
        candidate: Candidate, principal: Principal, granted: Granted, now: float
    ) -> Admission:
        request = candidate.request
        # As it was sent: what the app's own converter made of it may be anything.
        room = request.path_params.get(ROOM_PARAMETER)
        if granted.path_params is not None:
            candidate = replace(
                candidate, request=replace(request, path_params=granted.path_params)
            )
        room = None if room is None else str(room)
        return Admission(candidate, principal, granted.headers, now, room)

    @staticmethod
    def find_fault(candidate: Candidate, headers: tuple[tuple[str, str], ...]) -> Refusal | None:
        """Return a refusal if the headers for the 101 cannot be sent."""
        if not headers:
            return None
        try:
            accept_bytes(candidate.request, subprotocol=None, headers=headers)
        except ValueError as error:
            _log.error("the authenticator of route %s: %s", safe(candidate.entry.name), error)
            return Refusal(500, "authenticator_failed", "the server could not decide", str(error))
        return None

    def open(self, link: EngineLink, admission: Admission) -> None:
        """Answer 101 and serve; where a wrapped app has the last word, its link says `answered`."""
        request, endpoint = admission.candidate.request, admission.endpoint
        websocket = WebSocket(
            id=f"{self.hub.node}-{next(self._numbers):x}",
            link=link,
            route=endpoint.route,
            request=forget_credential(request),
            user=admission.principal,
            subprotocol=choose_subprotocol(request, endpoint.route.subprotocols),
            limits=endpoint.policy.limits,
            closes_for_gap=endpoint.policy.gap == "close",
        )
        server = make_server(websocket, link, link.runtime, self.context, self.threads)
        link.accept(websocket, endpoint.policy, admission.headers, admission.expires)
        link.on_lost = admission.candidate.slot.release
        self._servers[websocket] = (server, admission.now)
        link.runtime.registry.add(websocket)
        if admission.room is not None:
            websocket.join(admission.room)
        if endpoint.route.shape is not Shape.GUARDED:
            self.answered(websocket)
        server.start()
        link.begin()

    def answered(self, websocket: WebSocket) -> None:
        """Count and log a socket that is open."""
        self.hub.counts.add("opened", websocket.route_name)
        log_open(websocket)

    def abandon(self, admission: Admission) -> None:
        """Give back the places of an admission that came to nothing."""
        if admission.endpoint.route.shape is Shape.BLOCKING:
            self.threads["conversations"].release()
        admission.candidate.slot.release()

    # --- refusals ----------------------------------------------------------------------------

    def _refuse(self, link: SocketLink, request: UpgradeRequest, refusal: Refusal) -> None:
        self.refusals.add(request, refusal, self.clock.now())
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
        link.refuse(GOING_AWAY)

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

    def closed(self, link: EngineLink, websocket: WebSocket, event: Closed) -> None:
        """A WebSocket has left OPEN."""
        link.runtime.registry.remove(websocket)
        self._count(link, event)
        server, opened = self._servers.pop(websocket)
        websocket.ended(event.code, event.reason, by_us=event.by == "us")
        log_close(
            websocket,
            event,
            after=self.clock.now() - opened,
            taken=link.taken,
            sent=link.sent,
            dropped=link.dropped,
        )
        server.ended()

    def turned_away(
        self, link: EngineLink, websocket: WebSocket, event: Closed, refusal: Refusal | None
    ) -> None:
        """A wrapped app has not accepted it; `refusal` is what the peer was told, if it waited."""
        link.runtime.registry.remove(websocket)
        server, _ = self._servers.pop(websocket)
        websocket.ended(event.code, event.reason, by_us=event.by == "us")
        if refusal is not None:
            self.refusals.add(websocket.request, refusal, self.clock.now())
        server.ended()

    def forget(self, websocket: WebSocket) -> None:
        """A socket's loop was closed under it. From any thread."""
        self._servers.pop(websocket, None)

    def _count(self, link: EngineLink, event: Closed) -> None:
        counts = self.hub.counts
        counts.add("closed", str(event.code))
        for direction, number in link.messages.items():
            counts.add("messages", direction, number)
