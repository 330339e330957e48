"""The test kit with Starlette's and FastAPI's test client: the app is asked as a server asks it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
import jwt
import pytest
from fastapi import Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from flask import Flask, session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

from ws_middleware import (
    Anonymous,
    ConnectionClosed,
    FlaskAuth,
    Granted,
    JWTAuth,
    Limits,
    Principal,
    Refused,
    ScopeAuth,
    WebSocketMiddleware,
    WebSockets,
)
from ws_middleware.starlette import principal
from ws_middleware.testing import Connector, connect, stage
from ws_middleware.testing import Refused as NotLetIn
from ws_middleware.testing import loop as testing_loop
from ws_middleware.testing.connecting import _stages, close_leftovers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request
    from starlette.websockets import WebSocket as StarletteWebSocket


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Every test ends as it began."""
    threads = set(threading.enumerate())
    yield
    close_leftovers()
    assert not _stages
    for thread in set(threading.enumerate()) - threads:
        thread.join(2)
        assert not thread.is_alive()


def by_session(**settings: Any) -> WebSockets:
    return WebSockets(auth=ScopeAuth(lambda scope: scope["session"].get("user")), **settings)


def chatting(sockets: WebSockets) -> WebSockets:
    chat = sockets.route("/ws/chat/{room}", subprotocols=["chat.v1"])

    @chat.on_message
    def said(ws: Any, message: Any, room: str) -> None:
        chat.room(room).send_json({"from": ws.user.id, "text": message})

    return sockets


def echoing(**settings: Any) -> WebSockets:
    sockets = WebSockets(**{"auth": Anonymous(), **settings})

    @sockets.route("/ws/echo")
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    return sockets


def starlette_app(sockets: WebSockets, *routes: Any, **options: Any) -> Starlette:
    async def log_in(request: Request) -> Response:
        request.session["user"] = request.path_params["name"]
        return Response()

    async def announce(_: Request) -> Response:
        sent = await sockets.everyone.send_json({"news": "sale"})
        return JSONResponse(sent.local)

    def announce_in_a_thread(_: Request) -> Response:
        return JSONResponse(sockets.everyone.send("a thread").result(5).local)

    return Starlette(
        routes=[
            Route("/login/{name}", log_in, methods=["POST"]),
            Route("/announce", announce, methods=["POST"]),
            Route("/announce-in-a-thread", announce_in_a_thread, methods=["POST"]),
            *routes,
        ],
        middleware=[
            Middleware(SessionMiddleware, secret_key="a secret for tests"),
            Middleware(WebSocketMiddleware, sockets=sockets),
        ],
        **options,
    )


def fastapi_app(sockets: WebSockets) -> FastAPI:
    app = FastAPI()
    app.add_middleware(WebSocketMiddleware, sockets=sockets)
    return app


def client_of(app: Any, **options: Any) -> TestClient:
    return TestClient(app, **options)


# --- sending and receiving -----------------------------------------------------------------------


@pytest.mark.parametrize("has_lifespan", [False, True])
def test_chat_with_the_clients_cookies(*, has_lifespan: bool) -> None:
    sockets = chatting(by_session())
    client = client_of(starlette_app(sockets))
    with client if has_lifespan else contextlib.nullcontext():
        client.post("/login/ann")
        with connect(client, "/ws/chat/1") as ws:
            ws.send("hello")
            assert ws.receive_json() == {"from": "ann", "text": "hello"}
        assert ws.close_code == 1000


@pytest.mark.parametrize("size", [0, 1, 126, 65_536, 1024 * 1024])
def test_messages_of_every_size_and_kind_come_back(size: int) -> None:
    with connect(client_of(echoing().asgi(Starlette())), "/ws/echo") as ws:
        for message in ("x" * size, b"\x00" * size):
            ws.send(message)
            assert ws.receive() == message


def test_a_message_that_is_too_big_is_1009() -> None:
    with connect(client_of(echoing().asgi(Starlette())), "/ws/echo") as ws:
        ws.send(b"x" * (1024 * 1024 + 1))
        assert (ws.close_code, ws.close_reason) == (1009, "message_too_big")


@pytest.mark.parametrize("has_lifespan", [False, True])
def test_what_a_view_sends_is_there_when_it_has_answered(*, has_lifespan: bool) -> None:
    client = client_of(starlette_app(chatting(by_session())))
    with client if has_lifespan else contextlib.nullcontext():
        client.post("/login/ann")
        with connect(client, "/ws/chat/1") as one, connect(client, "/ws/chat/2") as two:
            assert client.post("/announce").json() == 2
            assert client.post("/announce-in-a-thread").json() == 2
            assert [one.receive(), one.receive()] == ['{"news":"sale"}', "a thread"]
            assert [two.receive(), two.receive()] == ['{"news":"sale"}', "a thread"]
            one.receive_nothing()
        assert client.post("/announce").json() == 0


def test_many_views_in_their_own_order() -> None:
    sockets = echoing()

    async def number(request: Request) -> Response:
        sockets.everyone.send(request.path_params["number"])
        return Response()

    app = sockets.asgi(Starlette(routes=[Route("/{number}", number)]))
    with client_of(app) as client, connect(client, "/ws/echo") as ws:
        for each in range(50):
            client.get(f"/{each}")
        assert [ws.receive() for _ in range(50)] == [str(each) for each in range(50)]


@pytest.mark.parametrize("path", ["/kick", "/kick-in-a-thread"])
def test_a_view_may_wait_for_a_socket_to_be_closed(path: str) -> None:
    sockets = WebSockets(auth=Anonymous())
    closed: list[int] = []
    sockets.route("/ws").on_close(lambda ws: closed.append(ws.close_code))

    async def kick(_: Request) -> Response:
        for ws in list(sockets.everyone.local()):
            await ws.close(4403, "kicked")
        return Response()

    def kick_in_a_thread(_: Request) -> Response:
        for ws in list(sockets.everyone.local()):
            ws.close(4403, "kicked").result(10)
        return Response()

    routes = [Route("/kick", kick), Route("/kick-in-a-thread", kick_in_a_thread)]
    client = client_of(sockets.asgi(Starlette(routes=routes)))
    with client, connect(client, "/ws") as ws:
        client.get(path)
        assert (ws.wait_closed(), ws.close_reason) == (4403, "kicked")
        assert closed == [4403]


def test_what_fails_while_the_test_waits_elsewhere_is_raised_at_the_end() -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/ws").on_close
    def gone(ws: Any) -> None:
        raise ZeroDivisionError

    async def kick(_: Request) -> Response:
        for ws in list(sockets.everyone.local()):
            await ws.close()
        return Response()

    client = client_of(sockets.asgi(Starlette(routes=[Route("/kick", kick)])))
    with pytest.raises(ZeroDivisionError), client, connect(client, "/ws"):
        client.get("/kick")


@pytest.mark.parametrize(
    "backend",
    [
        {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
        {"backend": "trio"},
    ],
    ids=["uvloop", "trio"],
)
def test_the_clients_own_loop_may_be_any(backend: dict[str, Any]) -> None:
    sockets = echoing()

    async def announce(_: Request) -> Response:
        sockets.everyone.send("news")
        return Response()

    client = client_of(Starlette(routes=[Route("/announce", announce)]), **backend)
    with connect(client_of(sockets.asgi(Starlette())), "/ws/echo") as ws:
        client.get("/announce")
        assert ws.receive() == "news"


@pytest.mark.parametrize("stays", [False, True])
def test_a_lifespan_may_close_the_sockets(*, stays: bool) -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        await ws.wait_closed()
        await asyncio.sleep(3600 if stays else 0)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await sockets.close(reason="bye")

    with client_of(sockets.asgi(Starlette(lifespan=lifespan))) as client:
        ws = connect(client, "/ws")
    assert (ws.close_code, ws.close_reason) == (1001, "bye")


def test_a_handler_may_wait_for_what_it_has_sent_to_all_loops() -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/ws")
    async def count(ws: Any) -> None:
        async for _ in ws:
            sent = await sockets.everyone.send("to all")
            await ws.send(str(sent.local))

    app = sockets.asgi(Starlette())
    origin = {"origin": "http://testserver"}
    with (
        client_of(app) as client,
        client.websocket_connect("/ws", headers=origin) as theirs,
        connect(client, "/ws") as ours,
    ):
        for _ in range(20):
            ours.send("go")
            assert [ours.receive(), ours.receive()] == ["to all", "2"]
            assert theirs.receive_text() == "to all"


def test_a_loop_that_is_blocked_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "PATIENCE", 0.2)
    sockets = echoing()
    is_blocked, goes_on = threading.Event(), threading.Event()

    async def block(_: Request) -> Response:
        is_blocked.set()
        goes_on.wait(20)
        return Response()

    with client_of(sockets.asgi(Starlette(routes=[Route("/block", block)]))) as client:
        thread = threading.Thread(target=client.get, args=("/block",))
        thread.start()
        assert is_blocked.wait(5)
        began = time.monotonic()
        with connect(client, "/ws/echo") as ws:
            for _ in range(50):
                ws.send("x")
                assert ws.receive() == "x"
        assert 0.2 <= time.monotonic() - began < 5
        goes_on.set()
        thread.join()


# --- the request ---------------------------------------------------------------------------------


def asked(**options: Any) -> tuple[dict[str, Any], Any]:
    """The scope that an app is called with, and the socket."""
    scopes: list[dict[str, Any]] = []

    async def tell(websocket: StarletteWebSocket) -> None:
        scopes.append(dict(websocket.scope))
        await websocket.accept()
        await websocket.receive()

    app = WebSockets(auth=lambda _: "ann").asgi(Starlette(routes=[WebSocketRoute("/ws", tell)]))
    client = client_of(app, **options.pop("client", {}))
    with connect(client, options.pop("path", "/ws"), **options) as ws:
        pass
    return scopes[0], ws


def test_the_scope_is_a_good_servers() -> None:
    scope, ws = asked(path="/ws?a=%20b", subprotocols=["x", "y"])
    headers = dict(scope["headers"])
    assert (scope["type"], scope["http_version"], scope["scheme"]) == ("websocket", "1.1", "ws")
    assert scope["asgi"]["version"] == "3.0"
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/ws", b"/ws", b"a=%20b")
    assert (scope["client"], scope["server"]) == (("testclient", 50_000), ("testserver", 80))
    assert scope["subprotocols"] == ["x", "y"]
    assert scope["extensions"]["websocket.http.response"] == {}
    assert scope["extensions"]["ws_middleware.control"] is ws.control
    assert headers[b"host"] == b"testserver"
    assert headers[b"origin"] == b"http://testserver"
    assert headers[b"connection"] == b"Upgrade"
    assert headers[b"user-agent"] == b"testclient"


def test_base_url_address_headers_and_login_are_the_clients_and_those_of_connect() -> None:
    ours = {"base_url": "https://shop.example:8443", "headers": {"X-From": "client"}}
    scope, _ = asked(client={**ours, "client": ("203.0.113.9", 1234)}, headers={"X-Also": "1"})
    headers = dict(scope["headers"])
    assert (scope["scheme"], scope["server"]) == ("wss", ("shop.example", 8443))
    assert headers[b"host"] == b"shop.example:8443"
    assert headers[b"origin"] == b"https://shop.example:8443"
    assert (headers[b"x-from"], headers[b"x-also"]) == (b"client", b"1")
    assert scope["client"] == ("203.0.113.9", 1234)
    scope, _ = asked(client=ours, base_url="https://other.example", address=("198.51.100.7", 1))
    assert dict(scope["headers"])[b"host"] == b"other.example"
    assert (scope["server"], scope["client"]) == (("other.example", 443), ("198.51.100.7", 1))


def test_the_clients_own_login_goes_along() -> None:
    sockets = WebSockets(auth=lambda request: request.headers.get("authorization"))
    sockets.route("/ws")
    client = client_of(sockets.asgi(Starlette()))
    with pytest.raises(NotLetIn) as raised:
        connect(client, "/ws")
    assert raised.value.status == 401
    client.auth = ("ann", "secret")
    with connect(client, "/ws"):
        assert next(sockets.everyone.local()).user.id == "Basic YW5uOnNlY3JldA=="


@pytest.mark.parametrize("path", ["/ws", "/api/ws"])
def test_a_root_path_is_taken_as_for_http(path: str) -> None:
    scope, _ = asked(client={"root_path": "/api"}, path=path)
    assert (scope["root_path"], scope["path"]) == ("/api", path)


def test_the_state_of_the_lifespan_is_there() -> None:
    async def tell(websocket: StarletteWebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.state.greeting)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"greeting": "hello"}

    routes = [WebSocketRoute("/ws", tell)]
    app = WebSockets(auth=Anonymous()).asgi(Starlette(routes=routes, lifespan=lifespan))
    with client_of(app) as client, connect(client, "/ws") as ws:
        assert ws.receive() == "hello"


def test_other_sites_do_not_get_in() -> None:
    client = client_of(starlette_app(chatting(by_session())))
    client.post("/login/ann")
    for origin in ("https://evil.example", None):
        with pytest.raises(NotLetIn) as raised:
            connect(client, "/ws/chat/1", origin=origin)
        assert raised.value.status == 403
    assert raised.value.code == "origin_missing"


def test_a_subprotocol_is_chosen() -> None:
    client = client_of(starlette_app(chatting(by_session())))
    client.post("/login/ann")
    with connect(client, "/ws/chat/1", subprotocols=["other", "chat.v1"]) as ws:
        assert ws.subprotocol == "chat.v1"


# --- cookies -------------------------------------------------------------------------------------


def test_cookies_of_the_101_and_of_a_refusal_are_kept() -> None:
    def auth(request: Any) -> Granted:
        seen = request.headers.get("cookie", "")
        if "tried=1" not in seen:
            raise Refused(401, headers=[("Set-Cookie", "tried=1"), ("Set-Cookie", "also=2")])
        gone = ("Set-Cookie", "also=; Max-Age=0")
        return Granted(Principal("ann"), headers=(("Set-Cookie", "seat=12; Path=/"), gone))

    sockets = WebSockets(auth=auth)
    sockets.route("/ws")
    client = client_of(sockets.asgi(Starlette()))
    with pytest.raises(NotLetIn):
        connect(client, "/ws")
    assert dict(client.cookies) == {"tried": "1", "also": "2"}
    with connect(client, "/ws"):
        assert dict(client.cookies) == {"tried": "1", "seat": "12"}


def test_secure_cookies_go_over_tls_only() -> None:
    sockets = WebSockets(auth=lambda request: request.headers.get("cookie"))
    sockets.route("/ws")
    client = client_of(sockets.asgi(Starlette()))
    client.cookies.set("name", "ann", domain="testserver.local")
    for cookie in client.cookies.jar:
        cookie.secure = True
    with pytest.raises(NotLetIn):
        connect(client, "/ws")
    with connect(client, "/ws", base_url="https://testserver"):
        assert next(sockets.everyone.local()).user.id == "name=ann"


# --- the app's own WebSockets --------------------------------------------------------------------


ended: list[str] = []


def in_a_thread() -> Iterator[str]:
    """A dependency that takes real time, as a database does."""
    name = threading.current_thread().name
    threading.Event().wait(0.05)
    yield name
    ended.append(name)


def test_fastapis_own_routes_are_guarded_and_have_their_dependencies() -> None:
    app = fastapi_app(WebSockets(auth=lambda _: "ann"))

    @app.websocket("/ws/{room}")
    async def own(
        websocket: WebSocket,
        room: int,
        user: Annotated[Principal, Depends(principal)],
        thread: Annotated[str, Depends(in_a_thread)],
    ) -> None:
        await websocket.accept()
        name = await anyio.to_thread.run_sync(lambda: threading.current_thread().name)
        await websocket.send_json([user.id, room, thread, name])
        await websocket.close(4000, "that is all")

    with connect(client_of(app), "/ws/7") as ws:
        user, room, *names = ws.receive_json()
        assert (user, room) == ("ann", 7)
        assert all("AnyIO" in name for name in names)
        assert (ws.wait_closed(), ws.close_reason) == (4000, "that is all")
    assert ended.pop() == names[0]


def test_a_thread_that_waits_for_the_test_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(testing_loop, "PATIENCE", 0.2)
    app = fastapi_app(WebSockets(auth=Anonymous()))
    asked = threading.Event()

    @app.websocket("/ws")
    async def own(websocket: WebSocket) -> None:
        await websocket.accept()
        await anyio.to_thread.run_sync(asked.wait)
        await websocket.send_text("at last")

    with connect(client_of(app), "/ws") as ws:
        ws.receive_nothing()
        asked.set()
        assert ws.receive() == "at last"


def test_what_fastapi_answers_is_what_the_client_gets() -> None:
    app = fastapi_app(WebSockets(auth=Anonymous()))

    def pay() -> None:
        raise HTTPException(402, "pay first", headers={"X-Price": "7"})

    def leave() -> None:
        raise WebSocketException(1008, "leave")

    @app.websocket("/pay", dependencies=[Depends(pay)])
    @app.websocket("/leave", dependencies=[Depends(leave)])
    async def own(websocket: WebSocket) -> None:
        await websocket.accept()

    with pytest.raises(NotLetIn) as raised:
        connect(client_of(app), "/pay")
    assert (raised.value.status, raised.value.body) == (402, b'{"detail":"pay first"}')
    assert ("x-price", "7") in raised.value.headers
    for path in ("/leave", "/nowhere"):
        with pytest.raises(NotLetIn) as raised:
            connect(client_of(app), path)
        assert (raised.value.status, raised.value.code) == (403, "")


def test_a_mounted_door() -> None:
    inner = Starlette(routes=[Mount("/live", app=echoing().asgi(Starlette()))])
    with connect(client_of(inner), "/live/ws/echo") as ws:
        ws.send("x")
        assert ws.receive() == "x"


def test_a_flask_app_behind_the_asgi_door() -> None:
    app = Flask(__name__)
    app.secret_key = "a secret for tests"
    sockets = WebSockets(auth=FlaskAuth(lambda: session.get("user")))
    sockets.route("/ws").on_message(lambda ws, message: ws.send(f"{ws.user.id}: {message}"))

    @app.post("/login/<name>")
    def login(name: str) -> str:
        session["user"] = name
        return "in"

    client = client_of(sockets.asgi(app))
    with pytest.raises(NotLetIn):
        connect(client, "/ws")
    client.post("/login/ann")
    with connect(client, "/ws") as ws:
        ws.send("x")
        assert ws.receive() == "ann: x"


# --- refusals ------------------------------------------------------------------------------------


def test_a_refusal_has_status_code_detail_headers_and_body() -> None:
    with pytest.raises(NotLetIn) as raised:
        connect(client_of(starlette_app(chatting(by_session()))), "/ws/chat/1")
    refused = raised.value
    assert (refused.status, refused.code, refused.detail) == (
        401,
        "credential_refused",
        "log in first",
    )
    assert ("content-type", "application/problem+json") in refused.headers
    assert b'"status": 401' in refused.body
    assert not hasattr(refused, "__notes__")


def test_a_refusal_as_a_close() -> None:
    client = client_of(starlette_app(chatting(by_session(refuse_with="close"))))
    with pytest.raises(NotLetIn) as raised:
        connect(client, "/ws/chat/1")
    assert (raised.value.status, raised.value.close_code) == (401, 4401)


def test_the_caps_are_those_of_production_and_all_is_given_back() -> None:
    sockets = echoing(auth=lambda _: "ann", limits=Limits(connections_per_user=2))
    client = client_of(sockets.asgi(Starlette()))
    for _ in range(3):
        with connect(client, "/ws/echo"), connect(client, "/ws/echo"):
            with pytest.raises(NotLetIn) as raised:
                connect(client, "/ws/echo")
            assert raised.value.status == 429
    assert sockets.everyone.count() == 0


def test_pausing_and_routes_that_come_later_count() -> None:
    sockets = echoing()
    client = client_of(sockets.asgi(Starlette()))
    with connect(client, "/ws/echo"):
        sockets.route("/ws/later")
        with connect(client, "/ws/later"):
            pass
        sockets.pause()
        with pytest.raises(NotLetIn) as raised:
            connect(client, "/ws/echo")
        assert (raised.value.status, raised.value.code) == (503, "paused")


def test_closing_the_websockets_closes_with_1001_and_is_as_new_after() -> None:
    sockets = echoing()
    client = client_of(sockets.asgi(Starlette()))
    with connect(client, "/ws/echo") as ws:
        sockets.close(reason="bye").result(10)
        assert (ws.close_code, ws.close_reason) == (1001, "bye")
        with connect(client, "/ws/echo") as other:
            other.send("x")
            assert other.receive() == "x"


# --- time ----------------------------------------------------------------------------------------


def test_time_is_virtual_for_our_routes_and_for_the_apps_own() -> None:
    app = fastapi_app(WebSockets(auth=lambda r: Principal("ann", expires_at=r.received_at + 600)))

    @app.websocket("/slow")
    async def slow(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(300)
        await websocket.send_text("at last")
        await websocket.receive()

    began = time.monotonic()
    with connect(client_of(app), "/slow") as ws:
        with pytest.raises(TimeoutError):
            ws.receive(timeout=299)
        assert ws.receive(timeout=1) == "at last"
        ws.advance(299)
        assert not ws.closed
        ws.advance(1)
        assert (ws.close_code, ws.close_reason) == (4401, "credential_expired")
    assert time.monotonic() - began < 5


def test_the_server_pings_and_a_dead_client_is_found() -> None:
    client = client_of(echoing().asgi(Starlette()))
    with connect(client, "/ws/echo") as ws:
        ws.advance(600)
        assert (ws.closed, ws.pings) == (False, 30)
    with connect(client, "/ws/echo", answer_pings=False) as ws:
        ws.advance(39)
        assert (ws.closed, ws.pings) == (False, 1)
        ws.advance(1)
        assert ws.close_code == 1011


def test_one_clock_for_a_test(ws_connect: Connector) -> None:
    times: list[float] = []

    def auth(request: Any) -> str:
        times.append(request.received_at)
        return "ann"

    sockets = WebSockets(auth=auth)
    sockets.route("/ws")
    client = client_of(sockets.asgi(Starlette()))
    with ws_connect(client, "/ws"):
        pass
    ws_connect.advance(3600)
    ws_connect(client, "/ws")
    assert times[1] - times[0] >= 3600


@pytest.fixture
def ws_connect() -> Iterator[Connector]:
    """As the plugin has it, which need not be installed here."""
    with Connector() as connector:
        yield connector


# --- the frames ----------------------------------------------------------------------------------


def pinging(lost: list[int]) -> WebSockets:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/ws")
    async def handler(ws: Any) -> None:
        async for message in ws:
            if message == "ping":
                try:
                    await ws.send(f"{await ws.ping():g}")
                except ConnectionClosed as closed:
                    lost.append(closed.code)
            else:
                ws.terminate()

    return sockets


def test_pings_of_a_handler_are_real_and_their_pongs_may_be_late() -> None:
    with connect(client_of(pinging([]).asgi(Starlette())), "/ws") as ws:
        assert ws.control is not None
        ws.send("ping")
        assert (ws.receive(), ws.pings) == ("0", 1)
        ws.control.latency = 0.5
        ws.send("ping")
        ws.receive_nothing(within=0.4)
        assert ws.receive() == "0.5"
        assert ws.control.calls == ["ping", "ping"]


def test_a_ping_whose_pong_is_lost() -> None:
    lost: list[int] = []
    with connect(client_of(pinging(lost).asgi(Starlette())), "/ws") as ws:
        assert ws.control is not None
        ws.control.latency = None
        ws.send("ping")
        ws.receive_nothing(within=10)
        assert lost == []
        ws.drop()
    assert lost == [1006]


def test_a_connection_that_is_cut() -> None:
    with connect(client_of(pinging([]).asgi(Starlette())), "/ws") as ws:
        assert ws.control is not None
        ws.send("terminate")
        assert (ws.close_code, ws.control.is_aborted) == (1006, True)


def test_frames_made_by_hand() -> None:
    with connect(client_of(echoing().asgi(Starlette())), "/ws/echo") as ws:
        ws.send_frame(0x3, b"")  # there is no such opcode
        assert ws.wait_closed() == 1002


# --- what goes wrong -----------------------------------------------------------------------------


def failing() -> FastAPI:
    sockets = WebSockets(auth=Anonymous())
    app = fastapi_app(sockets)

    @sockets.route("/handler")
    async def handler(ws: Any) -> None:
        raise ZeroDivisionError

    @app.websocket("/early")
    async def early(websocket: WebSocket) -> None:
        raise ZeroDivisionError

    @app.websocket("/late")
    async def late(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ZeroDivisionError

    @app.websocket("/silent")
    async def silent(websocket: WebSocket) -> None:
        pass

    @app.websocket("/undecided")
    async def undecided(websocket: WebSocket) -> None:
        await websocket.receive()
        await websocket.receive()

    @app.websocket("/brief")
    async def brief(websocket: WebSocket) -> None:
        await websocket.accept()

    @app.websocket("/careless")
    async def careless(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.receive_text()

    return app


@pytest.mark.parametrize("path", ["/handler", "/late"])
def test_what_is_raised_after_the_101_is_raised_at_the_end(path: str) -> None:
    with pytest.raises(ZeroDivisionError), connect(client_of(failing()), path) as ws:
        assert (ws.wait_closed(), ws.close_reason) == (1011, "internal_error")
    with connect(client_of(failing()), path, raise_errors=False) as ws:
        assert ws.wait_closed() == 1011
        assert [type(error) for error in ws.errors] == [ZeroDivisionError]


def test_what_is_raised_before_the_101_is_raised_at_once() -> None:
    with pytest.raises(ZeroDivisionError):
        connect(client_of(failing()), "/early")
    with pytest.raises(NotLetIn) as raised:
        connect(client_of(failing()), "/early", raise_errors=False)
    assert (raised.value.status, raised.value.body) == (500, b"Internal Server Error")


def test_an_app_that_returns_without_a_word() -> None:
    with pytest.raises(NotLetIn) as raised:
        connect(client_of(failing()), "/silent")
    assert raised.value.status == 403
    with pytest.raises(NotLetIn) as raised:
        connect(client_of(failing()), "/undecided")
    assert (raised.value.status, raised.value.code) == (503, "upgrade_timeout")
    with connect(client_of(failing()), "/brief") as ws:
        assert ws.wait_closed() == 1000


def test_an_app_that_does_not_expect_its_client_to_leave(caplog: pytest.LogCaptureFixture) -> None:
    with connect(client_of(failing()), "/careless"):
        pass
    assert "WebSocketDisconnect" in caplog.text  # as on a server


def test_an_app_without_a_door_of_ours_says_so() -> None:
    async def own(websocket: StarletteWebSocket) -> None:
        await websocket.accept()

    client = client_of(Starlette(routes=[WebSocketRoute("/ws", own)]))
    with pytest.raises(RuntimeError, match="no WebSocketMiddleware was asked"):
        connect(client, "/ws")
    with pytest.raises(NotLetIn) as raised:
        connect(client, "/nowhere")
    assert raised.value.__notes__[0].startswith("no WebSocketMiddleware was asked")


def test_something_else_is_a_type_error_that_names_all_there_are() -> None:
    with pytest.raises(TypeError, match="got object") as raised:
        connect(object(), "/ws")
    for each in ("test_client()", "django.test.Client", "FastAPI's TestClient", "a WebSockets"):
        assert each in str(raised.value)


def test_a_token_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sockets = WebSockets(auth=JWTAuth("k" * 32, algorithms=["HS256"], sources=["query:token"]))
    sockets.route("/ws")
    client = client_of(sockets.asgi(Starlette()))
    with pytest.raises(NotLetIn):
        connect(client, "/ws?token=hush")
    token = jwt.encode({"sub": "ann", "exp": time.time() + 600}, "k" * 32, algorithm="HS256")
    with connect(client, f"/ws?token={token}"):
        pass
    assert '"WebSocket /ws?token=-" 401' in caplog.text
    assert '"WebSocket /ws?token=-" [accepted]' in caplog.text
    assert "hush" not in caplog.text
    assert token not in caplog.text


def test_the_same_every_time() -> None:
    def transcript() -> list[Any]:
        client = client_of(starlette_app(chatting(by_session())))
        client.post("/login/ann")
        said: list[Any] = []
        with connect(client, "/ws/chat/1") as one, connect(client, "/ws/chat/1") as two:
            for each in (one, two, one):
                each.send(f"from {len(said)}")
                client.post("/announce")
            for each in (one, two):
                while True:
                    try:
                        said.append(each.receive(0))
                    except TimeoutError:
                        break
        return said

    assert transcript() == transcript() != []
