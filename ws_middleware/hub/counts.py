"""What has happened in this process so far, by name and label: for statistics and metrics."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from ws_middleware.native import Lock

__all__ = ["Counts", "What"]

#: What is counted, and by what: opened sockets by route, closed ones by code, refused upgrades by
#: their code, messages of closed sockets by direction.
What = Literal["opened", "closed", "refused", "messages"]


class Counts:
    """Counts from any thread. Not for what happens with every message: a lock is taken."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[What, Counter[str]] = {}

    def add(self, what: What, label: str, number: int = 1) -> None:
        """Count `number` more."""
        with self._lock:
            self._counts.setdefault(what, Counter())[label] += number

    def of(self, what: What) -> dict[str, int]:
        """Return the numbers so far, by label."""
        with self._lock:
            return dict(self._counts.get(what, ()))
