"""Where a Flask app's sockets are: rules, converters, blueprints, hosts and mounts."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen
from uuid import UUID

import pytest
from flask import Blueprint, Flask, abort, current_app, g, request, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter, IntegerConverter, ValidationError

from tests.servers import conftest as servers
from ws_middleware import Anonymous, ConfigError, FlaskAuth, JWTAuth, WebSockets
from ws_middleware.testing import Refused, connect

if TYPE_CHECKING:
    from pathlib import Path

    from ws_middleware import Principal, Route, UpgradeRequest, WebSocket

ID = UUID("f47ac10b-58cc-4372-a567-0e02b2c3d479")


class Room:
    """What the converter below makes of a part of a path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"the room {self.name}"


class RoomConverter(BaseConverter):
    """Looks a room up, which needs the app."""

    regex = "[a-z]+-[0-9]+"

    def to_python(self, value: str) -> Room:
        if value in current_app.config["CLOSED"]:
            raise ValidationError
        return Room(value)

    def to_url(self, value: Room) -> str:
        return value.name


class SignedConverter(IntegerConverter):
    """Flask's own name, another meaning."""

    regex = r"-?\d+"
    signed = True


def make_app(**settings: Any) -> tuple[Flask, WebSockets]:
    app = Flask("shop", **settings)
    app.secret_key = "s" * 32
    sockets = WebSockets(auth=FlaskAuth(lambda: "ann"))
    sockets.init_app(app)
    return app, sockets


def tell(route: Route) -> None:
    """Have a route say what its path parameters are."""

    @route.on_open
    def came(ws: WebSocket, **parameters: Any) -> None:
        ws.send_json({key: [type(each).__name__, str(each)] for key, each in parameters.items()})


def hear(app: Flask, path: str, **options: Any) -> Any:
    with connect(app.test_client(), path, **options) as ws:
        return ws.receive_json()


# --- url_for -------------------------------------------------------------------------------------


def test_url_for_gives_the_whole_address_of_a_route() -> None:
    app, sockets = make_app()
    sockets.route("/ws/chat/<int:room>", name="chat")
    sockets.route("/ws/news.d")
    with app.test_request_context(base_url="https://shop.example"):
        assert url_for("ws:chat", room=7) == "wss://shop.example/ws/chat/7"
        assert url_for("ws:/ws/news_d") == "wss://shop.example/ws/news.d"
    with app.test_request_context(base_url="http://localhost:5000"):
        assert url_for("ws:chat", room=7, since=3) == "ws://localhost:5000/ws/chat/7?since=3"
    with app.test_request_context("/shop/page", base_url="http://localhost/shop"):
        assert url_for("ws:chat", room=7) == "ws://localhost/shop/ws/chat/7"


def test_url_for_knows_a_route_that_flask_has_no_say_in() -> None:
    app, sockets = make_app()
    auth = JWTAuth("k" * 32, algorithms=["HS256"])
    sockets.route("/ws/{room:int}", name="token", auth=auth)
    with app.test_request_context():
        assert url_for("ws:token", room=7) == "ws://localhost/ws/7"
    assert app.test_client().get("/ws/7").status_code == 426


# --- converters ----------------------------------------------------------------------------------


def test_flasks_own_converters_give_what_they_give_to_a_view() -> None:
    app, sockets = make_app()
    tell(sockets.route("/ws/<uuid:id>/<float:x>/<path:rest>"))
    path = f"/ws/{ID}/1.5/a/b"
    with connect(app.test_client(), path) as ws:
        told = ws.receive_json()
    assert told == {"id": ["UUID", str(ID)], "x": ["float", "1.5"], "rest": ["str", "a/b"]}


def test_a_converter_of_the_apps_own_makes_the_parameter() -> None:
    app = Flask("shop")
    app.config["CLOSED"] = ["no-0"]
    app.url_map.converters["room"] = RoomConverter
    sockets = WebSockets(auth=FlaskAuth(lambda: "ann"))
    asked: list[object] = []

    def authorize(user: Principal, request: UpgradeRequest) -> bool:
        asked.append(request.path_params["room"])
        return True

    route = sockets.route("/ws/<room:room>/<int:n>", authorize=authorize)
    tell(route)
    sockets.init_app(app)  # the route was there before
    with connect(app.test_client(), "/ws/red-7/2") as ws:
        assert ws.receive_json() == {"room": ["Room", "the room red-7"], "n": ["int", "2"]}
        assert [type(each) for each in asked] == [Room]
        # Its first room is called as the path says.
        assert route.room("red-7").count() == 1
    with pytest.raises(Refused, match="404"):  # the converter knows no such room
        connect(app.test_client(), "/ws/no-0/2")
    with pytest.raises(Refused, match="404"):  # its expression doesn't match
        connect(app.test_client(), "/ws/red/2")
    with app.test_request_context():
        assert url_for("ws:/ws/*/*", room=Room("red-7"), n=1) == "ws://localhost/ws/red-7/1"


def test_a_converter_that_replaces_flasks_own_counts() -> None:
    app, sockets = make_app()
    app.url_map.converters["int"] = SignedConverter
    tell(sockets.route("/ws/<int:n>"))
    assert hear(app, "/ws/-7") == {"n": ["int", "-7"]}


@pytest.mark.parametrize("auth", [Anonymous(), lambda request: "ann"])
def test_it_needs_flask_to_decide(auth: Any) -> None:
    app, sockets = make_app()
    app.url_map.converters["room"] = RoomConverter
    with pytest.raises(ConfigError, match="works on a route with FlaskAuth, or on a view"):
        sockets.route("/ws/<room:room>", auth=auth)
    with pytest.raises(ConfigError, match="unknown converter 'list'"):
        sockets.route("/ws/<list:rooms>")


def test_without_an_app_it_is_told_when_the_port_opens() -> None:
    sockets = WebSockets(auth=FlaskAuth())
    sockets.route("/ws/<room:room>")
    with pytest.raises(ConfigError, match="unknown converter 'room'"):
        sockets.listen(port=0)


def test_what_a_preprocessor_takes_out_still_comes_to_the_handler() -> None:
    app, sockets = make_app()

    @app.url_value_preprocessor
    def pull(endpoint: str | None, values: dict[str, Any] | None) -> None:
        g.lang = (values or {}).pop("lang", "en")
        (values or {})["more"] = 1

    tell(sockets.route("/<lang>/ws/<int:n>"))
    assert hear(app, "/de/ws/7") == {"lang": ["str", "de"], "n": ["int", "7"]}


# --- blueprints ----------------------------------------------------------------------------------


def with_blueprint() -> Flask:
    app, sockets = make_app()
    app.config["CLOSED"] = []
    app.url_map.converters["room"] = RoomConverter
    shop = Blueprint("shop", __name__)

    @shop.before_request
    def before() -> None:
        if "closed" in request.args:
            abort(403)

    @shop.route("/ws/<room:room>/<uuid:id>", websocket=True)
    def talk(room: Room, id: UUID) -> Any:  # noqa: A002
        async def tell(ws: WebSocket) -> None:
            assert isinstance(id, UUID)
            await ws.send_json([room.name, str(id), request_blueprint])
            await ws.wait_closed()

        request_blueprint = request.blueprint
        return sockets.upgrade(tell, user="ann", name="shop.talk")

    app.register_blueprint(shop, url_prefix="/shop")
    app.register_blueprint(shop, url_prefix="/other", name="other")
    return app


def test_a_view_of_a_blueprint_owns_a_socket() -> None:
    app = with_blueprint()
    assert hear(app, f"/shop/ws/red-7/{ID}") == ["red-7", str(ID), "shop"]
    assert hear(app, f"/other/ws/red-7/{ID}") == ["red-7", str(ID), "other"]
    for path, status in [
        (f"/shop/ws/red-7/{ID}?closed=1", 403),
        (f"/ws/red-7/{ID}", 404),
        ("/shop/ws/red-7/7", 404),
    ]:
        with pytest.raises(Refused, match=str(status)):
            connect(app.test_client(), path)


def test_url_for_of_a_view_of_a_blueprint() -> None:
    app = with_blueprint()
    with app.test_request_context(base_url="https://shop.example"):
        where = url_for("shop.talk", room=Room("red-7"), id=ID)
    assert where == f"wss://shop.example/shop/ws/red-7/{ID}"


# --- hosts ---------------------------------------------------------------------------------------


def test_with_subdomains_a_route_is_at_the_name_of_the_server() -> None:
    app, sockets = make_app(subdomain_matching=True)
    app.config["SERVER_NAME"] = "shop.example"
    tell(sockets.route("/ws/<int:n>", name="plain"))

    @app.route("/ws/view", subdomain="<tenant>", websocket=True)
    def view(tenant: str) -> Any:
        async def tell(ws: WebSocket) -> None:
            await ws.send_json(tenant)
            await ws.wait_closed()

        return sockets.upgrade(tell, user="ann")

    assert hear(app, "/ws/7", base_url="http://shop.example") == {"n": ["int", "7"]}
    with pytest.raises(Refused, match="404"):
        connect(app.test_client(), "/ws/7", base_url="http://red.shop.example")
    assert hear(app, "/ws/view", base_url="http://red.shop.example") == "red"
    with app.test_request_context(base_url="http://red.shop.example"):
        assert url_for("ws:plain", n=7) == "ws://shop.example/ws/7"
        assert url_for("view", tenant="blue") == "ws://blue.shop.example/ws/view"


def test_with_host_matching_flask_needs_a_view() -> None:
    app, sockets = make_app(host_matching=True, static_host="static.example")
    with pytest.raises(ConfigError) as caught:
        sockets.route("/ws/{n:int}")
    assert str(caught.value) == (
        "/ws/{n:int}: the app matches hosts, and a route with FlaskAuth names none; write a view, "
        '@app.route("/ws/<int:n>", host=..., websocket=True), that returns sockets.upgrade(...)'
    )
    tell(sockets.route("/ws/any", auth=Anonymous()))

    @app.route("/ws/view", host="<host>", websocket=True)
    def view(host: str) -> Any:
        async def tell(ws: WebSocket) -> None:
            await ws.send_json(host)
            await ws.wait_closed()

        return sockets.upgrade(tell, user="ann")

    assert hear(app, "/ws/view", base_url="http://red.example") == "red.example"
    assert hear(app, "/ws/any") == {}


# --- mounts --------------------------------------------------------------------------------------


def test_a_mounted_app_serves_paths_within_itself() -> None:
    app, sockets = make_app()
    sockets.route("/ws/<int:n>").on_open(
        lambda ws, n: ws.send_json([n, ws.request.path, ws.route.path])
    )

    @app.route("/ws/view", websocket=True)
    def view() -> Any:
        async def tell(ws: WebSocket) -> None:
            await ws.send_json(where)
            await ws.wait_closed()

        where = [request.script_root, request.path, url_for("view")]
        return sockets.upgrade(tell, user="ann")

    mount = DispatcherMiddleware(Flask("outer").wsgi_app, {"/shop": app.wsgi_app})
    app.wsgi_app = mount  # type: ignore[method-assign]
    assert hear(app, "/shop/ws/7") == [7, "/ws/7", "/ws/<int:n>"]
    assert hear(app, "/shop/ws/view") == ["/shop", "/ws/view", "ws://localhost/shop/ws/view"]
    with pytest.raises(Refused, match="404"):
        connect(app.test_client(), "/ws/7")


def test_gunicorns_script_name_is_no_part_of_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_up(origin: str, _: object) -> bool:
        with suppress(OSError), urlopen(f"{origin}/shop/", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    monkeypatch.setattr(servers, "is_up", is_up)
    with servers.run("gunicorn-gthread", tmp_path, SCRIPT_NAME="/shop") as server:
        with urlopen(f"{server.origin}/shop/login/ann", timeout=10) as answer:
            cookie = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        with server.connect("/shop/ws/chat/7", cookie) as ws:
            ws.send("hello")
            assert ws.recv(5) == "hello"
        with server.connect("/shop/ws/view", cookie) as ws:
            assert ws.recv(5) == "hello ann"


# --- not by the front door -----------------------------------------------------------------------


def test_the_view_of_another_route_says_yes_to_none_but_its_own() -> None:
    app = Flask("shop")
    inner = app.wsgi_app

    def rewrite(environ: Any, start_response: Any) -> Any:
        environ["PATH_INFO"] = "/ws/open"
        return inner(environ, start_response)

    app.wsgi_app = rewrite  # type: ignore[method-assign]
    sockets = WebSockets()
    sockets.init_app(app)
    tell(sockets.route("/ws/shut", auth=FlaskAuth(lambda: None)))
    tell(sockets.route("/ws/open", auth=FlaskAuth(lambda: "anybody")))
    assert hear(app, "/ws/open") == {}
    with pytest.raises(Refused, match="404"):
        connect(app.test_client(), "/ws/shut")


def test_hooks_judge_the_rule_whose_handler_runs() -> None:
    app, sockets = make_app()
    tell(sockets.route("/ws/<kind>/<n>", name="general"))
    tell(sockets.route("/ws/open/<n>", name="open", auth=FlaskAuth(lambda: "anybody")))

    @app.before_request
    def look() -> None:
        if request.endpoint != "ws:open":
            abort(403)

    assert hear(app, "/ws/open/7") == {"n": ["str", "7"]}
    with pytest.raises(Refused, match="403"):
        connect(app.test_client(), "/ws/shut/7")


def test_an_upgrade_that_was_not_checked_gets_no_yes() -> None:
    app, sockets = make_app()
    sockets.route("/ws/<int:n>")
    # Werkzeug's int takes digits of any script, ours doesn't: our checks have not seen this one.
    with pytest.raises(Refused, match="404"):
        connect(app.test_client(), "/ws/\u0663")
