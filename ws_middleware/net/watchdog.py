"""Notices a loop that does not turn, and says which line of whose code holds it.

One blocking call in one coroutine stops every socket of the process, and nothing else says where.
So a thread asks the loop for a sign, and if none comes looks at the loop thread's stack.
"""

from __future__ import annotations

import sys
import time
from traceback import walk_stack
from typing import TYPE_CHECKING, Final

from ws_middleware.native import Event, start_thread

from .logs import Logger, safe
from .serving import Server

if TYPE_CHECKING:
    from types import FrameType

    from .runtime import Runtime

__all__ = ["Watchdog"]

_log: Final = Logger("ws_middleware.watchdog")

#: Seconds without a turn that are worth a line.
PATIENCE: Final = 0.25
#: Seconds after which one is told before it has ended.
_LONG: Final = 1.5
#: Seconds between two lines about the same place.
_QUIET: Final = 60.0
#: Seconds between two looks while there is nobody to be disturbed.
_IDLE: Final = 1.0


class Watchdog:
    """Watches one runtime from a thread of its own, until it is stopped."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stopped = Event()
        self._said: dict[str, float] = {}
        #: How often the loop stood still, by place.
        self.counts: dict[str, int] = {}
        #: Whether it stands still now. From any thread.
        self.is_blocked = False

    def start(self) -> None:
        """Begin."""
        start_thread(self._watch, "ws-watchdog")

    def stop(self) -> None:
        """End, soon."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(PATIENCE if self._runtime.size else _IDLE):
            turned = Event()
            asked = time.monotonic()
            try:
                self._runtime.loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # the loop is closed
                return
            if not turned.wait(PATIENCE):
                self.is_blocked = True
                self._blocked(turned, asked)
                self.is_blocked = False

    def _blocked(self, turned: Event, asked: float) -> None:
        frame = sys._current_frames().get(self._runtime.thread_id)  # noqa: SLF001 - documented
        place, whose = ("an unknown place", "") if frame is None else describe(frame)
        del frame
        # One that ends soon is told with its length; one that doesn't is told all the same.
        while not turned.wait(PATIENCE) and time.monotonic() - asked < _LONG:
            if self._stopped.is_set():
                return
        self.counts[place] = self.counts.get(place, 0) + 1
        self._say(place, whose, time.monotonic() - asked, lasts=not turned.is_set())
        while not turned.wait(PATIENCE):
            if self._stopped.is_set():
                return

    def _say(self, place: str, whose: str, seconds: float, *, lasts: bool) -> None:
        now = time.monotonic()
        if now - self._said.get(place, -_QUIET) < _QUIET:
            return
        self._said[place] = now
        _log.warning(
            "loop blocked %.1f s%s by %s%s; use def on_message or asyncio.to_thread "
            "(%d times here)",
            seconds,
            " and still is" if lasts else "",
            place,
            whose,
            self.counts[place],
        )


def describe(frame: FrameType) -> tuple[str, str]:
    """Return the place that holds a stack, and the socket and the route it holds it for.

    The place is the first frame of the app's own: below the loop's and ours, above the library's
    that it called.
    """
    stack = [each for each, _ in walk_stack(frame)]
    whose = ""
    place = frame
    for outer, inner in zip(reversed(stack), list(reversed(stack))[1:], strict=False):
        server = outer.f_locals.get("self") if _is_ours(outer) else None
        if isinstance(server, Server):
            whose = f" (socket {server.websocket.id}, route {safe(server.route.name)})"
        if _is_ours(outer) and not _is_ours(inner) and not _is_plumbing(inner):
            place = inner
    name = f"{place.f_code.co_filename}:{place.f_lineno} in {place.f_code.co_qualname}"
    return name, whose


def _is_ours(frame: FrameType) -> bool:
    return _top_level(frame) == "ws_middleware"


def _top_level(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_plumbing(frame: FrameType) -> bool:
    return _top_level(frame) in {"asyncio", "threading", "contextlib", "logging", "uvloop"}
