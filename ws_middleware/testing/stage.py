"""Where tests take place: one loop, one clock, and each `WebSockets` with a door onto them.

The engine, the gate, the links, the sessions and the servers of handlers are those of production.
Only what is outside of them is replaced: the loop's time, the transport, and the threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from ws_middleware.hub.hub import Alone
from ws_middleware.net.asking import Asker
from ws_middleware.net.engine import Engine
from ws_middleware.net.link import SocketLink
from ws_middleware.net.runtime import Runtime
from ws_middleware.net.sidecar import Sidecar
from ws_middleware.net.takeover import CannotTake, Taken
from ws_middleware.receipt import Receipt, waiting

from .loop import PATIENCE, VirtualClock, VirtualLoop
from .transport import MemoryTransport
from .turns import Conversation, Conversations, Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from ws_middleware import WebSocket
    from ws_middleware.front import Front
    from ws_middleware.hub.hub import Hub, Outside
    from ws_middleware.native import Event
    from ws_middleware.net.engine import Admission, EngineLink
    from ws_middleware.settings import Settings
    from ws_middleware.types import Refusal, UpgradeRequest

    from .client import ClientSocket

    _MakeContext = Callable[[], AbstractContextManager[object]]

__all__ = ["Stage"]

#: Virtual seconds that a wait without a timeout may take.
_LONG: Final = 3600.0
#: Virtual seconds that handlers have to come to their end; the server cancels them after five.
_GRACE: Final = 6.0
#: Virtual seconds that the end of a server may take.
_END: Final = 10.0


class _Engine(Engine):
    """The engine, with threads that take turns and nothing left to chance."""

    jitter = staticmethod(float)  # 0.0: the first ping comes after a whole interval

    def __init__(self, stage: Stage, settings: Settings, hub: Hub, context: _MakeContext) -> None:
        super().__init__(settings, hub, context, stage.clock)
        self._stage = stage
        kinds = {"events": Turns, "conversations": Conversations, "auth": Turns}
        self.threads = {name: kinds[name](stage, group) for name, group in self.threads.items()}
        self.asker = Asker(self._in_context, self.threads["auth"])

    def open(self, link: EngineLink, admission: Admission) -> None:
        assert isinstance(link, SocketLink)  # the only kind that is made here
        self._stage.opened(link)
        super().open(link, admission)


class _Runtime(Runtime):
    """The runtime of a loop whose thread is whichever has its turn."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.loop, stage.clock)
        self._stage = stage
        self.on_failure = stage.failed

    def is_current(self) -> bool:
        return threading.get_ident() == self._stage.turn


class _Sidecar(Sidecar):
    """A sidecar without a thread: its connections are in memory."""

    def __init__(self, engine: Engine, stage: Stage) -> None:
        super().__init__(engine)
        self._stage = stage
        self.memory = _Runtime(stage)
        engine.hub.attach(self.memory)

    @property
    def is_closed(self) -> bool:
        """Whether the app has closed it."""
        return self._closed is not None

    def ensure(self) -> Runtime:
        return self.memory

    def take(self, environ: Mapping[str, Any]) -> Taken:  # noqa: ARG002 - there is no server
        if self._stage.caller is None:
            server, reason = "a test client", "its requests have no connection"
            raise CannotTake(server, reason, "use ws_middleware.testing.connect(client, path)")
        nothing = cast("Any", None)
        return Taken(nothing, nothing, b"")

    def adopt(self, taken: Taken, request: UpgradeRequest, outcome: Refusal | Admission) -> None:  # noqa: ARG002
        link = self._make_link(self.memory, request, b"", outcome)
        self._stage.start(link)

    def listen(self, host: str, port: int, *, reuse_port: bool) -> tuple[str, int]:  # noqa: ARG002
        msg = "listen() has no place in a test that uses ws_middleware.testing: there is no port"
        raise RuntimeError(msg)

    def close(self, code: int, reason: str, *, over: float, timeout: float) -> Receipt[None]:
        if self._closed is None:
            self._closed = self.memory.submit(self._end(code, reason, over, timeout))
        return self._closed

    async def _end(self, code: int, reason: str, over: float, timeout: float) -> None:
        try:
            await self.memory.close(code, reason, over=over, timeout=timeout)
        finally:
            self._engine.hub.detach(self.memory)
            self._engine.close()


class Stage:
    """One loop and one clock, in the thread that makes it. Only one thread ever runs."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.loop = VirtualLoop(self.clock, self.run_later)
        #: The thread whose turn it is.
        self.turn = threading.get_ident()
        #: Whose upgrade request is under way.
        self.caller: ClientSocket | None = None
        self.clients: list[ClientSocket] = []
        #: Kept when nobody is connected, until its owner closes it.
        self.is_held = False
        self._thread = self.turn
        self._jobs: deque[Callable[[], None]] = deque()
        self._parked: list[Conversation] = []
        self._doors: dict[Front, tuple[_Sidecar, tuple[Engine, Sidecar] | None]] = {}
        self._outsides: dict[Hub, Outside] = {}
        self._is_closed = False
        waiting.wait = self._wait

    # --- doors -------------------------------------------------------------------------------

    def open(self, front: Front) -> tuple[Engine, Runtime]:
        """Serve the sockets of an app here."""
        door = self._doors.get(front)
        if door is None or door[0].is_closed:
            engine = front.make_engine(partial(_Engine, self))
            self._outsides.setdefault(engine.hub, engine.hub.outside)
            engine.hub.outside = Alone()  # a test has no other processes
            sidecar = _Sidecar(engine, self)
            found = front.swap((engine, sidecar))
            self._doors[front] = door = (sidecar, door[1] if door else found)
        return door[0]._engine, door[0].memory  # noqa: SLF001 - ours, a few lines up

    def start(self, link: SocketLink) -> None:
        """Connect the caller's far end to a link."""
        client = self.caller
        assert client is not None
        self.caller = None
        transport = MemoryTransport(self.loop, client, client.address)
        client.begin(link, transport)
        Context().run(transport.start, link)

    def opened(self, link: SocketLink) -> None:
        """A link has been let in."""
        for client in self.clients:
            if client.link is link:
                client.was_let_in = True

    def failed(self, websocket: WebSocket, error: BaseException) -> None:
        """A handler has raised."""
        for client in self.clients:
            if client.link is websocket.link:
                client.errors.append(error)
                return
        self.loop.errors.append(error)

    # --- turns -------------------------------------------------------------------------------

    def run_later(self, job: Callable[[], None]) -> None:
        """Run `job` in the test's thread when the loop is idle."""
        self._jobs.append(job)

    def park(self, conversation: Conversation) -> None:
        """It waits."""
        self._parked.append(conversation)

    def settle(self, patience: float = 0.0) -> None:
        """Run until nothing more happens, but let no time pass.

        Raises:
            RuntimeError: an event loop runs in this thread, or the code under test never rests.
        """
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - documented, does not raise
            msg = "ws_middleware.testing is for plain def tests: an event loop runs in this thread"
            raise RuntimeError(msg)
        while True:
            Context().run(self.loop.run_until_idle, patience)
            if self._jobs:
                Context().run(self._jobs.popleft())
            elif (conversation := self._next_due()) is not None:
                conversation.go_on()
            else:
                return

    def _next_due(self) -> Conversation | None:
        for conversation in self._parked:
            if conversation.is_due:
                self._parked.remove(conversation)
                return conversation
        return None

    def pass_time(self, seconds: float, until: Callable[[], bool] = bool) -> None:
        """Let time pass, from timer to timer, until `until()` or for `seconds`."""
        end = self.clock.time + seconds
        self.settle()
        while not until():
            due = self.loop.next_due
            if due is None or due > end:
                self.clock.time = max(self.clock.time, end)
                self.settle()
                return
            # Rounded up: a timer that is looked at a nanosecond early is looked at for ever.
            self.clock.time = max(round(due, 9), self.clock.time + 1e-9)
            self.settle()

    def wait_for(self, seconds: float, until: Callable[[], bool]) -> None:
        """Wait for `until()` as a client does, by the virtual clock.

        Where the app under test has connections of its own (to a database, say), they are waited
        for in real time first.
        """
        self.settle()
        if not until():
            self.settle(patience=min(seconds, PATIENCE))
        if not until():
            self.pass_time(seconds, until)

    def _wait(self, event: Event, timeout: float | None) -> bool:
        """How the test's thread waits for a receipt: by doing what it waits for."""
        self.wait_for(_LONG if timeout is None else timeout, event.is_set)
        if not event.is_set() and threading.active_count() > 1:
            return event.wait(timeout)  # some other thread's, such as a real sidecar's
        if not event.is_set() and timeout is None:
            msg = "this would wait for ever: nothing that is under way will bring the outcome"
            raise RuntimeError(msg)
        return event.is_set()

    # --- the end -----------------------------------------------------------------------------

    def leave(self, client: ClientSocket) -> None:
        """A client has ended; without any the stage has, too, unless it is held."""
        if client in self.clients:
            self.clients.remove(client)
        if not self.clients and not self.is_held:
            self.close()

    def close(self) -> list[BaseException]:
        """End everything and give the thread back; return what nobody has been told of."""
        if self._is_closed:
            return []
        self._is_closed = True
        clients, self.clients = self.clients, self.clients[:]
        errors: list[BaseException] = []
        try:
            for client in clients:
                client.hang_up()
            self.pass_time(_GRACE)
            for sidecar, _ in self._doors.values():
                sidecar.close(1001, "going_away", over=0.0, timeout=_END)
            self.pass_time(_END + 1)
        finally:
            for front, (sidecar, before) in self._doors.items():
                found = front.swap(before)
                if found is None or found[1] is not sidecar:
                    front.swap(found)  # somebody else's by now
            for hub, outside in self._outsides.items():
                hub.outside = outside
            del waiting.wait
            self._cancel_rest()
            errors.extend(error for client in clients for error in client.take_errors())
            errors.extend(self.loop.errors)
            self.loop.close()
        return errors

    def _cancel_rest(self) -> None:
        """Cancel what even the end of its server has not ended: a task that never waits."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        with contextlib.suppress(RuntimeError):
            self.loop.run_until_idle()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._is_closed

    def check_thread(self) -> None:
        """Refuse a second thread.

        Raises:
            RuntimeError: this is not the thread that the stage was made in.
        """
        if threading.get_ident() != self._thread:
            msg = "connect() was called in another thread of this test: use it from one"
            raise RuntimeError(msg)
