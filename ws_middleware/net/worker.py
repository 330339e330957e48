"""The gunicorn worker that we run in, if it is one: how long its end may take, and why it ends.

gunicorn tells an app nothing of this. But it handles SIGTERM with a method of its worker, the
object that its server hooks get, so the handler leads there; from an ASGI app, the stack does.
Under another server, or where the app handles SIGTERM by itself, nothing is known and nothing is
claimed.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from traceback import walk_stack
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .logs import Logger

__all__ = [
    "Worker",
    "check_drain",
    "drain_time",
    "end_time",
    "find_worker",
    "longest_drain",
    "worker_on_stack",
]

#: How much longer than the spread of its closes an end may take: `Runtime.close` keeps a fifth.
_SPREAD: Final = 1.25
#: Seconds beyond its closes that an end may take: for answers to them, and for handlers.
_GOODBYES: Final = 3.0

#: Seconds over which a worker's closes are spread at the most, where nobody says.
_DRAIN: Final = 10.0
#: Seconds from one close to the next, where they are few.
_PAUSE: Final = 0.02
#: The share of a worker's time to end that its closes take: requests need some, too.
_SHARE: Final = 1 / 3
#: The share that they may take if somebody says so: goodbyes need the rest.
_LARGEST_SHARE: Final = 2 / 3


@dataclass(frozen=True)
class Worker:
    """What matters of a gunicorn worker. Times in seconds."""

    #: From the signal that ends it to the one that kills it.
    grace: float
    #: Its `max_requests` if it has served so many and ends for that, else `None`.
    recycled_after: int | None


def find_worker() -> Worker | None:
    """Return the gunicorn worker that this process is; `None` if it is none, or cannot be told."""
    return _read(getattr(signal.getsignal(signal.SIGTERM), "__self__", None))


def worker_on_stack() -> Worker | None:
    """Return the gunicorn worker that the caller is called from, as in `find_worker`."""
    for frame, _ in walk_stack(sys._getframe()):  # noqa: SLF001 - it takes no other for the caller's
        worker = _read(frame.f_locals.get("self"))
        if worker is not None:
            return worker
    return None


def _read(worker: Any) -> Worker | None:  # noqa: ANN401 - a worker, or anything else
    gunicorn = sys.modules.get("gunicorn.workers.base")
    if gunicorn is None or not isinstance(worker, gunicorn.Worker):
        return None
    cfg = worker.cfg
    # At its end it shows no sign of life any more, for which a reload kills it after `timeout`.
    grace = min(cfg.graceful_timeout, cfg.timeout or float("inf"))
    is_recycled = worker.nr >= worker.max_requests
    return Worker(float(grace), cfg.max_requests if is_recycled else None)


def drain_time(wanted: float | None, sockets: int, worker: Worker | None) -> float:
    """Return over how many seconds a process that ends spreads the closes of its sockets.

    Args:
        wanted: the setting `drain_over`; `None` is a moment a socket, within the worker's grace.
        sockets: how many there are.
        worker: the gunicorn worker, if it is one.
    """
    if wanted is not None:
        return wanted if sockets else 0.0
    grace = float("inf") if worker is None else worker.grace
    return min(_DRAIN, grace * _SHARE, sockets * _PAUSE)


def end_time(over: float, worker: Worker | None) -> float:
    """Return how many seconds an end may take whose closes are spread over `over` seconds."""
    wanted = over * _SPREAD + _GOODBYES
    if worker is None:
        return wanted
    return min(wanted, max(over * _SPREAD, longest_drain(worker)))  # it is killed after that


def longest_drain(worker: Worker) -> float:
    """Return over how many seconds its closes may be spread before gunicorn kills it meanwhile."""
    return worker.grace * _LARGEST_SHARE


def check_drain(log: Logger, wanted: float | None, worker: Worker | None) -> None:
    """Log a WARNING where the setting `drain_over` is longer than gunicorn lets a worker end."""
    if wanted is not None and worker is not None and wanted > longest_drain(worker):
        log.warning(
            "drain_over=%g does not fit: gunicorn kills a worker that takes %g s to end. Raise "
            "its graceful_timeout and its timeout, or lower drain_over to %g",
            wanted,
            worker.grace,
            longest_drain(worker),
        )
