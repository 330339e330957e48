"""What comes from an ASGI server's `receive`: one task that waits for it, while there is room.

It receives whether or not an app does: so that a peer's end is seen, and so that uvicorn, which
reads no pongs while one message waits, takes no slow app for a dead peer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .asgi_outgoing import Event, Receive
    from .runtime import Runtime

__all__ = ["Incoming"]


class Taker(Protocol):
    """Who takes what comes: a link."""

    @property
    def is_full(self) -> bool:
        """Whether nothing more is read for now."""

    @property
    def has_room(self) -> bool:
        """Whether enough has been taken since for reading to go on."""

    def note_wait(self, *, waits: bool) -> None:
        """Hear that nothing is read for want of room, each time some is taken; or is read again."""

    def received(self, event: Event) -> None:
        """Take an event."""

    def disconnected(self, event: Event) -> None:
        """Take the last one."""

    def lost(self, why: str) -> None:
        """Hear that none will come any more."""


class Incoming:
    """The receiving side of one link. All on its runtime's loop.

    Args:
        runtime: its loop.
        receive: the server's.
        look: a receive that is under way already.
        taker: the link.
    """

    def __init__(
        self, runtime: Runtime, receive: Receive, look: asyncio.Task[Event] | None, taker: Taker
    ) -> None:
        self._runtime = runtime
        self._receive = receive
        self._look = look
        self._taker = taker
        self._task: asyncio.Task[Any] | None = None
        self._room = asyncio.Event()
        self._waits = False
        self._is_over = False

    def start(self) -> None:
        """Receive; one task is enough for a peer that says nothing."""
        if self._is_over:
            return
        if self._look is None:
            self._task = self._runtime.spawn(self._read())
        else:
            self._task, self._look = self._look, None
            self._task.add_done_callback(self._looked)

    def stop(self) -> None:
        """Receive nothing more."""
        self._is_over = True
        for task in (self._task, self._look):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def resume(self) -> None:
        """Something has been taken. The task is not woken for each message by itself."""
        if not self._waits:
            return
        if self._taker.has_room:
            self._room.set()
        else:
            self._taker.note_wait(waits=True)

    def wake(self) -> None:
        """Go on, for whatever reason."""
        self._room.set()

    async def _read(self) -> None:
        try:
            while True:
                while self._taker.is_full:
                    await self._wait_for_room()
                if not self._take(await self._receive()):
                    return
        except Exception as error:
            self._taker.lost(f"receive failed: {type(error).__name__}")

    async def _wait_for_room(self) -> None:
        self._waits = True
        self._room.clear()
        self._taker.note_wait(waits=True)
        await self._room.wait()
        self._waits = False
        self._taker.note_wait(waits=False)

    def _take(self, event: Event) -> bool:
        """Hand an event on; False if it was the last."""
        if event["type"] == "websocket.disconnect":
            self._taker.disconnected(event)
            return False
        self._taker.received(event)
        return True

    def _looked(self, look: asyncio.Task[Event]) -> None:
        """Take what the first receive has brought, and go on."""
        if look.cancelled():
            return
        error = look.exception()
        if error is not None:
            self._taker.lost(f"receive failed: {type(error).__name__}")
        elif self._take(look.result()):
            self.start()
