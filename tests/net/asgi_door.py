"""The ASGI door without a server: what a server would say is said by the test, on its own clock."""

from __future__ import annotations

import asyncio
import contextlib
from copy import copy
from typing import TYPE_CHECKING, Any, Self, cast

from ws_middleware.asgi import WebSocketMiddleware
from ws_middleware.hub.registry import Address
from ws_middleware.net.engine import Engine
from ws_middleware.net.hosted import Hosted
from ws_middleware.net.sidecar import Sidecar
from ws_middleware.testing.loop import VirtualClock, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, MutableMapping

    from ws_middleware import Heartbeat, WebSockets

    Event = MutableMapping[str, Any]
    App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]

__all__ = ["Connection", "Control", "Door"]

DENIAL = "websocket.http.response"
EVERYONE = Address("everyone")


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    msg = "nothing of the wrapped app's was asked for"
    raise AssertionError(msg)


class Control:
    """A server's hand on the frames, see `net.control`."""

    def __init__(self) -> None:
        self.aborted = 0
        self.pings: list[asyncio.Future[float]] = []
        self.heartbeats: list[Heartbeat | None] = []

    def abort(self) -> None:
        self.aborted += 1

    def set_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        self.heartbeats.append(heartbeat)

    def ping(self) -> asyncio.Future[float]:
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.pings.append(answer)
        return answer


class Connection:
    """One WebSocket as a server brings it to the door: the server's side of it."""

    def __init__(self, door: Door, scope: dict[str, Any], *, held: bool) -> None:
        self.scope = scope
        #: What the server was given and has taken.
        self.sent: list[Event] = []
        #: What is raised instead of taking an event.
        self.error: Exception | None = None
        #: Whether the server does as if nothing were, when its `send` is cancelled.
        self.swallows = False
        self.receiving = 0
        #: Whether somebody was still to be given an event when a close was sent.
        self.received_at_close = False
        self._door = door
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._gate = asyncio.Event()
        if not held:
            self._gate.set()
        self.task = door.loop.create_task(door.middleware(scope, self._receive, self._send))
        self.say({"type": "websocket.connect"})

    async def _receive(self) -> Event:
        self.receiving += 1
        try:
            event = await self._events.get()
        finally:
            self.receiving -= 1
        if isinstance(event, Exception):
            raise event
        return event

    async def _send(self, event: Event) -> None:
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            if not self.swallows:
                raise
            return
        if self.error is not None:
            raise self.error
        if event["type"] == "websocket.close":
            waiting: Any = self._events._getters  # type: ignore[attr-defined]
            self.received_at_close = any(not each.cancelled() for each in waiting)
        self.sent.append(event)

    # --- what a test does --------------------------------------------------------------------

    def say(self, event: Event | Exception) -> Self:
        """Have the server bring an event, or raise."""
        self._events.put_nowait(event)
        self._door.settle()
        return self

    def text(self, text: str) -> Self:
        return self.say({"type": "websocket.receive", "text": text})

    def binary(self, data: bytes) -> Self:
        return self.say({"type": "websocket.receive", "bytes": data})

    def disconnect(self, code: int | None = 1001, reason: str = "bye") -> Self:
        return self.say({"type": "websocket.disconnect", "code": code, "reason": reason})

    def hold(self) -> Self:
        """Have the server take nothing until `go_on`."""
        self._gate.clear()
        return self

    def go_on(self) -> Self:
        self._gate.set()
        self._door.settle()
        return self

    def cancel(self) -> Self:
        """Do as a server that ends."""
        self.task.cancel()
        self._door.settle()
        return self

    # --- what a test looks at ----------------------------------------------------------------

    @property
    def unread(self) -> int:
        """Events that the server has and nobody has asked for."""
        return self._events.qsize()

    @property
    def is_accepted(self) -> bool:
        return bool(self.sent) and self.sent[0]["type"] == "websocket.accept"

    @property
    def messages(self) -> list[str | bytes]:
        sent = [each for each in self.sent if each["type"] == "websocket.send"]
        assert all(len(each) == 2 for each in sent), "just one of text and bytes"
        return [each["text"] if "text" in each else each["bytes"] for each in sent]

    @property
    def closed(self) -> tuple[int, str] | None:
        """The close that was sent, if there was one; it is the last thing then."""
        closes = [each for each in self.sent if each["type"] == "websocket.close"]
        assert len(closes) <= 1
        assert not closes or self.sent[-1] is closes[0], "nothing comes after a close"
        return (closes[0]["code"], closes[0]["reason"]) if closes else None

    @property
    def denial(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """The HTTP answer: its status, its fields and its body."""
        start, body = self.sent
        assert (start["type"], body["type"]) == (f"{DENIAL}.start", f"{DENIAL}.body")
        assert not body.get("more_body")
        headers = dict(start["headers"])
        assert len(headers) == len(start["headers"])
        assert headers[b"content-length"] == str(len(body["body"])).encode()
        return start["status"], headers, body["body"]

    @property
    def outcome(self) -> BaseException | None:
        """What the door raised; it must have returned."""
        assert self.task.done(), "the server's task still runs"
        if self.task.cancelled():
            return asyncio.CancelledError()
        return self.task.exception()


class Door:
    """A door on a loop that runs until it is idle, and whose time the test lets pass."""

    def __init__(self, sockets: WebSockets, app: App = no_app) -> None:
        self.clock = VirtualClock()
        self.loop = VirtualLoop(self.clock, lambda job: job())
        self._open(sockets, app)

    def _open(self, sockets: WebSockets, app: App) -> None:
        self.sockets = sockets
        self.middleware = WebSocketMiddleware(app, sockets)
        self.front = cast("Any", self.middleware._front)
        self.engine = self.front.make_engine(
            lambda settings, hub, context: Engine(settings, hub, context, self.clock)
        )
        self.front._own = self.engine, Sidecar(self.engine), Hosted(self.engine)
        self.connections: list[Connection] = []

    def beside(self, sockets: WebSockets) -> Door:
        """Return the door of another app of the same server, on the same loop."""
        other = copy(self)
        other._open(sockets, no_app)
        return other

    def another(self) -> Door:
        """Return the same door as another loop of the same process calls it."""
        other = copy(self)
        other.loop = VirtualLoop(self.clock, lambda job: job())
        other.connections = []
        return other

    def connect(
        self,
        path: str = "/",
        *,
        held: bool = False,
        extension: bool = True,
        control: Control | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        **changes: Any,
    ) -> Connection:
        """Have the server bring a WebSocket; `changes` are of its scope, `None` takes a key out.

        A server that is `held` takes nothing until `go_on`.
        """
        extensions: dict[str, Any] = {DENIAL: {}} if extension else {}
        if control is not None:
            extensions["ws_middleware.control"] = control
        scope: dict[str, Any] = {
            "type": "websocket",
            "scheme": "ws",
            "http_version": "1.1",
            "path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), *headers],
            "client": ("127.0.0.1", 0),  # no socket has the port 0, so none is ever cut
            "server": ("127.0.0.1", 80),
            "subprotocols": [],
            "extensions": extensions,
            **changes,
        }
        given = {name: value for name, value in scope.items() if value is not None}
        connection = Connection(self, given, held=held)
        self.connections.append(connection)
        self.settle()
        return connection

    def settle(self) -> None:
        """Run until nothing more happens, but let no time pass."""
        self.loop.run_until_idle()

    def call(self, scope: Any, receive: Any = None, send: Any = None) -> None:
        """Have the server call the door for what is no WebSocket, and wait for its return."""
        task = self.loop.create_task(self.middleware(scope, receive, send))
        self.settle()
        task.result()

    def sleep(self, seconds: float) -> None:
        """Let time pass, from timer to timer."""
        end = self.clock.time + seconds
        self.settle()
        while self.loop.next_due is not None and self.loop.next_due <= end:
            self.clock.time = max(round(self.loop.next_due, 9), self.clock.time + 1e-9)
            self.settle()
        self.clock.time = max(self.clock.time, end)
        self.settle()

    @property
    def runtime(self) -> Any:
        hosted: Any = self.front._own[2]
        return hosted._runtimes[self.loop]

    def close(self) -> None:
        """End what is left, and see that nothing is held by anybody."""
        for each in self.connections:
            each.task.cancel()
        self.sleep(20)
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.settle()
        self.check_nothing_left()
        self.loop.close()
        assert not left, left
        assert not self.loop.errors, self.loop.errors

    def crash(self) -> Callable[[], None]:
        """Close the loop with all that is under way on it; return what collects the pieces."""
        tasks: list[Any] = list(asyncio.all_tasks(self.loop))
        self.loop.close()

        def collect() -> None:
            for task in tasks:
                task._log_destroy_pending = False
                with contextlib.suppress(RuntimeError):  # asyncio's own queues say it of the loop
                    task.get_coro().close()  # as the garbage collector does, some day

        return collect

    def leave(self) -> None:
        """End the connections and the loop; what other loops have is theirs."""
        for each in self.connections:
            each.task.cancel()
        self.sleep(20)
        self.loop.close()

    def check_nothing_left(self) -> None:
        """What has ended is in no cap, no room and no timer."""
        assert self.engine.gate.counts == (0, 0, 0)
        assert self.engine._servers == {}
        assert self.engine.threads["conversations"].reserved == 0
        assert self.sockets.everyone.count() == 0
        serving: Any = self.front._own
        for runtime in [] if serving is None else serving[2]._runtimes.values():
            assert len(runtime.registry) == 0
            assert runtime.links == set()
            assert len(runtime.wheel) == 0
