"""What the peer of an open WebSocket sends: its frames in order, and last of all its end.

The end (a close frame, or an error) is special twice. While messages before it are still being
handled it is held back, so that answers to them go out before ours; and once our own side has
closed it is the only thing looked for, for messages come too late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .framing import Failed, Framing, PeerClosed

if TYPE_CHECKING:
    from ws_middleware.config import Limits

    from .framing import Frame

__all__ = ["Inbound"]

#: How long the peer's end waits for its messages to be handled, in seconds.
_HOLD: Final = 0.5
#: Frames after our close frame that are looked at in one call.
_SEEK: Final = 256
#: The same of frames, messages being in many, that take a parser.
_PARSE: Final = 1024


class Inbound:
    """The receiving side of one connection, from the 101 on. `now` is monotonic, in seconds."""

    __slots__ = ("_held", "framing", "held_until", "is_seeking")

    def __init__(self, limits: Limits, early: bytes) -> None:
        #: Takes the bytes.
        self.framing = Framing(limits, early)
        self._held: PeerClosed | Failed | None = None
        #: When a held end stops waiting; `None` while none is held.
        self.held_until: float | None = None
        #: Whether `find_end` has not looked at all there is.
        self.is_seeking = False

    def next_frame(self, now: float, *, handled: bool) -> Frame | None:
        """Return the next frame; no end while messages before it are not `handled`."""
        if self._held is None:
            frame = self.framing.next_event()
            if handled or not isinstance(frame, (PeerClosed, Failed)):
                return frame
            self._held, self.held_until = frame, now + _HOLD
        elif handled or self.held_until is None or now >= self.held_until:
            return self._release()
        return None

    def find_end(self) -> PeerClosed | Failed | None:
        """Look for the peer's end among frames that nobody wants any more.

        At most so many at once, for they may be tiny and the caller has others to serve.
        """
        parsed = self.framing.parsed
        for _ in range(_SEEK):
            frame = self._release() or self.framing.next_event()
            if frame is None or isinstance(frame, (PeerClosed, Failed)):
                self.is_seeking = False
                return frame
            if self.framing.parsed - parsed > _PARSE:
                break
        self.is_seeking = True
        return None

    def _release(self) -> PeerClosed | Failed | None:
        held, self._held, self.held_until = self._held, None, None
        return held

    def stop(self) -> None:
        """Parse and keep nothing any more."""
        self.is_seeking = False
        self.framing.stop()
