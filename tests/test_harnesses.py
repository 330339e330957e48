"""Our door in the test harnesses of others, and a server's hand on the frames in each of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from asgiref.testing import ApplicationCommunicator
from channels.testing import WebsocketCommunicator
from httpx_ws import AsyncWebSocketSession, WebSocketDisconnect, WebSocketUpgradeError, aconnect_ws
from httpx_ws.transport import ASGIWebSocketTransport
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect as StarletteDisconnect

from ws_middleware import ConnectionClosed, WebSockets
from ws_middleware.testing import FakeControl
from ws_middleware.testing.loop import VirtualClock, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from starlette.websockets import WebSocket

TOKEN = {"authorization": "Bearer hush"}
RAW = [(b"host", b"testserver"), (b"authorization", b"Bearer hush")]


def by_token(request: Any) -> str | None:
    return "ann" if request.headers.get("authorization") == "Bearer hush" else None


by_token.ambient = False  # type: ignore[attr-defined]


def make_sockets(**settings: Any) -> WebSockets:
    sockets = WebSockets(**{"auth": by_token, **settings})

    @sockets.route("/ws/ours")
    async def ours(ws: Any) -> None:
        async for message in ws:
            if message == "ping":
                await ws.send(f"{await ws.ping():g}")
            elif message == "terminate":
                ws.terminate()
            elif message == "close":
                await ws.close(4001, "bye")
            else:
                await ws.send(message)

    return sockets


async def own(websocket: WebSocket) -> None:
    """An endpoint of the app's own, which is guarded."""
    await websocket.accept()
    async for text in websocket.iter_text():
        if text == "close":
            await websocket.close(4001, "bye")
            return
        await websocket.send_text(text)


def make_app(sockets: WebSockets) -> Any:
    return sockets.asgi(Starlette(routes=[WebSocketRoute("/ws/own", own)]))


BOTH = pytest.mark.parametrize("path", ["/ws/ours", "/ws/own"])


def extended(app: Any, control: FakeControl) -> Any:
    """An app on a harness whose scope has extensions."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        extensions = {"websocket.http.response": {}, "ws_middleware.control": control}
        await app({**scope, "extensions": extensions}, receive, send)

    return wrapped


# --- Starlette's own -----------------------------------------------------------------------------


@BOTH
def test_starlettes_client(path: str) -> None:
    sockets = make_sockets()
    with TestClient(make_app(sockets)).websocket_connect(path, headers={**TOKEN}) as ws:
        ws.send_text("hello")
        assert ws.receive_text() == "hello"
        sockets.everyone.send("all")
        assert ws.receive_text() == "all"
        ws.send_text("close")
        with pytest.raises(StarletteDisconnect) as closed:
            ws.receive_text()
        assert (closed.value.code, closed.value.reason) == (4001, "bye")


@BOTH
def test_starlettes_client_is_denied(path: str) -> None:
    client = TestClient(make_app(make_sockets()))
    with pytest.raises(WebSocketDenialResponse) as raised, client.websocket_connect(path):
        pass
    denial = raised.value
    assert (denial.status_code, denial.json()["code"]) == (401, "credential_refused")
    assert denial.headers["content-type"] == "application/problem+json"
    assert denial.headers["content-length"] == str(len(denial.content))


def test_starlettes_client_sends_no_origin_by_itself() -> None:
    client = TestClient(make_app(make_sockets(auth=lambda _: "ann")))
    with pytest.raises(WebSocketDenialResponse) as raised, client.websocket_connect("/ws/ours"):
        pass
    assert (raised.value.status_code, raised.value.json()["code"]) == (403, "origin_missing")
    origin = {"origin": "http://testserver"}
    with client.websocket_connect("/ws/ours", headers=origin) as ws:
        ws.send_text("hello")
        assert ws.receive_text() == "hello"


# --- httpx-ws ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def through_httpx(
    app: Any, path: str = "/ws/ours", **headers: str
) -> AsyncIterator[AsyncWebSocketSession]:
    transport = ASGIWebSocketTransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        connecting: Any = aconnect_ws(path, client, headers=headers)
        async with connecting as ws:
            yield ws


@BOTH
def test_httpx_ws(path: str) -> None:
    sockets = make_sockets()

    async def talk() -> None:
        async with through_httpx(make_app(sockets), path, **TOKEN) as ws:
            await ws.send_text("hello")
            assert await ws.receive_text(timeout=5) == "hello"
            assert (await sockets.everyone.send("all")).local == 1
            assert await ws.receive_text(timeout=5) == "all"
            await ws.send_text("close")
            with pytest.raises(WebSocketDisconnect) as closed:
                await ws.receive_text(timeout=5)
            assert (closed.value.code, closed.value.reason) == (4001, "bye")

    asyncio.run(talk())


async def try_httpx(app: Any, path: str) -> None:
    async with through_httpx(app, path):
        pass


@BOTH
def test_httpx_ws_is_refused_by_a_close_for_its_scope_has_no_extensions(path: str) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(try_httpx(make_app(make_sockets()), path))
    (closed,) = raised.value.exceptions
    assert isinstance(closed, WebSocketDisconnect)
    assert (closed.code, closed.reason) == (1008, "credential_refused")


@BOTH
def test_httpx_ws_is_denied_where_the_extension_is_added(path: str) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(try_httpx(extended(make_app(make_sockets()), FakeControl()), path))
    (denied,) = raised.value.exceptions
    assert isinstance(denied, WebSocketUpgradeError)
    response = denied.response
    assert (response.status_code, response.json()["code"]) == (401, "credential_refused")
    assert response.headers["content-type"] == "application/problem+json"


def test_httpx_ws_with_a_fake_control() -> None:
    control = FakeControl(latency=0.01)

    async def talk() -> None:
        async with through_httpx(extended(make_app(make_sockets()), control), **TOKEN) as ws:
            await ws.send_text("ping")
            assert await ws.receive_text(timeout=5) == "0.01"
            control.latency = 0
            await ws.send_text("ping")
            assert await ws.receive_text(timeout=5) == "0"

    asyncio.run(talk())
    assert control.calls == ["ping", "ping"]


# --- asgiref -------------------------------------------------------------------------------------


def scope_of(path: str = "/ws/ours", **more: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "scheme": "ws",
        "path": path,
        "headers": RAW,
        "extensions": {"websocket.http.response": {}},
        **more,
    }


def communicate(app: Any, scope: dict[str, Any]) -> Any:
    return ApplicationCommunicator(app, scope)  # type: ignore[no-untyped-call]


def run_virtually(test: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a loop whose time passes by itself."""
    clock = VirtualClock()
    loop = VirtualLoop(clock, lambda job: job())
    task = loop.create_task(test)
    loop.run_until_idle()
    while not task.done():
        assert loop.next_due is not None, "it waits for nothing"
        clock.time = loop.next_due
        loop.run_until_idle()
    loop.close()
    task.result()


@BOTH
def test_asgirefs_communicator(path: str) -> None:
    sockets = make_sockets()

    async def talk() -> None:
        app = communicate(make_app(sockets), scope_of(path))
        await app.send_input({"type": "websocket.connect"})
        assert (await app.receive_output())["type"] == "websocket.accept"
        await app.send_input({"type": "websocket.receive", "text": "hello"})
        assert await app.receive_output() == {"type": "websocket.send", "text": "hello"}
        await app.send_input({"type": "websocket.disconnect", "code": 1000})
        await app.wait()

    asyncio.run(talk())
    assert sockets.everyone.count() == 0


@BOTH
def test_asgirefs_communicator_is_denied(path: str) -> None:
    async def talk() -> None:
        app = communicate(make_app(make_sockets()), scope_of(path, headers=RAW[:1]))
        await app.send_input({"type": "websocket.connect"})
        start, body = await app.receive_output(), await app.receive_output()
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
        assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
        assert json.loads(body["body"])["code"] == "credential_refused"
        await app.wait()

    asyncio.run(talk())


def test_asgirefs_communicator_with_a_fake_control() -> None:
    control = FakeControl()
    sockets = make_sockets()

    async def talk() -> None:
        scope = scope_of(extensions={"ws_middleware.control": control})
        app = communicate(make_app(sockets), scope)
        await app.send_input({"type": "websocket.connect"})
        await app.receive_output()
        await app.send_input({"type": "websocket.receive", "text": "ping"})
        assert (await app.receive_output())["text"] == "0"
        assert next(sockets.everyone.local()).latency == 0
        await app.send_input({"type": "websocket.receive", "text": "terminate"})
        await app.wait()

    asyncio.run(talk())
    assert control.calls == ["ping", "abort"]
    assert control.is_aborted


# --- channels ------------------------------------------------------------------------------------


@BOTH
def test_channels_communicator(path: str) -> None:
    sockets = make_sockets()

    async def talk() -> None:
        app = WebsocketCommunicator(make_app(sockets), path, headers=RAW)
        assert await app.connect() == (True, None)
        await app.send_to("hello")
        assert await app.receive_from() == "hello"
        await sockets.everyone.send(b"all")
        assert await app.receive_from() == b"all"
        await app.send_to("close")
        closed = await app.receive_output()
        assert (closed["code"], closed["reason"]) == (4001, "bye")
        await app.wait()

    asyncio.run(talk())


@BOTH
def test_channels_communicator_is_refused_as_on_daphne(path: str) -> None:
    async def talk() -> None:
        app = WebsocketCommunicator(make_app(make_sockets()), path, headers=RAW[:1])
        # Its scope is daphne's, which has no extension for a denial and takes no 1008.
        assert await app.connect() == (False, 4008)
        await app.wait()

    asyncio.run(talk())


def test_channels_communicator_with_a_fake_control() -> None:
    control = FakeControl()

    async def talk() -> None:
        app = WebsocketCommunicator(make_app(make_sockets()), "/ws/ours", headers=RAW)
        app.scope["extensions"] = {"ws_middleware.control": control}
        await app.connect()
        await app.send_to("ping")
        assert await app.receive_from() == "0"
        await app.disconnect()

    asyncio.run(talk())
    assert control.calls == ["ping"]


# --- the control alone ---------------------------------------------------------------------------


def test_a_ping_is_answered_when_it_was_said() -> None:
    async def ask() -> None:
        control = FakeControl()
        assert control.ping().result() == 0
        control.latency = 7
        began = asyncio.get_running_loop().time()
        assert await control.ping() == 7
        assert asyncio.get_running_loop().time() == began + 7

    run_virtually(ask())


def test_a_ping_that_is_never_answered_ends_with_the_connection() -> None:
    async def ask() -> None:
        control = FakeControl(latency=None)
        answers = control.ping(), control.ping()
        await asyncio.sleep(3600)
        assert not answers[0].done()
        answers[1].cancel()
        control.latency = 7
        late = control.ping()
        control.abort()
        await asyncio.sleep(10)
        for answer in (answers[0], late, control.ping()):
            with pytest.raises(ConnectionClosed) as closed:
                await answer
            assert closed.value.code == 1006
        assert control.calls == ["ping", "ping", "ping", "abort", "ping"]

    run_virtually(ask())


def test_what_is_asked_is_what_was_set_and_is_kept() -> None:
    control = FakeControl()
    assert (control.buffered(), control.reading_paused()) == (0, False)
    control.waiting_bytes, control.is_paused = 65_536, True
    assert (control.buffered(), control.reading_paused()) == (65_536, True)
    assert control.calls == ["buffered", "reading_paused"] * 2
    assert repr(FakeControl()) == "<FakeControl []>"
