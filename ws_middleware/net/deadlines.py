"""The deadlines of one link: any number of them, of which the wheel knows the first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .timers import Wheel

    Action = Callable[[float], None]

__all__ = ["Deadlines"]


class Deadlines:
    """What is to be done when; each action, called with `now`, has one deadline at the most."""

    __slots__ = ("_armed", "_due", "_tick", "_wheel")

    def __init__(self, wheel: Wheel) -> None:
        self._wheel = wheel
        self._due: dict[Action, float] = {}
        self._armed = math.inf
        self._tick: int | None = None

    def __contains__(self, action: Action) -> bool:
        return action in self._due

    def at(self, when: float, action: Action) -> None:
        """Call `action` at `when`, and not when it was to be called before."""
        self._due[action] = when
        self._arm()

    def drop(self, *actions: Action) -> None:
        """Do not call these any more."""
        for action in actions:
            self._due.pop(action, None)

    def clear(self) -> None:
        """Call none any more."""
        self._due.clear()
        self._disarm()

    def _arm(self) -> None:
        """Be woken for the first; an earlier wake-up that is set already may stand."""
        first = min(self._due.values(), default=math.inf)
        if first < self._armed:
            self._disarm()
            self._armed = first
            self._tick = self._wheel.add(self, first)

    def _disarm(self) -> None:
        if self._tick is not None:
            self._wheel.remove(self, self._tick)
        self._tick, self._armed = None, math.inf

    def handle_timeout(self, now: float, late: float) -> None:  # noqa: ARG002 - see `timers.Timed`
        """Do what is due; one action may drop another."""
        self._tick, self._armed = None, math.inf
        for action in [each for each, when in self._due.items() if now >= when]:
            if self._due.get(action, math.inf) <= now:
                del self._due[action]
                action(now)
        self._arm()
