"""Apps that serve no WebSocket by themselves, behind the ASGI door: what no server shows.

What servers show is in tests/integration/test_flask_on_asgi.py and tests/test_django_asgi.py.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response

from ws_middleware import Anonymous, ConfigError, FlaskAuth, ServerLimits, WebSockets
from ws_middleware.asgi_hosts import ChannelsApp, is_channels

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from ws_middleware import WebSocket

PATIENCE = 10.0


def scope(path: str = "/own", **keys: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver"), (b"origin", b"http://testserver")],
        "client": ("192.0.2.1", 5),
        "server": ("testserver", 80),
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        **keys,
    }


class Peer:
    """A server's side of one WebSocket, by hand."""

    def __init__(self, app: Any, scope: dict[str, Any]) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._events.put_nowait({"type": "websocket.connect"})
        self.call = asyncio.ensure_future(app(scope, self._events.get, self._take))

    async def _take(self, event: MutableMapping[str, Any]) -> None:
        self.sent.append(event)

    def hang_up(self) -> None:
        self._events.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def end(self) -> int | None:
        """Wait for the end, and return the status of the answer, if there was one."""
        await asyncio.wait_for(self.call, PATIENCE)
        return next((each["status"] for each in self.sent if "status" in each), None)

    async def until(self, done: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not done():  # noqa: ASYNC110 - other threads do it
                await asyncio.sleep(0.01)


def make(**settings: Any) -> tuple[Flask, WebSockets]:
    app = Flask("shop")
    sockets = WebSockets(auth=FlaskAuth(lambda: "ann"), **settings)
    return app, sockets


def held(sockets: WebSockets) -> tuple[int, int]:
    """Places held by those who wait for a verdict, and by those who are in."""
    stats = sockets.stats()
    return stats["undecided"], stats["sockets"]


async def talk(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


# --- lifespan ------------------------------------------------------------------------------------


def test_lifespan_is_answered_for_the_app() -> None:
    app, sockets = make()
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": next(events)}

    async def send(event: Any) -> None:
        sent.append(event["type"])

    asyncio.run(sockets.asgi(app)({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


# --- a view decides ------------------------------------------------------------------------------


def test_a_view_that_is_too_slow_is_a_503_and_its_late_yes_holds_nothing() -> None:
    app, sockets = make(server_limits=ServerLimits(upgrade_timeout=0.05))
    asked, go = threading.Event(), threading.Event()

    @app.route("/own", websocket=True)
    def own() -> Any:
        asked.set()
        assert go.wait(PATIENCE)
        return sockets.upgrade(talk, user="ann")

    async def run() -> None:
        peer = Peer(sockets.asgi(app), scope())
        assert await peer.end() == 503
        assert asked.is_set()
        assert sockets.stats()["refused"] == {"upgrade_timeout": 1}
        go.set()
        await peer.until(lambda: sockets.stats()["threads"]["auth"]["busy"] == 0)
        assert held(sockets) == (0, 0)

    asyncio.run(run())


def test_a_peer_that_does_not_wait_for_a_view_leaves_nothing_behind() -> None:
    app, sockets = make()
    asked, go = threading.Event(), threading.Event()

    @app.route("/own", websocket=True)
    def own() -> Any:
        asked.set()
        assert go.wait(PATIENCE)
        return sockets.upgrade(talk, user="ann")

    async def run() -> None:
        peer = Peer(sockets.asgi(app), scope())
        await peer.until(asked.is_set)
        peer.hang_up()
        assert await peer.end() is None
        assert peer.sent == []
        go.set()
        await peer.until(lambda: sockets.stats()["threads"]["auth"]["busy"] == 0)
        assert held(sockets) == (0, 0)

    asyncio.run(run())


def test_an_exception_of_the_app_is_the_servers_to_answer() -> None:
    app, sockets = make()
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.route("/own", websocket=True)
    def own() -> Any:
        app.make_response(sockets.upgrade(talk, user="ann"))
        msg = "boom"
        raise LookupError(msg)

    async def run() -> None:
        peer = Peer(sockets.asgi(app), scope())
        with pytest.raises(LookupError, match="boom"):
            await peer.end()
        assert peer.sent == []
        assert held(sockets) == (0, 0)

    asyncio.run(run())


def test_a_101_of_somebody_else_lets_nobody_in() -> None:
    app, sockets = make()

    @app.route("/own", websocket=True)
    def own() -> Any:
        return Response(status=101)

    async def run() -> None:
        assert await Peer(sockets.asgi(app), scope()).end() == 403
        assert sockets.stats()["refused"] == {"app_refused": 1}

    asyncio.run(run())


def test_what_is_not_ours_to_refuse_passes_as_the_app_says_it() -> None:
    app, sockets = make()

    @app.route("/moved", websocket=True)
    def moved() -> Any:
        return Response(status=308, headers={"Location": "/own"})

    @app.route("/page", websocket=True)
    def page() -> Any:
        return "<p>hello"

    async def run() -> None:
        door = sockets.asgi(app)
        there, here = Peer(door, scope("/moved")), Peer(door, scope("/page"))
        assert [await there.end(), await here.end()] == [308, 200]
        assert (b"location", b"/own") in there.sent[0]["headers"]
        assert here.sent[1]["body"] == b"<p>hello"

    asyncio.run(run())


def test_a_door_that_is_closed_asks_no_view() -> None:
    app, sockets = make()
    asked: list[bool] = []

    @app.route("/own", websocket=True)
    def own() -> Any:
        asked.append(True)
        return sockets.upgrade(talk, user="ann")

    async def run() -> None:
        door = sockets.asgi(app)
        closing = sockets.close()
        await closing
        peer = Peer(door, scope())
        await peer.until(lambda: peer.sent)
        peer.hang_up()
        await peer.end()

    # After a close it is as new, and so is let in again.
    asyncio.run(run())
    assert asked == [True]


# --- hosts ---------------------------------------------------------------------------------------


def test_a_flask_app_becomes_the_host_where_it_is_none_yet() -> None:
    app, sockets = make()
    sockets.route("/ws/<int:room>", name="room")
    sockets.asgi(app)
    sockets.asgi(app)
    assert app.extensions["websockets"] is sockets
    assert [rule.endpoint for rule in app.url_map.iter_rules()][-1] == "ws:room"
    with pytest.raises(ConfigError, match="was called for the app 'shop' already"):
        sockets.init_app(app)


def test_init_app_may_have_come_before() -> None:
    app, sockets = make()
    sockets.init_app(app)
    sockets.asgi(app)


def test_of_an_app_that_serves_no_websocket_no_policy_is_asked() -> None:
    sockets = WebSockets()
    sockets.route("/ws", auth=Anonymous())
    sockets.asgi(Flask("shop"))
    with pytest.raises(ConfigError, match="needs auth="):
        sockets.asgi(nothing)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI app that may serve anything."""


# --- channels ------------------------------------------------------------------------------------


class Wrapping:
    """Middleware as people write it."""

    def __init__(self, app: object) -> None:
        self.app = app


def test_an_app_of_channels_is_known_through_what_is_wrapped_around_it() -> None:
    routing = pytest.importorskip("channels.routing")
    router = routing.URLRouter([])
    assert is_channels(router)
    assert is_channels(Wrapping(Wrapping(router)))
    assert not is_channels(Wrapping(nothing))
    assert not is_channels(Flask("shop"))
    ring = Wrapping(nothing)
    ring.app = ring
    assert not is_channels(ring)


@pytest.mark.parametrize("is_ours", [True, False])
def test_channels_finds_its_own_place_for_a_user(*, is_ours: bool) -> None:
    ours, theirs = object(), object()
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.append(scope)

    given = {"user": ours if is_ours else theirs, "state": {"ws_principal": ours}}
    asyncio.run(ChannelsApp(app)(dict(given), None, None))
    assert told[0]["state"] == given["state"]
    assert told[0].get("user") is (None if is_ours else theirs)
