"""One WebSocket that an ASGI server brings: from its request to the verdict, and to its end.

Whatever happens (the server cancels its task, a send fails, the app swallows what it is told), when
the server's task ends nothing is held any more: no place in the caps, no member of the hub.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.route import Guard
from ws_middleware.types import Refusal

from .abort import abort_connection, warn_uncut
from .asgi_guard import GuardedApp
from .asgi_link import ASGILink
from .asgi_messages import close_refusal_events, denial_events
from .engine import GOING_AWAY, Admission
from .logs import Logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, MutableMapping

    from ws_middleware.types import UpgradeRequest
    from ws_middleware.websocket import WebSocket

    from .asgi_outgoing import Event, Receive, Send
    from .engine import Engine
    from .hosted import Hosted

    Scope = MutableMapping[str, Any]
    App = Callable[[Scope, Any, Any], Awaitable[None]]

__all__ = ["Call"]

_log: Final = Logger("ws_middleware.asgi")

_CLOSE_BASE: Final = 4000
#: Seconds that a refusal may take to get out: the server has no limit for it.
_REFUSING: Final = 30.0
#: Seconds that a close frame has when the server ends.
_LAST_WORD: Final = 1.0

#: Verdicts that nobody waits for any more and that have not noticed it: asyncio holds on to none.
_abandoned: Final[set[asyncio.Task[Any]]] = set()


class Call:
    """What a server calls the door with, for one WebSocket."""

    def __init__(
        self, engine: Engine, hosted: Hosted, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._engine = engine
        self._hosted = hosted
        self._scope = scope
        self._receive = receive
        self._send = send
        #: A look at whether the peer hangs up; what it brings is the first that is received.
        self._look: asyncio.Task[Event] | None = None

    # --- the verdict -------------------------------------------------------------------------

    async def decide(
        self, judging: Coroutine[Any, Any, Refusal | Admission]
    ) -> Refusal | Admission | None:
        """Return the verdict; `None` if the peer did not wait for it."""
        loop = asyncio.get_running_loop()
        verdict = loop.create_task(judging)
        self._look = loop.create_task(self._receive_one())
        try:
            if await self._peer_hangs_up(verdict):
                self._abandon(verdict)
                return None
            await asyncio.wait({verdict})
            return verdict.result()
        except BaseException:
            self._abandon(verdict)
            raise

    async def _receive_one(self) -> Event:
        return await self._receive()  # of granian's it is no coroutine, which a task would need

    async def _peer_hangs_up(self, verdict: asyncio.Task[Any]) -> bool:
        """Wait for whichever comes first; return whether that is the end of the peer."""
        assert self._look is not None
        await asyncio.wait({verdict, self._look}, return_when=asyncio.FIRST_COMPLETED)
        if verdict.done():
            return False
        if self._look.cancelled() or self._look.exception() is not None:
            return True
        return bool(self._look.result()["type"] == "websocket.disconnect")

    def _abandon(self, verdict: asyncio.Task[Refusal | Admission]) -> None:
        """Nobody waits for a verdict any more; one that comes after all holds nothing."""
        self.stop_looking()
        verdict.cancel()
        _abandoned.add(verdict)
        verdict.add_done_callback(self._drop)

    def _drop(self, verdict: asyncio.Task[Refusal | Admission]) -> None:
        _abandoned.discard(verdict)
        if verdict.cancelled() or verdict.exception() is not None:
            return
        outcome = verdict.result()
        if isinstance(outcome, Admission):  # the authenticator did not let itself be cancelled
            self._engine.abandon(outcome)

    def stop_looking(self) -> None:
        """Receive nothing: not every server ever says anything to whom it has refused."""
        if self._look is not None:
            self._look.cancel()
            self._look.add_done_callback(_forget)
            self._look = None

    # --- a no --------------------------------------------------------------------------------

    async def refuse(self, refusal: Refusal, request: UpgradeRequest) -> None:
        """Answer a refusal, over HTTP or by a close frame that a page's script can read."""
        self.stop_looking()  # before: granian sends no close frame under a receive that waits
        self._engine.refusals.add(request, refusal, self._engine.clock.now())
        events = self._events_of(refusal, request)
        try:
            async with asyncio.timeout(_REFUSING):
                for event in events:
                    await self._send(event)
        except TimeoutError:
            self._cut()
        except Exception as error:  # the server's own way to say that the peer is gone
            if not isinstance(error, OSError):
                _log.info("a refusal could not be sent: %s: %s", type(error).__name__, error)

    def _cut(self) -> None:
        may = self._engine.settings.abort_by_descriptor

        def told(is_cut: bool) -> None:  # noqa: FBT001 - see `abort`
            if not is_cut:
                warn_uncut(by_descriptor=may)

        abort_connection(self._scope, told, by_descriptor=may)

    def _events_of(self, refusal: Refusal, request: UpgradeRequest) -> list[dict[str, Any]]:
        if refusal.as_close:
            code = _CLOSE_BASE + refusal.status
            return close_refusal_events(request.subprotocols, code, refusal.code, self._scope)
        try:
            return denial_events(refusal, self._scope)
        except ValueError as error:
            _log.error("a Refused cannot be sent: %s", error)
            failed = Refusal(500, "authenticator_failed", "the server could not decide")
            return denial_events(failed, self._scope)

    # --- a yes -------------------------------------------------------------------------------

    async def serve(
        self, admission: Admission, app: App, tell: Callable[[Scope, WebSocket], Scope]
    ) -> None:
        """Serve a connection that was let in; `tell` makes the scope for a wrapped app."""
        runtime = self._hosted.here()
        if runtime is None:  # the door has been closed since
            self._engine.abandon(admission)
            refusal = self._engine.gate.dress(GOING_AWAY, admission.candidate)
            await self.refuse(refusal, admission.request)
            return
        look, self._look = self._look, None
        link = ASGILink(self._engine, runtime, self._scope, self._receive, self._send, look)
        try:
            if isinstance(admission.endpoint.route, Guard):
                await self._serve_app(link, admission, app, tell)
            else:
                await self._serve_handler(link, admission)
        finally:
            link.let_go()
            admission.candidate.slot.release()  # nothing, unless it never came to an opening

    async def _serve_app(
        self,
        link: ASGILink,
        admission: Admission,
        app: App,
        tell: Callable[[Scope, WebSocket], Scope],
    ) -> None:
        guarded = GuardedApp(link, app, admission.endpoint.policy)
        self._engine.open(link, admission)
        scope = tell(self._scope, link.websocket)
        await guarded.run(scope, self._engine.limits.upgrade_timeout)

    async def _serve_handler(self, link: ASGILink, admission: Admission) -> None:
        self._engine.open(link, admission)
        try:
            await link.answer()
            await link.wait_finished()
        except asyncio.CancelledError:  # the server ends
            link.server_ends()
            await link.wait_finished(_LAST_WORD)
            raise


def _forget(look: asyncio.Task[Event]) -> None:
    """Take what came of a look that nobody wants to know of, so that nobody complains."""
    if not look.cancelled():
        look.exception()
