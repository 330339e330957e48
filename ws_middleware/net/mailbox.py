"""How other threads reach a loop: one deque, and one wake-up for a batch.

`call_soon_threadsafe` costs a system call each; a `deque.append` costs 40 ns. So only the first
message of a batch wakes the loop, which then takes all that are there.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Final

from .clock import SYSTEM
from .logs import Logger

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Mailbox"]

_log: Final = Logger("ws_middleware.runtime")

#: Actions that one turn of the loop runs, and for how many seconds; then sockets and timers have
#: theirs. The time counts where threads post without end and hold the interpreter meanwhile.
_TURN: Final = 1000
_LONGEST: Final = 0.02


class Mailbox:
    """Actions for one loop, run there in the order they were posted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._actions: deque[Callable[[], object]] = deque()
        self._woken = False
        self._closed = False

    def post(self, action: Callable[[], object]) -> bool:
        """Run `action` on the loop, soon. From any thread. False if the loop takes no more."""
        if self._closed:
            return False
        self._actions.append(action)
        if not self._woken:
            self._woken = True
            try:
                # A context of its own: what a request has set (its user, its trace) belongs to that
                # request alone, and would else live on in every task that an action starts.
                self._loop.call_soon_threadsafe(self.turn, context=Context())
            except RuntimeError:  # the loop has been closed, and not by us
                self._closed = True
        # Closed meanwhile: it may have run or not, and whoever asks again is told so.
        return not self._closed

    def turn(self) -> None:
        """Run what is there, for a moment; the rest in the next turn. On the loop."""
        # Before the first take: whoever posts from here on wakes the loop again.
        self._woken = False
        end = SYSTEM.now() + _LONGEST
        for _ in range(_TURN):
            if SYSTEM.now() > end:
                break
            try:
                action = self._actions.popleft()
            except IndexError:
                return
            try:
                action()
            except Exception:
                _log.exception("an action posted to the loop failed")
        self._woken = True
        self._loop.call_soon(self.turn)

    def close(self) -> None:
        """Run what is there and take no more. On the loop."""
        self._closed = True
        while self._actions:
            self.turn()
