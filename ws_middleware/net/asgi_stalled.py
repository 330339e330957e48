"""A look at the clock while a send is under way: no ASGI server ends one that hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ws_middleware.config import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.config import Limits

    from .asgi_outgoing import Outgoing
    from .deadlines import Deadlines

__all__ = ["SendWatch"]

#: How many times `write_timeout` one send may hang before the peer counts as gone: whether it makes
#: progress meanwhile, which would start `write_timeout` anew, cannot be seen from here.
STALLED: Final = 3


class SendWatch:
    """Watches the sends of one link. All on its loop.

    Args:
        out: whose sends they are.
        deadlines: the link's.
        stalled: called, with the reason for the log, when one has hung for too long.
    """

    def __init__(self, out: Outgoing, deadlines: Deadlines, stalled: Callable[[str], None]) -> None:
        self._out = out
        self._deadlines = deadlines
        self._stalled = stalled
        self._limit = STALLED * DEFAULT_LIMITS.write_timeout
        #: Whether a look is to come.
        self._watches = False
        out.on_begin = self._begun

    def open(self, limits: Limits) -> None:
        """Take what the policy says, once there is one."""
        self._limit = STALLED * limits.write_timeout

    def _begun(self, now: float) -> None:
        """A send begins. One look for many of them: what is in time costs nothing."""
        if not self._watches:
            self._watches = True
            self._deadlines.at(now + self._limit, self._look)

    def _look(self, now: float) -> None:
        since = self._out.since
        if since is None:
            self._watches = False
        elif now < since + self._limit:
            self._deadlines.at(since + self._limit, self._look)
        else:
            self._stalled(f"write_timeout: a send has hung for {self._limit:g} s")
