"""What SIGTERM does to a process that drains: the sockets first, spread, and the server then.

Nothing in ASGI tells an app of the end while its sockets are still open. So, where
`drain_on_sigterm` asks for it, the signal is held back from the server (`sigterm`) until all are
closed or their time is over. The server goes on meanwhile: pages are served, and upgrades get 503.
A second SIGTERM is the server's at once.

Not one that comes within a second of the first, though: systemd sends it to all processes of a
service, and a master that gets it sends it on to workers that have it already.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import weakref
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from ws_middleware.receipt import when_all

from .logs import Logger
from .sigterm import Hold, find_obstacle
from .worker import check_drain, drain_time, end_time, worker_on_stack

if TYPE_CHECKING:
    from ws_middleware.receipt import Receipt

    from .clock import Clock
    from .engine import Engine

__all__ = ["Drain", "Draining", "drain_on_sigterm"]

_log: Final = Logger("ws_middleware.drain")

#: Seconds in which a SIGTERM is still the first one.
_SAME: Final = 1.0

#: What ends by SIGTERM all the same, if it is started otherwise.
_REMEDIES: Final = {"hypercorn": ", or start hypercorn with --workers 0"}


class Draining(Protocol):
    """What drains: the sockets of one app."""

    @property
    def engine(self) -> Engine | None:
        """What decides, once a door is open."""

    def close(
        self, code: int, reason: str, *, over: float, timeout: float, for_good: bool
    ) -> Receipt[None]:
        """Close every socket and every door; the receipt resolves when all is over."""


class Phase(Enum):
    """Whose SIGTERM is."""

    HELD = "held"  # ours, when it comes
    DRAINING = "draining"  # it has come, and the server does not know
    OVER = "over"  # the server's


class Event(Enum):
    """What may happen."""

    SIGNAL = "signal"
    STRAY = "stray"  # a signal, but the loop does not run any more
    DRAINED = "drained"


_NEXT: Final = {
    (Phase.HELD, Event.SIGNAL): Phase.DRAINING,
    (Phase.HELD, Event.STRAY): Phase.OVER,
    (Phase.DRAINING, Event.SIGNAL): Phase.OVER,
    (Phase.DRAINING, Event.STRAY): Phase.OVER,
    (Phase.DRAINING, Event.DRAINED): Phase.OVER,
}


class Drain:
    """The end of one process: all fronts that asked for it, and one loop. In the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self.loop = loop
        self._clock = clock
        self._since = 0.0
        self.phase = Phase.HELD
        self.fronts: weakref.WeakSet[Draining] = weakref.WeakSet()
        self._worker = worker_on_stack()
        self._hold = Hold(loop, self._signalled)

    def begin(self) -> None:
        """Take SIGTERM. The server's loop runs, and its handler is there."""
        self._hold.take()

    def add(self, front: Draining, drain_over: float | None) -> None:
        """Close the sockets of this one, too; `drain_over` is its setting."""
        check_drain(_log, drain_over, self._worker)
        self.fronts.add(front)

    def let_go(self) -> None:
        """In a forked child: it drains nothing."""
        self._hold.let_go()

    def _signalled(self) -> None:
        """Note a SIGTERM. It may come between any two instructions: all else is for the loop."""
        now = self._clock.now()
        if self.phase is Phase.HELD:
            self._since = now
        elif now - self._since < _SAME:
            return
        self._on(Event.SIGNAL if self.loop.is_running() else Event.STRAY)

    def _on(self, event: Event) -> None:
        phase = _NEXT.get((self.phase, event))
        if phase is None:
            return
        self.phase = phase
        if phase is Phase.OVER:
            self._hold.pass_on()
        else:
            self._soon(self._drain)

    def _soon(self, action: Any) -> None:  # noqa: ANN401 - a callable
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all sockets with it
            self.loop.call_soon_threadsafe(action)

    def _drain(self) -> None:
        ends = []
        for front in list(self.fronts):
            try:
                ends.append(self._end(front))
            except Exception:  # the server must end all the same
                _log.exception("SIGTERM: the sockets of an app could not be closed")
        drained = partial(self._on, Event.DRAINED)
        when_all(ends).add_done_callback(lambda: self._soon(drained))

    def _end(self, front: Draining) -> Receipt[None]:
        engine = front.engine
        sockets, wanted = 0, None
        if engine is not None:
            sockets, wanted = engine.gate.counts[1], engine.settings.drain_over
        over = drain_time(wanted, sockets, self._worker)
        timeout = end_time(over, self._worker)
        _log.info("SIGTERM: closing %d sockets over %.1f s, then the server ends", sockets, over)
        # For good: a server may go on letting requests in for a moment after that.
        return front.close(1012, "restart", over=over, timeout=timeout, for_good=True)


_here: Drain | None = None
_has_warned = False


def drain_on_sigterm(front: Draining, engine: Engine, *, is_serving: bool) -> None:
    """Have SIGTERM drain this front before it ends the server; a WARNING where it cannot.

    Args:
        front: whose sockets.
        engine: what serves them.
        is_serving: whether the server has begun to serve. Before that its loop may stop once more,
            as granian's does after lifespan's startup, and with it what signals lead to.
    """
    global _here  # noqa: PLW0603 - a process has one handler of a signal
    loop = asyncio.get_running_loop()
    if _here is None or _here.loop is not loop:
        obstacle = find_obstacle()
        if obstacle is not None:
            _warn(obstacle)
            return
        if not is_serving:
            return
        _here = Drain(loop, engine.clock)
        _here.begin()
    _here.add(front, engine.settings.drain_over)


def _warn(obstacle: str) -> None:
    """Say once that the setting is in vain here."""
    global _has_warned  # noqa: PLW0603 - once for a process
    if _has_warned:
        return
    _has_warned = True
    more = "".join(remedy for server, remedy in _REMEDIES.items() if server in sys.modules)
    _log.warning(
        "drain_on_sigterm=True does nothing here: %s. Call sockets.close(code=1012, over=...) "
        "before the server is told to end%s",
        obstacle,
        more,
    )


def _forget() -> None:
    """A child is not what the server ends."""
    global _here, _has_warned
    if _here is not None:
        with contextlib.suppress(ValueError):  # forked by a thread that may not
            _here.let_go()
    _here, _has_warned = None, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
