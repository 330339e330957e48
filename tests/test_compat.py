"""`compat.Sock` beside flask-sock itself: the same apps, the same clients, the same outcome."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from queue import Queue
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, Flask, abort, current_app, g, redirect, request, session, url_for
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as dial
from werkzeug.serving import make_server

from tests.support import RawPeer
from ws_middleware import ConfigError, FlaskAuth, WebSockets, compat
from ws_middleware.testing import Refused, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

    Serve = Callable[[Flask], "Served"]

if os.environ.get("CI") == "true":
    import flask_sock
    import simple_websocket
else:
    flask_sock = pytest.importorskip("flask_sock")
    simple_websocket = pytest.importorskip("simple_websocket")

THEIRS = SimpleNamespace(Sock=flask_sock.Sock, ConnectionClosed=flask_sock.ConnectionClosed)
OURS = SimpleNamespace(Sock=compat.Sock, ConnectionClosed=compat.ConnectionClosed)

both = pytest.mark.parametrize("lib", [THEIRS, OURS], ids=["flask-sock", "ours"])


class Served:
    """A Flask app on werkzeug's threaded server."""

    def __init__(self, app: Flask) -> None:
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def dial(self, path: str, cookie: str = "", **options: Any) -> ClientConnection:
        headers = {"Cookie": cookie} if cookie else {}
        url = f"ws://{self.host}{path}"
        options = {"open_timeout": 5, "close_timeout": 0.2, "compression": None, **options}
        connection: ClientConnection = dial(url, additional_headers=headers, **options)
        return connection


@pytest.fixture
def serve() -> Iterator[Serve]:
    served: list[tuple[Served, Flask]] = []

    def start(app: Flask) -> Served:
        served.append((Served(app), app))
        return served[-1][0]

    yield start
    for each, app in served:
        for extension in set(app.extensions.values()) if app.extensions else ():
            if isinstance(extension, WebSockets):
                extension.close(timeout=2).result(5)
        each.server.shutdown()
        each.server.server_close()


def new_app(**config: Any) -> Flask:
    app = Flask(__name__)
    app.secret_key = "a secret for tests"
    app.config.update(config)
    return app


def login_app() -> Flask:
    app = new_app()
    manager = app.extensions["manager"] = LoginManager(app)

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.id = name

    manager.user_loader(User)

    @app.get("/login/<name>")
    def login(name: str) -> str:
        login_user(User(name))
        session["colour"] = "green"
        return "in"

    return app


def cookie_of(app: Flask, path: str) -> str:
    with app.test_client() as client:
        client.get(path)
        cookie = client.get_cookie("session")
        assert cookie is not None
        return f"session={cookie.value}"


# --- what apps of flask-sock do, on both ---------------------------------------------------------


@both
def test_echo(lib: Any, serve: Serve) -> None:
    app = new_app()
    sock = lib.Sock(app)

    @sock.route("/echo")  # type: ignore[untyped-decorator]
    def echo(ws: Any) -> None:
        while True:
            ws.send(ws.receive())

    with serve(app).dial("/echo") as ws:
        for message in ("hello", "", "ü" * 50_000, b"\x00\xff", b""):
            ws.send(message)
            assert ws.recv(timeout=5) == message


@both
def test_what_is_not_bytes_is_sent_as_text(lib: Any, serve: Serve) -> None:
    app = new_app()
    sock = lib.Sock(app)

    @sock.route("/numbers")  # type: ignore[untyped-decorator]
    def numbers(ws: Any) -> None:
        ws.send(42)
        ws.send(None)

    with serve(app).dial("/numbers") as ws:
        assert [ws.recv(timeout=5), ws.recv(timeout=5)] == ["42", "None"]


@both
def test_an_app_made_by_a_factory_with_parameters_and_url_for(lib: Any, serve: Serve) -> None:
    sock = lib.Sock()

    @sock.route("/add/<int:a>/<int:b>")  # type: ignore[untyped-decorator]
    def add(ws: Any, a: int, b: int) -> None:
        ws.send(str(a + b))
        ws.send(url_for("__flask_sock.add", a=1, b=2))

    app = new_app()
    sock.init_app(app)
    with serve(app).dial("/add/40/2") as ws:
        assert ws.recv(timeout=5) == "42"
        assert str(ws.recv(timeout=5)).endswith("/add/1/2")


@both
def test_a_blueprint(lib: Any, serve: Serve) -> None:
    sock = lib.Sock()
    bp = Blueprint("chat", __name__, url_prefix="/chat")

    @sock.route("/<name>", bp=bp)  # type: ignore[untyped-decorator]
    def chat(ws: Any, name: str) -> None:
        ws.send(f"{request.blueprint} {name} {ws.receive()}")

    app = new_app()
    app.register_blueprint(bp)
    with serve(app).dial("/chat/ann") as ws:
        ws.send("hi")
        assert ws.recv(timeout=5) == "chat ann hi"


@both
def test_request_session_and_current_user(lib: Any, serve: Serve) -> None:
    app = login_app()
    sock = lib.Sock(app)

    @app.before_request
    def remember() -> None:
        g.asked_for = request.path

    @sock.route("/me")  # type: ignore[untyped-decorator]
    def me(ws: Any) -> None:
        for _ in range(2):
            ws.receive()
            said = (request.args["x"], session["colour"], current_user.id, g.asked_for)
            ws.send(" ".join((*said, current_app.name)))

    cookie = cookie_of(app, "/login/ann")
    with serve(app).dial("/me?x=1", cookie) as ws:
        for _ in range(2):
            ws.send("?")
            assert ws.recv(timeout=5) == f"1 green ann /me {__name__}"


@both
def test_the_end_is_an_exception_that_can_be_caught(lib: Any, serve: Serve) -> None:
    app = new_app()
    sock = lib.Sock(app)
    ends: Queue[tuple[int, str | None, bool]] = Queue()

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        try:
            while True:
                ws.receive()
        except lib.ConnectionClosed as error:
            ends.put((error.reason, error.message, ws.connected))

    served = serve(app)
    with served.dial("/") as ws:
        ws.send("a message")
        ws.close(4001, "bye")
    assert ends.get(timeout=5) == (4001, "bye", False)
    with served.dial("/"):
        pass
    assert ends.get(timeout=5) == (1000, "", False)


@both
def test_a_handler_that_does_not_catch_it_ends_quietly(
    lib: Any, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    app = new_app()
    sock = lib.Sock(app)
    ended = threading.Event()

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        try:
            ws.receive()
        finally:
            ended.set()

    with serve(app).dial("/"):
        pass
    assert ended.wait(5)
    assert not [record for record in caplog.records if record.exc_info]


@both
def test_receive_with_a_timeout(lib: Any, serve: Serve) -> None:
    app = new_app()
    sock = lib.Sock(app)

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        ws.send(repr(ws.receive(timeout=0)))
        ws.send(repr(ws.receive(timeout=0.02)))
        ws.send(ws.receive(timeout=5))
        ws.send(ws.receive(timeout=5))

    with serve(app).dial("/") as ws:
        assert [ws.recv(timeout=5), ws.recv(timeout=5)] == ["None", "None"]
        ws.send("one")
        ws.send("two")
        assert [ws.recv(timeout=5), ws.recv(timeout=5)] == ["one", "two"]


@both
def test_a_message_that_is_there_is_received_with_timeout_0(lib: Any, serve: Serve) -> None:
    app = new_app()
    sock = lib.Sock(app)
    told = threading.Event()

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        ws.send(ws.receive())  # the second message came in the same packet or soon after
        told.wait(5)
        ws.send(repr([ws.receive(timeout=0), ws.receive(timeout=0)]))

    with serve(app).dial("/") as ws:
        ws.send("one")
        ws.send("two")
        assert ws.recv(timeout=5) == "one"
        threading.Event().wait(0.1)
        told.set()
        assert ws.recv(timeout=5) == "['two', None]"


@both
def test_closing_with_a_reason_and_a_message(lib: Any, serve: Serve) -> None:
    app = new_app()
    sock = lib.Sock(app)
    after: Queue[Any] = Queue()

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        after.put(ws.connected)
        ws.close(4002, "enough")
        after.put(ws.connected)
        for call in (lambda: ws.send("x"), ws.receive, ws.close):
            with pytest.raises(lib.ConnectionClosed):
                call()
        after.put("done")

    host, port = serve(app).host.split(":")
    with RawPeer((host, int(port))) as peer:
        peer.upgrade("/")
        frame = peer.read_frame()
        assert (frame.close_code, frame.payload[2:]) == (4002, b"enough")
    assert [after.get(timeout=5) for _ in range(3)] == [True, False, "done"]


@both
def test_a_handler_that_returns_closes_with_1000(lib: Any, serve: Serve) -> None:
    app = new_app()
    lib.Sock(app).route("/")(lambda ws: ws.send("x"))
    host, port = serve(app).host.split(":")
    with RawPeer((host, int(port))) as peer:
        peer.upgrade("/")
        assert peer.read_frame().payload == b"x"
        assert peer.read_frame().close_code == 1000


@both
def test_subprotocols_of_the_options_are_chosen_as_the_client_likes(lib: Any, serve: Serve) -> None:
    app = new_app(SOCK_SERVER_OPTIONS={"subprotocols": ["v1", "v2"]})
    sock = lib.Sock(app)

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        ws.send(str(ws.subprotocol))

    served = serve(app)
    with served.dial("/", subprotocols=["v3", "v2", "v1"]) as ws:
        assert ws.recv(timeout=5) == ws.subprotocol == "v2"
    with served.dial("/") as ws:
        assert ws.recv(timeout=5) == "None"


@both
def test_pings_of_the_options(lib: Any, serve: Serve) -> None:
    app = new_app(SOCK_SERVER_OPTIONS={"ping_interval": 0.2})
    sock = lib.Sock(app)

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        ws.send(repr(ws.receive(timeout=1)))  # websockets' client answers pings by itself

    with serve(app).dial("/") as ws:
        assert ws.recv(timeout=5) == "None"


@both
def test_a_thread_that_is_not_the_handlers_may_send(lib: Any, serve: Serve) -> None:
    app = new_app()
    sock = lib.Sock(app)
    clients: list[Any] = []

    @sock.route("/")  # type: ignore[untyped-decorator]
    def handler(ws: Any) -> None:
        clients.append(ws)
        ws.send("here")
        ws.receive()

    @app.get("/all")
    def everyone() -> str:
        for ws in clients:
            with contextlib.suppress(lib.ConnectionClosed):
                ws.send("news")
        return "ok"

    served = serve(app)
    with served.dial("/") as ws:
        assert ws.recv(timeout=5) == "here"
        app.test_client().get("/all")
        assert ws.recv(timeout=5) == "news"
    app.test_client().get("/all")


@both
def test_a_plain_get_is_no_websocket(lib: Any) -> None:
    app = new_app()
    lib.Sock(app).route("/")(lambda ws: None)
    assert app.test_client().get("/").status_code == 400


@both
def test_before_request_refuses(lib: Any, serve: Serve) -> None:
    app = new_app()
    lib.Sock(app).route("/")(lambda ws: ws.send("in"))

    @app.before_request
    def nobody() -> None:
        abort(403)

    with pytest.raises(InvalidStatus) as raised:
        serve(app).dial("/")
    assert raised.value.response.status_code == 403


# --- who may connect: ours only ------------------------------------------------------------------


def open_app(sock: compat.Sock, app: Flask) -> Flask:
    sock.init_app(app)

    @sock.route("/ws")
    def handler(ws: compat.Server) -> None:
        ws.send("in")

    return app


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("same", True),
        (None, True),  # no browser
        ("https://evil.example", False),
        ("http://localhost:3000", False),
        ("null", False),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str | None, *, allowed: bool) -> None:
    client = open_app(compat.Sock(), new_app()).test_client()
    if allowed:
        with connect(client, "/ws", origin=origin) as ws:
            assert ws.receive() == "in"
    else:
        with pytest.raises(Refused) as refused:
            connect(client, "/ws", origin=origin)
        assert (refused.value.status, refused.value.code) == (403, "origin_not_allowed")


def test_flask_sock_lets_every_page_in(serve: Serve) -> None:
    """Why ours does not: this is what migrating ends."""
    app = new_app()
    flask_sock.Sock(app).route("/ws")(lambda ws: ws.send("in"))
    with serve(app).dial("/ws", origin="https://evil.example") as ws:
        assert ws.recv(timeout=5) == "in"


def test_listed_origins_are_let_in() -> None:
    listed = {"origins": ["https://shop.example"]}
    client = open_app(compat.Sock(), new_app(WEBSOCKETS=listed)).test_client()
    with connect(client, "/ws", origin="https://shop.example") as ws:
        assert ws.receive() == "in"
    with pytest.raises(Refused):
        connect(client, "/ws", origin="same")


def test_any_origin_needs_a_name_that_says_so() -> None:
    with pytest.raises(ConfigError, match="unsafe_any_origin"):
        open_app(compat.Sock(), new_app(WEBSOCKETS={"origins": "*"}))
    client = open_app(compat.Sock(unsafe_any_origin=True), new_app()).test_client()
    with connect(client, "/ws", origin="https://evil.example") as ws:
        assert ws.receive() == "in"


def test_any_origin_of_the_apps_own_websockets_is_not_inherited() -> None:
    app = new_app()
    sockets = WebSockets(auth=lambda request: "x", origins=["https://shop.example"])
    sockets.init_app(app)
    sockets._front.settings.code["origins"] = "*"
    with pytest.raises(ConfigError, match="unsafe_any_origin"):
        open_app(compat.Sock(), app)


# --- the context ---------------------------------------------------------------------------------


def test_g_has_what_teardown_left_and_no_caches() -> None:
    app = new_app()

    @app.before_request
    def fill() -> None:
        g.user, g.database, g._cache = "ann", "open", "of the request"

    @app.teardown_request
    def let_go(error: BaseException | None) -> None:
        g.pop("database", None)

    sock = compat.Sock(app)

    @sock.route("/ws")
    def handler(ws: compat.Server) -> None:
        ws.send(" ".join(sorted(g)) + f" {g.user}")

    with connect(app.test_client(), "/ws") as ws:
        assert ws.receive() == "user ann"


@pytest.mark.parametrize(("login_view", "reason"), [(None, "Unauthorized"), ("login", "FOUND")])
def test_login_required_under_the_route_closes_with_4401(
    login_view: str | None, reason: str
) -> None:
    app = login_app()
    app.extensions["manager"].login_view = login_view
    if login_view:
        app.view_functions["login"] = lambda **_: redirect("/")
        app.add_url_rule("/login", "login")
    sock = compat.Sock(app)

    @sock.route("/ws")
    @login_required  # type: ignore[untyped-decorator]
    def handler(ws: compat.Server) -> None:
        ws.send(current_user.id)

    client = app.test_client()
    with connect(client, "/ws") as ws:
        assert ws.wait_closed() == 4401
        assert ws.close_reason.casefold() == reason.casefold()


def test_a_failing_handler_closes_with_1011_and_is_an_error() -> None:
    app = new_app()

    def handler(ws: compat.Server) -> None:
        msg = "broken"
        raise LookupError(msg)

    compat.Sock(app).route("/ws")(handler)
    with pytest.raises(LookupError, match="broken"), connect(app.test_client(), "/ws") as ws:
        assert ws.wait_closed() == 1011


def test_handlers_that_catch_flask_socks_own_exception_go_on_catching_it() -> None:
    app = new_app()
    caught = []
    sock = compat.Sock(app)

    @sock.route("/ws")
    def handler(ws: compat.Server) -> None:
        try:
            ws.receive()
        except simple_websocket.ConnectionClosed as error:
            caught.append((error.reason, error.message))

    with connect(app.test_client(), "/ws") as ws:
        ws.close(4001, "bye")
    assert caught == [(4001, "bye")]


# --- how it is set up ----------------------------------------------------------------------------


def test_a_handler_is_returned_as_it_was_and_may_have_two_paths() -> None:
    app = new_app()
    sock = compat.Sock(app)

    def handler(ws: compat.Server) -> None:
        ws.send(request.path)

    assert sock.route("/a")(sock.route("/b", endpoint="b")(handler)) is handler
    for path in ("/a", "/b"):
        with connect(app.test_client(), path) as ws:
            assert ws.receive() == path


def test_an_async_def_is_a_config_error() -> None:
    async def handler(ws: object) -> None: ...

    with pytest.raises(ConfigError, match="def handlers"):
        compat.Sock().route("/ws")(handler)


def test_options_that_mean_nothing_are_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    compat._warned.clear()
    options = {"receive_bytes": 1, "ping_interval": 25}
    app = open_app(compat.Sock(), new_app(SOCK_SERVER_OPTIONS=options))
    for _ in range(2):
        with connect(app.test_client(), "/ws") as ws:
            assert ws.receive() == "in"
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "receive_bytes" in record.getMessage()


@pytest.mark.parametrize("options", [{"ping_interval": -1}, {"max_message_size": "big"}])
def test_an_option_that_is_wrong_is_a_config_error(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        compat.Sock(new_app(SOCK_SERVER_OPTIONS=options))


def test_a_message_over_max_message_size_closes_with_1009() -> None:
    # flask-sock's handler may wait in receive() for ever then: it is woken before the socket is
    # marked as closed.
    app = new_app(SOCK_SERVER_OPTIONS={"max_message_size": 10})
    sock = compat.Sock(app)

    @sock.route("/ws")
    def echo(ws: compat.Server) -> None:
        while True:
            ws.send(ws.receive())

    with connect(app.test_client(), "/ws") as ws:
        ws.send("x" * 10)
        assert ws.receive() == "x" * 10
        ws.send("x" * 11)
        assert ws.wait_closed() == 1009


@pytest.mark.parametrize(
    ("options", "pings"), [({}, 3), ({"ping_interval": 10}, 9), ({"ping_interval": None}, 0)]
)
def test_pings_are_on_unless_they_are_switched_off(options: dict[str, Any], pings: int) -> None:
    app = new_app(SOCK_SERVER_OPTIONS=options)
    compat.Sock(app).route("/ws")(lambda ws: ws.receive())
    with connect(app.test_client(), "/ws") as ws:
        ws.advance(90)
        assert ws.pings == pings


def test_options_may_be_set_after_sock_as_with_flask_sock() -> None:
    app = open_app(compat.Sock(), new_app())
    app.config["SOCK_SERVER_OPTIONS"] = {"subprotocols": "v1"}
    with connect(app.test_client(), "/ws", subprotocols=["v1"]) as ws:
        assert ws.subprotocol == "v1"


def test_websockets_settings_that_come_too_late_are_an_error() -> None:
    app = open_app(compat.Sock(), new_app())
    app.config["WEBSOCKETS"] = {"origins": ["https://shop.example"]}
    app.testing = True
    with pytest.raises(ConfigError, match="set it before"):
        connect(app.test_client(), "/ws")


def test_there_is_room_for_100_conversations_unless_somebody_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def room(**config: Any) -> int:
        app = new_app(**config)
        compat.Sock(app)
        settings = app.extensions["websockets"]._front.settings
        threads: int = settings.threads("sync_conversations")
        return threads

    assert room() == 100
    assert room(WEBSOCKETS={"sync_conversations": 7}) == 7
    monkeypatch.setenv("WSM_SYNC_CONVERSATIONS", "9")
    assert room() == 9


def test_it_shares_the_apps_own_websockets() -> None:
    app = login_app()
    sockets = WebSockets(auth=FlaskAuth())
    sockets.init_app(app)
    push = sockets.route("/ws/push")
    compat.Sock(app).route("/ws")(lambda ws: ws.send("in"))
    assert app.extensions["ws_middleware.compat"] is sockets
    client = app.test_client()
    client.get("/login/ann")
    with connect(client, "/ws") as ws, connect(client, "/ws/push") as pushed:
        assert ws.receive() == "in"
        push.everyone.send("news")
        assert pushed.receive() == "news"


def test_the_apps_own_websockets_may_come_later() -> None:
    app = new_app()
    compat.Sock(app).route("/ws")(lambda ws: ws.send("in"))
    sockets = WebSockets(auth=lambda request: "ann")
    sockets.route("/ws/push").on_open(lambda ws: ws.send("open"))
    sockets.init_app(app)
    with connect(app.test_client(), "/ws") as ws, connect(app.test_client(), "/ws/push") as push:
        assert ws.receive() == "in"
        assert push.receive() == "open"


def test_an_app_that_was_never_initialised_says_so() -> None:
    app = new_app()
    app.testing = True
    sock = compat.Sock()
    sock.app = app
    sock.route("/ws")(lambda ws: None)
    WebSockets(auth=lambda request: "x").init_app(app)
    with pytest.raises(RuntimeError, match="init_app"):
        connect(app.test_client(), "/ws")


def test_a_long_message_of_a_close_is_cut_as_flask_sock_cuts_it() -> None:
    app = new_app()
    compat.Sock(app).route("/ws")(lambda ws: ws.close(4000, "ü" * 100))
    with connect(app.test_client(), "/ws") as ws:
        assert ws.wait_closed() == 4000
        assert ws.close_reason == "ü" * 61


def test_environ_and_the_reason_of_the_end_are_there() -> None:
    app = new_app()
    seen: list[Any] = []

    def handler(ws: compat.Server) -> None:
        seen.append((ws.environ["PATH_INFO"], ws.close_reason, ws.close_message))
        with contextlib.suppress(compat.ConnectionClosed):
            ws.receive()
        seen.append((ws.close_reason, ws.close_message))

    compat.Sock(app).route("/ws")(handler)
    with connect(app.test_client(), "/ws") as ws:
        ws.close(4001, "bye")
    assert seen == [("/ws", 1005, None), (4001, "bye")]


def test_it_needs_nothing_of_flask_sock() -> None:
    program = (
        "import sys; sys.modules['simple_websocket'] = sys.modules['flask_sock'] = None\n"
        "from ws_middleware.compat import ConnectionClosed\n"
        "assert ConnectionClosed.__mro__[1] is RuntimeError\n"
        "assert str(ConnectionClosed(1000, 'bye')) == 'Connection closed: 1000 bye'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
