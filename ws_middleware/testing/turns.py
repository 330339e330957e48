"""Threads that take turns: what runs in pools on a server runs here one at a time, in order.

`def` events and authenticators run in the test's own thread, between two turns of the loop. A `def`
conversation blocks in `receive`, so it has a thread, but only as a coroutine has a stack: it runs
while the test waits for it, until it waits for something itself, and not a step further.
"""

from __future__ import annotations

import sys
import threading
import traceback
from contextvars import Context
from typing import TYPE_CHECKING, Final

from ws_middleware.native import Event
from ws_middleware.net.threads import ThreadGroup
from ws_middleware.receipt import waiting

from .loop import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .stage import Stage

__all__ = ["Conversation", "Conversations", "Turns"]

#: The least that a wait takes, so that a handler that polls with `receive(timeout=0)` lets the test
#: go on.
_POLL: Final = 0.01


class Turns(ThreadGroup):
    """Jobs for the test's own thread."""

    def __init__(self, stage: Stage, group: ThreadGroup) -> None:
        super().__init__(group.name, group.size)
        self._stage = stage

    def submit(self, job: Callable[[], None]) -> bool:
        """Run `job` when the loop is idle."""
        self._stage.run_later(job)
        return True


class Conversations(Turns):
    """`def` conversations."""

    def submit(self, job: Callable[[], None]) -> bool:
        """Begin `job` when the loop is idle."""
        self._stage.run_later(Conversation(self._stage, job).go_on)
        return True


class Conversation:
    """One `def` conversation, in a thread that runs only when it is let."""

    def __init__(self, stage: Stage, job: Callable[[], None]) -> None:
        self._stage = stage
        self._job = job
        self._ours = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._event = Event()
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="ws-conversation", daemon=True)
        self._thread.start()

    @property
    def is_due(self) -> bool:
        """Whether what it waits for has come, or its time is up."""
        late = self._deadline is not None and self._stage.clock.time >= self._deadline
        return late or self._event.is_set()

    def go_on(self) -> None:
        """Let it run until it waits or ends.

        Raises:
            RuntimeError: it does neither.
        """
        before = self._stage.turn
        self._stage.turn = self._thread.ident or 0
        self._ours.release()
        try:
            if not self._theirs.acquire(timeout=PATIENCE):
                raise RuntimeError(self._stuck())
        finally:
            self._stage.turn = before

    def _stuck(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - documented
        stack = "".join(traceback.format_stack(frame)[-3:]) if frame else ""
        return (
            f"a def conversation has held the test for {PATIENCE:g} s; in a test it may wait only "
            f"in its websocket's own methods:\n{stack}"
        )

    def _run(self) -> None:
        self._ours.acquire()
        waiting.wait = self._wait
        try:
            Context().run(self._job)
        finally:
            self._theirs.release()

    def _wait(self, event: Event, timeout: float | None) -> bool:
        """Wait in this thread: give the turn back."""
        if event.is_set():
            return True
        self._event = event
        self._deadline = None
        if timeout is not None:
            self._deadline = self._stage.clock.time + max(timeout, _POLL)
            self._stage.loop.call_at(self._deadline, bool)  # so that time gets there
        self._stage.park(self)
        self._theirs.release()
        self._ours.acquire()
        return event.is_set()
