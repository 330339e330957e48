"""When to ping and when a peer is dead: arithmetic on `now`, nothing else.

A ping is due `interval` after the last one (RFC 6455 section 5.5.2). After a ping the peer has
`timeout` to show life, and any byte is life. That second clock stands still while we do not read
and while our own loop does not turn, for then silence says nothing about the peer. The first one
never does: a vanished peer shows itself as a write error.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws_middleware.config import Heartbeat

__all__ = ["HeartbeatClock", "Pulse"]


class Pulse(Enum):
    """What is due."""

    PING = auto()
    DEAD = auto()


class HeartbeatClock:
    """The two deadlines of one connection. `jitter`, 0 to 1, shortens the first interval."""

    __slots__ = ("_deadline", "_heartbeat", "_paused_at", "_ping_at")

    def __init__(self, heartbeat: Heartbeat, *, now: float, jitter: float) -> None:
        self._heartbeat = heartbeat
        # Only ever shorter: a proxy's idle limit is a line that must not be crossed. Spreading the
        # first ping spreads all that follow.
        self._ping_at = now + heartbeat.interval * (1 - 0.5 * jitter)
        self._deadline: float | None = None
        self._paused_at: float | None = None

    def received(self) -> None:
        """Bytes came: the peer lives."""
        self._deadline = None

    def pause(self, now: float) -> None:
        """Reading stops: from now on silence is our doing."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """Reading goes on."""
        if self._paused_at is not None:
            if self._deadline is not None:
                self._deadline += now - self._paused_at
            self._paused_at = None

    def put_off(self, until: float) -> None:
        """Send no ping before `until`."""
        self._ping_at = max(self._ping_at, until)

    def stood_still(self, seconds: float) -> None:
        """Our loop did not turn for `seconds`, which must not count against the peer."""
        if self._deadline is not None and self._paused_at is None:
            self._deadline += seconds

    def next_deadline(self) -> float:
        """Return when `pulse` has something to say."""
        if self._deadline is None or self._paused_at is not None:
            return self._ping_at
        return min(self._deadline, self._ping_at)

    def pulse(self, now: float) -> Pulse | None:
        """Return what is due at `now`; with PING, the next one is set."""
        if self._deadline is not None and self._paused_at is None and now >= self._deadline:
            return Pulse.DEAD
        if now < self._ping_at:
            return None
        self._ping_at = now + self._heartbeat.interval
        if self._deadline is None:
            # Paused: as if the clock had been started now and stopped at once.
            self._deadline = now + self._heartbeat.timeout
            if self._paused_at is not None:
                self._paused_at = now
        return Pulse.PING
