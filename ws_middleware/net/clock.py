"""What time it is, for all that belongs to one engine; the test kit has a clock of its own."""

from __future__ import annotations

import time

__all__ = ["SYSTEM", "Clock"]


class Clock:
    """The computer's clocks."""

    #: Seconds by which a loop's timer may fire before its time: loops round to milliseconds, and a
    #: deadline that is looked at too early would only be set again.
    rounding = 0.001
    #: Monotonic, for every deadline.
    now = staticmethod(time.monotonic)
    #: Since the epoch, for what the world dates: a token's expiry, the Date of an answer.
    wall = staticmethod(time.time)


SYSTEM = Clock()
