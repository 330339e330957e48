"""Our core as uvicorn's WebSocket protocol: a drop-in, with what uvicorn's own classes lack."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect, unix_connect

from tests.support import CLOSE, PING, RawPeer, frame, head
from ws_middleware import Anonymous, Heartbeat, WebSockets
from ws_middleware import ConnectionClosed as OursClosed
from ws_middleware.uvicorn import WebSocketProtocol, policy_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    App = Callable[[dict[str, Any], Any, Any], Awaitable[object]]

CONTROL = "ws_middleware.control"


class Running:
    """A uvicorn in a thread of this process, with one app that does what a test says."""

    def __init__(self, app: App, **settings: Any) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._app = app
        ours: Any = WebSocketProtocol  # uvicorn's types know its own only
        fixed: dict[str, Any] = {"port": 0, "log_config": None, "lifespan": "off"}
        config = uvicorn.Config(self._record, ws=ours, interface="asgi3", **fixed, **settings)
        self.server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self.server.run)

    async def _record(self, scope: dict[str, Any], receive: Any, send: Any) -> object:
        self.scopes.append(scope)

        async def recorded() -> dict[str, Any]:
            event: dict[str, Any] = await receive()
            self.events.append(event)
            return event

        return await self._app(scope, recorded, send)

    def start(self) -> None:
        self._thread.start()
        wait_for(lambda: self.server.started)

    @property
    def port(self) -> int:
        port: int = self.server.servers[0].sockets[0].getsockname()[1]
        return port

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        client: ClientConnection = connect(f"ws://127.0.0.1:{self.port}{path}", **options)
        return client

    def stop(self) -> float:
        start = time.monotonic()
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        return time.monotonic() - start


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(app: App, **settings: Any) -> Running:
        running.append(Running(app, **settings))
        running[-1].start()
        return running[-1]

    yield begin
    for each in running:
        if each.server.started:
            each.stop()


class SlowPeer(RawPeer):
    """One that has little room, and reads nothing."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(10)
        self.socket.connect(address)
        self._buffer = b""


async def accept(receive: Any, send: Any, **more: Any) -> None:
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept", **more})


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await accept(receive, send)
    while (event := await receive())["type"] != "websocket.disconnect":
        kind = "text" if "text" in event else "bytes"
        await send({"type": "websocket.send", kind: event[kind]})


# --- a drop-in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("http", ["h11", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_messages_come_and_go(start: Callable[..., Running], http: str, loop: str) -> None:
    server = start(echo, http=http, loop=loop)
    with server.connect(compression=None) as client:
        for message in ("hé", "", b"\x00\xff", b"", "x" * 2**20, b"y" * 2**20):
            client.send(message)
            assert client.recv(10) == message
    wait_for(lambda: server.events[-1]["type"] == "websocket.disconnect")
    assert server.events[-1] == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
    wait_for(lambda: not server.server.server_state.connections)
    assert not server.server.server_state.tasks


def test_the_scope_is_what_the_standard_says(start: Callable[..., Running]) -> None:
    server = start(echo, root_path="/api")
    with server.connect("/a%20b/%C3%A9?x=1&x=2", subprotocols=["chat", "other"]) as client:
        address = client.local_address
        assert client.subprotocol is None
    scope = server.scopes[0]
    assert scope["type"] == "websocket"
    assert scope["path"] == "/api/a b/é"
    assert scope["raw_path"] == b"/api/a%20b/%C3%A9"
    assert scope["query_string"] == b"x=1&x=2"
    assert (scope["root_path"], scope["scheme"], scope["http_version"]) == ("/api", "ws", "1.1")
    assert tuple(scope["client"]) == address[:2]
    assert tuple(scope["server"]) == ("127.0.0.1", server.port)
    assert scope["subprotocols"] == ["chat", "other"]
    assert scope["state"] == {}
    assert set(scope["extensions"]) == {"websocket.http.response", CONTROL}
    assert dict(scope["headers"])[b"upgrade"] == b"websocket"
    assert set(scope["asgi"]) == {"version", "spec_version"}


def test_what_the_app_says_at_the_accept(start: Callable[..., Running]) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = [(b"x-ours", b"1"), (b"set-cookie", b"a=b")]
        await accept(receive, send, subprotocol="chat", headers=headers)
        await receive()

    server = start(app, headers=[("X-Default", "2")], server_header=True)
    with server.connect(subprotocols=["chat"]) as client:
        assert client.subprotocol == "chat"
        assert client.response is not None
        headers = client.response.headers
    assert (headers["x-ours"], headers["set-cookie"], headers["x-default"]) == ("1", "a=b", "2")
    assert headers["server"] == "uvicorn"
    assert "date" in headers


def denies(status: int, *chunks: bytes) -> App:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        kind = "websocket.http.response"
        await send({"type": f"{kind}.start", "status": status, "headers": [(b"x-why", b"tea")]})
        for chunk in chunks:
            await send({"type": f"{kind}.body", "body": chunk, "more_body": chunk != chunks[-1]})
        assert (await receive())["type"] == "websocket.disconnect"

    return app


async def closes(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.close", "code": 4001})


async def raises(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()
    raise ZeroDivisionError


async def says_nothing(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await receive()


@pytest.mark.parametrize(
    ("app", "status", "body"),
    [
        pytest.param(denies(418, b"tea", b"pot"), 418, b"teapot", id="an answer of its own"),
        pytest.param(closes, 403, b"", id="a close"),
        pytest.param(raises, 500, b"Internal Server Error", id="an exception"),
        pytest.param(says_nothing, 500, b"Internal Server Error", id="nothing"),
    ],
)
def test_a_refusal_of_the_app(
    start: Callable[..., Running],
    caplog: pytest.LogCaptureFixture,
    app: App,
    status: int,
    body: bytes,
) -> None:
    server = start(app)
    with pytest.raises(InvalidStatus) as caught:
        server.connect().__enter__()
    response = caught.value.response
    assert (response.status_code, bytes(response.body or b"")) == (status, body)
    assert response.headers["Connection"] == "close"
    if status == 418:
        assert response.headers["x-why"] == "tea"
    wait_for(lambda: not server.server.server_state.tasks)
    errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert bool(errors) == (status == 500)


def test_one_line_of_the_log_for_each(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    server = start(echo)
    with server.connect("/a%20b?x=1"):
        pass
    lines = [each.message for each in caplog.records if "WebSocket" in each.msg]
    assert [each.partition(" - ")[2] for each in lines] == ['"WebSocket /a%20b?x=1" [accepted]']


def test_what_is_no_upgrade_is_refused_before_the_app(start: Callable[..., Running]) -> None:
    server = start(echo)
    with RawPeer(("127.0.0.1", server.port)) as peer:
        peer.send(head("/", sec_websocket_key="short"))
        assert peer.read_head().startswith(b"HTTP/1.1 400 ")
    assert server.scopes == []


def assert_closed(client: ClientConnection) -> None:
    """Read to the end."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(10)


# --- how it ends ---------------------------------------------------------------------------------


async def returns(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await accept(receive, send)
    await send({"type": "websocket.send", "text": "bye"})


async def fails(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await accept(receive, send)
    raise ZeroDivisionError


def closes_with(code: int, reason: str | None) -> App:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await accept(receive, send)
        await send({"type": "websocket.close", "code": code, "reason": reason})

    return app


@pytest.mark.parametrize(
    ("app", "code", "reason"),
    [
        pytest.param(returns, 1000, "", id="it returns"),
        pytest.param(fails, 1011, "internal_error", id="it raises"),
        pytest.param(closes_with(4001, "mine"), 4001, "mine", id="it closes"),
        pytest.param(closes_with(1005, None), 1000, "", id="with a code that cannot be sent"),
        pytest.param(closes_with(1000, "é" * 100), 1000, "é" * 61, id="with a long reason"),
    ],
)
def test_the_peer_is_told_how_it_ends(
    start: Callable[..., Running], app: App, code: int, reason: str
) -> None:
    server = start(app)
    with server.connect() as client:
        assert_closed(client)
        assert (client.close_code, client.close_reason) == (code, reason)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(b"x" * 1001, 1009, id="too big"),
        pytest.param("x" * 1001, 1009, id="too big a text"),
    ],
)
def test_bounds_hold_for_the_peer_and_the_app(
    start: Callable[..., Running], message: str | bytes, code: int
) -> None:
    server = start(echo, ws_max_size=1000)
    with server.connect(compression=None) as client:
        client.send(message[:1000])
        client.recv(5)
        client.send(message)
        with pytest.raises(ConnectionClosed):
            client.recv(5)
        assert client.close_code == code
    wait_for(lambda: server.events[-1]["type"] == "websocket.disconnect")
    assert server.events[-1]["code"] == code


def test_a_disconnect_is_said_as_often_as_it_is_asked_for(start: Callable[..., Running]) -> None:
    ends: list[dict[str, Any]] = []
    refused: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await accept(receive, send)
        ends.extend([await receive() for _ in range(3)])
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            refused.append(error)
            raise

    server = start(app)
    with server.connect() as client:
        client.close(4321, "gone")
    wait_for(lambda: refused)
    assert ends == [{"type": "websocket.disconnect", "code": 4321, "reason": "gone"}] * 3


@pytest.mark.parametrize("state", ["idle", "stuck", "undecided", "asleep", "busy"])
def test_a_server_that_ends_closes_with_1012_in_time(
    start: Callable[..., Running], state: str
) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if state == "undecided":
            await receive()
            await receive()
            return
        if state == "asleep":  # and it does not notice that anything ends
            await receive()
            await asyncio.sleep(60)
        await accept(receive, send)
        if state == "stuck":
            with contextlib.suppress(OSError):
                while True:
                    await send({"type": "websocket.send", "bytes": b"x" * 2**16})
        while (await receive())["type"] != "websocket.disconnect":
            if state == "busy":
                await asyncio.sleep(0.5)

    server = start(app)
    if state in {"idle", "busy"}:
        with server.connect() as client:
            client.send("x")
            wait_for(lambda: state == "idle" or len(server.events) > 1)
            thread = threading.Thread(target=server.stop)
            thread.start()
            with pytest.raises(ConnectionClosed):
                client.recv(10)
            assert (client.close_code, client.close_reason) == (1012, "restart")
            thread.join()
        return
    peer = SlowPeer(("127.0.0.1", server.port))
    with peer:
        peer.send(head("/"))
        wait_for(lambda: server.events)
        took = server.stop()
    # A peer that takes nothing has 5 s to answer the close.
    assert took < 15


# --- what uvicorn's own lack ---------------------------------------------------------------------


def test_a_peer_that_does_not_answer_is_gone(start: Callable[..., Running]) -> None:
    server = start(echo, ws_ping_interval=0.3, ws_ping_timeout=0.3)
    with RawPeer(("127.0.0.1", server.port)) as peer:
        peer.send(head("/"))
        wait_for(lambda: server.events and server.events[-1]["type"] == "websocket.disconnect")
    assert server.events[-1]["code"] == 1011


def test_a_slow_app_does_not_cost_a_peer_that_lives(start: Callable[..., Running]) -> None:
    async def slow(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await accept(receive, send)
        await asyncio.sleep(2)  # several times interval and timeout
        for _ in range(40):
            event = await receive()
            await send({"type": "websocket.send", "text": event["text"]})
        await receive()

    server = start(slow, ws_ping_interval=0.3, ws_ping_timeout=0.3)
    with server.connect() as client:
        for number in range(40):
            client.send(str(number))
        assert [client.recv(10) for _ in range(40)] == [str(number) for number in range(40)]


def test_a_send_to_a_peer_that_takes_nothing_ends(start: Callable[..., Running]) -> None:
    ended: list[BaseException] = []

    async def flood(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await accept(receive, send)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 2**16})
        except OSError as error:
            ended.append(error)
            raise

    server = start(flood, ws_ping_interval=0.5, ws_ping_timeout=0.5)
    with SlowPeer(("127.0.0.1", server.port)) as peer:
        peer.send(head("/"))
        wait_for(lambda: ended)
        wait_for(lambda: not server.server.server_state.connections)
        assert not server.server.server_state.tasks


def test_an_app_that_does_not_send_fast_is_not_flooded(start: Callable[..., Running]) -> None:
    """What an app does not take stays with its peer."""
    go_on = threading.Event()

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await accept(receive, send)
        await asyncio.to_thread(go_on.wait, 10)
        for _ in range(400):
            await receive()
        await send({"type": "websocket.send", "text": "all"})
        await receive()

    server = start(app)
    control: Any = None
    with server.connect(compression=None) as client:

        def send_all() -> None:
            for _ in range(400):
                client.send(b"x" * 2**16)

        sender = threading.Thread(target=send_all)
        sender.start()
        wait_for(lambda: server.scopes)
        control = server.scopes[0]["extensions"][CONTROL]
        wait_for(control.reading_paused)
        assert sender.is_alive()
        go_on.set()
        assert client.recv(10) == "all"
        sender.join()


def test_the_control_in_the_scope(start: Callable[..., Running]) -> None:
    told: dict[str, Any] = {}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        control = scope["extensions"][CONTROL]
        await accept(receive, send)
        told["latency"] = await control.ping()
        told["buffered"], told["paused"] = control.buffered(), control.reading_paused()
        control.abort()
        told["end"] = await receive()
        told["late"] = (await asyncio.gather(control.ping(), return_exceptions=True))[0]

    server = start(app)
    with server.connect() as client:
        with pytest.raises(ConnectionClosed):
            client.recv(5)
        assert client.close_code == 1006
    wait_for(lambda: "late" in told)
    assert isinstance(told["late"], OursClosed)
    assert 0 < told["latency"] < 5
    assert (told["buffered"], told["paused"], told["end"]["code"]) == (0, False, 1006)


def test_fragments_are_bounded(start: Callable[..., Running]) -> None:
    server = start(echo, ws_max_size=100_000)
    with RawPeer(("127.0.0.1", server.port)) as peer:
        peer.send(head("/"))
        peer.read_head()
        peer.send(frame(0x1, b"x", fin=False) + frame(0x0, b"y", fin=False) * 2000)
        assert peer.read_frame().payload[:2] == (1009).to_bytes(2, "big")


def test_an_app_may_receive_before_it_accepts(start: Callable[..., Running]) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        early = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "websocket.accept"})
        event = await early
        await send({"type": "websocket.send", "text": event["text"]})
        await receive()

    server = start(app)
    with server.connect() as client:
        client.send("x")
        assert client.recv(5) == "x"


# --- under our door ------------------------------------------------------------------------------


def behind_the_door(inner: App, **policy: Any) -> App:
    """Return an app whose WebSockets are guarded, with routes beside them."""
    sockets = WebSockets(auth=Anonymous(), **policy)
    sockets.route("/found", heartbeat=Heartbeat(interval=0.3, timeout=0.3))
    sockets.guard("/guarded", heartbeat=Heartbeat(interval=0.3, timeout=0.3))
    sockets.route("/off", heartbeat=None)
    sockets.route("/unsaid")
    return sockets.asgi(inner)


def silent(server: Running, path: str) -> RawPeer:
    """Connect a peer that answers no ping."""
    peer = RawPeer(("127.0.0.1", server.port))
    assert peer.upgrade(path, host=f"127.0.0.1:{server.port}").split()[1] == b"101"
    return peer


NO_PONG = b"\x03\xf3no_pong"


@pytest.mark.parametrize("path", ["/found", "/guarded"])
def test_a_heartbeat_that_is_given_holds_and_not_uvicorns(
    start: Callable[..., Running], path: str
) -> None:
    server = start(behind_the_door(echo), ws_ping_interval=600, ws_ping_timeout=600)
    with silent(server, path) as peer:
        assert peer.read_frame().opcode == PING
        frames = [peer.read_frame()]
        while frames[-1].opcode == PING:
            frames.append(peer.read_frame())
        assert (frames[-1].opcode, frames[-1].payload) == (CLOSE, NO_PONG)


def test_where_none_is_given_uvicorns_holds_and_a_none_switches_it_off(
    start: Callable[..., Running],
) -> None:
    server = start(behind_the_door(echo), ws_ping_interval=0.3, ws_ping_timeout=0.3)
    with silent(server, "/off") as off, silent(server, "/unsaid") as unsaid:
        assert unsaid.read_rest().endswith(NO_PONG)
        off.send(frame(CLOSE, b"\x03\xe8"))
        assert off.read_frame().opcode == CLOSE, "it was pinged"


def test_a_heartbeat_may_be_set_when_the_socket_is_open(start: Callable[..., Running]) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await accept(receive, send)
        scope["extensions"][CONTROL].set_heartbeat(Heartbeat(interval=0.3, timeout=0.3))
        await receive()

    server = start(app, ws_ping_interval=None)
    with silent(server, "/") as peer:
        assert peer.read_rest().endswith(NO_PONG)


# --- uvicorn's settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "heartbeat"),
    [
        pytest.param({}, (20.0, 20.0), id="uvicorn's defaults"),
        pytest.param({"ws_ping_interval": 5, "ws_ping_timeout": 7}, (5, 7), id="given"),
        pytest.param({"ws_ping_interval": 5, "ws_ping_timeout": None}, (5, 5), id="no timeout"),
        pytest.param({"ws_ping_interval": None}, None, id="none"),
        pytest.param({"ws_ping_interval": 0, "ws_ping_timeout": 0}, None, id="0 is none"),
    ],
)
def test_pings_are_as_uvicorn_has_them(
    settings: dict[str, Any], heartbeat: tuple[float, float] | None
) -> None:
    policy = policy_of(uvicorn.Config("app:app", **settings))
    found = policy.heartbeat and (policy.heartbeat.interval, policy.heartbeat.timeout)
    assert found == heartbeat
    assert policy.limits.message_size == 16 * 2**20


def test_the_worker_for_gunicorn() -> None:
    from ws_middleware import uvicorn as ours  # noqa: PLC0415

    worker = ours.UvicornWorker
    assert worker.CONFIG_KWARGS["ws"] is WebSocketProtocol
    with pytest.raises(AttributeError, match="has no attribute 'Worker'"):
        _ = ours.Worker


def test_a_port_that_is_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    server = Running(echo)
    server.server.config.uds = path
    server.start()
    with unix_connect(path, "ws://localhost/") as client:
        client.send("x")
        assert client.recv(5) == "x"
    assert server.scopes[0]["client"] is None
    server.stop()
