"""Who does what is to be done on the stage, where the test's thread does not come to it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StandIn"]

#: Real seconds after which the test's thread most likely waits for what only the stage can bring.
_AWAY: Final = 0.1


class StandIn:
    """A thread that settles the stage when another one has posted something and the test is away.

    A test waits for its client, the client for a view in a loop of its own, and the view for a
    socket to be closed: somebody has to close it.
    """

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle
        self._lock = threading.Lock()
        self._calls = 0
        self._came_by = threading.Event()
        self._thread: threading.Thread | None = None

    def call(self) -> None:
        """Something was posted. From any thread."""
        with self._lock:
            self._calls += 1
            self._came_by.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="ws-stand-in", daemon=True)
                self._thread.start()

    def send_home(self) -> None:
        """The test's thread does what there is to do."""
        self._came_by.set()

    def end(self) -> None:
        """Be gone."""
        self._came_by.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while (calls := self._count()) is not None:
            if not self._came_by.wait(_AWAY):
                self._settle()
                self._done_with(calls)

    def _count(self) -> int | None:
        """Return how many calls there have been; `None` if nothing is left to do."""
        with self._lock:
            if self._came_by.is_set():
                self._thread = None
                return None
            return self._calls

    def _done_with(self, calls: int) -> None:
        with self._lock:
            if calls == self._calls:
                self._came_by.set()
