"""Threads, locks and sockets of the system itself, whether or not gevent has replaced them.

`gevent.monkey` turns threads into greenlets, which all run in one thread, each until it waits. Our
event loop must not be one of them: it would run only while no greenlet does, and `asyncio.run()` in
a view would find it running. So it has a real thread, and what it shares with greenlets is guarded
by real locks. Those are held for a few instructions, never while waiting, logging or calling the
app's code: a greenlet that yielded with a real lock in hand would stop all others at it for ever.

The app's own blocking code goes the other way: what it holds (pooled connections, locks, queues)
belongs to the hub of its greenlets and fails in any other thread. It runs as a greenlet there:
`Host.here()` finds the hub, `Host.spawn` reaches it from any thread.

The names are bound at import, before gevent patches or from what it has put aside.
"""

from __future__ import annotations

import errno
import importlib
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from contextlib import AbstractContextManager

__all__ = [
    "Event",
    "Host",
    "Lock",
    "RLock",
    "Socket",
    "can_yield",
    "get_ident",
    "is_green",
    "is_ours",
    "original",
    "socketpair",
    "start_thread",
]


def original(module: str, name: str) -> Any:  # noqa: ANN401 - whatever the module has there
    """Return what a module of the standard library has under `name` when nobody has patched it."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(importlib.import_module(module), name)
    return monkey.get_original(module, name)


Lock: Final[Callable[[], threading.Lock]] = original("_thread", "allocate_lock")
RLock: Final[Callable[[], AbstractContextManager[bool]]] = original("_thread", "RLock")
get_ident: Final[Callable[[], int]] = original("_thread", "get_ident")
Socket: Final[type[socket.socket]] = original("socket", "socket")
_start_new_thread: Final = original("_thread", "start_new_thread")

#: Marks the threads that `start_thread` has started.
_here: Final = original("_thread", "_local")()


def socketpair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets of the real class; `socket.socketpair` makes patched ones."""
    one, other = original("_socket", "socketpair")()
    return Socket(fileno=one.detach()), Socket(fileno=other.detach())


def start_thread(target: Callable[[], None], name: str) -> None:
    """Run `target`, which raises nothing, in a real thread that nobody joins.

    It is for our own code: such a thread waits as a thread, even if it comes to have a hub.

    Raises:
        OSError: the system gives none, or the interpreter ends.
    """

    def run() -> None:
        _here.is_ours = True
        try:
            target()
        finally:
            _drop_hub()

    try:
        if is_green():
            _start_new_thread(run, ())
        else:  # one that debuggers and logs know by its name
            threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None


def is_green() -> bool:
    """Whether gevent has made the app's threads greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _hub() -> Any:  # noqa: ANN401 - gevent's, which need not be installed
    """Return the hub of this thread, where greenlets have made it have one."""
    module = sys.modules.get("gevent._hub_local")
    hub = None if module is None else module.get_hub_if_exists()
    return None if hub is None or hub.loop is None else hub


def _drop_hub() -> None:
    """Close the descriptors of a hub that blocking calls have made in a thread that now ends."""
    hub = _hub()
    if hub is not None:
        hub.destroy(destroy_loop=True)


def is_ours() -> bool:
    """Whether the calling thread is one that `start_thread` has started."""
    return getattr(_here, "is_ours", False)


def can_yield() -> bool:
    """Whether whoever calls is a greenlet, which may wait while others of its thread run."""
    return _yielding_hub() is not None


def _yielding_hub() -> Any:  # noqa: ANN401
    hub = _hub()
    if hub is None or is_ours():
        return None
    gevent = sys.modules["gevent"]
    current = gevent.getcurrent()
    # A hub alone says little: whatever imports gevent may make one in a thread that is no greenlet.
    # And the hub itself (a signal handler may run in it) has nobody to yield to.
    is_greenlet = is_green() or isinstance(current, gevent.Greenlet)
    return hub if is_greenlet and current is not hub else None


class Event:
    """Set once, from any thread. A thread waits for it as threads do, a greenlet by yielding."""

    def __init__(self) -> None:
        self._closed = Lock()
        self._closed.acquire()  # until it is set
        self._guard = Lock()
        self._wakers: list[Callable[[], object]] = []
        self._is_set = False

    def is_set(self) -> bool:
        """Whether it has been set."""
        return self._is_set

    def set(self) -> None:
        """Wake all who wait."""
        with self._guard:
            if self._is_set:
                return
            self._is_set = True
            self._closed.release()
            for wake in self._wakers:
                wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds; return whether it is."""
        if self._is_set:
            return True
        hub = _yielding_hub()
        if hub is not None:
            return self._wait_in_greenlet(hub, timeout)
        seconds = -1 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)
        if not self._closed.acquire(timeout=seconds):
            return False
        self._closed.release()
        return True

    def _wait_in_greenlet(self, hub: Any, timeout: float | None) -> bool:  # noqa: ANN401
        from gevent.event import Event as Switch  # noqa: PLC0415 - the app's, not ours

        woken = Switch()
        # The one thing in gevent that another thread may touch. While it is started the hub knows
        # that something is still to come, and does not end with a LoopExit.
        watcher = hub.loop.async_()
        watcher.start(woken.set)
        wake = watcher.send
        try:
            with self._guard:
                if self._is_set:
                    return True
                self._wakers.append(wake)
            woken.wait(timeout)
            return self._is_set
        finally:
            with self._guard:  # nobody sends to a watcher that is closed
                self._wakers = [each for each in self._wakers if each is not wake]
            watcher.stop()
            watcher.close()


class Host:
    """The hub whose greenlets the app's code runs in."""

    def __init__(self, hub: Any) -> None:  # noqa: ANN401
        self._hub = hub

    @classmethod
    def here(cls) -> Host | None:
        """Return the hub of the calling thread if threads are greenlets, else `None`."""
        return cls(sys.modules["gevent"].get_hub()) if is_green() else None

    def spawn(self, target: Callable[[], None]) -> None:
        """Run `target` as a greenlet, soon. From any thread."""
        self._hub.loop.run_callback_threadsafe(sys.modules["gevent"].spawn, target)
