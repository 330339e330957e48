"""Threads of our own for the app's blocking code: started when needed, daemons, counted.

Three groups, so that none can starve another: *events* (short, queued), *conversations* (as long as
a socket; never queued, for a queued one would be an open socket that nobody serves), and *auth*
(short, queued; a busy pool of events must not keep people from logging in).

Not `concurrent.futures`: its threads are joined at exit, and one handler in `time.sleep(60)` would
hold the process for a minute. Ours are daemons, and shutdown has its own deadline.

Where gevent has made threads greenlets, these are greenlets of the app's hub, too: pooled
connections, locks and queues of the app work there and nowhere else.
"""

from __future__ import annotations

import threading
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Final

from ws_middleware.native import Host, Lock

from .logs import Logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ThreadGroup"]

_log: Final = Logger("ws_middleware.threads")

#: An idle thread ends after this many seconds, so that a burst is not kept for ever.
_IDLE: Final = 30.0


class ThreadGroup:
    """At most `size` threads called `name`; made in a thread of the app. Methods from any."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self._host = Host.here()
        self._condition = threading.Condition(Lock())
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0
        self._reserved = 0
        self._closed = False

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._threads

    @property
    def busy(self) -> int:
        """How many of them work."""
        return self._threads - self._idle

    @property
    def waiting(self) -> int:
        """How many jobs wait for one."""
        return len(self._jobs)

    @property
    def reserved(self) -> int:
        """How many places are taken by `reserve`."""
        return self._reserved

    def submit(self, job: Callable[[], None]) -> bool:
        """Run `job` in a thread, now or after others. False after `close`.

        Raises:
            RuntimeError: there is no thread, and the system gives none.
        """
        with self._condition:
            if self._closed:
                return False
            self._jobs.append(job)
            # A thread that was notified and has not run yet still counts as idle, so compare.
            if self._idle >= len(self._jobs):
                self._condition.notify()
            elif self._threads < self.size:
                self._start_one()
        return True

    def _start_one(self) -> None:
        try:
            self._start()
        except RuntimeError:
            if not self._threads:  # else one of them takes the job when it has done its own
                self._jobs.pop()
                raise
        else:
            self._threads += 1

    def _start(self) -> None:
        if self._host is not None:
            self._host.spawn(self._work)
            return
        thread = threading.Thread(target=self._work, name=f"ws-{self.name}", daemon=True)
        thread.start()

    def reserve(self) -> bool:
        """Take a place for a long job before it is certain; False if all are taken."""
        with self._condition:
            if self._closed or self._reserved >= self.size:
                return False
            self._reserved += 1
            return True

    def release(self) -> None:
        """Give a place back."""
        with self._condition:
            self._reserved -= 1

    def close(self) -> None:
        """Drop what is queued and let the threads end when they are done; wait for none."""
        with self._condition:
            self._closed = True
            self._jobs.clear()
            self._condition.notify_all()

    def _work(self) -> None:
        while self._run_one():
            pass

    def _run_one(self) -> bool:
        """Run a job; a function of its own, so that an idle thread holds on to none."""
        job = self._take()
        if job is None:
            return False
        try:
            Context().run(job)  # what a job sets is not for the next one, which is somebody else's
        except BaseException:
            _log.exception("a job in a %s thread failed", self.name)
        return True

    def _take(self) -> Callable[[], None] | None:
        with self._condition:
            self._idle += 1
            # A greenlet costs nothing to start, and would stop its hub if it waited here.
            while not self._jobs and not self._closed and self._host is None:
                if not self._condition.wait(_IDLE) and not self._jobs:
                    break
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads -= 1
            return None
