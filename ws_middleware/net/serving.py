"""Running an app's handlers: one server per socket, by the shape of its route.

All of it happens on the socket's loop, but for the app's own `def` functions, which run in threads.
A handler that raises closes its socket with 1011 and is logged with route, socket and user; the
peer learns nothing. Five seconds after the peer has gone, what is still running is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

from ws_middleware.blocking import BlockingWebSocket
from ws_middleware.callables import is_async, name_of
from ws_middleware.errors import BadMessage, ConnectionClosed
from ws_middleware.route import Handler, Route, Shape

from .grace import GRACE
from .logs import Logger, safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from ws_middleware.websocket import WebSocket

    from .engine import EngineLink
    from .runtime import Runtime
    from .threads import ThreadGroup

__all__ = ["Server", "make_server"]

_log: Final = Logger("ws_middleware.handler")

#: Messages that one socket gets of a thread before others have their turn.
_BATCH: Final = 16


class Server:
    """Serves one socket that nobody listens to: the base of the others, and push only."""

    def __init__(
        self,
        websocket: WebSocket,
        link: EngineLink,
        runtime: Runtime,
        context: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.websocket = websocket
        self._link = link
        self._runtime = runtime
        self._context = context
        self._task: asyncio.Task[None] | None = None
        #: When the handler has outlived its peer for long enough; `None` while the socket is open.
        self._deadline: float | None = None

    @property
    def route(self) -> Route:
        """The route whose handlers it runs."""
        route: Route = self.websocket.route
        return route

    def start(self) -> None:
        """The socket is open."""
        self.websocket.inbox.discarding = True

    def ended(self) -> None:
        """The socket has ended: give the handler a while."""
        if self._deadline is None:
            self._deadline = self._runtime.clock.now() + GRACE
            self._bound_task()

    def _bound_task(self) -> None:
        """Cancel what is running when the grace is over; what begins later has what is left."""
        if self._deadline is not None and self._task is not None and not self._task.done():
            left = max(0.0, self._deadline - self._runtime.clock.now())
            self._runtime.later(left, self._task.cancel)

    def _call(self, handler: Handler, *args: object) -> Any:  # noqa: ANN401 - the app's own value
        return handler(self.websocket, *args, **self.websocket.path_params)

    def _failed(self, error: BaseException, handler: Handler) -> None:
        """Close as a handler's exception says. From any thread."""
        websocket = self.websocket
        if isinstance(error, ConnectionClosed) and (websocket.closed or websocket.ended_by_us):
            return
        if isinstance(error, BadMessage):
            code, reason, why = 1007, "bad_message", f"bad_message: {error}"
        else:
            code, reason, why = 1011, "internal_error", "handler_error"
            _log.error(
                "handler %s of route %s failed for socket %s, user %s",
                name_of(handler),
                safe(websocket.route_name),
                websocket.id,
                safe(websocket.user_id) or "-",
                exc_info=error,
            )
            if self._runtime.on_failure is not None:
                self._runtime.on_failure(websocket, error)
        self._runtime.run(lambda: self._link.close(code, reason, why))


class ConversationServer(Server):
    """`async def handler(ws)`: a task, as long as the socket."""

    def start(self) -> None:
        self._task = self._runtime.spawn(self._converse())

    async def _converse(self) -> None:
        handler = self.route.handler
        assert handler is not None
        try:
            with self._context():
                await self._call(handler)
        except asyncio.CancelledError:
            self._link.close(1001, "going_away", "cancelled")
            raise
        except BaseException as error:  # a SystemExit in here must not end the loop
            self._failed(error, handler)
        else:
            self._link.close(1000, "", "handler_returned")


class BlockingServer(Server):
    """`def handler(ws)`: a thread, as long as the socket. Its place was reserved before the 101."""

    def __init__(self, *args: Any, threads: ThreadGroup) -> None:  # noqa: ANN401
        super().__init__(*args)
        self._threads = threads

    def start(self) -> None:
        try:
            self._threads.submit(self._converse)
        except RuntimeError as error:
            self._threads.release()
            assert self.route.handler is not None
            self._failed(error, self.route.handler)

    def _converse(self) -> None:
        handler = self.route.handler
        assert handler is not None
        websocket = BlockingWebSocket(self.websocket)
        try:
            with self._context():
                handler(websocket, **self.websocket.path_params)
        except BaseException as error:  # as above
            self._failed(error, handler)
        else:
            self._runtime.run(lambda: self._link.close(1000, "", "handler_returned"))
        finally:
            self._threads.release()


class EventServer(Server):
    """`on_open`, `on_message`, `on_close`: one at a time per socket, in order; idle, no thread."""

    def __init__(self, *args: Any, threads: ThreadGroup) -> None:  # noqa: ANN401
        super().__init__(*args)
        self._threads = threads
        self._busy = False
        self._over = False

    def start(self) -> None:
        inbox = self.websocket.inbox
        inbox.discarding = "on_message" not in self.route.events
        inbox.on_message = self._next
        if "on_open" in self.route.events:
            self._run("on_open", [()])

    def ended(self) -> None:
        super().ended()
        self._next()

    def _next(self) -> None:
        """Begin what is next, if nothing is under way."""
        if self._busy or self._over:
            return
        inbox = self.websocket.inbox
        if self._deadline is not None and self._runtime.clock.now() >= self._deadline:
            inbox.clear()
        if inbox:
            batch = [(inbox.take(),) for _ in range(min(len(inbox), _BATCH))]
            self._run("on_message", batch)
            self._link.resume()
        elif self.websocket.closed:
            self._over = True
            if "on_close" in self.route.events:
                self._run("on_close", [()])
        else:
            inbox.in_hand = False
            self._link.resume()

    def _run(self, event: str, calls: list[tuple[Any, ...]]) -> None:
        self._busy = True
        handler = self.route.events[event]
        pending = self._until_closed(event, calls)
        if is_async(handler):
            self._task = self._runtime.spawn(self._run_async(handler, pending))
            self._bound_task()
        elif not self._submit(handler, pending):
            self._done()

    def _submit(self, handler: Handler, calls: Iterable[tuple[Any, ...]]) -> bool:
        try:
            return self._threads.submit(lambda: self._run_in_thread(handler, calls))
        except RuntimeError as error:
            self._failed(error, handler)
            return False

    def _until_closed(self, event: str, calls: list[tuple[Any, ...]]) -> Iterable[tuple[Any, ...]]:
        """Yield the calls, but none after the handler itself has closed the socket."""
        for call in calls:
            if event == "on_message" and self.websocket.ended_by_us:
                return
            yield call

    async def _run_async(self, handler: Handler, calls: Iterable[tuple[Any, ...]]) -> None:
        try:
            for call in calls:
                with self._context():
                    await self._call(handler, *call)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # as above
            self._failed(error, handler)
        finally:
            # Not at once: while the next event runs, this task must be done.
            self._runtime.loop.call_soon(self._done)

    def _run_in_thread(self, handler: Handler, calls: Iterable[tuple[Any, ...]]) -> None:
        try:
            for call in calls:
                with self._context():
                    result = self._call(handler, *call)
                    _check_result(result, handler)
        except BaseException as error:  # as above
            self._failed(error, handler)
        finally:
            self._runtime.run(self._done)

    def _done(self) -> None:
        self._busy = False
        self._next()


def _check_result(result: object, handler: Handler) -> None:
    """Refuse a coroutine from a `def`: it would never run."""
    if inspect.iscoroutine(result):
        result.close()
        msg = f"{name_of(handler)} returned a coroutine; make it an async def"
        raise TypeError(msg)


def make_server(
    websocket: WebSocket,
    link: EngineLink,
    runtime: Runtime,
    context: Callable[[], AbstractContextManager[object]],
    threads: dict[str, ThreadGroup],
) -> Server:
    """Return what serves a socket of the websocket's route."""
    parts = (websocket, link, runtime, context)
    shape = websocket.route.shape
    if shape is Shape.CONVERSATION:
        return ConversationServer(*parts)
    if shape is Shape.BLOCKING:
        return BlockingServer(*parts, threads=threads["conversations"])
    if shape is Shape.EVENTS:
        return EventServer(*parts, threads=threads["events"])
    return Server(*parts)
