"""An event loop whose time stands still until it is told to pass, and that stops when it is idle.

The trick is in the selector: asyncio asks it to wait for as long as there is nothing to do. Ours
never waits; it says "idle", and the loop stops. So "run until nothing more happens" has an end.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.net.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["PATIENCE", "VirtualClock", "VirtualLoop"]

#: Seconds, real ones, after which what is still busy is a fault of the code under test.
PATIENCE: Final = 5.0

#: Where the virtual clock begins: a round number far from zero, so that a deadline is exact.
_START: Final = 1000.0


#: Real seconds between two looks at whether a thread has ended without a word.
_SLICE: Final = 0.02


class VirtualClock(Clock):
    """Time that passes only when it is told to. Its wall time begins at the real one."""

    rounding = 0.0

    def __init__(self) -> None:
        self.time = _START
        # A whole second: then what expires does so exactly, and not a rounding error later.
        self._wall = int(time.time()) - _START

    def now(self) -> float:
        """Monotonic."""
        return self.time

    def wall(self) -> float:
        """Since the epoch."""
        return self.time + self._wall


class _Selector(selectors.DefaultSelector):
    """Polls; where it would have to wait, it tells the loop that it is idle."""

    loop: VirtualLoop
    #: Real seconds to wait for descriptors, where the app under test has some.
    patience = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or timeout == 0:
            self.loop.check_busy()
            return ready
        ready = self._wait_for_threads()
        # One descriptor is the loop's own; others are the app's connections to somewhere else.
        if not ready and self.patience > 0 and len(self.get_map()) > 1:
            ready = super().select(self.patience)
        if not ready:
            self.loop.is_idle(timeout)
        return ready

    def _wait_for_threads(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, in real time, while threads are at work whose outcome comes to the loop."""
        end = time.monotonic() + (self.patience or PATIENCE)
        while busy := self.loop.find_workers(again=self.patience > 0):
            ready = super().select(_SLICE)
            if ready:
                self.loop.be_patient()
                return ready
            if time.monotonic() > end:
                self.loop.give_up(busy)
                break
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs until it is idle. `run_later` gets what others would run in a pool of threads."""

    def __init__(
        self, clock: VirtualClock, run_later: Callable[[Callable[[], None]], None]
    ) -> None:
        self._virtual = clock
        self._run_later = run_later
        self._busy_until = 0.0
        self._has_run = False
        #: Threads that have been waited for long enough.
        self._given_up: set[threading.Thread] = set()
        #: When the first timer is due; `None` if there is none.
        self.next_due: float | None = None
        #: What callbacks and forgotten tasks raised.
        self.errors: list[BaseException] = []
        self._poll = _Selector()
        self._poll.loop = self
        super().__init__(self._poll)
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """The virtual clock's."""
        return self._virtual.time

    def run_until_idle(self, patience: float = 0.0) -> bool:
        """Run all that is ready and all that comes of it, but let no time pass.

        Args:
            patience: real seconds to wait for connections that the app itself has.

        Returns:
            Whether there was anything.

        Raises:
            RuntimeError: it never comes to rest.
        """
        self._poll.patience = patience
        self._busy_until = time.monotonic() + patience + PATIENCE
        self._has_run = False
        self.run_forever()
        return self._has_run

    def check_busy(self) -> None:
        """Note that there is something to do; give up on code that never comes to rest."""
        self._has_run = True
        if time.monotonic() > self._busy_until:
            self._busy_until = float("inf")  # once: what follows is the clean-up
            msg = (
                f"the handlers were still busy after {PATIENCE:g} s: one of them loops without "
                "ever waiting for anything but asyncio.sleep(0)"
            )
            raise RuntimeError(msg)

    def be_patient(self) -> None:
        """Begin to count anew: it was a thread that took so long."""
        self._has_run = True
        self._busy_until = max(self._busy_until, time.monotonic() + PATIENCE)

    def find_workers(self, *, again: bool) -> set[threading.Thread]:
        """Return anyio's threads that work for this loop: `def` code of Starlette and FastAPI.

        With `again` also those that have been given up.
        """
        if "anyio" not in sys.modules:
            return set()
        busy = {each for each in threading.enumerate() if self._employs(each)}
        return busy if again else busy - self._given_up

    def _employs(self, thread: threading.Thread) -> bool:
        # Nothing public tells. In all versions of anyio since 3.0 a worker has these two.
        idle = getattr(thread, "idle_workers", None)
        return idle is not None and getattr(thread, "loop", None) is self and thread not in idle

    def give_up(self, threads: set[threading.Thread]) -> None:
        """Wait for these no more: whatever they wait for, it is not for the loop to bring."""
        self._given_up |= threads

    def is_idle(self, timeout: float | None) -> None:
        """Nothing is left to do before `timeout` seconds have passed."""
        self.next_due = None if timeout is None else self._virtual.time + timeout
        self.stop()

    def run_in_executor(  # type: ignore[override]
        self,
        executor: object,  # noqa: ARG002 - no threads in a test, whoever's they are
        func: Callable[..., Any],
        *args: Any,  # noqa: ANN401 - the app's own
    ) -> asyncio.Future[Any]:
        """Run `func` in the test's thread, when the loop is idle."""
        future: asyncio.Future[Any] = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self._run_later(work)
        return future

    def _note(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        # What a callback raised must not end as a line in a log that nobody reads.
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.errors.append(error)
        else:
            loop.default_exception_handler(dict(context))
