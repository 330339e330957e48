"""The one object a user makes: its routes, their handlers, and what it says of itself."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.python import connect, until
from ws_middleware import (
    Anonymous,
    ConfigError,
    Heartbeat,
    JWTAuth,
    Limits,
    Route,
    WebSocket,
    WebSockets,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Served
    from ws_middleware.config import EffectivePolicy

    Serve = Callable[[WebSockets], Served]


@pytest.fixture
def sockets() -> WebSockets:
    return WebSockets(auth=Anonymous())


def policy_of(sockets: WebSockets, route: Route) -> EffectivePolicy:
    return sockets._front.resolve(route).policy


# --- settings ------------------------------------------------------------------------------------


def test_an_unknown_setting_is_a_type_error_with_the_nearest_name(sockets: WebSockets) -> None:
    with pytest.raises(TypeError, match=r"no setting 'orgins'; did you mean origins\?"):
        WebSockets(orgins="*")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'/x'.*'limit'; did you mean limits\?"):
        sockets.route("/x", limit=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"auth": Anonymous}, r"make one: Anonymous\("),
        ({"auth": 7}, "auth takes a callable"),
        ({"authorize": True}, "authorize takes a callable"),
        ({"origins": ["myapp.example"]}, "is no origin"),
        ({"origins": "https://myapp.example/path"}, "is no origin"),
        ({"limits": {"message_size": 1}}, "limits takes Limits"),
        ({"heartbeat": 30}, "heartbeat takes Heartbeat"),
        ({"refuse_with": "json"}, "'http' or 'close'"),
        ({"sync_threads": 0}, "sync_threads takes a whole number"),
        ({"auth_threads": True}, "auth_threads takes a whole number"),
    ],
)
def test_a_wrong_value_is_a_config_error_where_it_is_given(
    settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        WebSockets(**settings)


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WSM_LIMITS_MESAGE_SIZE", "1")
    sockets = WebSockets(auth=Anonymous())
    serve(sockets)
    assert "WSM_LIMITS_MESAGE_SIZE means nothing; did you mean WSM_LIMITS_MESSAGE_SIZE?" in (
        caplog.text
    )


def test_a_variable_counts_where_code_says_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSM_LIMITS_MESSAGE_SIZE", "10")
    monkeypatch.setenv("WSM_LIMITS_ROOMS_PER_SOCKET", "none")
    sockets = WebSockets(auth=Anonymous(), limits=Limits(message_size=20))
    route = sockets.route("/")
    serve(sockets)
    assert policy_of(sockets, route).limits.message_size == 20
    with_none = WebSockets(auth=Anonymous())
    other = with_none.route("/")
    serve(with_none)
    assert policy_of(with_none, other).limits.message_size == 10
    assert policy_of(with_none, other).limits.rooms_per_socket is None


def test_a_route_inherits_field_by_field(serve: Serve) -> None:
    sockets = WebSockets(
        auth=Anonymous(), limits=Limits(message_size=1000, fragments=7), heartbeat=None
    )
    route = sockets.route("/", limits=Limits(message_size=2000), heartbeat=Heartbeat(interval=5))
    plain = sockets.route("/plain")
    serve(sockets)
    assert policy_of(sockets, route).limits.message_size == 2000
    assert policy_of(sockets, route).limits.fragments == 7
    assert policy_of(sockets, route).limits.inbound_messages == 16
    assert policy_of(sockets, route).heartbeat == Heartbeat(5, 20, None, None)
    assert policy_of(sockets, plain).heartbeat is None


# --- routes --------------------------------------------------------------------------------------


def test_a_route_is_a_decorator_that_returns_the_route(sockets: WebSockets) -> None:
    @sockets.route("/a")
    @sockets.route("/b")
    async def handler(ws: WebSocket) -> None: ...

    assert isinstance(handler, Route)
    assert handler.path == "/a"
    assert handler.handler is not None
    assert repr(handler) == "<Route /a (async def conversation)>"
    assert repr(sockets) == "<WebSockets 2 routes>"


def test_both_spellings_of_a_path_are_served(serve: Serve, sockets: WebSockets) -> None:
    flask = sockets.route("/flask/<int:n>/<w>")
    starlette = sockets.route("/starlette/{n:int}/{w}")
    served = serve(sockets)
    for route in (flask, starlette):
        prefix = route.path.split("/")[1]
        with connect(served, f"/{prefix}/7/x"):
            (ws,) = route.everyone.local()
            assert ws.path_params == {"n": 7, "w": "x"}
        until(lambda: sockets.everyone.count() == 0)


def test_a_path_without_parameters_comes_first(serve: Serve, sockets: WebSockets) -> None:
    any_room = sockets.route("/chat/<room>")
    lobby = sockets.route("/chat/lobby")
    with connect(serve(sockets), "/chat/lobby"):
        assert (lobby.everyone.count(), any_room.everyone.count()) == (1, 0)


@pytest.mark.parametrize("taken", ["/a/<y>", "/a/{x}", "/a/<int:z>"])
def test_a_path_or_a_name_that_is_taken_is_a_config_error(sockets: WebSockets, taken: str) -> None:
    sockets.route("/a/<x>")
    with pytest.raises(ConfigError, match="already"):
        sockets.route(taken)
    with pytest.raises(ConfigError, match="already"):
        sockets.route("/b", name="/a/*")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a", "begins with /"),
        ("/a?b", "begins with /"),
        ("/<nope:x>", "unknown converter"),
        ("/<x>/<x>", "comes twice"),
        ("/<x", "cannot read"),
        ("/<ws>", "handlers get that already"),
        ("/<message>", "handlers get that already"),
    ],
)
def test_a_path_that_is_wrong_is_a_config_error(sockets: WebSockets, path: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        sockets.route(path)


def test_subprotocols_are_a_list(sockets: WebSockets) -> None:
    with pytest.raises(ConfigError, match="takes a list"):
        sockets.route("/", subprotocols="chat")


# --- handlers ------------------------------------------------------------------------------------


def _takes_nothing() -> None: ...


def _takes_too_much(ws: WebSocket, other: int) -> None: ...


async def _takes_no_room(ws: WebSocket) -> None: ...


async def _yields(ws: WebSocket, room: str) -> Any:
    yield ws


def _yields_too(ws: WebSocket, room: str) -> Any:
    yield ws


@pytest.mark.parametrize(
    ("handler", "text"),
    [
        (_takes_nothing, "doesn't take"),
        (_takes_too_much, "doesn't take"),
        (_takes_no_room, r"_takes_no_room\(ws, room\), which it doesn't take"),
        (_yields, "has a yield"),
        (_yields_too, "has a yield"),
        (7, "takes a function"),
    ],
)
def test_a_handler_that_cannot_be_called_is_a_config_error(
    sockets: WebSockets, handler: Any, text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        sockets.route("/<room>")(handler)
    assert sockets._fronts.routes[0].handler is None


def test_a_route_has_a_conversation_or_events(sockets: WebSockets) -> None:
    def event(ws: WebSocket) -> None: ...

    route = sockets.route("/a")
    assert route.on_open(event) is event
    with pytest.raises(ConfigError, match="not both"):
        route(_takes_no_room)
    with pytest.raises(ConfigError, match="on_open handler already"):
        route.on_open(event)
    other = sockets.route("/b")(_takes_no_room)
    with pytest.raises(ConfigError, match="not both and not two"):
        other(_takes_no_room)
    with pytest.raises(ConfigError, match="not both"):
        other.on_close(event)
    with pytest.raises(ConfigError, match="events don't stack"):
        sockets.route("/c")(route)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda route: route(_takes_no_room), "async def conversation"),
        (lambda route: route(functools.partial(_takes_no_room)), "async def conversation"),
        (lambda route: route(lambda ws: None), "def conversation"),
        (lambda route: route.on_close(lambda ws: None), "events"),
        (lambda route: None, "push only"),
    ],
)
def test_the_shape_of_a_route(
    sockets: WebSockets, make: Callable[[Route], Any], shape: str
) -> None:
    route = sockets.route("/")
    make(route)
    assert route.shape.value == shape


# --- what it says of itself ----------------------------------------------------------------------


def test_describe_shows_messages_of_a_heartbeat_where_there_are_some() -> None:
    sockets = WebSockets(auth=Anonymous(), heartbeat=Heartbeat(interval=5))
    sockets.route("/plain")
    sockets.route("/asks", heartbeat=Heartbeat(app_ping="?"))
    sockets.route("/knows", heartbeat=Heartbeat(app_ping="?", app_pong=b"!"))
    plain, asks, knows = sockets.describe().splitlines()
    assert " heartbeat=5/20 s message_size" in plain
    assert " heartbeat=5/20 s app_ping='?' app_pong=None message_size" in asks
    assert " heartbeat=5/20 s app_ping='?' app_pong=b'!' message_size" in knows


def test_describe_has_a_line_for_each_route_and_no_key() -> None:
    key = "secret" * 8
    sockets = WebSockets(auth=JWTAuth(key, algorithms=["HS256"]), origins=["https://a.example"])
    sockets.route("/a")
    sockets.route("/b/<room>", heartbeat=None, limits=Limits(message_size=7))
    first, second = sockets.describe().splitlines()
    assert first.startswith(
        "/a [push only] auth=JWTAuth(HS256 in header, subprotocol, query:token)"
    )
    assert "origins=https://a.example heartbeat=30/20 s message_size=1048576" in first
    assert "heartbeat=None message_size=7" in second
    assert "secret" not in sockets.describe()


def test_the_log_is_one_line_of_ascii_each_whatever_the_peer_says(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ws_middleware")
    sockets = WebSockets(auth=lambda request: "zoë")
    sockets.route("/<room>")
    served = serve(sockets)
    with connect(served, "/%C3%A9%E2%80%AE") as client:
        client.close(4001, "the peer's\nown \x1b[31mwords")
    with served.peer() as peer:
        assert peer.upgrade("/%1B%0A" + "x" * 1000).startswith(b"HTTP/1.1 404")
    until(lambda: "close id=" in caplog.text)
    lines = [each.getMessage() for each in caplog.records]
    assert len(lines) == 3
    assert all(line.isascii() and line.isprintable() and len(line) < 500 for line in lines), lines


def test_the_lines_have_stable_keys(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ws_middleware")
    sockets = WebSockets(auth=lambda request: "ann")
    route = sockets.route("/<room>")
    with connect(serve(sockets), "/7") as client:
        (ws,) = route.everyone.local()
        client.send("x")
        ws.send("y")
        ws.send("z")
        client.recv(5)
        client.close(4001, "bye")
    until(lambda: "close id=" in caplog.text)
    opened, closed = (each for each in caplog.records if each.name == "ws_middleware.socket")
    assert opened.getMessage() == f"open id={ws.id} route=/* user=ann peer=127.0.0.1"
    assert closed.getMessage() == (
        f"close id={ws.id} code=4001 by=peer why=closed after=0s in=1 out=2"
    )
    assert (closed.ws_id, closed.ws_route, closed.ws_user) == (ws.id, "/*", "ann")  # type: ignore[attr-defined]
    assert (closed.ws_code, closed.ws_by) == (4001, "peer")  # type: ignore[attr-defined]
