"""Several Flask apps in one process, and an app factory that is called several times."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import make_server

import pytest
from flask import Flask, current_app, session
from websockets.sync.client import connect as connect_to
from websockets.typing import Origin

from tests.clients.python import end_of
from ws_middleware import Anonymous, ConfigError, FlaskAuth, Limits, MessageTooBig, WebSockets
from ws_middleware.testing import Refused, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

    from ws_middleware import Principal, UpgradeRequest, WebSocket


def may(user: Principal, request: UpgradeRequest) -> bool:
    return str(current_app.config["MEMBER"]) == user.id


def name_of_app() -> str:
    return str(current_app.name)


class Shop:
    """One module-level `sockets`, and the factory beside it."""

    def __init__(self) -> None:
        self.sockets = WebSockets()
        self.talk = self.sockets.route("/ws/talk", auth=FlaskAuth(lambda: session.get("user")))
        self.talk.on_open(lambda ws: ws.send(name_of_app()))
        self.talk.on_message(lambda ws, message: ws.send(f"{name_of_app()}: {message}"))
        self.members = self.sockets.route(
            "/ws/members", auth=FlaskAuth(lambda: session.get("user")), authorize=may
        )

        @self.sockets.route("/ws/async", auth=self.who)
        async def converse(ws: WebSocket) -> None:
            await ws.send(name_of_app())
            await ws.wait_closed()

        @self.sockets.route("/ws/thread", auth=self.who)
        def block(ws: Any) -> None:
            ws.send(name_of_app())
            ws.wait_closed()

    @staticmethod
    def who(request: UpgradeRequest) -> str:
        return str(current_app.name)

    def create_app(self, name: str, **settings: Any) -> Flask:
        app = Flask(name)
        app.secret_key = name * 32
        app.config["MEMBER"] = name
        app.config["WEBSOCKETS"] = {"auth": Anonymous(), **settings}
        self.sockets.init_app(app)

        @app.get("/login/<user>")
        def login(user: str) -> str:
            session["user"] = user
            return user

        @app.route("/ws/view", websocket=True)
        def view() -> Any:
            async def echo(ws: WebSocket) -> None:
                await ws.send(name_of_app())
                await ws.wait_closed()

            return self.sockets.upgrade(echo, user=name_of_app())

        return app

    def client_of(self, app: Flask, user: str) -> Any:
        client = app.test_client()
        client.get(f"/login/{user}")
        return client


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.sockets.close(timeout=3).result(10)


# --- whose code, whose settings ------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws/talk", "/ws/async", "/ws/thread", "/ws/view"])
def test_the_apps_code_runs_in_the_app_whose_door_it_was(shop: Shop, path: str) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    # Both are open at once, and each in turn: none is "the last one".
    with (
        connect(shop.client_of(ann, "x"), path) as one,
        connect(shop.client_of(bob, "x"), path) as two,
        connect(shop.client_of(ann, "y"), path) as three,
    ):
        assert [ws.receive() for ws in (one, two, three)] == ["ann", "bob", "ann"]


def test_events_of_a_socket_stay_with_its_app(shop: Shop) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    with (
        connect(shop.client_of(ann, "x"), "/ws/talk") as one,
        connect(shop.client_of(bob, "x"), "/ws/talk") as two,
    ):
        assert (one.receive(), two.receive()) == ("ann", "bob")
        for ws in (one, two):
            ws.send("hello")
        assert (one.receive(), two.receive()) == ("ann: hello", "bob: hello")


def test_authorize_asks_the_app_of_the_door(shop: Shop) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    with connect(shop.client_of(ann, "ann"), "/ws/members"):
        pass
    with pytest.raises(Refused, match="403 not_allowed"):
        connect(shop.client_of(bob, "ann"), "/ws/members")
    with connect(shop.client_of(bob, "bob"), "/ws/members"):
        pass


def test_a_shared_flask_auth_reads_each_apps_own_session(shop: Shop) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    client = shop.client_of(ann, "x")
    stolen = client.get_cookie("session")
    other = bob.test_client()
    other.set_cookie("session", stolen.value)
    with pytest.raises(Refused, match="401"):
        connect(other, "/ws/talk")
    with connect(client, "/ws/talk"):
        pass


def test_each_apps_settings_hold_for_its_own_door(shop: Shop) -> None:
    origins = ["https://bob.example"]
    ann = shop.create_app("ann", limits=Limits(message_size=10))
    bob = shop.create_app("bob", origins=origins, refuse_with="close")
    with connect(shop.client_of(ann, "x"), "/ws/talk") as ws:
        ws.send("x" * 11)
        assert ws.wait_closed() == 1009
    with pytest.raises(Refused) as refused:
        connect(shop.client_of(bob, "x"), "/ws/talk")
    assert refused.value.close_code == 4403
    with connect(shop.client_of(bob, "x"), "/ws/talk", origin=origins[0]) as ws:
        assert ws.receive() == "bob"
        ws.send("x" * 11)
        assert ws.receive() == "bob: " + "x" * 11
    with connect(shop.client_of(ann, "x"), "/ws/view") as ws:
        ws.send("x" * 11)
        assert ws.receive() == "ann"
        assert ws.wait_closed() == 1009


def test_caps_are_of_each_app(shop: Shop) -> None:
    one_each = Limits(connections_per_user=1)
    apps = [shop.create_app(name, limits=one_each) for name in ("ann", "bob")]
    with connect(shop.client_of(apps[0], "x"), "/ws/talk"):
        with pytest.raises(Refused, match="429"):
            connect(shop.client_of(apps[0], "x"), "/ws/talk")
        with connect(shop.client_of(apps[1], "x"), "/ws/talk"):
            pass


def test_a_message_may_be_as_big_as_the_most_generous_app_takes(shop: Shop) -> None:
    ann = shop.create_app("ann", limits=Limits(outbound_bytes=200_000))
    bob = shop.create_app("bob", limits=Limits(outbound_bytes=100_000))
    with (
        connect(shop.client_of(bob, "x"), "/ws/talk"),
        connect(shop.client_of(ann, "x"), "/ws/talk") as ws,
    ):
        assert ws.receive() == "ann"
        shop.talk.everyone.send("x" * 150_000)
        assert ws.receive() == "x" * 150_000
        with pytest.raises(MessageTooBig, match=r"Limits\.outbound_bytes is 200000"):
            shop.talk.everyone.send("x" * 200_001)


def test_audiences_span_all_apps(shop: Shop) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    with (
        connect(shop.client_of(ann, "x"), "/ws/talk") as one,
        connect(shop.client_of(bob, "x"), "/ws/talk") as two,
    ):
        assert (one.receive(), two.receive()) == ("ann", "bob")
        assert shop.sockets.user("x").count() == 2
        shop.talk.everyone.send("news")
        assert (one.receive(), two.receive()) == ("news", "news")


def test_a_route_that_comes_later_is_served_in_each_app(shop: Shop) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    with connect(shop.client_of(ann, "x"), "/ws/talk"):  # one door is open, one is not
        late = shop.sockets.route("/ws/late", auth=FlaskAuth(name_of_app))
        late.on_open(lambda ws: ws.send(f"{ws.user.id} in {name_of_app()}"))
        for app in (ann, bob):
            with connect(app.test_client(), "/ws/late") as ws:
                assert ws.receive() == f"{app.name} in {app.name}"


def test_an_app_may_come_when_another_ones_door_is_open(shop: Shop) -> None:
    with (
        connect(shop.client_of(shop.create_app("ann"), "x"), "/ws/talk"),
        connect(shop.client_of(shop.create_app("bob"), "x"), "/ws/talk") as ws,
    ):
        assert ws.receive() == "bob"


def test_describe_tells_them_apart(shop: Shop) -> None:
    apps = [shop.create_app("ann", limits=Limits(message_size=10)), shop.create_app("bob")]
    told = shop.sockets.describe().splitlines()
    assert [line for line in told if line.endswith(":")] == ["ann:", "bob:"]
    assert "message_size=10 " in told[1]
    assert "message_size=1048576 " in told[told.index("bob:") + 1]
    assert len(apps) == 2


# --- a port of our own ---------------------------------------------------------------------------


def open_at(address: tuple[str, int]) -> ClientConnection:
    host = f"{address[0]}:{address[1]}"
    return connect_to(f"ws://{host}/ws/async", origin=Origin(f"http://{host}"), proxy=None)


def hear(address: tuple[str, int]) -> Any:
    with open_at(address) as ws:
        return ws.recv(5)


def test_a_port_is_the_only_apps(shop: Shop) -> None:
    app = shop.create_app("ann")
    assert hear(shop.sockets.listen(port=0)) == "ann"
    assert app.name == "ann"


def test_with_several_apps_a_port_says_whose_it_is(shop: Shop) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    with pytest.raises(ConfigError) as caught:
        shop.sockets.listen(port=0)
    assert str(caught.value) == (
        "init_app() was called for 2 apps: say whose settings hold, as in listen(app=app), or "
        "connect(app.test_client(), path) in a test"
    )
    with pytest.raises(ConfigError, match="2 apps"):
        connect(shop.sockets, "/ws/async")
    for app in (ann, bob):
        assert hear(shop.sockets.listen(port=0, app=app)) == app.name
    with pytest.raises(ConfigError, match=r"init_app\(\) was never called for <Flask 'other'>"):
        shop.sockets.listen(port=0, app=Flask("other"))


def test_close_ends_the_sockets_of_all_apps(shop: Shop) -> None:
    ann, bob = shop.create_app("ann"), shop.create_app("bob")
    addresses = [shop.sockets.listen(port=0, app=app) for app in (ann, bob)]
    with open_at(addresses[0]) as one, open_at(addresses[1]) as two:
        shop.sockets.close(timeout=5).result(10)
        assert [end_of(client) for client in (one, two)] == [(1001, "")] * 2
    # And it is as new.
    assert hear(shop.sockets.listen(port=0, app=ann)) == "ann"


# --- what an app leaves behind -------------------------------------------------------------------


def test_an_app_that_nobody_holds_is_not_held_by_us(shop: Shop) -> None:
    apps = [weakref.ref(shop.create_app(f"app{number}")) for number in range(5)]
    gc.collect()
    assert [ref() for ref in apps] == [None] * 5
    app = shop.create_app("ann")
    with connect(shop.client_of(app, "x"), "/ws/talk") as ws:
        assert ws.receive() == "ann"


# --- mistakes ------------------------------------------------------------------------------------


# --- apps that are gone --------------------------------------------------------------------------


def ours() -> list[str]:
    return sorted(each.name for each in threading.enumerate() if each.name.startswith("ws-"))


def is_over(condition: Callable[[], bool]) -> bool:
    """Wait until it is so; what has gone leaves cycles, and threads end in their own time."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    return condition()


def on_a_server(app: Flask, path: str) -> ClientConnection:
    """Return a socket of an app on a real server, which has ended by then."""
    with app.test_client() as client:
        client.get("/login/ann")
        cookie = client.get_cookie("session")
        assert cookie is not None
    with make_server("127.0.0.1", 0, app) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        host = f"127.0.0.1:{server.server_port}"
        headers = {"Cookie": f"session={cookie.value}"}
        ws = connect_to(
            f"ws://{host}{path}", origin=Origin(f"http://{host}"), additional_headers=headers
        )
        thread.join()
    return ws


@pytest.mark.parametrize("path", ["/ws/talk", "/ws/async", "/ws/view"])
def test_what_serves_an_app_ends_with_it(shop: Shop, path: str) -> None:
    before, apps = ours(), []
    for number in range(3):
        app = shop.create_app(f"app{number}")
        apps.append(weakref.ref(app))
        with on_a_server(app, path) as ws:
            assert ws.recv(5) == f"app{number}"
        del app
    assert is_over(lambda: all(each() is None for each in apps))
    assert is_over(lambda: ours() == before)


def test_an_open_socket_of_an_app_that_is_gone_is_closed(shop: Shop) -> None:
    kept, app = shop.create_app("kept"), shop.create_app("gone")
    with on_a_server(kept, "/ws/talk") as other, on_a_server(app, "/ws/talk") as ws:
        assert (other.recv(5), ws.recv(5)) == ("kept", "gone")
        del app
        gc.collect()
        assert end_of(ws) == (1001, "going_away")
        other.send("hello")
        assert other.recv(5) == "kept: hello"


def test_a_port_keeps_its_app(shop: Shop) -> None:
    shop.create_app("one")
    app = shop.create_app("two")
    gone = weakref.ref(app)
    host, port = shop.sockets.listen("127.0.0.1", 0, app=app)
    del app
    gc.collect()
    with connect_to(f"ws://{host}:{port}/ws/async", origin=Origin(f"http://{host}:{port}")) as ws:
        assert ws.recv(5) == "two"
    shop.sockets.close().result(10)
    assert is_over(lambda: gone() is None)


def test_init_app_twice_for_one_app_is_an_error(shop: Shop) -> None:
    app = shop.create_app("ann")
    inner = app.wsgi_app
    with pytest.raises(ConfigError) as caught:
        shop.sockets.init_app(app)
    assert str(caught.value) == (
        "init_app() was called for the app 'ann' already; call it once, where the app is made"
    )
    assert app.wsgi_app is inner


def test_an_app_whose_settings_are_wrong_is_left_as_it_was(shop: Shop) -> None:
    app = Flask("ann")
    app.config["WEBSOCKETS"] = {"origins": "nonsense"}
    with pytest.raises(ConfigError, match="is no origin"):
        shop.sockets.init_app(app)
    assert "websockets" not in app.extensions
    app.config["WEBSOCKETS"] = {"auth": Anonymous()}
    shop.sockets.init_app(app)
    assert app.extensions["websockets"] is shop.sockets


def test_two_websockets_in_one_app_need_names_of_their_own() -> None:
    app = Flask("shop")
    one, two = WebSockets(auth=FlaskAuth()), WebSockets(auth=FlaskAuth())
    one.init_app(app)
    two.init_app(app)
    one.route("/a", name="chat")
    with pytest.raises(ConfigError) as caught:
        two.route("/b", name="chat")
    assert str(caught.value) == (
        "/b: the app 'shop' has an endpoint 'ws:chat' already; give the route another name="
    )
