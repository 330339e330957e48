"""The loop of the sidecar: uvloop's if it is installed, else asyncio's.

Where gevent has made threads greenlets it differs in two ways. It waits in the system's own
selector, for gevent's would switch to a hub. And what it runs in executors (`asyncio.to_thread`,
look-ups of names, asgiref's `sync_to_async`) runs in the host's greenlets, as all blocking code of
the app: started from here, patched threads would be greenlets of a hub that never runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

from ws_middleware.native import original

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from concurrent.futures import Executor

    from ws_middleware.native import Host

__all__ = ["new_loop"]


def new_loop(host: Host | None) -> asyncio.AbstractEventLoop:
    """Return a loop for the calling thread; `host` runs the app's blocking code, if given."""
    if host is None:
        return _new_uvloop() or asyncio.new_event_loop()
    loop = _new_uvloop(_HandsOver, _HostsCalls) or _NativeLoop(
        original("selectors", "DefaultSelector")()
    )
    assert isinstance(loop, _HostsCalls)
    loop.host = host
    return loop


def _new_uvloop(*mixin: type) -> asyncio.AbstractEventLoop | None:
    try:
        import uvloop  # noqa: PLC0415 - the extra "speed"
    except ImportError:
        return None
    loop: asyncio.AbstractEventLoop
    loop = type("Loop", (*mixin, uvloop.Loop), {})() if mixin else uvloop.new_event_loop()
    return loop


class _HostsCalls(asyncio.AbstractEventLoop):
    """Laid over a loop: its executors run in the host's greenlets."""

    host: Host

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[..., Any],
        *args: object,
    ) -> asyncio.Future[Any]:
        """Call `func` in a greenlet, or where `executor` has it called."""
        outcome = self.create_future()

        def call() -> None:
            try:
                # Submitted from here, an executor's threads are greenlets of a hub that runs.
                told = None if executor is None else executor.submit(func, *args)
                result, error = (func(*args) if told is None else told.result()), None
            except BaseException as raised:  # raised again by whoever waits
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self.call_soon_threadsafe(_settle, outcome, result, error)

        self.host.spawn(call)
        return outcome


class _Handed:
    """A connection for uvloop, which closes the descriptor itself, and then its socket.

    Of a socket that it knows it takes the descriptor away instead, but by `socket.socket` it knows
    gevent's. So the number would be closed twice, and by then it may be another thread's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the socket's
        return getattr(self._sock, name)

    def close(self) -> None:
        """Let go of the descriptor."""
        self._sock.detach()


class _HandsOver(asyncio.AbstractEventLoop):
    """Laid over uvloop's: a connection is closed once."""

    async def connect_accepted_socket(  # type: ignore[override]  # as far as we use it
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        """Serve `sock`, which is closed by its transport."""
        handed = cast("socket.socket", _Handed(sock))
        return await super().connect_accepted_socket(protocol_factory, handed)


class _NativeLoop(_HostsCalls, asyncio.SelectorEventLoop):
    """asyncio's own."""


def _settle(outcome: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if outcome.done():  # cancelled meanwhile
        return
    if error is None:
        outcome.set_result(result)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        outcome.set_exception(error)
    else:  # one that must not end the loop, or that no future takes
        outcome.set_exception(RuntimeError(repr(error)))
