"""The heartbeat of an ASGI link: a message on which an app and its clients have agreed.

A server that owns the frames lets nobody ping, so a peer that is silently gone shows itself only
where something is sent to it. A route may ask for more: its `app_ping` is sent as a message, and
whatever comes is life. When it is due, and when a peer is dead, is `core.heartbeat`'s.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Protocol

from ws_middleware.core.heartbeat import HeartbeatClock, Pulse
from ws_middleware.types import EncodedMessage

from .asgi_messages import send_event
from .asgi_outgoing import PeerGone
from .control import control_of
from .timers import LATE, TICK

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from ws_middleware.config import Heartbeat

    from .asgi_outgoing import Outgoing
    from .deadlines import Deadlines
    from .runtime import Runtime

__all__ = ["AppHeartbeat", "Hold", "heartbeat_of"]

#: Seconds between two looks whether what goes out has left room for a ping.
_AGAIN: Final = 1.0


class Hold(Enum):
    """Why a peer's silence says nothing of it for now."""

    #: We read nothing.
    READING = auto()
    #: The ping is not with the server yet.
    SENDING = auto()


class Pinger(Protocol):
    """Whose heartbeat it is: a link."""

    runtime: Runtime
    scope: MutableMapping[str, Any]
    deadlines: Deadlines
    out: Outgoing

    def note_latency(self, seconds: float) -> None:
        """Hear how long an answer took."""

    def no_pong(self) -> None:
        """Hear, once, that the peer has shown no life in time."""


def heartbeat_of(link: Pinger, heartbeat: Heartbeat | None, jitter: float) -> AppHeartbeat | None:
    """Return a heartbeat by messages, if the policy asks for one and real pings cannot be had."""
    if heartbeat is None or heartbeat.app_ping is None or control_of(link.scope) is not None:
        return None
    return AppHeartbeat(link, heartbeat, jitter)


class AppHeartbeat:
    """Finds out whether the peer of one link is there. All on its runtime's loop.

    Args:
        link: the link.
        heartbeat: with an `app_ping`.
        jitter: 0 to 1, shortens the first interval.
    """

    def __init__(self, link: Pinger, heartbeat: Heartbeat, jitter: float) -> None:
        assert heartbeat.app_ping is not None
        self._link = link
        self._runtime = link.runtime
        self._deadlines = link.deadlines
        self._out = link.out
        self._heartbeat = heartbeat
        self._jitter = jitter
        self._message = EncodedMessage(heartbeat.app_ping)
        #: There is one while the socket is open.
        self._clock: HeartbeatClock | None = None
        self._holds: set[Hold] = set()
        #: When the next look should be.
        self._due = 0.0
        #: When the last ping was sent, until it is answered.
        self._pinged_at: float | None = None

    def begin(self) -> None:
        """The socket is open."""
        now = self._runtime.clock.now()
        self._clock = HeartbeatClock(self._heartbeat, now=now, jitter=self._jitter)
        self._arm(self._clock)

    def stop(self) -> None:
        """It is not open any more."""
        self._clock = None
        self._deadlines.drop(self._beat)

    def received(self, message: str | bytes) -> bool:
        """Take any message as life; return whether it was an `app_pong`, which is nobody else's."""
        if self._clock is not None:
            self._clock.received()
        if message != self._heartbeat.app_pong:
            return False
        if self._pinged_at is not None:
            self._link.note_latency(self._runtime.clock.now() - self._pinged_at)
            self._pinged_at = None
        return True

    def hold(self, why: Hold) -> None:
        """From now on silence is not the peer's doing."""
        self._holds.add(why)
        if self._clock is not None:
            self._clock.pause(self._runtime.clock.now())

    def go_on(self, why: Hold) -> None:
        """This is no reason any more."""
        self._holds.discard(why)
        if self._clock is not None and not self._holds:
            self._clock.resume(self._runtime.clock.now())
            self._arm(self._clock)

    def _arm(self, clock: HeartbeatClock) -> None:
        self._due = clock.next_deadline()
        self._deadlines.at(self._due, self._beat)

    def _beat(self, now: float) -> None:
        clock = self._clock
        assert clock is not None
        late = now - self._due
        if late > TICK + LATE:
            # A tick more: what has come meanwhile is read before it is looked at again.
            clock.stood_still(late + TICK)
        if not self._out.is_idle:  # the watch over sends sees a peer that takes nothing
            clock.put_off(now + _AGAIN)
        pulse = clock.pulse(now)
        if pulse is Pulse.DEAD:
            self._link.no_pong()
            return
        if pulse is Pulse.PING:
            self.hold(Hold.SENDING)
            self._runtime.spawn(self._ping())
        self._arm(clock)

    async def _ping(self) -> None:
        """Send a ping, and begin to wait when the server has taken it."""
        if self._clock is None:
            return
        self._pinged_at = self._runtime.clock.now()
        try:
            await self._out.put(send_event(self._message))
        except PeerGone:  # and whoever has to know does
            return
        except Exception as error:
            self._out.on_lost(f"send failed: {type(error).__name__}")
            return
        self.go_on(Hold.SENDING)
