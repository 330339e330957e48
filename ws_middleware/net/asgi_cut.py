"""The end of a connection whose server does not let go of it, by whatever means there are."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .abort import abort_connection, warn_uncut
from .asgi_messages import close_event

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from .asgi_outgoing import Send
    from .runtime import Runtime

__all__ = ["Cut"]

#: Seconds for a close that is the last try to end a connection that cannot be cut.
_LAST_TRY: Final = 1.0


class Cut:
    """Cuts one connection. On its runtime's loop.

    Args:
        runtime: its loop.
        scope: what the server says of it.
        send: the server's.
        by_descriptor: whether it may be cut by one which the server has opened.
    """

    def __init__(
        self,
        runtime: Runtime,
        scope: MutableMapping[str, Any],
        send: Send,
        *,
        by_descriptor: bool,
    ) -> None:
        self._runtime = runtime
        self._scope = scope
        self._send = send
        self._by_descriptor = by_descriptor

    def now(self, *, hangs: bool) -> None:
        """Cut it; or ask the server for what could not be, unless a send `hangs` there already."""
        self._abort(partial(self._told, hangs))

    def rest_in(self, seconds: float) -> None:
        """Cut later what the server still holds on to; most likely there is nothing any more."""
        self._runtime.later(seconds, partial(self._abort, bool))

    def _abort(self, told: Callable[[bool], object]) -> None:
        abort_connection(self._scope, told, by_descriptor=self._by_descriptor)

    def _told(self, hangs: bool, is_cut: bool) -> None:  # noqa: FBT001 - see `abort`
        """Hear whether it was cut. From any thread."""
        if is_cut:
            return
        warn_uncut(by_descriptor=self._by_descriptor)
        if not hangs:
            self._runtime.run(self._try_soon)

    def _try_soon(self) -> None:
        self._runtime.spawn(self._try_to_close())

    async def _try_to_close(self) -> None:
        """Send a close, for a moment: daphne would keep the connection."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_LAST_TRY):
                await self._send(close_event(1001, "going_away", self._scope))
