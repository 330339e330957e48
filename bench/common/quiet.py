"""How much of the machine others took while we measured.

A figure had while somebody compiles is a figure of the compiler. So each measurement is told what
the processes that are not ours used meanwhile, and is made again when it was much. What decides is
their use of the processor, never the result.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Quiet", "quietest"]

T = TypeVar("T")

#: Cores that others may use, all together, for a measurement to count as undisturbed.
_ENOUGH: Final = 0.1
#: Seconds to wait for others to finish before a measurement is made again.
_PAUSE: Final = 3.0


@dataclass(frozen=True)
class Quiet:
    """A moment, to be asked later for what others have used since. `ours` are ids of processes."""

    ours: Sequence[int]
    at: float
    everybody: float
    mine: float

    @classmethod
    def now(cls, ours: Sequence[int]) -> Quiet:
        """Begin."""
        return cls(ours, time.monotonic(), _everybody(), _mine(ours))

    def others(self) -> float:
        """Return the cores that processes other than ours have used since, on average."""
        used = (_everybody() - self.everybody) - (_mine(self.ours) - self.mine)
        return max(0.0, used / (time.monotonic() - self.at))


def _everybody() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - _guests(times)


def _guests(times: object) -> float:
    # Linux counts them in `user` too.
    return float(getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0))


def _mine(ours: Sequence[int]) -> float:
    """Seconds used by `ours`, by this process, and by children of it that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    running = [psutil.Process(pid).cpu_times() for pid in ours] + [psutil.Process().cpu_times()]
    return ended.ru_utime + ended.ru_stime + sum(each.user + each.system for each in running)


def quietest(attempts: int, ours: Sequence[int], measure: Callable[[], T]) -> tuple[T, float]:
    """Measure until others are quiet, at most `attempts` times.

    Returns the result during which others used least, and the cores that they used.
    """
    found: list[tuple[float, T]] = []
    for _ in range(attempts):
        if found:
            time.sleep(_PAUSE)
        quiet = Quiet.now(ours)
        result = measure()
        found.append((quiet.others(), result))
        if found[-1][0] <= _ENOUGH:
            break
    others, result = min(found, key=lambda each: each[0])
    return result, others
