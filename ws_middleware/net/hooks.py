"""What becomes of what serves when its process ends, or forks.

Hooks are registered once and can never be taken back, so they look through what there is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Final, Protocol

from .clock import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ws_middleware.receipt import Receipt

__all__ = ["add", "let_go"]


class Serving(Protocol):
    """What has to end with its process."""

    def begin_exit(self) -> tuple[Receipt[None], float] | None:
        """Start the end that the interpreter's exit is; return what tells of it, and its limit.

        The limit is a moment, monotonic; `None` if nothing runs here.
        """

    def after_fork(self) -> None:
        """Let go, in a child, of what is the parent's."""


_all: Final[weakref.WeakSet[Serving]] = weakref.WeakSet()

#: In a child: the parent's loops, never collected, for that would close descriptors a second time.
_inherited: Final[list[object]] = []


def add(serving: Serving) -> None:
    """Have it end with the process, and let go in each child."""
    _all.add(serving)


def let_go(filenos: Iterable[int], kept: object) -> None:
    """Point inherited descriptors to nothing: whoever closes them later closes nothing of ours.

    `kept` is what has them, and is never collected.
    """
    _inherited.append(kept)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fileno in filenos:
        if fileno >= 0:
            os.dup2(nothing, fileno, inheritable=False)
    os.close(nothing)


def _end_all() -> None:
    """End all at once: a worker of several apps has no more time than one of a single."""
    with contextlib.suppress(KeyboardInterrupt):  # whoever presses Ctrl-C again waits no longer
        ends = [each.begin_exit() for each in list(_all)]
        for closed, limit in filter(None, ends):
            # A loop may be blocked for good by a handler: then exit does not wait for it.
            with contextlib.suppress(TimeoutError):
                closed.result(max(0.0, limit - SYSTEM.now()))


def _reset_all() -> None:
    for each in list(_all):
        each.after_fork()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
