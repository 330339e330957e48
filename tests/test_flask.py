from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask, Response, abort, g, redirect, request, session
from flask_login import LoginManager, UserMixin, login_required, login_user
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.support import TEXT, RawPeer
from ws_middleware import Anonymous, FlaskAuth, WebSocket, WebSockets
from ws_middleware.errors import ConfigError
from ws_middleware.testing import Refused, connect

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.wrappers import Response as AnyResponse

    from tests.conftest import Served


def user() -> str | None:
    return session.get("user")


def make_app(auth: FlaskAuth | None = None) -> tuple[Flask, WebSockets]:
    """A fresh app with sockets of its own, as an app factory makes them."""
    app = Flask("shop")
    app.secret_key = "s" * 32
    sockets = WebSockets()

    @sockets.route("/ws/<int:room>", auth=auth or FlaskAuth(user))
    async def greet(ws: WebSocket, room: int) -> None:
        await ws.send(f"{ws.user.id} {room}")
        await ws.wait_closed()

    sockets.init_app(app)
    return app, sockets


def cookie_of(app: Flask, **values: Any) -> str:
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    return f"session={serializer.dumps(values)}"


class Answer:
    """The answer to one upgrade request, and the first message after a 101."""

    def __init__(self, served: Served, path: str = "/ws/7", **fields: Any) -> None:
        with RawPeer(served.address) as peer:
            fields.setdefault("origin", "http://localhost")
            self.head = peer.upgrade(path, **fields).decode("latin-1")
            lines = self.head.split("\r\n")
            self.status = int(lines[0].split()[1])
            self.headers = [
                (n.lower(), v.strip()) for n, _, v in (x.partition(":") for x in lines[1:])
            ]
            self.body = b""
            self.message = b""
            if self.status == 101:
                frame = peer.read_frame()
                assert frame.opcode == TEXT
                self.message = frame.payload
            else:
                self.body = peer.read_rest()

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


# --- who it is -----------------------------------------------------------------------------------


def test_the_apps_session_says_who_it_is(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = make_app()
    answer = Answer(serve(sockets), cookie=cookie_of(app, user="ann"))
    assert (answer.status, answer.message) == (101, b"ann 7")


def test_nobody_gets_flasks_own_401(serve: Callable[[WebSockets], Served]) -> None:
    _, sockets = make_app()
    served = serve(sockets)
    for cookie in (None, "session=forged", cookie_of(Flask_with_key("t" * 32), user="ann")):
        answer = Answer(served, cookie=cookie)
        assert answer.status == 401
        assert b"<title>401 Unauthorized</title>" in answer.body
        assert answer.all("content-type") == ["text/html; charset=utf-8"]
        assert answer.all("content-length") == [str(len(answer.body))]


def Flask_with_key(key: str) -> Flask:  # noqa: N802
    app = Flask("other")
    app.secret_key = key
    return app


@pytest.mark.parametrize("nobody", [None, ""])
def test_none_and_the_empty_id_are_nobody(
    nobody: Any, serve: Callable[[WebSockets], Served]
) -> None:
    _, sockets = make_app(FlaskAuth(lambda: nobody))
    assert Answer(serve(sockets)).status == 401


def test_an_id_may_be_a_number(serve: Callable[[WebSockets], Served]) -> None:
    _, sockets = make_app(FlaskAuth(lambda: 42))
    assert Answer(serve(sockets)).message == b"42 7"


def test_true_is_no_user(serve: Callable[[WebSockets], Served]) -> None:
    _, sockets = make_app(FlaskAuth(lambda: True))
    assert Answer(serve(sockets)).status == 500


# --- the pipeline --------------------------------------------------------------------------------


def test_an_error_handler_answers(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = make_app()

    @app.errorhandler(401)
    def no(error: Exception) -> tuple[dict[str, str], int, dict[str, str]]:
        return {"error": "who?"}, 401, {"X-Shop": "1"}

    answer = Answer(serve(sockets))
    assert (answer.status, json.loads(answer.body)) == (401, {"error": "who?"})
    assert answer.all("x-shop") == ["1"]


def test_before_request_may_abort(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = make_app()

    @app.before_request
    def before() -> None:
        assert request.path == "/ws/7"
        assert request.view_args == {"room": 7}
        abort(418)

    answer = Answer(serve(sockets), cookie=cookie_of(app, user="ann"))
    assert answer.status == 418
    assert b"teapot" in answer.body


def test_before_request_may_answer_but_not_yes(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = make_app()

    @app.before_request
    def before() -> str:
        return "closed for maintenance"

    answer = Answer(serve(sockets), cookie=cookie_of(app, user="ann"))
    assert answer.status == 403
    assert json.loads(answer.body)["code"] == "app_refused"


def test_before_request_may_redirect(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = make_app()

    @app.before_request
    def before() -> AnyResponse:
        session["next"] = request.path
        return redirect("/login")

    answer = Answer(serve(sockets))
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "login_required")
    assert answer.all("location") == []
    (cookie,) = answer.all("set-cookie")
    assert cookie.startswith("session=")


def test_a_changed_session_is_set_on_the_101(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = make_app()

    @app.before_request
    def before() -> None:
        session["seen"] = session.get("seen", 0) + 1

    served = serve(sockets)
    answer = Answer(served, cookie=cookie_of(app, user="ann"))
    assert (answer.status, answer.message) == (101, b"ann 7")
    (cookie,) = answer.all("set-cookie")
    serializer = app.session_interface.get_signing_serializer(app)  # type: ignore[attr-defined]
    value = cookie.partition("=")[2].partition(";")[0]
    assert serializer.loads(value) == {"user": "ann", "seen": 1}


def test_after_request_may_add_fields_to_the_101(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = make_app()
    torn: list[object] = []

    @app.after_request
    def after(response: Response) -> Response:
        g.after = True
        response.headers["X-Trace"] = "7"
        response.headers["Sec-WebSocket-Accept"] = "forged"
        return response

    app.teardown_request(torn.append)
    answer = Answer(serve(sockets), cookie=cookie_of(app, user="ann"))
    assert answer.status == 101
    assert answer.all("x-trace") == ["7"]
    assert len(answer.all("sec-websocket-accept")) == 1
    assert "forged" not in answer.head
    assert answer.all("content-type") == answer.all("content-length") == []
    assert torn == [None]


def test_a_view_that_fails_is_flasks_500(serve: Callable[[WebSockets], Served]) -> None:
    def broken() -> str:
        raise LookupError

    _, sockets = make_app(FlaskAuth(broken))
    answer = Answer(serve(sockets))
    assert answer.status == 500
    assert b"<title>500 Internal Server Error</title>" in answer.body


# --- apps ----------------------------------------------------------------------------------------


def test_a_factory_called_twice_makes_two(serve: Callable[[WebSockets], Served]) -> None:
    (first, one), (second, two) = make_app(), make_app()
    second.secret_key = "t" * 32
    served, other = serve(one), serve(two)
    cookie = cookie_of(first, user="ann")
    assert first.extensions["websockets"] is one
    assert second.extensions["websockets"] is two
    assert Answer(served, cookie=cookie).message == b"ann 7"
    assert Answer(other, cookie=cookie).status == 401
    assert Answer(other, cookie=cookie_of(second, user="bob")).message == b"bob 7"


def test_a_shared_authenticator_asks_the_app_of_its_socket(
    serve: Callable[[WebSockets], Served],
) -> None:
    auth = FlaskAuth(user)
    (first, one), (second, _) = make_app(auth), make_app(auth)
    second.secret_key = "t" * 32
    assert Answer(serve(one), cookie=cookie_of(first, user="ann")).status == 101


def test_without_init_app_it_is_a_500_that_says_so(
    serve: Callable[[WebSockets], Served], caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(auth=FlaskAuth(user))
    sockets.route("/ws/<room>")
    answer = Answer(serve(sockets))
    assert (answer.status, json.loads(answer.body)["code"]) == (500, "authenticator_failed")
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, ConfigError)
    assert str(error) == "FlaskAuth needs the app: call sockets.init_app(app)"


def test_settings_of_the_app_count_and_must_be_a_dict() -> None:
    app = Flask("shop")
    app.config["WEBSOCKETS"] = "no"
    with pytest.raises(ConfigError, match=r'app.config\["WEBSOCKETS"\] takes a dict, got \'no\''):
        WebSockets(auth=Anonymous()).init_app(app)


# --- HTTP ----------------------------------------------------------------------------------------


def test_http_is_untouched() -> None:
    app, sockets = make_app()

    @app.get("/ws/<int:room>")
    def page(room: int) -> str:
        return f"page {room}"

    @app.get("/")
    def index() -> str:
        return "index"

    client = app.test_client()
    assert client.get("/ws/7").text == "page 7"
    assert client.get("/").text == "index"
    assert client.post("/ws/7").status_code == 405
    assert client.get("/nothing").status_code == 404
    assert sockets._front.engine is None


def test_a_get_at_a_path_of_ours_is_a_426() -> None:
    """Where Flask by itself says 400, for it knows the path for WebSockets only."""
    app, sockets = make_app()
    answer = app.test_client().get("/ws/7")
    assert (answer.status_code, answer.json) == (
        426,
        {
            "type": "about:blank",
            "title": "Upgrade Required",
            "status": 426,
            "detail": "this is a WebSocket endpoint: connect with a WebSocket client",
            "code": "upgrade_required",
        },
    )
    assert answer.mimetype == "application/problem+json"
    head = app.test_client().head("/ws/7")
    assert (head.status_code, head.data) == (426, b"")
    assert sockets._front.engine is None, "a page starts nothing"


def test_a_400_for_a_host_that_the_app_does_not_trust_stays() -> None:
    app, _ = make_app()
    app.config["TRUSTED_HOSTS"] = ["shop.example"]
    answer = app.test_client().get("/ws/7", base_url="http://evil.example")
    # Flask knows the setting since 3.1.
    assert answer.status_code == (400 if "TRUSTED_HOSTS" in Flask.default_config else 426)


def test_a_400_of_the_apps_own_at_a_path_of_ours_stays() -> None:
    app, _ = make_app()

    @app.get("/ws/<int:room>")
    def page(room: int) -> AnyResponse:
        return Response(f"bad {room}", 400)

    answer = app.test_client().get("/ws/7")
    assert (answer.status_code, answer.text) == (400, "bad 7")


def test_what_flask_says_of_other_paths_for_websockets_stays() -> None:
    """As of a flask-sock route: not ours."""
    app, _ = make_app()

    @app.route("/theirs", websocket=True)
    def theirs() -> str:
        return ""

    plain = Flask("plain")
    plain.add_url_rule("/theirs", "theirs", theirs, websocket=True)
    answer, expected = app.test_client().get("/theirs"), plain.test_client().get("/theirs")
    assert (answer.status_code, answer.data) == (expected.status_code, expected.data)
    assert answer.status_code == 400


def test_no_upgrade_field_grants(serve: Callable[[WebSockets], Served]) -> None:
    _, sockets = make_app()
    answer = Answer(
        serve(sockets), ws_middleware_granted="admin", **{"ws_middleware.granted": "admin"}
    )
    assert answer.status == 401


def test_a_field_with_an_underscore_is_not_the_proxys(
    serve: Callable[[WebSockets], Served],
) -> None:
    _, sockets = make_app(FlaskAuth(lambda: request.headers.get("X-Remote-User")))
    served = serve(sockets)
    with RawPeer(served.address) as peer:
        lines = [
            "GET /ws/7 HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX_Remote_User: admin\r\n\r\n",
        ]
        peer.send("\r\n".join(lines).encode())
        assert peer.status() == 401


# --- flask-login ---------------------------------------------------------------------------------


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def login_app() -> tuple[Flask, WebSockets]:
    app, sockets = make_app(FlaskAuth())
    manager = LoginManager(app)
    manager.login_view = "login"
    manager.user_loader(User)

    @app.get("/login/<name>")
    def login_as(name: str) -> str:
        login_user(User(name))
        return name

    @app.get("/login")
    def login() -> str:
        return "who?"

    async def greet(ws: WebSocket) -> None:
        await ws.send("view")

    @app.route("/ws/view", websocket=True)
    @login_required  # type: ignore[untyped-decorator, unused-ignore]
    def view() -> Any:
        return sockets.upgrade(greet, user="ann")

    return app, sockets


def test_flask_login_says_who_it_is(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = login_app()
    client = app.test_client()
    client.get("/login/ann")
    cookie = client.get_cookie("session")
    assert cookie is not None
    served = serve(sockets)
    assert Answer(served, cookie=f"session={cookie.value}").message == b"ann 7"
    assert Answer(served).status == 401


def test_who_has_no_flask_login_is_told_so(
    serve: Callable[[WebSockets], Served],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, sockets = make_app(FlaskAuth())
    monkeypatch.setitem(sys.modules, "flask_login", None)
    assert Answer(serve(sockets)).status == 500
    assert "ConfigError: FlaskAuth() asks flask-login, which is not installed. Ins" in caplog.text


def test_an_app_without_a_login_manager_is_told_so(
    serve: Callable[[WebSockets], Served], caplog: pytest.LogCaptureFixture
) -> None:
    _, sockets = make_app(FlaskAuth())
    assert Answer(serve(sockets)).status == 500
    assert "ConfigError: FlaskAuth() asks flask-login, and this app has no login" in caplog.text
    assert "Add LoginManager(app)" in caplog.text


def test_a_fault_in_the_apps_own_users_stays_what_it_is(
    serve: Callable[[WebSockets], Served], caplog: pytest.LogCaptureFixture
) -> None:
    app, sockets = make_app(FlaskAuth())
    LoginManager(app).request_loader(lambda request: object())
    assert Answer(serve(sockets)).status == 500
    assert "has no attribute 'is_authenticated'" in caplog.text
    assert "ConfigError" not in caplog.text


def test_login_required_before_a_view_that_accepts_is_a_401() -> None:
    app, _ = login_app()
    fields = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Origin": "http://localhost",
    }
    answer = app.test_client().get("/ws/view", headers=fields)
    assert answer.status_code == 401
    assert answer.json is not None
    assert answer.json["code"] == "login_required"
    assert "Location" not in answer.headers
    assert [each.partition("=")[0] for each in answer.headers.getlist("Set-Cookie")] == ["session"]
    page = app.test_client().get("/ws/view")
    assert page.status_code == 400, "not a route of ours: Flask's own answer"


def test_login_required_before_ours_is_a_401(serve: Callable[[WebSockets], Served]) -> None:
    app, sockets = login_app()

    @app.before_request
    @login_required  # type: ignore[untyped-decorator, unused-ignore]
    def before() -> None: ...

    answer = Answer(serve(sockets))
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "login_required")
    assert answer.all("location") == []
    assert [each.partition("=")[0] for each in answer.all("set-cookie")] == ["session"]


# --- a proxy in front ----------------------------------------------------------------------------

#: What a proxy says that does not pass Host.
FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "shop.example",
}


def behind(*, fix: str, **hops: int) -> Any:
    """Return the test client of an app with a `ProxyFix` before `init_app`, after it, or none."""
    app = Flask("shop")
    app.config["ADDRESSES"] = addresses = []
    sockets = WebSockets()
    hops = hops or {"x_for": 1, "x_proto": 1, "x_host": 1}

    def lay_over() -> None:
        app.wsgi_app = ProxyFix(app.wsgi_app, **hops)  # type: ignore[method-assign]

    def note() -> str:
        addresses.append((request.url, request.remote_addr))
        return "ann"

    async def tell(ws: WebSocket) -> None:
        client = ws.request.client
        await ws.send(f"{ws.request.scheme}://{ws.request.host} {client and client[0]}")

    if fix == "before":
        lay_over()
    sockets.init_app(app)
    if fix == "after":
        lay_over()
    sockets.route("/ws/app", auth=FlaskAuth(note))(tell)
    sockets.route("/ws/none", auth=Anonymous())(tell)

    @app.route("/ws/view", websocket=True)
    def view() -> Any:
        return sockets.upgrade(tell, user=note())

    return app.test_client()


@pytest.mark.parametrize("path", ["/ws/app", "/ws/none", "/ws/view"])
@pytest.mark.parametrize("fix", ["before", "after"])
def test_proxyfix_counts_the_same_before_init_app_and_after(fix: str, path: str) -> None:
    client, page = behind(fix=fix), "https://shop.example"
    local = "http://127.0.0.1:5000"  # what such a proxy asks for
    with connect(client, path, headers=FORWARDED, origin=page, base_url=local) as ws:
        assert ws.receive() == f"{page} 203.0.113.9"
    for address in client.application.config["ADDRESSES"]:  # the app applies it once, too
        assert address == (f"https://shop.example{path}", "203.0.113.9")
    for evil in ("https://evil.example", "http://shop.example", local):
        with pytest.raises(Refused, match="403 origin_not_allowed"):
            connect(client, path, headers=FORWARDED, origin=evil, base_url=local)


@pytest.mark.parametrize("fix", ["before", "after"])
@pytest.mark.parametrize("name", ["evil.example, shop.example", "shop.example"])
def test_what_the_client_wrote_before_the_proxy_is_not_believed(fix: str, name: str) -> None:
    headers = FORWARDED | {"X-Forwarded-Host": name}
    with connect(behind(fix=fix), "/ws/app", headers=headers, origin="https://shop.example") as ws:
        assert str(ws.receive()).startswith("https://shop.example ")
    with pytest.raises(Refused, match="403 origin_not_allowed"):
        connect(behind(fix=fix), "/ws/app", headers=headers, origin="https://evil.example")


@pytest.mark.parametrize(
    ("fix", "hops"), [("none", {"x_host": 1}), ("before", {"x_for": 1}), ("after", {"x_for": 1})]
)
def test_a_host_that_proxyfix_does_not_believe_is_not_believed_here(
    fix: str, hops: dict[str, int]
) -> None:
    client, evil = behind(fix=fix, **{"x_host": 0, **hops}), {"X-Forwarded-Host": "evil.example"}
    with pytest.raises(Refused, match="403 origin_not_allowed"):
        connect(client, "/ws/app", headers=evil, origin="http://evil.example")
    with connect(client, "/ws/app", headers=evil) as ws:
        assert str(ws.receive()).startswith("http://localhost ")
