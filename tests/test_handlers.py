"""The three shapes of a handler, and what becomes of one that fails, returns, or blocks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import queue
import threading
import time
from collections import defaultdict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest
import websockets

from tests.clients.python import connect, end_of, refused, until
from tests.support import TEXT, close_frame, frame
from ws_middleware import (
    Anonymous,
    BadMessage,
    BlockingWebSocket,
    ConnectionClosed,
    Limits,
    WebSocket,
    WebSockets,
)
from ws_middleware.net import serving
from ws_middleware.net.threads import ThreadGroup

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Served

    Serve = Callable[[WebSockets], Served]


@pytest.fixture
def sockets() -> WebSockets:
    return WebSockets(auth=Anonymous())


def thread_name() -> str:
    return threading.current_thread().name


def ours(name: str = "ws-") -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith(name)]


# --- events --------------------------------------------------------------------------------------


def test_def_events_come_in_order_and_never_on_the_loops_thread(
    serve: Serve, sockets: WebSockets
) -> None:
    route = sockets.route("/<word>")
    seen: list[tuple[str, ...]] = []
    closed = threading.Event()

    @route.on_open
    def opened(ws: WebSocket, word: str) -> None:
        time.sleep(0.05)  # messages that came meanwhile must wait
        seen.append(("open", word, thread_name()))

    @route.on_message
    def said(ws: WebSocket, message: str, word: str) -> None:
        seen.append((message, word, thread_name()))

    @route.on_close
    def gone(ws: WebSocket, word: str) -> None:
        seen.append(("close", str(ws.close_code), thread_name()))
        closed.set()

    with connect(serve(sockets), "/w") as client:
        for number in range(100):
            client.send(str(number))
        client.close(4005)
    assert closed.wait(5)
    assert [each[0] for each in seen] == ["open", *map(str, range(100)), "close"]
    assert {each[2] for each in seen} == {"ws-events"}
    assert seen[-1][1] == "4005"


def test_def_events_of_one_socket_run_one_at_a_time(serve: Serve, sockets: WebSockets) -> None:
    route = sockets.route("/")
    running = threading.Lock()
    overlaps: list[str] = []

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        if not running.acquire(blocking=False):
            overlaps.append(message)
            return
        time.sleep(0.001)
        running.release()
        ws.send(message)

    with connect(serve(sockets)) as client:
        for number in range(100):
            client.send(str(number))
        assert [client.recv(5) for _ in range(100)] == [str(number) for number in range(100)]
    assert not overlaps


def test_def_events_of_two_sockets_run_side_by_side(serve: Serve, sockets: WebSockets) -> None:
    route = sockets.route("/")
    both = threading.Barrier(2)

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        both.wait(5)
        ws.send("met")

    served = serve(sockets)
    with connect(served) as one, connect(served) as two:
        one.send("x")
        two.send("x")
        assert (one.recv(5), two.recv(5)) == ("met", "met")


def test_async_events_come_in_order_one_at_a_time_on_the_loop(
    serve: Serve, sockets: WebSockets
) -> None:
    route = sockets.route("/")
    seen: list[str] = []
    threads: set[str] = set()
    closed = threading.Event()

    async def note(text: str) -> None:
        threads.add(thread_name())
        seen.append(f"{text} begins")
        await asyncio.sleep(0.001)
        seen.append(f"{text} ends")

    @route.on_open
    async def opened(ws: WebSocket) -> None:
        await note("open")

    @route.on_message
    async def said(ws: WebSocket, message: str) -> None:
        await note(message)

    @route.on_close
    async def gone(ws: WebSocket) -> None:
        await note("close")
        closed.set()

    with connect(serve(sockets)) as client:
        for number in range(40):
            client.send(str(number))
        client.close()
    assert closed.wait(5)
    names = ["open", *map(str, range(40)), "close"]
    assert seen == [f"{name} {part}" for name in names for part in ("begins", "ends")]
    assert threads == {"ws-sidecar"}


def test_def_and_async_events_mix(serve: Serve, sockets: WebSockets) -> None:
    route = sockets.route("/")
    seen: queue.Queue[str] = queue.Queue()

    @route.on_open
    async def opened(ws: WebSocket) -> None:
        await asyncio.sleep(0.01)
        seen.put("open")

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        seen.put(message)

    @route.on_close
    async def gone(ws: WebSocket) -> None:
        seen.put("close")

    with connect(serve(sockets)) as client:
        client.send("m")
    assert [seen.get(timeout=5) for _ in range(3)] == ["open", "m", "close"]


def test_messages_in_one_write_with_the_close_come_before_on_close(
    serve: Serve, sockets: WebSockets
) -> None:
    route = sockets.route("/")
    seen: queue.Queue[str] = queue.Queue()

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        seen.put(message)

    @route.on_close
    def gone(ws: WebSocket) -> None:
        seen.put(f"close {ws.close_code}")

    with serve(sockets).peer() as peer:
        peer.upgrade()
        peer.send(b"".join(frame(TEXT, b"%d" % i) for i in range(50)) + close_frame(1000))
        got = [seen.get(timeout=5) for _ in range(51)]
    assert got == [*map(str, range(50)), "close 1000"]


def test_no_message_is_handled_after_the_handler_has_closed(
    serve: Serve, sockets: WebSockets
) -> None:
    route = sockets.route("/")
    seen: list[str] = []
    closed = threading.Event()

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        seen.append(message)
        ws.close(4000)

    @route.on_close
    def gone(ws: WebSocket) -> None:
        closed.set()

    with serve(sockets).peer() as peer:
        peer.upgrade()
        peer.send(b"".join(frame(TEXT, b"%d" % i) for i in range(12)))
        assert peer.read_frame().close_code == 4000
        assert closed.wait(5)
    assert seen == ["0"]


@pytest.mark.parametrize("kind", ["def", "async"])
def test_no_message_is_handled_after_the_hub_has_closed(
    serve: Serve, sockets: WebSockets, kind: str
) -> None:
    route = sockets.route("/")
    seen: list[str] = []
    closed = threading.Event()

    def said(ws: WebSocket, message: str) -> None:
        seen.append(message)
        if message == "3":  # the fourth of a batch: the rest of it is taken already
            route.everyone.close(4403)
            until(lambda: ws.closed)

    async def said_async(ws: WebSocket, message: str) -> None:
        seen.append(message)
        if message == "3":
            route.everyone.close(4403)
            await asyncio.sleep(0)

    route.on_message(said if kind == "def" else said_async)

    @route.on_close
    def gone(ws: WebSocket) -> None:
        closed.set()

    with serve(sockets).peer() as peer:
        peer.upgrade()
        peer.send(b"".join(frame(TEXT, b"%d" % i) for i in range(12)))
        assert peer.read_frame().close_code == 4403
        assert closed.wait(5)
    assert seen == ["0", "1", "2", "3"]


def test_a_def_event_that_returns_a_coroutine_is_named(
    serve: Serve, sockets: WebSockets, caplog: pytest.LogCaptureFixture
) -> None:
    route = sockets.route("/")

    async def helper() -> None: ...

    @route.on_message
    def said(ws: WebSocket, message: str) -> Any:
        return helper()

    with connect(serve(sockets)) as client:
        client.send("x")
        assert end_of(client) == (1011, "internal_error")
    assert "returned a coroutine; make it an async def" in caplog.text


def test_a_partial_and_a_callable_object_are_handlers(serve: Serve, sockets: WebSockets) -> None:
    def answer(prefix: str, ws: WebSocket, message: str) -> None:
        ws.send(f"{prefix} {message} {thread_name()}")

    class Answer:
        async def __call__(self, ws: WebSocket, message: str) -> None:
            await ws.send(f"object {message} {thread_name()}")

    sockets.route("/partial").on_message(functools.partial(answer, "partial"))
    sockets.route("/object").on_message(Answer())
    served = serve(sockets)
    with connect(served, "/partial") as client:
        client.send("x")
        assert client.recv(5) == "partial x ws-events"
    with connect(served, "/object") as client:
        client.send("x")
        assert client.recv(5) == "object x ws-sidecar"


def test_without_on_message_what_comes_is_ignored(serve: Serve, sockets: WebSockets) -> None:
    route = sockets.route("/")
    closed = threading.Event()

    @route.on_open
    def opened(ws: WebSocket) -> None:
        ws.send("hello")

    @route.on_close
    def gone(ws: WebSocket) -> None:
        closed.set()

    with connect(serve(sockets)) as client:
        for _ in range(100):
            client.send("ignored")
        assert client.recv(5) == "hello"
        assert client.ping().wait(5)
    assert closed.wait(5)


# --- push only -----------------------------------------------------------------------------------


def test_push_only_ignores_what_comes_within_its_limits(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(
        auth=Anonymous(), limits=Limits(inbound_messages=2, inbound_bytes=1000, message_size=1000)
    )
    route = sockets.route("/")
    with connect(serve(sockets)) as client:
        for _ in range(200):
            client.send("x" * 500)
        assert client.ping().wait(5)
        route.everyone.send("pushed")
        assert client.recv(5) == "pushed"
        client.send("x" * 1001)
        assert end_of(client)[0] == 1009
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


# --- async conversations -------------------------------------------------------------------------


def test_a_conversation_that_returns_closes_with_1000(serve: Serve, sockets: WebSockets) -> None:
    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        await ws.send("only this")

    with connect(serve(sockets)) as client:
        assert client.recv(5) == "only this"
        assert end_of(client) == (1000, "")


def no_thread(*args: object) -> None:
    msg = "can't start new thread"
    raise RuntimeError(msg)


@pytest.mark.parametrize("path", ["/talk", "/events"])
def test_without_a_thread_for_it_a_socket_is_closed_and_its_place_is_free(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    sockets = WebSockets(auth=Anonymous(), sync_threads=1, sync_conversations=1)

    @sockets.route("/talk")
    def talk(ws: BlockingWebSocket) -> None:
        ws.send(ws.receive())

    events = sockets.route("/events")
    events.on_message(lambda ws, message: ws.send(message))
    served = serve(sockets)
    start = ThreadGroup._start
    monkeypatch.setattr(ThreadGroup, "_start", no_thread)
    for _ in range(3):
        with connect(served, path) as client:
            with contextlib.suppress(websockets.ConnectionClosed):
                client.send("x")
            assert end_of(client) == (1011, "internal_error")
    assert "can't start new thread" in caplog.text
    monkeypatch.setattr(ThreadGroup, "_start", start)
    with connect(served, path) as client:
        client.send("x")
        assert client.recv(5) == "x"


class Broken(logging.Filter):
    """Asks for the current request, as filters of apps do, where there is none."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise LookupError(record.getMessage())


def test_a_filter_of_the_log_that_raises_costs_no_socket(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sockets = WebSockets(auth=Anonymous(), sync_conversations=1)

    @sockets.route("/")
    def talk(ws: BlockingWebSocket) -> None:
        if (message := ws.receive()) == "fail":
            raise ValueError
        ws.send(message)

    served = serve(sockets)
    caplog.set_level(logging.INFO, "ws_middleware")
    monkeypatch.setattr(caplog.handler, "filters", [Broken()])
    for message, code in [("x", 1000), ("fail", 1011)] * 2:
        with connect(served) as client:
            client.send(message)
            assert end_of(client)[0] == code
    told = capfd.readouterr().err
    for line in ("open id=", "close id=", "handler "):
        assert told.count(f"LookupError: {line}") >= 2


def test_a_conversation_that_raises_is_1011_and_one_line_with_a_traceback(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(auth=lambda request: "ann")
    route = sockets.route("/ws/<int:number>")
    ids: Future[str] = Future()

    @route
    async def handler(ws: WebSocket, number: int) -> None:
        ids.set_result(ws.id)
        raise LookupError

    with connect(serve(sockets), "/ws/7") as client:
        assert end_of(client) == (1011, "internal_error")
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.name == "ws_middleware.handler"
    assert record.levelno == logging.ERROR
    assert f"handler {_name(handler)} of route /ws/* failed" in record.getMessage()
    assert f"socket {ids.result(1)}, user ann" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def _name(route: Any) -> str:
    return str(route.handler.__qualname__)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
@pytest.mark.parametrize("kind", ["conversation", "async event", "def event", "def conversation"])
def test_a_handler_cannot_end_the_loop(
    serve: Serve, sockets: WebSockets, error: BaseException, kind: str
) -> None:
    route = sockets.route("/bad")

    async def bad_async(ws: WebSocket) -> None:
        raise error

    def bad(ws: WebSocket) -> None:
        raise error

    if kind == "conversation":
        route(bad_async)
    elif kind == "def conversation":
        route(bad)
    else:
        route.on_open(bad if kind.startswith("def") else bad_async)

    @sockets.route("/good")
    async def good(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    served = serve(sockets)
    with connect(served, "/good") as client:
        with connect(served, "/bad") as failing:
            assert end_of(failing) == (1011, "internal_error")
        client.send("still here")
        assert client.recv(5) == "still here"


@pytest.mark.parametrize("event", ["on_open", "on_message", "on_close"])
@pytest.mark.parametrize("kind", ["def", "async"])
def test_an_event_that_raises_is_1011_with_route_socket_and_user(
    serve: Serve, caplog: pytest.LogCaptureFixture, event: str, kind: str
) -> None:
    sockets = WebSockets(auth=lambda request: "ann")
    route = sockets.route("/")

    ids: list[str] = []

    def fail(ws: WebSocket, message: str = "") -> None:
        ids.append(ws.id)
        raise LookupError(ws.id)

    async def fail_async(ws: WebSocket, message: str = "") -> None:
        fail(ws)

    getattr(route, event)(fail if kind == "def" else fail_async)
    with connect(serve(sockets)) as client:
        if event == "on_message":
            client.send("x")
        if event == "on_close":
            client.close()
        else:
            assert end_of(client) == (1011, "internal_error")
    until(lambda: "LookupError" in caplog.text)
    assert f"of route / failed for socket {ids[0]}, user ann" in caplog.text
    assert "Traceback" in caplog.text


def test_what_comes_after_an_event_has_failed_is_not_handled(
    serve: Serve, sockets: WebSockets
) -> None:
    route = sockets.route("/")
    seen: list[str] = []
    closed = threading.Event()

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        seen.append(message)
        raise ValueError(message)

    @route.on_close
    def gone(ws: WebSocket) -> None:
        closed.set()

    with serve(sockets).peer() as peer:
        peer.upgrade()
        peer.send(b"".join(frame(TEXT, b"%d" % i) for i in range(40)))
        assert peer.read_frame().close_code == 1011
        assert closed.wait(5)
    assert seen == ["0"]


@pytest.mark.parametrize("kind", ["def", "async"])
def test_bad_message_in_an_event_is_1007_without_a_traceback(
    serve: Serve, sockets: WebSockets, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    route = sockets.route("/")

    def said(ws: WebSocket, message: str) -> None:
        raise BadMessage(message)

    async def said_async(ws: WebSocket, message: str) -> None:
        raise BadMessage(message)

    route.on_message(said if kind == "def" else said_async)
    with connect(serve(sockets)) as client:
        client.send("x")
        assert end_of(client) == (1007, "bad_message")
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("event", ["on_message", "on_close"])
def test_an_async_event_ends_with_its_grace_whatever_is_left_to_handle(
    serve: Serve, sockets: WebSockets, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    grace = 0.4
    monkeypatch.setattr(serving, "GRACE", grace)
    route = sockets.route("/")
    last = [0.0]
    begun = threading.Event()

    @route.on_message
    async def said(ws: WebSocket, message: str) -> None:
        begun.set()
        try:
            await asyncio.sleep(60 if event == "on_message" else 0)
        finally:
            last[0] = time.monotonic()

    @route.on_close
    async def gone(ws: WebSocket) -> None:
        if event == "on_close":
            try:
                await asyncio.sleep(60)
            finally:
                last[0] = time.monotonic()

    served = serve(sockets)
    with served.peer() as peer:
        peer.upgrade()
        peer.send(frame(TEXT, b"first"))
        assert begun.wait(5)
        peer.send(b"".join(frame(TEXT, b"more") for _ in range(10)))
        (ws,) = route.everyone.local()
        until(lambda: len(ws.inbox) == 10 or event == "on_close")
    until(lambda: ws.closed)
    left = time.monotonic()
    time.sleep(grace * 4)  # what should not happen cannot be waited for
    assert 0 < last[0] - left < grace * 1.9


# --- def conversations ---------------------------------------------------------------------------


def test_a_def_conversation_receives_iterates_and_closes(serve: Serve, sockets: WebSockets) -> None:
    outcome: Future[Any] = Future()

    @sockets.route("/<int:number>")
    def handler(ws: BlockingWebSocket, number: int) -> None:
        got: list[Any] = [number, thread_name(), ws.user.id, ws.closed]
        try:
            ws.receive(timeout=0.05)
        except TimeoutError:
            got.append("timeout")
        ws.send("go")
        got.append(ws.receive())
        got.append(ws.receive_json())
        for message in ws:
            got.append(message)
            if message == "enough":
                break
        ws.close(4000, "bye").result(5)
        outcome.set_result((*got, ws.closed, ws.close_code))

    with connect(serve(sockets), "/7") as client:
        assert client.recv(5) == "go"
        for message in (b"first", "[1]", "a", b"b", "enough"):
            client.send(message)
        assert end_of(client) == (4000, "bye")
    assert outcome.result(5) == (
        *(7, "ws-conversations", "", False, "timeout"),
        *(b"first", [1], "a", b"b", "enough", True, 4000),
    )


def test_a_def_conversation_loses_nothing_over_timeouts(serve: Serve, sockets: WebSockets) -> None:
    outcome: Future[list[Any]] = Future()

    @sockets.route("/")
    def handler(ws: BlockingWebSocket) -> None:
        got: list[Any] = []
        while len(got) < 200:
            try:
                got.append(ws.receive(timeout=0.0005))
            except TimeoutError:
                continue
        outcome.set_result(got)

    with connect(serve(sockets)) as client:
        for number in range(200):
            client.send(str(number))
            if number % 20 == 0:
                time.sleep(0.002)
        assert outcome.result(5) == [str(number) for number in range(200)]


def test_a_def_conversation_takes_what_is_there_with_a_timeout_of_0(
    serve: Serve, sockets: WebSockets
) -> None:
    outcome: Future[list[Any]] = Future()

    @sockets.route("/")
    def handler(ws: BlockingWebSocket) -> None:
        for _ in range(50):
            got = [ws.receive(math.inf), ws.receive(0), ws.receive(timeout=-1), ws.receive(1e-9)]
            for timeout in (0, -1.5):
                with pytest.raises(TimeoutError, match=f"no message came within {timeout} s"):
                    ws.receive(timeout)
            ws.send_json(got)
        outcome.set_result(got)

    with serve(sockets).peer() as peer:
        peer.upgrade("/")
        for _ in range(50):
            peer.send(b"".join(frame(TEXT, text) for text in (b"a", b"b", b"c", b"d")))
            assert peer.read_frame().payload == b'["a","b","c","d"]'
        assert outcome.result(5) == ["a", "b", "c", "d"]


def test_a_def_conversation_with_a_timeout_of_0_sees_the_end(
    serve: Serve, sockets: WebSockets
) -> None:
    outcome: Future[Any] = Future()

    @sockets.route("/")
    def handler(ws: BlockingWebSocket) -> None:
        ws.send("ready")
        while not ws.closed:
            time.sleep(0.001)
        with pytest.raises(ConnectionClosed) as closed:
            ws.receive(timeout=0)
        outcome.set_result(closed.value.code)

    with connect(serve(sockets)) as client:
        client.recv(5)
        client.close(4001)
    assert outcome.result(5) == 4001


def test_a_def_conversation_sees_the_end_of_its_peer(serve: Serve, sockets: WebSockets) -> None:
    outcome: Future[Any] = Future()

    @sockets.route("/")
    def handler(ws: BlockingWebSocket) -> None:
        got: list[Any] = list(ws)
        try:
            ws.receive()
        except ConnectionClosed as closed:
            got.append((closed.code, closed.reason))
        outcome.set_result(got)

    with connect(serve(sockets)) as client:
        client.send("last words")
        client.close(4001, "bye")
    assert outcome.result(5) == ["last words", (4001, "bye")]


def test_a_def_conversation_can_wait_for_the_end(serve: Serve, sockets: WebSockets) -> None:
    outcome: Future[Any] = Future()

    @sockets.route("/")
    def handler(ws: BlockingWebSocket) -> None:
        try:
            ws.wait_closed(timeout=0.05)
        except TimeoutError:
            ws.send("not yet")
        ws.wait_closed()
        outcome.set_result((ws.closed, ws.close_code))

    with connect(serve(sockets)) as client:
        assert client.recv(5) == "not yet"
        for _ in range(50):
            client.send("ignored")
        assert client.ping().wait(5)
        assert not outcome.done()
        client.close(4001)
    assert outcome.result(5) == (True, 4001)


def test_a_def_conversation_that_has_taken_a_message_answers_a_close_at_once(
    serve: Serve, sockets: WebSockets
) -> None:
    @sockets.route("/")
    def handler(ws: BlockingWebSocket) -> None:
        ws.send(ws.receive())
        ws.wait_closed()

    with connect(serve(sockets)) as client:
        client.send("x")
        assert client.recv(5) == "x"
        time.sleep(0.05)  # let the handler come to wait_closed
        begun = time.monotonic()
        client.close()
        assert time.monotonic() - begun < 0.4


def test_a_def_conversation_that_raises_or_returns(
    serve: Serve, sockets: WebSockets, caplog: pytest.LogCaptureFixture
) -> None:
    @sockets.route("/raises")
    def raises(ws: BlockingWebSocket) -> None:
        raise LookupError(ws.id)

    @sockets.route("/returns")
    def returns(ws: BlockingWebSocket) -> None:
        ws.send("bye")

    served = serve(sockets)
    with connect(served, "/raises") as client:
        assert end_of(client) == (1011, "internal_error")
    assert "of route /raises failed for socket" in caplog.text
    assert "LookupError" in caplog.text
    with connect(served, "/returns") as client:
        assert client.recv(5) == "bye"
        assert end_of(client) == (1000, "")


def test_a_blocking_websocket_shows_what_it_wraps(serve: Serve, sockets: WebSockets) -> None:
    outcome: Future[Any] = Future()
    route = sockets.route("/")

    @route
    def handler(ws: BlockingWebSocket) -> None:
        ws.join("room")
        route.everyone.send("all but me", exclude=ws)
        outcome.set_result((repr(ws), ws.rooms, ws.route))

    with connect(serve(sockets)) as client:
        text, rooms, found = outcome.result(5)
        assert text.startswith("<BlockingWebSocket ")
        assert rooms == {"room"}
        assert found is route
        assert end_of(client) == (1000, "")


def test_full_conversations_are_503_with_the_remedy_and_a_warning_before(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(auth=Anonymous(), sync_conversations=5)

    @sockets.route("/")
    def handler(ws: BlockingWebSocket) -> None:
        for message in ws:
            ws.send(message)

    served = serve(sockets)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(served)) for _ in range(3)]
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
        clients += [stack.enter_context(connect(served)) for _ in range(2)]
        (warning,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert warning.getMessage().startswith("4 of 5 threads for def conversations are taken")
        answer = refused(served)
        assert answer.status_code == 503
        assert b'"sync_conversations_full"' in (answer.body or b"")
        assert "Retry-After" in answer.headers
        assert "all 5 threads" in caplog.records[-1].getMessage()
        assert "raise sync_conversations" in caplog.records[-1].getMessage()
        for number, client in enumerate(clients):  # those who are in are served
            client.send(str(number))
            assert client.recv(5) == str(number)
    until(lambda: sockets.everyone.count() == 0)
    with connect(served) as client:  # their places are free again
        client.send("again")
        assert client.recv(5) == "again"


# --- threads -------------------------------------------------------------------------------------


def test_idle_sockets_hold_no_thread(serve: Serve, sockets: WebSockets) -> None:
    route = sockets.route("/")
    route.on_message(lambda ws, message: None)
    before = ours()
    served = serve(sockets)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connect(served))
        names = sorted(each.name for each in ours() if each not in before)
        assert names == ["ws-sidecar", "ws-watchdog"]


def test_three_hundred_busy_sockets_take_the_pool_and_no_thread_more(serve: Serve) -> None:
    pool, clients, messages = 16, 300, 2
    sockets = WebSockets(auth=Anonymous(), sync_threads=pool)
    route = sockets.route("/<int:number>")
    answered: dict[int, list[str]] = defaultdict(list)

    @route.on_message
    def said(ws: WebSocket, message: str, number: int) -> None:
        time.sleep(0.02)
        ws.send(message)

    before = threading.active_count()
    served = serve(sockets)
    most = [0]

    async def talk(number: int) -> None:
        url = served.url(f"/{number}")
        async with websockets.connect(url, proxy=None, compression=None) as client:
            for message in range(messages):
                await client.send(str(message))
            for _ in range(messages):
                answered[number].append(str(await asyncio.wait_for(client.recv(), 20)))
                most[0] = max(most[0], threading.active_count())

    async def run() -> None:
        await asyncio.gather(*(talk(number) for number in range(clients)))

    asyncio.run(run())
    assert all(answered[number] == ["0", "1"] for number in range(clients))
    assert most[0] - before <= pool + 4


def test_one_flooding_socket_does_not_keep_the_pool_from_others(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous(), sync_threads=1)
    route = sockets.route("/")

    @route.on_message
    def said(ws: WebSocket, message: str) -> None:
        time.sleep(0.005)
        ws.send(message)

    served = serve(sockets)
    with connect(served) as flood, connect(served) as other:
        for number in range(200):
            flood.send(str(number))
        other.send("x")
        begun = time.monotonic()
        assert other.recv(5) == "x"
        assert time.monotonic() - begun < 0.6  # of the 1 s that the flood takes
        assert [flood.recv(5) for _ in range(200)] == [str(number) for number in range(200)]
