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
from typing import TYPE_CHECKING, Final, cast

from ws_middleware.front import openers
from ws_middleware.hub.hub import Alone
from ws_middleware.native import Event
from ws_middleware.net.asgi_link import ASGILink
from ws_middleware.net.control import control_of
from ws_middleware.receipt import waiting

from .doors import StageRuntime, open_door
from .loop import PATIENCE, VirtualClock, VirtualLoop
from .stand_in import StandIn
from .transport import MemoryTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ws_middleware import WebSocket
    from ws_middleware.front import Front
    from ws_middleware.hub.hub import Hub, Outside
    from ws_middleware.net.engine import Engine
    from ws_middleware.net.hosted import Hosted
    from ws_middleware.net.link import SocketLink
    from ws_middleware.net.runtime import Runtime
    from ws_middleware.types import Connection

    from .client import ClientSocket
    from .doors import Door
    from .turns import Conversation

__all__ = ["Stage"]

#: Virtual seconds that a wait without a timeout may take.
_LONG: Final = 3600.0
#: Virtual seconds that handlers have to come to their end; the server cancels them after five.
_GRACE: Final = 6.0
#: Virtual seconds that the end of a server may take.
_END: Final = 10.0


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
        #: How often the ASGI door of an app has been called.
        self.asked = 0
        #: Kept when nobody is connected, until its owner closes it.
        self.is_held = False
        self._thread = self.turn
        self._jobs: deque[Callable[[], None]] = deque()
        self._parked: list[Conversation] = []
        #: Held by the thread that does something here.
        self._lock = threading.RLock()
        self._stand_in = StandIn(self._stand_in_for_test)
        self._doors: dict[Front, Door] = {}
        self._outsides: dict[Hub, Outside] = {}
        #: Of other threads, whose loops do not turn.
        self._stuck: set[Runtime] = set()
        self._server: StageRuntime | None = None
        self._is_closed = False
        waiting.wait = self._wait
        openers[self.loop] = self._open_here

    # --- doors -------------------------------------------------------------------------------

    def open(self, front: Front) -> tuple[Engine, Runtime]:
        """Serve the sockets of an app here."""
        door = self._doors.get(front)
        if door is None or door.sidecar.is_closed:
            self._doors[front] = door = open_door(self, front)
            hub = door.engine.hub
            self._outsides.setdefault(hub, hub.outside)
            hub.outside = Alone()  # a test has no other processes
        return door.engine, door.sidecar.memory

    def _open_here(self, front: Front) -> tuple[Engine, Hosted]:
        """Serve the sockets of an app whose ASGI door has been called here."""
        self.open(front)
        self.asked += 1
        return self._doors[front][::2]

    @property
    def server(self) -> StageRuntime:
        """Where the server of ASGI apps is."""
        if self._server is None:
            self._server = StageRuntime(self)
        return self._server

    def start(self, link: SocketLink) -> None:
        """Connect the caller's far end to a link."""
        client = self.caller
        assert client is not None
        self.caller = None
        transport = MemoryTransport(self.loop, client, client.address)
        client.begin(link, transport)
        Context().run(transport.start, link)

    def opened(self, link: Connection) -> None:
        """A link has been let in."""
        client = self._client_of(link)
        if client is not None:
            client.was_let_in = True

    def failed(self, websocket: WebSocket, error: BaseException) -> None:
        """A handler has raised."""
        client = self._client_of(websocket.link)
        (client or self.loop).errors.append(error)

    def app_failed(self, client: ClientSocket, error: Exception) -> None:
        """An ASGI app has raised."""
        (client if client in self.clients else self.loop).errors.append(error)

    def _client_of(self, link: Connection) -> ClientSocket | None:
        """Return whose connection it is. Of its scope a middleware may have made a copy."""
        control = control_of(link.scope) if isinstance(link, ASGILink) else None
        for client in self.clients:
            if client.link is link or (control is not None and client.control is control):
                return client
        return None

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
        self._stand_in.send_home()
        self._settle(patience)

    def _settle(self, patience: float = 0.0) -> None:
        with self._lock, self._having_turn():
            while self._run_all(patience):
                self._wait_for_others()
                patience = 0.0

    @contextlib.contextmanager
    def _having_turn(self) -> Iterator[None]:
        before, self.turn = self.turn, threading.get_ident()
        try:
            yield
        finally:
            self.turn = before

    def _stand_in_for_test(self) -> None:
        """Do what there is to do in the place of the test's thread, which waits elsewhere."""
        waiting.wait = self._wait
        with self._lock:
            if self._is_closed:
                return
            try:
                self._settle()
                self._pass_time(_END + 1, self._is_none_closing)
            except Exception as error:  # raised at the end, as what others leave behind
                self.loop.errors.append(error)

    def _is_none_closing(self) -> bool:
        return all(door.sidecar.is_at_rest for door in self._doors.values())

    def _run_all(self, patience: float) -> bool:
        """Run all that is ready, whoever's it is; False if there was nothing."""
        has_run = False
        while True:
            has_run |= Context().run(self.loop.run_until_idle, patience)
            if self._jobs:
                Context().run(self._jobs.popleft())
            elif (conversation := self._next_due()) is not None:
                conversation.go_on()
            else:
                return has_run
            has_run = True

    def _wait_for_others(self) -> None:
        """Let the loops of other threads, a test client's, do what was posted to them."""
        for runtime in self._find_others() - self._stuck:
            is_through = Event()
            if runtime.run(is_through.set) and not is_through.wait(PATIENCE):
                self._stuck.add(runtime)

    def _find_others(self) -> set[Runtime]:
        there = {cast("Runtime", each) for hub in self._outsides for each in hub.branches}
        ours = {door.sidecar.memory for door in self._doors.values()}
        return {each for each in there - ours if each.loop.is_running()}

    def take_in(self, turn: Callable[[], None]) -> None:
        """Do what another thread has posted, in that thread, unless this one is at it.

        The test may be waiting for it: for a view that waits for its message to be on its way.
        """
        if self._lock.acquire(blocking=False):
            try:
                with self._having_turn():
                    Context().run(turn)
            finally:
                self._lock.release()
        self._stand_in.call()

    def _next_due(self) -> Conversation | None:
        for conversation in self._parked:
            if conversation.is_due:
                self._parked.remove(conversation)
                return conversation
        return None

    def pass_time(self, seconds: float, until: Callable[[], bool] = bool) -> None:
        """Let time pass, from timer to timer, until `until()` or for `seconds`."""
        self.settle()
        self._pass_time(seconds, until)

    def _pass_time(self, seconds: float, until: Callable[[], bool]) -> None:
        end = self.clock.time + seconds
        while not until():
            due = self.loop.next_due
            if due is None or due > end:
                self.clock.time = max(self.clock.time, end)
                self._settle()
                return
            # Rounded up: a timer that is looked at a nanosecond early is looked at for ever.
            self.clock.time = max(round(due, 9), self.clock.time + 1e-9)
            self._settle()

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
        with self._lock:
            self._is_closed = True
        clients, self.clients = self.clients, self.clients[:]
        errors: list[BaseException] = []
        try:
            for client in clients:
                client.hang_up()
            self.pass_time(_GRACE)
            for door in self._doors.values():
                door.sidecar.close(1001, "going_away", over=0.0, timeout=_END)
            self.pass_time(_END + 1)
            self._cut_rest()
        finally:
            for front, door in self._doors.items():
                front.forget(door)
            del openers[self.loop]
            for hub, outside in self._outsides.items():
                hub.outside = outside
            del waiting.wait
            self._cancel_rest()
            errors.extend(error for client in clients for error in client.take_errors())
            errors.extend(self.loop.errors)
            self.loop.close()
            self._stand_in.end()
        return errors

    def _cut_rest(self) -> None:
        """Cut what an ASGI app has not let go of."""
        for link in list(self.server.links) if self._server else ():
            link.abort()
        self.settle()

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
