"""Starlette's and FastAPI's side of the ASGI door, in memory, with their own test client."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.integration.apps import tutorial
from ws_middleware import (
    Anonymous,
    ConfigError,
    Principal,
    ScopeAuth,
    WebSocketMiddleware,
    WebSockets,
)
from ws_middleware.starlette import principal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import HTTPConnection

ORIGIN = {"origin": "http://testserver"}


async def whoami(websocket: WebSocket) -> None:
    """Say who the app, and who Starlette, thinks it is."""
    user = principal(websocket)
    await websocket.accept()
    await websocket.send_json([user.id, user.display_name, websocket.user.display_name])
    await websocket.close()


async def log_in(request: Request) -> Response:
    request.session["user"] = request.path_params["name"]
    return JSONResponse({})


ROUTES = [WebSocketRoute("/ws", whoami), Route("/login/{name}", log_in)]


class ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> Any:
        name = conn.headers.get("x-user")
        return (AuthCredentials(["all"]), SimpleUser(name)) if name else None


def ask(client: TestClient, path: str = "/ws", **headers: str) -> Any:
    with client.websocket_connect(path, headers={**ORIGIN, **headers}) as ws:
        return ws.receive_json()


def refused(client: TestClient, path: str = "/ws", **headers: str) -> tuple[int, str]:
    with (
        pytest.raises(WebSocketDenialResponse) as raised,
        client.websocket_connect(path, headers={**ORIGIN, **headers}),
    ):
        pass
    return raised.value.status_code, raised.value.json()["code"]


def door(sockets: WebSockets) -> Middleware:
    return Middleware(WebSocketMiddleware, sockets=sockets)


# --- the middleware around decides ---------------------------------------------------------------


def test_starlettes_authentication_decides_where_it_is_around_the_door() -> None:
    around = Middleware(AuthenticationMiddleware, backend=ByHeader())
    app = Starlette(routes=ROUTES, middleware=[around, door(WebSockets(auth=ScopeAuth()))])
    with TestClient(app) as client:
        assert ask(client, **{"x-user": "ann"}) == ["ann", "ann", "ann"]
        assert refused(client) == (401, "credential_refused")


def test_a_session_decides_where_it_is_around_the_door() -> None:
    around = Middleware(SessionMiddleware, secret_key="s" * 32)
    auth = ScopeAuth(lambda scope: scope["session"].get("user"))
    app = Starlette(routes=ROUTES, middleware=[around, door(WebSockets(auth=auth))])
    with TestClient(app) as client:
        assert refused(client) == (401, "credential_refused")
        client.get("/login/ann")
        assert ask(client) == ["ann", "ann", "ann"]
        assert refused(client, origin="https://evil.example") == (403, "origin_not_allowed")


def test_on_the_wrong_side_it_is_an_error_that_names_the_middleware(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inside = Middleware(AuthenticationMiddleware, backend=ByHeader())
    app = Starlette(routes=ROUTES, middleware=[door(WebSockets(auth=ScopeAuth())), inside])
    with TestClient(app) as client:
        assert refused(client, **{"x-user": "ann"}) == (500, "authenticator_failed")
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage().startswith(
        "ScopeAuth of route * found no user in the scope: the middleware that puts it there, such "
        "as AuthenticationMiddleware, is missing, or runs after ours."
    )
    assert record.exc_info is None


def test_add_middleware_of_what_is_to_run_first_comes_last() -> None:
    app = Starlette(routes=ROUTES)
    app.add_middleware(WebSocketMiddleware, sockets=WebSockets(auth=ScopeAuth()))
    app.add_middleware(AuthenticationMiddleware, backend=ByHeader())
    with TestClient(app) as client:
        assert ask(client, **{"x-user": "ann"}) == ["ann", "ann", "ann"]


# --- principal -----------------------------------------------------------------------------------


def test_behind_anonymous_it_is_the_anonymous_principal() -> None:
    with TestClient(WebSockets(auth=Anonymous()).asgi(Starlette(routes=ROUTES))) as client:
        assert ask(client) == ["", "", ""]


def test_a_name_of_ones_own_is_the_display_name() -> None:
    def auth(request: object) -> Principal:
        return Principal("7", name="Ann")

    with TestClient(WebSockets(auth=auth).asgi(Starlette(routes=ROUTES))) as client:
        assert ask(client) == ["7", "Ann", "Ann"]


def test_in_a_mounted_app_it_is_there_too() -> None:
    app = Starlette(routes=[Mount("/shop", routes=ROUTES)])
    with TestClient(WebSockets(auth=lambda _: "ann").asgi(app)) as client:
        assert ask(client, "/shop/ws")[0] == "ann"


def test_of_a_connection_that_is_not_guarded_it_says_what_to_wrap() -> None:
    request = Request({"type": "http", "method": "GET", "path": "/", "headers": []})
    with pytest.raises(RuntimeError) as raised:
        principal(request)
    assert str(raised.value) == (
        "nobody knows who this connection belongs to: principal is for WebSockets of an app that "
        "is wrapped: app.add_middleware(WebSocketMiddleware, sockets=sockets)"
    )


# --- what is wrong is told at the start ----------------------------------------------------------


def misconfigured() -> Starlette:
    """An app whose settings nobody has looked at yet: Starlette makes middleware when it starts."""
    return Starlette(routes=ROUTES, middleware=[door(WebSockets(auth=Anonymous()))])


def test_wrong_settings_fail_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_DRAIN_OVER", "soon")
    with pytest.raises(ConfigError, match="WSM_DRAIN_OVER"), TestClient(misconfigured()):
        pass


def test_where_there_is_no_lifespan_they_fail_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_DRAIN_OVER", "soon")
    client = TestClient(misconfigured())
    depths = set()
    for _ in range(3):
        with pytest.raises(ConfigError, match="WSM_DRAIN_OVER") as raised:
            client.get("/login/ann")
        depths.add(len(raised.traceback))
    assert len(depths) == 1, "the traceback grows"


def test_the_server_is_told_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSM_DRAIN_OVER", "soon")
    sent = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(event: Any) -> None:
        sent.append(event)

    with pytest.raises(ConfigError):
        asyncio.run(misconfigured()({"type": "lifespan"}, receive, send))
    (failed,) = sent
    assert failed["type"] == "lifespan.startup.failed"
    assert failed["message"].startswith("ConfigError: WSM_DRAIN_OVER takes a number")


def test_around_an_app_they_are_told_at_once_also_where_a_loop_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WSM_DRAIN_OVER", "soon")

    async def load() -> None:  # as servers do that import an app on their loop
        with pytest.raises(ConfigError):
            WebSockets(auth=Anonymous()).asgi(Starlette())

    asyncio.run(load())


# --- guards ----------------------------------------------------------------------------------


def members_only(lobby: str = "") -> FastAPI:
    """An app whose endpoint reads more paths as a room than its guard does."""
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def talk(websocket: WebSocket, room: int) -> None:
        await websocket.accept()
        await websocket.send_json(room)

    @app.websocket("/rooms/lobby/all")
    async def enter(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json("lobby")

    sockets = WebSockets(auth=Anonymous())
    sockets.guard("/rooms/{room:int}", authorize=lambda _, request: request.path_params["room"] < 2)
    if lobby:
        sockets.guard(lobby)
    app.add_middleware(WebSocketMiddleware, sockets=sockets)
    return app


@pytest.mark.parametrize("room", ["2.0", "+2", "%202", "2%0A", "2/", "/2"])
def test_no_other_spelling_of_a_path_passes_its_guard_by(
    room: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ws_middleware.gate")
    client = TestClient(members_only())
    assert ask(client, "/rooms/1") == 1
    assert refused(client, "/rooms/2") == (403, "not_allowed")
    assert refused(client, f"/rooms/{room}") == (404, "route_unknown")
    assert "It is nearly a path of guard /rooms/{room:int}, and none" in caplog.text


def test_what_is_like_a_guards_path_is_served_with_a_guard_of_its_own() -> None:
    assert ask(TestClient(members_only()), "/rooms/lobby/all") == "lobby"
    assert refused(TestClient(members_only()), "/rooms/-1") == (404, "route_unknown")
    assert ask(TestClient(members_only("/rooms/-1")), "/rooms/-1") == -1


# --- the log -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        ("1.1.1.1 user=root\n", "1.1.1.1\\x20user=root\\n"),
    ],
)
def test_an_address_that_a_proxy_has_said_forges_nothing_in_the_log(
    address: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ws_middleware.socket")
    app = WebSockets(auth=Anonymous()).asgi(Starlette(routes=ROUTES))
    assert ask(TestClient(app, client=(address, 0))) == ["", "", ""]
    opened = caplog.messages[0]
    assert opened.endswith(f"user=- peer={told}")


# --- FastAPI's tutorial --------------------------------------------------------------------------


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(tutorial.app) as client:
        yield client


def token(user: str) -> str:
    claims = {"sub": user, "exp": int(time.time()) + 60}
    return jwt.encode(claims, tutorial.KEY, algorithm="HS256")


def test_the_tutorials_chat_goes_on_as_it_was(client: TestClient) -> None:
    with client.websocket_connect("/ws/1") as one, client.websocket_connect("/ws/2") as two:
        one.send_text("hello")
        assert one.receive_text() == "You wrote: hello"
        assert one.receive_text() == two.receive_text() == "Client #1 says: hello"
        two.close()
        assert one.receive_text() == "Client #2 left the chat"
    assert tutorial.manager.active == []


def test_what_the_endpoint_itself_refuses_is_refused_as_it_was(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect) as raised, client.websocket_connect("/ws/one"):
        pass
    assert not isinstance(raised.value, WebSocketDenialResponse)
    assert raised.value.code == 1008


def test_depends_gets_the_principal(client: TestClient) -> None:
    given = {"Authorization": f"Bearer {token('ann')}"}
    with client.websocket_connect("/members", headers=given) as ws:
        ws.send_text("hello")
        assert ws.receive_json() == {"from": "ann", "text": "hello"}


def test_a_token_as_a_subprotocol_is_answered_and_not_shown(client: TestClient) -> None:
    with client.websocket_connect("/members", subprotocols=["bearer", token("ann")]) as ws:
        assert ws.accepted_subprotocol == "bearer"
        ws.send_text("hello")
        assert ws.receive_json()["from"] == "ann"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}])
def test_without_a_valid_token_the_endpoint_is_not_called(
    client: TestClient, headers: dict[str, str]
) -> None:
    assert refused(client, "/members", **headers)[0] == 401
    assert refused(client, "/nothing", **headers)[0] == 401


def test_a_view_sends_to_all_of_them(client: TestClient) -> None:
    given = {"Authorization": f"Bearer {token('ann')}"}
    with (
        client.websocket_connect("/members", headers=given) as member,
        client.websocket_connect("/ws/1") as anybody,
    ):
        anybody.send_text("hello")
        assert [anybody.receive_text(), anybody.receive_text()][0] == "You wrote: hello"
        member.send_text("hello")
        assert member.receive_json()["text"] == "hello"
        assert client.post("/announce", params={"text": "lunch"}).json() == {"sockets": 2}
        assert member.receive_json() == anybody.receive_json() == {"news": "lunch"}
