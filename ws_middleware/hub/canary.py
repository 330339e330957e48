"""Whether a process hears itself through the broker, as arithmetic on `now`.

A connection that is open need not be one on which anything comes: subscriptions get lost, proxies
and servers hang. So each process sends itself a small message at every beat, and one that does not
hear two of them in a row is deaf.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BEAT", "Canary"]

#: Seconds between two beats.
BEAT: Final = 4.0
#: Beats in a row that may go unheard, less one.
_MISSES: Final = 2


class Canary:
    """One process's beats. `now` is in seconds, whatever the clock."""

    __slots__ = ("_heard", "_misses", "_sent", "last_heard")

    def __init__(self, now: float) -> None:
        self._sent = self._heard = 0
        self._misses = 0
        #: When the broker was last known to carry what is sent.
        self.last_heard = now

    def beat(self) -> int:
        """Return the number to send now."""
        self._misses = 0 if self._heard == self._sent else self._misses + 1
        self._sent += 1
        return self._sent

    def hear(self, number: int, now: float) -> None:
        """Take a number that came back; an old one is no sign of life."""
        if number == self._sent:
            self._heard = number
            self._misses = 0
            self.last_heard = now

    def restart(self, now: float) -> None:
        """Begin again after the connection was made anew."""
        self._heard = self._sent
        self._misses = 0
        self.last_heard = now

    @property
    def is_deaf(self) -> bool:
        """Whether too many beats in a row went unheard."""
        return self._misses >= _MISSES
