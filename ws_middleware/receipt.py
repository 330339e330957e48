"""What a send, a ping or a close hands back: wait for it, or don't.

A `Receipt` that nobody waits for costs one small object or none (`ready()` is shared), and an
exception in it is never reported: "not waited for" means "don't tell me".
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from .native import Event, RLock, can_yield

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

__all__ = ["Receipt"]

T = TypeVar("T")
U = TypeVar("U")

_log: Final = logging.getLogger("ws_middleware.receipt")


class _Waiting(threading.local):
    """How a thread waits. Those of the test kit take turns, and have their own way."""

    wait: Callable[[Event, float | None], bool] = staticmethod(Event.wait)


waiting: Final = _Waiting()

#: Guards every change of a receipt; held for a few instructions, so one for all is enough. A signal
#: handler or a finalizer may come in between, in the same thread, and settle or forget another.
_lock = RLock()


#: What is awaited where there is nothing to wait for, and no value.
_nothing_more: Final = cast("Generator[Any, None, Any]", iter(()))


class Receipt(Generic[T]):
    """The outcome of something that was asked for and may still be under way.

    `await` it on an event loop, or call `result()` in a thread. Both return the value or raise
    what went wrong, as often as you like and from anywhere.
    """

    __slots__ = ("_callbacks", "_done", "_error", "_value")

    def __init__(self) -> None:
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], object]] | None = None

    @classmethod
    def ready(cls, value: T) -> Receipt[T]:
        """Return a receipt whose outcome is known."""
        receipt = cls()
        receipt.resolve(value)
        return receipt

    @classmethod
    def failed(cls, error: BaseException) -> Receipt[T]:
        """Return a receipt that raises `error` at whoever waits for it."""
        receipt = cls()
        receipt.fail(error)
        return receipt

    @property
    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._done

    def resolve(self, value: T) -> None:
        """Give it its value. Only the first outcome counts."""
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Give it its exception. Only the first outcome counts."""
        self._settle(None, error)

    def map(self, function: Callable[[T], U]) -> Receipt[U]:
        """Return a receipt for what `function` makes of the value; it fails as they do."""
        mapped: Receipt[U] = Receipt()

        def settle() -> None:
            try:
                mapped.resolve(function(self._outcome()))
            except Exception as error:  # raised again by whoever waits
                mapped.fail(error)

        self.add_done_callback(settle)
        return mapped

    def follow(self, other: Receipt[T]) -> None:
        """Take the outcome of another one, which is done."""
        self._settle(other._value, other._error)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        with _lock:
            if self._done:
                return
            self._value, self._error, self._done = value, error, True
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception:  # somebody else waits behind it
                _log.exception("a callback of a receipt failed")

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Call `callback()` once it is done, in the thread that settles it; at once if it is."""
        with _lock:
            if not self._done:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback()

    def result(self, timeout: float | None = None) -> T:
        """Wait in this thread, at most `timeout` seconds, and return the outcome.

        A greenlet of gevent lets the others of its thread run meanwhile.

        Raises:
            RuntimeError: an event loop runs in this thread: waiting would stop it. `await` instead.
            TimeoutError: it is not known after `timeout` seconds.
        """
        if not self._done:
            running = asyncio._get_running_loop()  # noqa: SLF001 - documented, does not raise
            # Where greenlets share the thread, the loop may well be that of another one.
            if running is not None and not can_yield():
                msg = "result() would block this thread's event loop; await the receipt instead"
                raise RuntimeError(msg)
            event = Event()
            wake = event.set
            self.add_done_callback(wake)
            try:
                is_known = waiting.wait(event, timeout)
            finally:
                self._forget(wake)
            if not is_known:
                msg = f"no outcome after {timeout} s"
                raise TimeoutError(msg)
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        if self._done and self._value is None and self._error is None:
            return _nothing_more  # nearly every send: no generator for it
        return self._wait()

    def _wait(self) -> Generator[Any, None, T]:
        if not self._done:
            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()
            wake = partial(_wake, loop, waiter)
            self.add_done_callback(wake)
            try:
                yield from waiter
            finally:
                self._forget(wake)
        return self._outcome()

    def _forget(self, callback: Callable[[], object]) -> None:
        """Drop what whoever waited has left: one may wait a thousand times for what never comes."""
        with _lock:
            if self._callbacks is not None:
                self._callbacks.remove(callback)

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def __repr__(self) -> str:
        state = "pending" if not self._done else repr(self._error or self._value)
        return f"<Receipt {state}>"


def when_all(receipts: Sequence[Receipt[None]]) -> Receipt[None]:
    """Return a receipt that is done when all of these are; it fails as the first that failed."""
    joint: Receipt[None] = Receipt()

    def look() -> None:
        if all(each.done for each in receipts):
            failed = next((each._error for each in receipts if each._error is not None), None)  # noqa: SLF001 - its own kind
            if failed is None:
                joint.resolve(None)
            else:
                joint.fail(failed)

    for each in receipts:
        each.add_done_callback(look)
    look()
    return joint


def _wake(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
    """Resolve `waiter` on its loop, from whatever thread settled the receipt."""
    if asyncio._get_running_loop() is loop:  # noqa: SLF001 - documented, does not raise
        _resolve(waiter)
        return
    try:
        loop.call_soon_threadsafe(_resolve, waiter)
    except RuntimeError:  # the loop has been closed: nobody waits there any more
        return


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _reset() -> None:
    """A child inherits the lock in whatever state another thread had it."""
    global _lock  # noqa: PLW0603 - one lock for all is the point of it
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
