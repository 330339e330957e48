"""The test kit: what it says is what production does, it takes no time, and it cleans up."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import jwt
import psutil
import pytest
from flask import (
    Flask,
    Response,
    abort,
    current_app,
    g,
    has_request_context,
    request,
    session,
)
from websockets.exceptions import ConnectionClosed as ClientClosed
from websockets.sync.client import connect as dial

from ws_middleware import (
    Anonymous,
    ConnectionClosed,
    FlaskAuth,
    Heartbeat,
    JWTAuth,
    Limits,
    Refused,
    WebSockets,
)
from ws_middleware.codec import load_json
from ws_middleware.testing import Connector, connect, turns
from ws_middleware.testing import Refused as NotLetIn
from ws_middleware.testing import loop as testing_loop
from ws_middleware.testing.connecting import _stages, close_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Served

KEY = "k" * 32


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends as it began: no stage, no thread, no descriptor."""
    descriptors = psutil.Process().num_fds()
    threads = set(threading.enumerate())
    yield
    close_leftovers()
    assert not _stages
    for thread in set(threading.enumerate()) - threads:
        if thread.name == "ws-conversation":
            thread.join(1)
            assert not thread.is_alive()
    if "serve" not in request.fixturenames:
        assert psutil.Process().num_fds() == descriptors


@pytest.fixture
def ws_connect() -> Iterator[Connector]:
    """As the plugin has it, which need not be installed here."""
    with Connector() as connector:
        yield connector


def open_to_all(**settings: Any) -> WebSockets:
    return WebSockets(auth=Anonymous(), **settings)


def echoing(**settings: Any) -> WebSockets:
    sockets = open_to_all(**settings)

    @sockets.route("/ws/echo")
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    return sockets


def flask_app(sockets: WebSockets) -> Flask:
    app = Flask(__name__)
    app.secret_key = "a secret for tests"
    sockets.init_app(app)

    @app.get("/login/<name>")
    def login(name: str) -> str:
        session["user"] = name
        return "in"

    return app


def by_session(**settings: Any) -> WebSockets:
    return WebSockets(auth=FlaskAuth(lambda: session.get("user")), **settings)


# --- sending and receiving -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 1_000_000])
def test_messages_of_every_size_and_kind_come_back(size: int) -> None:
    with connect(echoing(), "/ws/echo") as ws:
        for message in ("x" * size, b"\x00" * size):
            ws.send(message)
            assert ws.receive() == message


def test_json() -> None:
    with connect(echoing(), "/ws/echo") as ws:
        ws.send_json({"a": [1, None, "ü"]})
        assert ws.receive_json() == {"a": [1, None, "ü"]}


def test_what_is_no_message_is_a_type_error() -> None:
    with connect(echoing(), "/ws/echo") as ws, pytest.raises(TypeError, match="send_json"):
        ws.send({"a": 1})  # type: ignore[arg-type]


def test_after_send_the_handler_has_run() -> None:
    sockets = open_to_all()
    seen: list[str | bytes] = []
    route = sockets.route("/ws")
    route.on_message(lambda ws, message: seen.append(message))
    with connect(sockets, "/ws") as ws:
        ws.send("a")
        assert seen == ["a"]
        ws.send(b"b")
        assert seen == ["a", b"b"]


def test_sync_events_run_in_the_tests_thread_and_no_thread_is_started() -> None:
    sockets = open_to_all()
    route = sockets.route("/ws")
    here = {threading.get_ident()}
    threads: set[int] = set()

    @route.on_open
    def came(ws: Any) -> None:
        threads.add(threading.get_ident())

    @route.on_message
    def said(ws: Any, message: str) -> None:
        threads.add(threading.get_ident())
        assert asyncio.run(asyncio.sleep(0, "x")) == "x"  # no loop is in the way
        ws.send(message)

    @route.on_close
    def went(ws: Any) -> None:
        threads.add(threading.get_ident())

    before = threading.active_count()
    with connect(sockets, "/ws") as ws:
        ws.send("x")
        assert ws.receive() == "x"
        assert threading.active_count() == before
    assert threads == here


def test_sync_authenticators_run_in_the_tests_thread_and_async_ones_on_its_loop() -> None:
    threads: set[int] = set()

    def sync(request: Any) -> str:
        threads.add(threading.get_ident())
        return "ann"

    async def later(request: Any) -> str:
        await asyncio.sleep(5)
        threads.add(threading.get_ident())
        return "bob"

    sockets = WebSockets(auth=sync)
    sockets.route("/sync").on_open(lambda ws: ws.send(ws.user.id))
    sockets.route("/async", auth=later).on_open(lambda ws: ws.send(ws.user.id))
    client = flask_app(sockets).test_client()
    for host in (sockets, client):
        for path, user in (("/sync", "ann"), ("/async", "bob")):
            with connect(host, path) as ws:
                assert ws.receive() == user
    assert threads == {threading.get_ident()}


def test_a_blocking_call_of_an_async_handler_runs_in_the_tests_thread() -> None:
    sockets = open_to_all()

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        await ws.send(str(await asyncio.to_thread(threading.get_ident)))

    with connect(sockets, "/ws") as ws:
        assert ws.receive() == str(threading.get_ident())


def test_what_a_view_sent_is_there_when_the_view_has_answered() -> None:
    sockets = by_session()
    push = sockets.route("/ws/push")
    app = flask_app(sockets)

    @app.post("/announce")
    def announce() -> tuple[str, int]:
        sent = push.everyone.send_json({"news": 1}).result(5)
        assert sent.local == 2
        return "", 204

    client, other = app.test_client(), app.test_client()
    client.get("/login/ann")
    other.get("/login/bob")
    with connect(client, "/ws/push") as ann, connect(other, "/ws/push") as bob:
        ann.receive_nothing()
        client.post("/announce")
        assert ann.receive_json() == bob.receive_json() == {"news": 1}
        push.user("bob").send("you")
        assert bob.receive() == "you"
        ann.receive_nothing(within=60)


def test_another_thread_may_send() -> None:
    sockets = open_to_all()
    push = sockets.route("/ws")
    with connect(sockets, "/ws") as ws:
        thread = threading.Thread(target=push.everyone.send, args=("from afar",))
        thread.start()
        thread.join()
        assert ws.receive() == "from afar"


# --- waiting takes no time -----------------------------------------------------------------------


def test_receive_waits_by_the_virtual_clock() -> None:
    sockets = open_to_all()

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        while True:
            await asyncio.sleep(0.75)
            await ws.send("late")

    begin = time.monotonic()
    with connect(sockets, "/ws") as ws:
        ws.receive_nothing()
        assert ws.receive() == "late"
        with pytest.raises(TimeoutError, match=r"within 0\.5 s"):
            ws.receive(timeout=0.5)
        assert ws.receive(timeout=0.25) == "late"
        for _ in range(4):
            assert ws.receive() == "late"
        ws.advance(3600)
    assert time.monotonic() - begin < 5


def test_receive_nothing_shows_what_came() -> None:
    with connect(echoing(), "/ws/echo") as ws:
        ws.send("surprise")
        with pytest.raises(AssertionError, match="surprise"):
            ws.receive_nothing()
        assert ws.receive() == "surprise"


def test_receive_nothing_of_a_socket_that_has_ended_is_no_success() -> None:
    sockets = open_to_all()
    sockets.route("/ws").on_open(lambda ws: ws.close(4000, "go"))
    with connect(sockets, "/ws") as ws, pytest.raises(AssertionError, match="4000 go"):
        ws.receive_nothing()


def test_receive_gives_what_came_before_the_end_and_then_the_end() -> None:
    sockets = open_to_all()

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        await ws.send("last words")
        await ws.close(4000, "go")

    with connect(sockets, "/ws") as ws:
        assert ws.closed
        assert ws.receive() == "last words"
        for call in (ws.receive, lambda: ws.send("x")):
            with pytest.raises(ConnectionClosed, match="4000 go"):
                call()


def test_wait_closed() -> None:
    sockets = open_to_all()

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        await asyncio.sleep(2)

    with connect(sockets, "/ws") as ws:
        with pytest.raises(TimeoutError, match="still open"):
            ws.wait_closed()
        assert ws.wait_closed() == 1000


def test_a_sync_handler_may_wait_for_what_it_asked_for() -> None:
    sockets = open_to_all()
    route = sockets.route("/ws")

    @route.on_message
    def said(ws: Any, message: str) -> None:
        assert ws.ping().result(5) == 0
        ws.send("x" * 500_000).result(5)
        if message == "go":
            ws.close(4000).result(5)

    with connect(sockets, "/ws") as ws:
        ws.send("hi")
        assert len(ws.receive()) == 500_000
        ws.send("go")
        assert ws.close_code == 4000


def test_a_view_may_wait_for_closes_that_are_spread() -> None:
    sockets = open_to_all()
    push = sockets.route("/ws")
    with connect(sockets, "/ws") as a, connect(sockets, "/ws") as b:
        assert push.everyone.close(1012, "restart", over=60).result().local == 2
        assert {a.close_code, b.close_code} == {1012}


def test_waiting_for_what_never_comes_is_an_error_at_once() -> None:
    sockets = open_to_all()
    route = sockets.route("/ws")

    @route.on_message
    def said(ws: Any, message: str) -> None:
        with pytest.raises(TimeoutError):
            ws.ping().result(timeout=1)

    with connect(sockets, "/ws", answer_pings=False) as ws:
        ws.send("x")
        ws.receive_nothing()


# --- the virtual clock ---------------------------------------------------------------------------


def test_heartbeats_come_to_the_second() -> None:
    with connect(echoing(), "/ws/echo") as ws:
        ws.advance(29.9)
        assert ws.pings == 0
        ws.advance(0.1)
        assert ws.pings == 1
        ws.advance(300)
        assert ws.pings == 11


def test_a_peer_that_answers_no_ping_is_closed_with_1011() -> None:
    sockets = echoing(heartbeat=Heartbeat(interval=10, timeout=5))
    with connect(sockets, "/ws/echo", answer_pings=False) as ws:
        ws.advance(14.75)
        assert not ws.closed
        ws.advance(0.25)
        assert (ws.close_code, ws.close_reason) == (1011, "no_pong")


def token(seconds: float) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + seconds}, KEY, algorithm="HS256")


def test_a_credential_expires(ws_connect: Connector) -> None:
    sockets = WebSockets(auth=JWTAuth(KEY, algorithms=["HS256"], sources=["header"]))
    sockets.route("/ws")
    app = flask_app(sockets)
    bearer = {"Authorization": f"Bearer {token(600)}"}
    for host in (sockets, app.test_client()):
        with ws_connect(host, "/ws", headers=bearer) as ws:
            ws.advance(100)
            assert not ws.closed
    ws_connect.advance(300)
    with ws_connect(sockets, "/ws", headers=bearer) as ws:
        ws.advance(98)
        assert not ws.closed
        assert ws.wait_closed(timeout=3) == 4401
        assert ws.close_reason == "credential_expired"
    ws_connect.advance(60)
    for host in (sockets, app.test_client()):
        with pytest.raises(NotLetIn) as refused:
            ws_connect(host, "/ws", headers=bearer)
        assert (refused.value.status, refused.value.code) == (401, "credential_expired")


def test_a_verdict_that_takes_too_long_is_a_503() -> None:
    async def slow(request: Any) -> str:
        await asyncio.sleep(3600)
        return "x"

    sockets = WebSockets(auth=slow)
    sockets.route("/ws")
    for host in (sockets, flask_app(sockets).test_client()):
        with pytest.raises(NotLetIn) as refused:
            connect(host, "/ws")
        assert (refused.value.status, refused.value.code) == (503, "upgrade_timeout")


def test_time_limits_of_asyncio_are_virtual_too() -> None:
    sockets = open_to_all()

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        with pytest.raises(TimeoutError):
            await ws.receive(timeout=1000)
        await ws.send("gave up")

    with connect(sockets, "/ws") as ws:
        ws.advance(999)
        ws.receive_nothing()
        assert ws.receive() == "gave up"


def test_everybody_lives_by_one_clock() -> None:
    sockets = echoing()
    with connect(sockets, "/ws/echo") as a, connect(echoing(), "/ws/echo") as b:
        a.advance(30)
        assert (a.pings, b.pings) == (1, 1)


# --- the same codes as production ----------------------------------------------------------------


def failing() -> WebSockets:
    sockets = open_to_all(limits=Limits(message_size=1000))
    route = sockets.route("/ws")

    @route.on_message
    def said(ws: Any, message: str | bytes) -> None:
        if message == "raise":
            raise LookupError
        if message == "close":
            ws.close(4321, "because")
        elif message == "json":
            load_json("{")

    @sockets.route("/ws/return")
    async def conversation(ws: Any) -> None:
        await ws.receive()

    return sockets


@pytest.mark.parametrize(
    ("path", "message", "code"),
    [
        ("/ws", "close", 4321),
        ("/ws", "raise", 1011),
        ("/ws", "json", 1007),
        ("/ws", "x" * 1001, 1009),
        ("/ws/return", b"", 1000),
    ],
)
def test_close_codes_and_reasons_are_those_of_a_real_server(
    path: str, message: str | bytes, code: int, serve: Callable[[WebSockets], Served]
) -> None:
    with connect(failing(), path, raise_errors=False) as ws:
        ws.send(message)
        ours = ws.wait_closed(), ws.close_reason
    served = serve(failing())
    with dial(served.url(path), compression=None) as client:
        client.send(message)
        with pytest.raises(ClientClosed) as raised:
            client.recv(timeout=5)
        frame = raised.value.rcvd
        assert frame is not None
        assert ours == (frame.code, frame.reason)
    assert ours[0] == code


@pytest.mark.parametrize(
    ("opcode", "payload", "code"),
    [
        (0x1, b"\xff", 1007),
        (0x3, b"", 1002),
        (0x9, b"x" * 126, 1002),
        (0x8, b"\x03\xe8bye", 1000),
        (0x8, b"", 1005),
        (0x8, b"\x03", 1002),
    ],
)
def test_frames_made_by_hand(opcode: int, payload: bytes, code: int) -> None:
    with connect(echoing(), "/ws/echo") as ws:
        ws.send_frame(opcode, payload)
        assert ws.wait_closed() == code


def test_the_server_learns_how_the_client_closed() -> None:
    sockets = open_to_all()
    ends: list[tuple[int, str]] = []
    sockets.route("/ws").on_close(lambda ws: ends.append((ws.close_code, ws.close_reason)))
    with connect(sockets, "/ws") as ws:
        ws.close(4001, "bye")
        assert (ws.close_code, ws.close_reason) == (4001, "")
        ws.close()
    with connect(sockets, "/ws"):
        pass
    with connect(sockets, "/ws") as ws:
        ws.drop()
        assert ws.close_code == 1006
    assert ends == [(4001, "bye"), (1000, ""), (1006, "")]


def test_a_handler_that_is_busy_when_the_client_closes() -> None:
    sockets = open_to_all()
    done: list[str] = []

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        await ws.receive()
        await asyncio.sleep(3)
        done.append("all the same")

    with connect(sockets, "/ws") as ws:
        ws.send("x")
    assert done == ["all the same"]


def test_a_handler_that_never_ends_is_cancelled() -> None:
    sockets = open_to_all()
    ends: list[str] = []

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    with connect(sockets, "/ws"):
        pass
    assert ends == ["cancelled"]


def test_the_caps_are_those_of_production() -> None:
    sockets = WebSockets(auth=lambda request: "ann", limits=Limits(connections_per_user=1))
    sockets.route("/ws")
    with connect(sockets, "/ws"), pytest.raises(NotLetIn) as refused:
        connect(sockets, "/ws")
    assert (refused.value.status, refused.value.code) == (429, "too_many_connections")
    with connect(sockets, "/ws"):
        pass


def test_all_is_given_back() -> None:
    sockets = open_to_all()
    route = sockets.route("/ws/<room>")
    with connect(sockets, "/ws/a") as ws, connect(sockets, "/ws/a"):
        engine = sockets._front.engine
        assert engine is not None
        assert engine.gate.counts == (0, 2, 0)
        assert route.room("a").count() == 2
        ws.close()
        assert route.room("a").count() == 1
    assert engine.gate.counts == (0, 0, 0)
    assert route.everyone.count() == 0
    assert sockets._front.engine is None
    assert sockets._hub._branches == ()


# --- refusals ------------------------------------------------------------------------------------


def test_a_refusal_has_status_code_detail_headers_and_body() -> None:
    sockets = by_session()
    sockets.route("/ws")
    with pytest.raises(NotLetIn) as refused:
        connect(sockets, "/ws", origin="https://evil.example")
    error = refused.value
    assert (error.status, error.code) == (403, "origin_not_allowed")
    assert error.detail == "this page may not connect"
    assert dict(error.headers)["Content-Type"] == "application/problem+json"
    assert b"origin_not_allowed" in error.body
    assert error.close_code is None
    assert str(error) == "403 origin_not_allowed this page may not connect"


def test_an_answer_of_the_apps_own() -> None:
    sockets = by_session()
    sockets.route("/ws")
    app = flask_app(sockets)

    @app.before_request
    def maintenance() -> Response | None:
        return Response("later", 503, {"X-Why": "maintenance"}) if "closed" in g else None

    with pytest.raises(NotLetIn) as refused:
        connect(app.test_client(), "/ws")
    assert (refused.value.status, refused.value.code) == (401, "")

    app.before_request_funcs[None].insert(0, lambda: setattr(g, "closed", True))
    with pytest.raises(NotLetIn) as refused:
        connect(app.test_client(), "/ws")
    assert (refused.value.status, refused.value.body) == (503, b"later")
    assert dict(refused.value.headers)["X-Why"] == "maintenance"


@pytest.mark.parametrize("through_app", [False, True])
def test_a_refusal_as_a_close(*, through_app: bool) -> None:
    def nobody(request: Any) -> str:
        raise Refused(403, "banned")

    sockets = WebSockets(auth=nobody, refuse_with="close")
    sockets.route("/ws")
    host: Any = flask_app(sockets).test_client() if through_app else sockets
    with pytest.raises(NotLetIn) as refused:
        connect(host, "/ws")
    assert (refused.value.status, refused.value.code) == (403, "banned")
    assert refused.value.close_code == 4403


def test_a_handler_that_closes_at_once_is_no_refusal() -> None:
    sockets = open_to_all()
    sockets.route("/ws").on_open(lambda ws: ws.close(4403, "not you"))
    with connect(sockets, "/ws") as ws:
        assert ws.close_code == 4403


def test_a_path_that_is_none() -> None:
    sockets = echoing()
    for host, code in ((sockets, "route_unknown"), (flask_app(sockets).test_client(), "")):
        with pytest.raises(NotLetIn) as refused:
            connect(host, "/nowhere")
        assert (refused.value.status, refused.value.code) == (404, code)


def test_an_authenticator_that_fails_is_a_500_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sockets = WebSockets(auth=lambda request: 1 / 0)  # type: ignore[arg-type, return-value]
    sockets.route("/ws")
    with pytest.raises(NotLetIn) as refused:
        connect(sockets, "/ws")
    assert (refused.value.status, refused.value.code) == (500, "authenticator_failed")
    assert "ZeroDivisionError" in caplog.text


# --- the request ---------------------------------------------------------------------------------


def test_the_clients_cookies_go_along_and_those_of_the_101_are_kept() -> None:
    sockets = by_session()
    route = sockets.route("/ws")
    route.on_open(lambda ws: ws.send(ws.user.id))
    app = flask_app(sockets)

    @app.after_request
    def count(response: Response) -> Response:
        if response.status_code == 101:
            response.set_cookie("visits", str(int(request.cookies.get("visits", 0)) + 1))
            response.delete_cookie("old")
        return response

    client = app.test_client()
    client.get("/login/ann")
    client.set_cookie("old", "x")
    for visits in ("1", "2"):
        with connect(client, "/ws") as ws:
            assert ws.receive() == "ann"
        cookie = client.get_cookie("visits")
        assert cookie is not None
        assert cookie.value == visits
    assert client.get_cookie("old") is None


def test_the_session_can_be_changed_on_the_upgrade() -> None:
    sockets = by_session()
    sockets.route("/ws")
    app = flask_app(sockets)

    @app.before_request
    def seen() -> None:
        if request.path == "/ws":
            session["seen"] = session.get("seen", 0) + 1

    client = app.test_client()
    client.get("/login/ann")
    with connect(client, "/ws"), connect(client, "/ws"):
        pass
    with client.session_transaction() as now:
        assert now["seen"] == 2


def test_base_url_headers_address_query_and_subprotocol() -> None:
    sockets = open_to_all(origins=["https://shop.example:8443"])
    route = sockets.route("/ws", subprotocols=["v2", "v1"])

    @route.on_open
    def came(ws: Any) -> None:
        asked = ws.request
        ws.send_json(
            [asked.host, asked.query["q"], asked.headers["x-y"], asked.client[0], asked.origin]
        )

    app = flask_app(sockets)
    for host in (sockets, app.test_client()):
        with connect(
            host,
            "/ws?q=1",
            base_url="https://shop.example:8443",
            headers=[("X-Y", "z")],
            address=("203.0.113.9", 1234),
            subprotocols=["v1", "v3"],
        ) as ws:
            origin = "https://shop.example:8443"
            said = ["shop.example:8443", "1", "z", "203.0.113.9", origin]
            assert ws.receive_json() == said
            assert ws.subprotocol == "v1"


def test_no_origin_and_a_header_of_ones_own() -> None:
    sockets = open_to_all()
    sockets.route("/ws").on_open(lambda ws: ws.send(str(ws.request.origin)))
    with connect(sockets, "/ws", origin=None) as ws:
        assert ws.receive() == "None"
    with pytest.raises(NotLetIn) as refused:
        connect(sockets, "/ws", headers={"Sec-WebSocket-Version": "8"})
    assert refused.value.status == 426


def test_a_view_that_owns_its_socket() -> None:
    sockets = WebSockets(auth=Anonymous())
    app = flask_app(sockets)

    async def handler(ws: Any) -> None:
        await ws.send(f"hello {ws.user.id}")

    @app.route("/ws/<name>", websocket=True)
    def view(name: str) -> Any:
        if name == "eve":
            abort(403)
        return sockets.upgrade(handler, user=name)

    client = app.test_client()
    with connect(client, "/ws/ann") as ws:
        assert ws.receive() == "hello ann"
        assert ws.wait_closed() == 1000
    with pytest.raises(NotLetIn) as refused:
        connect(client, "/ws/eve")
    assert refused.value.status == 403


def test_handlers_have_an_app_context_and_not_the_tests_request() -> None:
    sockets = open_to_all()

    @sockets.route("/ws").on_message
    def said(ws: Any, message: str) -> None:
        ws.send(f"{current_app.name} {has_request_context()}")

    app = flask_app(sockets)
    with app.test_client() as client:
        client.get("/login/ann")  # its context is kept until the next request
        with connect(sockets, "/ws") as ws:
            ws.send("x")
            assert ws.receive() == f"{__name__} False"


# --- handlers that fail --------------------------------------------------------------------------


def test_what_a_handler_raises_is_raised_in_the_test() -> None:
    with pytest.raises(LookupError), connect(failing(), "/ws") as ws:
        ws.send("raise")
    assert ws.close_code == 1011
    with pytest.raises(LookupError), connect(failing(), "/ws") as ws:  # noqa: PT012
        ws.send("raise")
        ws.receive()  # what the test trips over is not what went wrong


def test_unless_it_is_asked_not_to_be() -> None:
    with connect(failing(), "/ws", raise_errors=False) as ws:
        ws.send("raise")
        assert [type(error) for error in ws.errors] == [LookupError]


def test_an_exception_of_the_tests_own_is_not_replaced() -> None:
    with (  # noqa: PT012
        pytest.raises(KeyError) as raised,
        connect(failing(), "/ws") as ws,
    ):
        ws.send("raise")
        raise KeyError
    assert "LookupError" in "".join(raised.value.__notes__)


def test_the_end_has_the_error_as_its_cause() -> None:
    ws = connect(failing(), "/ws", raise_errors=False)
    ws.send("raise")
    with pytest.raises(ConnectionClosed) as raised:
        ws.receive()
    assert isinstance(raised.value.__cause__, LookupError)
    ws.close()


@pytest.mark.parametrize("kind", ["async", "def", "on_close", "assert"])
def test_whatever_kind_of_handler_it_is(kind: str) -> None:
    sockets = open_to_all()
    route = sockets.route("/ws")

    async def conversation(ws: Any) -> None:
        await ws.receive()
        raise LookupError

    def blocking(ws: Any) -> None:
        ws.receive()
        raise LookupError

    def went(ws: Any) -> None:
        raise LookupError

    def checks(ws: Any, message: str) -> None:
        pytest.fail("in a handler")

    error: type[BaseException] = LookupError
    if kind == "async":
        route(conversation)
    elif kind == "def":
        route(blocking)
    elif kind == "on_close":
        route.on_close(went)
    else:
        route.on_message(checks)
        error = pytest.fail.Exception
    with pytest.raises(error), connect(sockets, "/ws") as ws:
        ws.send("x")


def test_a_connector_raises_what_nobody_was_told() -> None:
    connector = Connector()
    connector(failing(), "/ws").send("raise")
    connector(failing(), "/ws").send("raise")
    with pytest.raises(BaseExceptionGroup) as raised:
        connector.close()
    assert len(raised.value.exceptions) == 2
    connector.close()


# --- def conversations ---------------------------------------------------------------------------


def talking() -> WebSockets:
    sockets = open_to_all()
    clients: list[Any] = []

    @sockets.route("/ws")
    def handler(ws: Any) -> None:
        clients.append(ws)
        while True:
            try:
                message = ws.receive(timeout=10)
            except TimeoutError:
                ws.send("are you there?")
                continue
            for client in clients:
                client.send(message).result()

    return sockets


def test_a_def_conversation_takes_turns_with_the_test() -> None:
    sockets = talking()
    with connect(sockets, "/ws") as a, connect(sockets, "/ws") as b:
        a.send("one")
        b.send("two")
        assert [a.receive(), a.receive()] == [b.receive(), b.receive()] == ["one", "two"]
        a.advance(9.5)
        a.receive_nothing()
        a.advance(0.5)
        assert a.receive() == b.receive() == "are you there?"
        b.send("x" * 200_000)
        assert len(a.receive()) == 200_000


def test_a_def_conversation_may_poll() -> None:
    sockets = open_to_all()

    @sockets.route("/ws")
    def handler(ws: Any) -> None:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                ws.receive(timeout=0)
        ws.send(ws.receive())

    with connect(sockets, "/ws") as ws:
        ws.advance(1)
        ws.send("x")
        assert ws.receive() == "x"


def test_there_are_no_more_conversations_than_places() -> None:
    sockets = open_to_all(sync_conversations=1)
    sockets.route("/ws")(lambda ws: ws.receive())
    with connect(sockets, "/ws"), pytest.raises(NotLetIn) as refused:
        connect(sockets, "/ws")
    assert (refused.value.status, refused.value.code) == (503, "sync_conversations_full")
    with connect(sockets, "/ws"):
        pass


def test_a_def_conversation_that_waits_for_something_else_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.1)
    gate = threading.Event()
    sockets = open_to_all()

    @sockets.route("/ws")
    def handler(ws: Any) -> None:
        gate.wait()

    with pytest.raises(RuntimeError, match=r"held the test for 0\.1 s[^$]*gate\.wait"):
        connect(sockets, "/ws")
    gate.set()


def test_an_async_handler_that_never_waits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing_loop, "PATIENCE", 0.1)
    sockets = open_to_all()
    is_over = False

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        while not is_over:  # noqa: ASYNC110 - the fault that is to be found
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="still busy after"):
        connect(sockets, "/ws")
    is_over = True


# --- around it -----------------------------------------------------------------------------------


def test_the_same_every_time() -> None:
    def transcript() -> list[Any]:
        sockets = talking()
        said: list[Any] = []
        with connect(sockets, "/ws") as a, connect(sockets, "/ws") as b:
            for number in range(20):
                (a if number % 3 else b).send(str(number))
                a.advance(7)
            for ws in (a, b):
                while True:
                    try:
                        said.append(ws.receive(0))
                    except TimeoutError:
                        break
        return said

    assert transcript() == transcript() != []


def test_closing_the_websockets_closes_with_1001_and_is_as_new_after() -> None:
    sockets = echoing()
    with connect(sockets, "/ws/echo") as ws:
        sockets.close(reason="bye").result(10)
        assert (ws.close_code, ws.close_reason) == (1001, "bye")
        with connect(sockets, "/ws/echo") as other:
            other.send("x")
            assert other.receive() == "x"
    with connect(sockets, "/ws/echo"):
        pass


def test_a_websockets_that_is_served_for_real_goes_on_being_served(
    serve: Callable[[WebSockets], Served],
) -> None:
    sockets = echoing()
    served = serve(sockets)
    with dial(served.url("/ws/echo"), compression=None) as client:
        with connect(sockets, "/ws/echo") as ws:
            assert sockets.everyone.send("both").result(5).local == 2
            assert ws.receive() == client.recv(timeout=5) == "both"
        client.send("still here")
        assert client.recv(timeout=5) == "still here"


def test_there_is_no_port_in_a_test() -> None:
    sockets = echoing()
    with connect(sockets, "/ws/echo"), pytest.raises(RuntimeError, match="there is no port"):
        sockets.listen("127.0.0.1", 0)


def test_a_test_client_alone_is_told_what_to_use(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ws_middleware")
    sockets = echoing()
    client = flask_app(sockets).test_client()
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "c2l4dGVlbiBpcyBlbm91Zw==",
        "Sec-WebSocket-Version": "13",
    }
    with connect(sockets, "/ws/echo"):
        assert client.get("/ws/echo", headers=headers).status_code == 501
    assert "ws_middleware.testing.connect" in caplog.text


def test_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="test_client"):
        connect(object(), "/ws")


def test_an_app_without_websockets_says_so() -> None:
    with pytest.raises(RuntimeError, match="init_app"):
        connect(Flask(__name__).test_client(), "/ws")


def test_a_test_that_is_a_coroutine_says_so() -> None:
    async def test() -> None:
        connect(echoing(), "/ws/echo")

    with pytest.raises(RuntimeError, match="plain def tests"):
        asyncio.run(test())


def test_another_thread_cannot_connect() -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            connect(echoing(), "/ws/echo")
        except RuntimeError as error:
            errors.append(error)

    with connect(echoing(), "/ws/echo"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "another thread" in str(errors[0])


# --- the pytest plugin ---------------------------------------------------------------------------

PLUGIN_TESTS = """
from ws_middleware import Anonymous, WebSockets
from ws_middleware.testing import connect
from ws_middleware.testing.connecting import _stages

sockets = WebSockets(auth=Anonymous())
push = sockets.route("/ws")
push.on_message(lambda ws, message: 1 / 0)

def test_fixture(ws_connect):
    ws = ws_connect(sockets, "/ws")
    ws_connect.advance(30)
    assert ws.pings == 1

def test_left_open():
    assert not _stages
    connect(sockets, "/ws")

def test_nothing_is_left():
    assert not _stages and push.everyone.count() == 0

def test_fails_in_teardown(ws_connect):
    ws_connect(sockets, "/ws").send("x")

def test_fails_in_teardown_too():
    connect(sockets, "/ws").send("x")
"""


def test_the_plugin_has_a_fixture_and_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(PLUGIN_TESTS)
    installed = any(each.name == "ws_middleware" for each in entry_points(group="pytest11"))
    options = [] if installed else ["-p", "ws_middleware.testing.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("ZeroDivisionError: division by zero") >= 2
