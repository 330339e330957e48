"""Our event loop in a daemon thread of the host's process.

Lazy: the thread starts when the first door needs it, so importing an app starts nothing. One per
process: a forked child has no thread, so it lets go of the descriptors it inherited, for a
connection that two processes hold does not end when one of them closes it.
A daemon that ends by a hook (`hooks`): one that is joined at exit would hold a reloading server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Final

from ws_middleware.native import Host, Lock, start_thread
from ws_middleware.receipt import Receipt
from ws_middleware.types import Refusal

from . import hooks
from .clock import SYSTEM
from .engine import GOING_AWAY, Admission
from .link import SocketLink
from .listener import Listener
from .logs import Logger, relay
from .loops import new_loop
from .others import connect, disconnect
from .runtime import Runtime
from .takeover import find_socket, take
from .takeover_tls import TLSConnection
from .tls import TLSTransport
from .watchdog import Watchdog
from .worker import check_drain, drain_time, end_time, find_worker

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ws_middleware.types import UpgradeRequest

    from .engine import Engine
    from .takeover import Taken

__all__ = ["Sidecar"]

_log: Final = Logger("ws_middleware.sidecar")

#: Seconds that a connection may take to become a link: some turns of the loop.
_ADOPTION: Final = 1.0
#: Seconds beyond the timeout of a close after which the loop is not waited for any more.
_OVERTIME: Final = 0.3

#: The port beside a development server: the one that `listen` has by default.
_BESIDE: Final = ("127.0.0.1", 8001)


class Sidecar:
    """The loop of one engine. `ensure`, `listen` and `close` from any thread but the loop's own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._pid = os.getpid()
        self._started: Receipt[Runtime] | None = None
        self._runtime: Runtime | None = None
        self._watchdog: Watchdog | None = None
        self._listeners: list[Listener] = []
        self._closed: Receipt[None] | None = None
        self._adopted = False
        #: On the loop: connections that are not links yet.
        self._adopting: set[asyncio.Task[None]] = set()
        hooks.add(self)

    def ensure(self) -> Runtime:
        """Return the runtime; start the thread if it does not run in this process yet.

        Raises:
            OSError: no descriptor or no thread is left.
        """
        # Not under the lock: a greenlet that waits lets others come here.
        return (self._started or self._start()).result(10)

    def _start(self) -> Receipt[Runtime]:
        host = Host.here()
        if host is not None:
            relay(host)
        with self._lock:
            if self._started is None:
                started: Receipt[Runtime] = Receipt()
                start_thread(partial(self._work, started, host), "ws-sidecar")
                self._started = started
            return self._started

    def _work(self, started: Receipt[Runtime], host: Host | None) -> None:
        try:
            runtime = self._make_runtime(host)
        except OSError as error:  # later there may be descriptors or threads again
            with self._lock:
                self._started = None
            started.fail(error)
            return
        loop = runtime.loop
        self._engine.hub.attach(runtime)
        connect(self._engine, runtime)
        loop.call_soon(started.resolve, runtime)
        try:
            loop.run_forever()
        except BaseException:
            _log.exception("the sidecar's loop has ended: all its connections are dropped")
            with contextlib.suppress(BaseException):
                loop.run_until_complete(self._break_off(runtime))
        finally:
            self._engine.hub.detach(runtime)
            with contextlib.suppress(Exception):
                loop.run_until_complete(disconnect(self._engine, runtime))
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            self._engine.close()
            if self._closed is not None:
                self._closed.resolve(None)

    def _make_runtime(self, host: Host | None) -> Runtime:
        loop = new_loop(host)
        runtime = Runtime(loop, self._engine.clock)
        watchdog = Watchdog(runtime)
        try:
            watchdog.start()
        except OSError:
            loop.close()
            raise
        asyncio.set_event_loop(loop)
        self._runtime, self._watchdog = runtime, watchdog
        return runtime

    async def _break_off(self, runtime: Runtime) -> None:
        for listener in self._listeners:
            listener.close()
        await runtime.close(1011, "internal_error", over=0.0, timeout=0.0)

    @property
    def is_listening(self) -> bool:
        """Whether it has a port of its own."""
        return bool(self._listeners)

    @property
    def runtime(self) -> Runtime | None:
        """The loop, once it has begun."""
        return self._runtime

    @property
    def is_closing(self) -> bool:
        """Whether `close` was called."""
        return self._closed is not None

    @property
    def is_blocked(self) -> bool:
        """Whether a handler keeps the loop from turning."""
        return self._watchdog is not None and self._watchdog.is_blocked

    @property
    def blocked(self) -> int:
        """How often a handler has kept the loop from turning."""
        return 0 if self._watchdog is None else sum(self._watchdog.counts.values())

    def listen(self, host: str, port: int, *, reuse_port: bool) -> tuple[str, int]:
        """Open a port of our own and return its address.

        Raises:
            OSError: the address cannot be had.
            RuntimeError: `close` is under way.
        """
        if self.is_closing:
            msg = "close() is under way: wait for its receipt before listen()"
            raise RuntimeError(msg)
        runtime = self.ensure()
        opening = Listener.open(self._engine, runtime, host, port, reuse_port=reuse_port)
        listener: Listener = runtime.submit(opening).result(10)
        self._listeners.append(listener)
        return listener.address

    def listen_beside(self) -> tuple[str, int]:
        """Return the address of a port for whom the server's own cannot be used; open it if needed.

        Raises:
            OSError: there is none.
        """
        if not self._listeners:
            try:
                self.listen(_BESIDE[0], _BESIDE[1], reuse_port=False)
            except OSError:  # taken: any other will do, but changes with each reload
                self.listen(_BESIDE[0], 0, reuse_port=False)
        return self._listeners[0].address

    def take(self, environ: Mapping[str, Any]) -> Taken:
        """Take the connection behind a WSGI request out of its server.

        Raises:
            CannotTake: the server or its kind of socket is none that we know how to take.
            OSError: no descriptor or no thread is left.
        """
        found = find_socket(environ, tls=self._engine.settings.tls_takeover)
        self.ensure()  # before, for an answer is still possible
        return take(found)

    def adopt(self, taken: Taken, request: UpgradeRequest, outcome: Refusal | Admission) -> None:
        """Serve a connection that was taken from a host's server, or refuse it with a close frame.

        From any thread. Whatever goes wrong, the connection is closed.
        """
        try:
            runtime = self.ensure()
        except BaseException:
            self._drop(taken, outcome)
            raise
        if not self._adopted:
            self._adopted = True
            check_drain(_log, self._engine.settings.drain_over, find_worker())

        def begin() -> None:
            task = runtime.spawn(self._adopt(runtime, taken, request, outcome))
            self._adopting.add(task)
            task.add_done_callback(self._adopting.discard)

        if not runtime.run(begin):
            self._drop(taken, outcome)

    def _drop(self, taken: Taken, outcome: Refusal | Admission) -> None:
        taken.close()
        if isinstance(outcome, Admission):
            self._engine.abandon(outcome)

    async def _adopt(
        self, runtime: Runtime, taken: Taken, request: UpgradeRequest, outcome: Refusal | Admission
    ) -> None:
        try:
            link = self._make_link(runtime, request, taken.early, outcome)
            if isinstance(taken.connection, TLSConnection):
                TLSTransport(runtime.loop, taken.connection, link).start()
            else:
                await runtime.loop.connect_accepted_socket(lambda: link, taken.connection)
        except BaseException:
            self._drop(taken, outcome)
            raise
        runtime.drain(taken.sink)

    def _make_link(
        self, runtime: Runtime, request: UpgradeRequest, early: bytes, outcome: Refusal | Admission
    ) -> SocketLink:
        """Return the link of a connection whose request has been judged."""
        engine = self._engine

        def conclude(link: SocketLink, request: UpgradeRequest, now: float) -> None:  # noqa: ARG001
            if isinstance(outcome, Refusal):
                link.refuse(outcome)
            else:
                engine.open(link, outcome)

        session = engine.resume_session(request, early, engine.clock.now())
        return SocketLink(engine, runtime, session, conclude)

    def close(self, code: int, reason: str, *, over: float, timeout: float) -> Receipt[None]:
        """Close everything and end the thread, within `timeout` seconds; the receipt says when."""
        with self._lock:
            if self._closed is not None:
                return self._closed
            started = self._started
            if started is None:
                self._engine.close()
                return Receipt.ready(None)
        try:
            runtime = started.result(10)
        except OSError:  # it could not start
            self._engine.close()
            return Receipt.ready(None)
        with self._lock:
            if self._closed is not None:
                return self._closed
            self._closed = Receipt()
        self._engine.gate.shut(GOING_AWAY)
        if self._watchdog is not None:
            self._watchdog.stop()

        async def end() -> None:
            for listener in self._listeners:
                listener.close()
            if self._adopting:  # else the request that recycles a worker gets no goodbye
                await asyncio.wait(self._adopting, timeout=min(timeout, _ADOPTION))
            try:
                await runtime.close(code, reason, over=over, timeout=timeout)
            finally:
                runtime.loop.stop()

        if not runtime.run(lambda: runtime.spawn(end())):
            self._closed.resolve(None)
        with contextlib.suppress(OSError):  # then only whoever waits has a timeout
            start_thread(partial(self._give_up, runtime, self._closed, timeout), "ws-closer")
        return self._closed

    def end_soon(self) -> None:
        """Close everything, in a while: for a finalizer, which must wait for nothing.

        It runs wherever garbage is collected, so perhaps under one of the locks that an end takes.
        """
        if self._pid == os.getpid() and self._runtime is not None:
            end = partial(self.close, 1001, "going_away", over=0.0, timeout=10.0)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._runtime.loop.call_soon_threadsafe(end)

    def _give_up(self, runtime: Runtime, closed: Receipt[None], timeout: float) -> None:
        """Keep the promise of `timeout` though a handler may block the loop."""
        try:
            closed.result(timeout + _OVERTIME)
        except TimeoutError:
            _log.warning("close() did not wait for a loop that is blocked by a handler")
            self._engine.hub.detach(runtime)
            self._engine.close()
            closed.resolve(None)

    def begin_exit(self) -> tuple[Receipt[None], float] | None:
        """Start the end that the interpreter's exit is; return what tells of it, and its limit.

        The limit is a moment, monotonic; `None` if nothing runs here.
        """
        if self._pid != os.getpid() or self._runtime is None:
            return None
        # Sockets of a host's server will find another worker in its place: "restart". Their closes
        # are spread, so that they don't come back all at once.
        # They are counted where they were let in: the last of them may be no link yet.
        _, sockets, _ = self._engine.gate.counts
        over = self._drain_time(sockets) if self._adopted else 0.0
        code, reason = (1012, "restart") if self._adopted else (1001, "going_away")
        timeout = end_time(over, None)
        closed = self.close(code, reason, over=over, timeout=timeout - 0.5)
        return closed, SYSTEM.now() + timeout

    def _drain_time(self, sockets: int) -> float:
        worker = find_worker()
        if worker is not None and worker.recycled_after is not None and sockets:
            _log.warning(
                "gunicorn recycles this worker after max_requests=%d, and so closes its %d sockets "
                "with 1012: each upgrade counts as a request. Raise --max-requests, or set it to 0",
                worker.recycled_after,
                sockets,
            )
        return drain_time(self._engine.settings.drain_over, sockets, worker)

    def after_fork(self) -> None:
        """Let go, in a child, of what is the parent's; this object serves nothing there."""
        runtime, self._runtime, self._started = self._runtime, None, None
        if runtime is None:
            return
        filenos = [fd for listener in self._listeners for fd in listener.filenos]
        filenos.extend(getattr(link, "fileno", -1) for link in runtime.links)
        hooks.let_go(filenos, (runtime, self._listeners))
        if self._listeners:
            _log.warning(
                "forked after listen(): the child %d lets go of the port and the sockets; call "
                "listen() in the process that serves",
                os.getpid(),
            )
