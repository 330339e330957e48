"""A process that drains at SIGTERM: whose the signal is, and what becomes of sockets meanwhile."""

from __future__ import annotations

import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from gunicorn.config import Config  # type: ignore[import-untyped]
from gunicorn.workers.sync import SyncWorker  # type: ignore[import-untyped]

from ws_middleware import Anonymous, WebSockets
from ws_middleware.net import drain
from ws_middleware.net.drain import Phase
from ws_middleware.net.worker import Worker, end_time, worker_on_stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.net.asgi_door import Door

    OpenDoor = Callable[..., Door]

SIGTERM = signal.SIGTERM
LIFESPAN = {"type": "lifespan"}


class Server:
    """What a server has: a handler of SIGTERM."""

    def __init__(self) -> None:
        self.heard = 0

    def handle(self, *_: object) -> None:
        self.heard += 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    before = signal.getsignal(SIGTERM)
    monkeypatch.setattr(drain, "_here", None)
    monkeypatch.setattr(drain, "_has_warned", False)
    server = Server()
    signal.signal(SIGTERM, server.handle)
    yield server
    signal.signal(SIGTERM, before)


def draining(**settings: Any) -> WebSockets:
    sockets = WebSockets(auth=Anonymous(), drain_on_sigterm=True, **settings)
    sockets.route("/")
    return sockets


def terminate(door: Door) -> None:
    """Have SIGTERM come while the server's loop runs."""
    door.loop.call_soon(signal.raise_signal, SIGTERM)
    door.settle()


def phase() -> Phase:
    assert drain._here is not None
    return drain._here.phase


def codes(door: Door) -> list[tuple[int, str] | None]:
    return [each.closed for each in door.connections]


RESTART = (1012, "restart")


def test_the_sockets_are_closed_one_after_the_other_and_the_server_hears_of_it_then(
    open_door: OpenDoor, server: Server
) -> None:
    door = open_door(draining(drain_over=8))
    for _ in range(4):
        door.connect()
    terminate(door)
    for number in range(1, 4):
        assert codes(door).count(RESTART) == number
        assert (server.heard, phase()) == (0, Phase.DRAINING)
        assert door.sockets.ready().reasons == ("draining",)
        door.sleep(2)
    assert codes(door) == [RESTART] * 4
    assert (server.heard, phase()) == (1, Phase.OVER)


def test_whoever_comes_is_refused_from_then_on_and_for_good(
    open_door: OpenDoor, server: Server
) -> None:
    door = open_door(draining())
    door.connect()
    terminate(door)
    late = door.connect()
    assert (late.denial[0], b"going_away" in late.denial[2]) == (503, True)
    door.connections[0].disconnect(1012)
    door.sleep(10)
    assert server.heard == 1
    assert door.connect().denial[0] == 503
    assert door.sockets.ready().reasons == ("draining",)


def test_without_sockets_the_server_hears_of_it_at_once(
    open_door: OpenDoor, server: Server
) -> None:
    door = open_door(draining())
    door.connect().disconnect()
    terminate(door)
    assert server.heard == 1


def test_the_server_does_not_wait_for_peers_that_do_not_answer(
    open_door: OpenDoor, server: Server
) -> None:
    door = open_door(draining(drain_over=0))
    door.connect().hold()  # the server takes no close frame
    terminate(door)
    door.sleep(2.9)
    assert server.heard == 0
    door.sleep(0.2)
    assert server.heard == 1


def test_a_second_one_is_the_servers_at_once(open_door: OpenDoor, server: Server) -> None:
    door = open_door(draining(drain_over=60))
    for _ in range(4):
        door.connect()
    terminate(door)
    door.sleep(1.0)
    terminate(door)
    assert (server.heard, phase()) == (1, Phase.OVER)
    terminate(door)
    assert server.heard == 2
    door.sleep(100)
    assert server.heard == 2, "when all are closed it has heard of it already"


def test_one_that_comes_twice_within_a_second_is_one(open_door: OpenDoor, server: Server) -> None:
    door = open_door(draining(drain_over=8))
    for _ in range(2):
        door.connect()
    terminate(door)
    door.sleep(0.9)
    terminate(door)
    assert (server.heard, phase()) == (0, Phase.DRAINING)


def test_when_the_loop_does_not_run_any_more_it_is_the_servers(
    open_door: OpenDoor, server: Server
) -> None:
    door = open_door(draining())
    door.connect()
    signal.raise_signal(SIGTERM)
    assert server.heard == 1
    assert codes(door) == [None]


def test_each_app_of_the_process_drains_and_only_those_that_ask_for_it(
    open_door: OpenDoor, server: Server
) -> None:
    one = open_door(draining(drain_over=0))
    two = one.beside(draining(drain_over=4))
    three = one.beside(WebSockets(auth=Anonymous()))
    three.sockets.route("/")
    for each in (one, two, two, three):
        each.connect()
    terminate(one)
    one.sleep(1.9)
    assert codes(one) == [RESTART]
    assert server.heard == 0
    one.sleep(0.2)
    assert codes(two) == [RESTART] * 2
    assert server.heard == 1
    assert codes(three) == [None]
    three.connections[0].disconnect()


def test_an_app_that_cannot_be_closed_keeps_no_server(
    open_door: OpenDoor, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    door = open_door(draining())
    door.connect()
    serving = door.front._own
    door.front._own = (object(), None, None)  # whatever it was that went wrong
    terminate(door)
    assert server.heard == 1
    assert "could not be closed" in caplog.text
    door.front._own = serving


def test_nothing_is_taken_without_the_setting(open_door: OpenDoor, server: Server) -> None:
    sockets = WebSockets(auth=Anonymous())
    sockets.route("/")
    open_door(sockets).connect()
    assert signal.getsignal(SIGTERM) == server.handle


def test_lifespan_is_too_early(open_door: OpenDoor, server: Server) -> None:
    async def app(*given: object) -> None: ...

    door = open_door(draining(), app)
    door.call(LIFESPAN)
    assert signal.getsignal(SIGTERM) == server.handle
    door.call({"type": "http", "method": "GET", "path": "/", "headers": []})
    assert signal.getsignal(SIGTERM) != server.handle
    terminate(door)
    assert server.heard == 1


# --- where it cannot be --------------------------------------------------------------------------


def test_it_is_said_once_and_at_the_start_that_it_is_in_vain(
    open_door: OpenDoor, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(*given: object) -> None: ...

    signal.signal(SIGTERM, signal.SIG_DFL)
    for _ in range(2):
        door = open_door(draining(), app)
        door.call(LIFESPAN)
        door.connect().disconnect()
    assert signal.getsignal(SIGTERM) == signal.SIG_DFL
    said = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith(
        "drain_on_sigterm=True does nothing here: the server has no handler of SIGTERM in this "
        "process. Call sockets.close(code=1012, over=...) before the server is told to end"
    )


def test_a_loop_in_another_thread_is_left_alone(
    open_door: OpenDoor, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    door = open_door(draining())

    def elsewhere() -> None:
        door.connect().disconnect()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert signal.getsignal(SIGTERM) == server.handle
    assert "the event loop is not in the main thread" in caplog.text


# --- under gunicorn ------------------------------------------------------------------------------


class InWorker(SyncWorker):  # type: ignore[misc]
    """A worker as far as its stack goes."""

    def run(self, action: Callable[[], Any]) -> Any:
        return action()


@pytest.fixture
def worker() -> Iterator[InWorker]:
    cfg = Config()
    cfg.set("graceful_timeout", 6)
    made = InWorker(1, 0, [], None, cfg.timeout, cfg, logging.getLogger("gunicorn"))
    yield made
    made.tmp.close()


def test_a_worker_is_found_from_what_it_calls(worker: InWorker) -> None:
    assert worker_on_stack() is None
    assert worker.run(worker_on_stack) == Worker(6.0, None)


def test_closes_fit_into_the_time_that_gunicorn_gives(
    open_door: OpenDoor, server: Server, worker: InWorker
) -> None:
    door = open_door(draining())
    worker.run(door.connect)
    for _ in range(199):
        door.connect()
    door.connections[-1].hold()  # the server takes no close frame
    terminate(door)
    door.sleep(1.9)
    assert codes(door).count(RESTART) < 199
    door.sleep(0.1)
    assert codes(door).count(RESTART) == 199, "spread over a third of its six seconds"
    door.sleep(1.9)
    assert server.heard == 0
    door.sleep(0.2)
    assert server.heard == 1, "two thirds, whatever peers do"


def test_a_drain_over_that_does_not_fit_is_a_warning(
    open_door: OpenDoor, server: Server, worker: InWorker, caplog: pytest.LogCaptureFixture
) -> None:
    door = open_door(draining(drain_over=9))
    worker.run(lambda: door.connect().disconnect())
    assert "drain_over=9 does not fit: gunicorn kills a worker that takes 6 s" in caplog.text


@pytest.mark.parametrize(
    ("over", "worker", "seconds"),
    [
        pytest.param(0.0, None, 3.0, id="nobody"),
        pytest.param(10.0, None, 15.5, id="many"),
        pytest.param(10.0, Worker(30.0, None), 15.5, id="with-time"),
        pytest.param(2.0, Worker(6.0, None), 4.0, id="with-little"),
        pytest.param(20.0, Worker(6.0, None), 25.0, id="as-somebody-says"),
    ],
)
def test_how_long_a_drain_may_take(over: float, worker: Worker | None, seconds: float) -> None:
    assert end_time(over, worker) == seconds
