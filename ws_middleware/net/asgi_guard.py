"""A wrapped app's own WebSocket, guarded: what it receives and sends goes through a link of ours.

The app runs in a task of its own, which may be cancelled when its peer is gone and it does not
notice; the server's task never is. Whatever the app leaves out, such as a close frame, is said.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.core.events import Closed
from ws_middleware.inbox import Inbox
from ws_middleware.types import Refusal

from .asgi_link import PeerGone, Phase
from .asgi_messages import (
    DENIAL,
    accept_event,
    close_event,
    close_refusal_events,
    denial_events,
    http_denial,
    legal_close,
    payload_event,
)
from .grace import GRACE, Grace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from ws_middleware.config import EffectivePolicy

    from .asgi_link import ASGILink
    from .asgi_outgoing import Event

    App = Callable[[MutableMapping[str, Any], Any, Any], Awaitable[None]]

__all__ = ["GuardedApp"]

#: Seconds that a close frame has when the server ends.
_LAST_WORD: Final = 1.0

_CONNECT: Final = {"type": "websocket.connect"}

#: What is said of an app that refuses by itself, and of one that fails before it has answered.
_REFUSED: Final = Refusal(403, "app_refused", "refused", "the app closed it and did not accept it")
_FAILED: Final = replace(
    _REFUSED,
    status=500,
    why="the app failed before it had answered",
    headers=(("Content-Type", "text/plain; charset=utf-8"),),
    body=b"Internal Server Error",
)


class GuardedApp:
    """Runs a wrapped app for one connection that has been let in."""

    def __init__(self, link: ASGILink, app: App, policy: EffectivePolicy) -> None:
        self.is_answered = False
        self.has_accepted = False
        self.refusal: Refusal | None = None
        self._link = link
        self._app = app
        self._refuses_with = policy.refuse_with
        self._task: asyncio.Task[None] | None = None
        self._is_connected = False
        self._grace = Grace(link.runtime)
        #: Messages that the app has not received.
        self.inbox = Inbox(policy.limits)
        self._waiters: set[asyncio.Future[None]] = set()
        self._last: Event | None = None
        self._denial: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        link.app = self

    async def run(self, scope: MutableMapping[str, Any], timeout: float) -> None:
        """Run it to its end, and say what it has not said.

        Args:
            scope: what it is called with.
            timeout: seconds that it has to accept or to refuse.

        Raises:
            BaseException: what the app raised; its peer has been closed with 1011.
        """
        link = self._link
        link.deadlines.at(link.runtime.clock.now() + timeout, self._unanswered)
        self._task = task = link.runtime.loop.create_task(self._run_app(scope))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:  # the server ends: it is the app's end, too
            await self._break_off(task)
            raise
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            await self._conclude(1011, "internal_error", "app_failed")
        else:
            await self._conclude(1000, "", "app_returned")
        if error is not None and not _is_about_peer(error):
            raise error

    async def _run_app(self, scope: MutableMapping[str, Any]) -> None:
        await self._app(scope, self._receive, self._send)

    async def _break_off(self, task: asyncio.Task[None]) -> None:
        """End an app with its server; one that does not want to end is left behind."""
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE)
        if task.done() and not task.cancelled():
            task.exception()  # the server has its own word for why it ends
        self._link.server_ends()
        await self._link.wait_finished(_LAST_WORD)

    async def _conclude(self, code: int, reason: str, why: str) -> None:
        """Close what the app has left open; refuse what it has not answered."""
        link = self._link
        if self.is_answered:
            link.close(code, reason, why=why)
        elif link.phase is Phase.WAITING:
            await self._refuse_for_app(failed=code != 1000)  # noqa: PLR2004 - normal closure
        await link.wait_finished()

    async def _refuse_for_app(self, *, failed: bool) -> None:
        with contextlib.suppress(Exception):  # the server's word on a peer that is gone meanwhile
            if self._denial is not None and not failed:
                await self._deny({"body": b"", "more_body": False})
            elif failed:
                await self._refuse(denial_events(_FAILED, self._link.scope), _FAILED)
            else:
                why = "the app returned and did not accept it"
                await self._refuse(self._bare_refusal(), replace(_REFUSED, why=why))
        self._link.let_go()

    # --- in the place of the app -------------------------------------------------------------

    def turn_away(self, refusal: Refusal, closed: Closed) -> None:
        """Refuse what the app has not answered yet; it is told by a disconnect."""
        self.is_answered = True
        self.refusal = refusal
        self._link.begin_to_end(closed)
        self._link.runtime.spawn(self._say(refusal, closed))

    async def _say(self, refusal: Refusal, closed: Closed) -> None:
        link = self._link
        if self._refuses_with == "close":
            offered = link.websocket.request.subprotocols
            events = close_refusal_events(offered, closed.code, closed.reason, link.scope)
        else:
            events = denial_events(refusal, link.scope)
        with contextlib.suppress(Exception):  # as above
            for event in events:
                await link.out.put(event)
        link.finish()

    def _unanswered(self, now: float) -> None:  # noqa: ARG002 - see `Deadlines`
        if self.is_answered:  # and the server has not taken it yet
            return
        why = "the app neither accepted nor refused it in time (upgrade_timeout)"
        refusal = Refusal(503, "upgrade_timeout", "the server took too long to decide", why)
        self.turn_away(refusal, Closed(1013, "upgrade_timeout", "us", "upgrade_timeout"))
        self.give_up()

    def give_up(self) -> None:
        """Cancel the app when it has had time to end by itself: its peer is gone."""
        self._grace.begin(self._task)

    # --- what the app receives ---------------------------------------------------------------

    def received(self, message: str | bytes) -> None:
        """Take a message of the peer's."""
        self.inbox.put(message)
        self._wake()

    def disconnected(self, code: int, reason: str) -> None:
        """Take the end, ours or the peer's: it comes behind the messages that wait."""
        self._last = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._wake()
        if not self.is_answered:  # and it cannot be any more
            self.give_up()

    async def _receive(self) -> Event:
        """Return the next event; once it is a disconnect, that again."""
        if not self._is_connected:
            self._is_connected = True
            return dict(_CONNECT)
        while not self.inbox.messages:
            if self._last is not None:
                return dict(self._last)
            await self._wait()
        message = self.inbox.take()
        self._link.resume()
        return {"type": "websocket.receive", _kind_of(message): message}

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = self._link.runtime.loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- what the app sends ------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        """Take an event of the app.

        Raises:
            PeerGone: there is nobody to send it to.
            Exception: what the server says of an event that it does not take.
        """
        kind = event["type"]
        if kind == "websocket.send":
            if self._link.phase >= Phase.CLOSING:
                raise PeerGone
            await self._link.out.put(payload_event(event))
            self._link.sent += 1
        elif kind == "websocket.accept":
            await self._accept(event)
        elif kind == "websocket.close":
            await self._close(event)
        elif kind == f"{DENIAL}.start" and not self.is_answered:
            self._denial = (event["status"], list(event.get("headers") or ()), [])
        elif kind == f"{DENIAL}.body" and self._denial is not None:
            await self._deny(event)
        else:
            await self._put(event)

    async def _put(self, event: Event) -> None:
        if self._link.phase >= Phase.CLOSING:
            raise PeerGone
        await self._link.out.put(event)

    async def _accept(self, event: Event) -> None:
        link = self._link
        granted = accept_event(None, link.headers)["headers"]
        subprotocol = event.get("subprotocol")
        if subprotocol is None:
            subprotocol = link.websocket.subprotocol
        headers = [*(event.get("headers") or ()), *granted]
        first = not self.is_answered and link.phase is Phase.WAITING
        if first:
            self.is_answered = self.has_accepted = True
        try:
            await self._put({**event, "subprotocol": subprotocol, "headers": headers})
        except PeerGone:
            raise
        except Exception:  # the server takes it as little as if the app had said nothing
            if first:
                self.is_answered = self.has_accepted = False
            raise
        link.tell_open()
        link.opened()

    async def _close(self, event: Event) -> None:
        code, reason = legal_close(event.get("code", 1000), event.get("reason"))
        if not self.is_answered and self._link.phase is Phase.WAITING:
            await self._refuse(self._bare_refusal(code, reason), _REFUSED)
            return
        self._link.close(code, reason, why="app_closed")
        await self._link.wait_finished()

    def _bare_refusal(self, code: int = 1000, reason: str = "") -> list[dict[str, Any]]:
        return [close_event(code, reason, self._link.scope)]

    async def _deny(self, event: Event) -> None:
        """Say the app's own refusal as the server takes it: in one piece, or as a close."""
        assert self._denial is not None
        status, headers, chunks = self._denial
        chunks.append(bytes(event.get("body") or b""))
        if event.get("more_body"):
            return
        self._denial = None
        events = http_denial(status, headers, b"".join(chunks), self._link.scope)
        if DENIAL not in (self._link.scope.get("extensions") or {}):
            events = self._bare_refusal(1008)
        why = f"the app answered {status}"
        await self._refuse(events, replace(_REFUSED, status=status, why=why))

    async def _refuse(self, events: list[dict[str, Any]], refusal: Refusal) -> None:
        """Tell the peer; what is begun is said to its end, whoever else closes it meanwhile."""
        if self._link.phase >= Phase.CLOSING:
            raise PeerGone
        self.is_answered, self.refusal = True, refusal
        try:
            for event in events:
                await self._link.out.put(event)
        except PeerGone:
            raise
        except Exception:  # as above
            self.is_answered, self.refusal = False, None
            raise
        self._link.end(Closed(1006, "", "us", refusal.code))


def _kind_of(message: str | bytes) -> str:
    return "text" if isinstance(message, str) else "bytes"


def _is_about_peer(error: BaseException) -> bool:
    """Whether an app has only failed because its peer was gone, which is not worth a traceback."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_about_peer(each) for each in error.exceptions)
    return isinstance(error, PeerGone)
