"""SIGTERM, held back from the server that we run in until it may have it.

A server sets its handler before it calls an app, in one of two ways. With `signal.signal`: then
ours takes its place. Or with the event loop's `add_signal_handler`, which hears of signals through
the descriptor of `signal.set_wakeup_fd`, past every handler of Python's: then a pipe of ours takes
the place of that descriptor, too, and the loop is told of every signal but this one. To pass
SIGTERM on is to put back what was there and to raise it anew: the server meets it as it would have.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.native import get_ident

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Hold", "find_obstacle"]

_SIGTERM: Final = signal.SIGTERM
#: What the wakeup descriptor has for it.
_BYTE: Final = bytes([_SIGTERM])
#: Bytes of one read: one for each signal.
_READ: Final = 4096
#: No descriptor, as `signal.set_wakeup_fd` has it.
_NONE: Final = -1

#: Why it cannot be held back, by what handles it.
_OBSTACLES: Final[dict[object, str]] = {
    None: "SIGTERM is not handled by Python in this process",
    signal.SIG_DFL: "the server has no handler of SIGTERM in this process",
    signal.SIG_IGN: "SIGTERM is ignored in this process",
}


def find_obstacle() -> str | None:
    """Return why SIGTERM cannot be held back by the calling thread; `None` if it can."""
    if get_ident() != threading.main_thread().ident:
        return "the event loop is not in the main thread, the only one in which signals are handled"
    return _OBSTACLES.get(signal.getsignal(_SIGTERM))


class Hold:
    """SIGTERM in our hands. All but `is_ours` in the main thread.

    Args:
        loop: the server's event loop, which runs in this thread.
        notice: called for each SIGTERM, between any two instructions of the thread: it must not
            wait, log, or change what belongs to the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, notice: Callable[[], None]) -> None:
        self._loop = loop
        self._notice = notice
        self._before: Any = None
        self._wakeup = self._reader = self._writer = _NONE

    def take(self) -> None:
        """Hold it back from now on. `find_obstacle` has found none."""
        self._before = signal.signal(_SIGTERM, self._caught)
        if _is_of(self._before, self._loop):
            self._divert()

    @property
    def is_ours(self) -> bool:
        """Whether it still comes to us: nobody has set another handler since."""
        return signal.getsignal(_SIGTERM) == self._caught

    def pass_on(self) -> None:
        """Let the server have it, as if it came now."""
        is_ours = self.is_ours
        self._put_back()
        if is_ours:
            signal.raise_signal(_SIGTERM)
        elif callable(self._before):  # raised, it would be for whoever has set a handler since
            self._before(_SIGTERM, None)

    def let_go(self) -> None:
        """In a forked child, which has no such loop: leave signals as they would be without us."""
        if self.is_ours:
            signal.signal(_SIGTERM, self._before)
        if self._writer != _NONE:  # the parent's loop must not hear what comes to a child
            signal.set_wakeup_fd(_NONE)

    def _caught(self, signum: int, frame: object) -> None:  # noqa: ARG002
        self._notice()

    def _put_back(self) -> None:
        if self._writer != _NONE:
            current = signal.set_wakeup_fd(self._wakeup)
            if current != self._writer:  # another loop has begun since
                signal.set_wakeup_fd(current)
        if self.is_ours:
            signal.signal(_SIGTERM, self._before)
        if self._writer != _NONE:
            signal.siginterrupt(_SIGTERM, False)  # noqa: FBT003 - as loops have it
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its readers with it
                self._loop.call_soon_threadsafe(self._close)

    # --- the pipe before the loop's own ------------------------------------------------------

    def _divert(self) -> None:
        self._reader, self._writer = os.pipe()
        for fileno in (self._reader, self._writer):
            os.set_blocking(fileno, False)
        self._loop.add_reader(self._reader, self._forward)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def _forward(self) -> None:
        try:
            signals = os.read(self._reader, _READ).replace(_BYTE, b"")
        except BlockingIOError:
            return
        if signals:
            with contextlib.suppress(OSError):  # it is full: the loop is awake
                os.write(self._wakeup, signals)

    def _close(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        os.close(self._writer)
        self._reader = self._writer = _NONE


def _is_of(handler: object, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether a handler is what a loop sets to hear of a signal by its descriptor.

    It is a method of uvloop's loop, and a function beside the class of asyncio's.
    """
    owner = getattr(handler, "__self__", None)
    return owner is loop or _package(handler) == _package(type(loop))


def _package(thing: object) -> str | None:
    module = getattr(thing, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else None
