"""Who logs out loses the sockets that the login opened."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
    user_logged_out,
)

from ws_middleware import FlaskAuth, Principal, WebSocket, WebSockets
from ws_middleware.testing import connect

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from ws_middleware import UpgradeRequest
    from ws_middleware.testing.client import ClientSocket


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


def by_token(request: UpgradeRequest) -> str:
    return request.query["token"]


def add_views(app: Flask, sockets: WebSockets) -> None:
    @app.get("/login/<name>")
    def login(name: str) -> str:
        login_user(User(name))
        return name

    @app.get("/logout")
    def logout() -> str:
        logout_user()
        return "bye"

    @app.route("/ws/view", websocket=True)
    @login_required  # type: ignore[untyped-decorator, unused-ignore]
    def view() -> Any:
        async def wait(ws: WebSocket) -> None:
            await ws.wait_closed()

        return sockets.upgrade(wait, user=current_user.get_id())


def make_app(
    sockets: WebSockets | None = None, *, manager_first: bool = True, **settings: Any
) -> tuple[Flask, WebSockets]:
    app = Flask("shop")
    app.secret_key = "s" * 32
    app.config["WEBSOCKETS"] = settings
    sockets = sockets or WebSockets(auth=FlaskAuth())
    manager = LoginManager()
    manager.user_loader(User)
    if manager_first:
        manager.init_app(app)
    sockets.init_app(app)
    if not manager_first:
        manager.init_app(app)
    add_views(app, sockets)
    return app, sockets


def log_in(app: Flask, name: str) -> FlaskClient:
    client = app.test_client()
    client.get(f"/login/{name}")
    return client


def end_of(ws: ClientSocket) -> tuple[int, str]:
    return ws.wait_closed(), ws.close_reason


@pytest.mark.parametrize("manager_first", [True, False])
def test_a_logout_closes_every_socket_that_the_login_opened(*, manager_first: bool) -> None:
    app, sockets = make_app(manager_first=manager_first)
    sockets.route("/ws/push")
    tab, phone = log_in(app, "ann"), log_in(app, "ann")
    with (
        connect(tab, "/ws/push") as one,
        connect(tab, "/ws/push") as two,
        connect(tab, "/ws/view") as view,
        connect(phone, "/ws/push") as other,
        connect(log_in(app, "bob"), "/ws/push") as bobs,
    ):
        assert tab.get("/logout").text == "bye"
        assert {end_of(ws) for ws in (one, two, view, other)} == {(4401, "logged_out")}
        bobs.receive_nothing()
        assert not bobs.closed


def test_what_a_token_opened_is_as_good_as_its_token() -> None:
    app, sockets = make_app()
    sockets.route("/ws/push")
    sockets.route("/ws/token", auth=by_token)
    client = log_in(app, "ann")
    with (
        connect(client, "/ws/push") as push,
        connect(client, "/ws/view") as view,
        connect(client, "/ws/token?token=ann") as token,
    ):
        client.get("/logout")
        assert end_of(push) == end_of(view) == (4401, "logged_out")
        assert not token.closed


def test_a_logout_of_nobody_closes_nothing() -> None:
    app, sockets = make_app()
    sockets.route("/ws/push", auth=lambda request: Principal(""))
    with connect(app.test_client(), "/ws/push") as ws:
        assert app.test_client().get("/logout").text == "bye"
        assert not ws.closed


def test_with_nobody_connected_it_starts_nothing() -> None:
    app, sockets = make_app()
    sockets.route("/ws/push")
    assert log_in(app, "ann").get("/logout").text == "bye"
    assert sockets._front.engine is None


@pytest.mark.parametrize("all_by_login", [True, False])
def test_beside_sibling_workers_it_closes_what_is_here_and_warns_once(
    caplog: pytest.LogCaptureFixture, *, all_by_login: bool
) -> None:
    app, sockets = make_app()
    sockets.route("/ws/push")
    if not all_by_login:
        sockets.route("/ws/token", auth=by_token)
    client = log_in(app, "ann")
    with connect(client, "/ws/push") as push, connect(client, "/ws/view") as view:
        app.test_client().get("/", environ_overrides={"wsgi.multiprocess": True})
        sockets._front.note_call(True)  # noqa: FBT003 - a WSGI server's word
        for _ in range(2):
            assert client.get("/logout").text == "bye"
            client.get("/login/ann")
        assert end_of(push) == end_of(view) == (4401, "logged_out")
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.getMessage() == (
        "a logout closed the sockets of this worker only, those in others stay open: this "
        "server runs several worker processes, and a message sent here reaches only the sockets "
        "of this one. Let Redis carry it to the others: "
        'WebSockets(broker="redis://localhost:6379/0"). '
        "Or run one worker (gunicorn --workers 1 --threads N), or say that you mean it: "
        'WebSockets(broker="memory://per-process")'
    )


def test_an_app_is_not_held_by_the_signal() -> None:
    gc.collect()
    before = len(user_logged_out.receivers)
    sockets = WebSockets(auth=FlaskAuth())
    kept, _ = make_app(sockets)
    dropped = [weakref.ref(make_app(sockets)[0]) for _ in range(3)]
    gc.collect()
    assert [ref() for ref in dropped] == [None] * 3
    assert len(user_logged_out.receivers) == before + 1
    sockets.route("/ws/push")
    client = log_in(kept, "ann")
    with connect(client, "/ws/push") as ws:
        client.get("/logout")
        assert end_of(ws) == (4401, "logged_out")


def test_each_logout_counts_once_and_in_its_own_app() -> None:
    one, sockets = make_app()
    other, others = make_app()
    for each in (sockets, others):
        each.route("/ws/push")
    with connect(log_in(one, "ann"), "/ws/push") as here:
        with connect(log_in(other, "ann"), "/ws/push") as there:
            log_in(other, "ann").get("/logout")
            assert end_of(there) == (4401, "logged_out")
        assert not here.closed


WITHOUT = """
import sys
sys.modules["flask_login"] = None  # as if it were not installed
from flask import Flask
from ws_middleware import FlaskAuth, WebSockets
sockets = WebSockets(auth=FlaskAuth(lambda: "ann"))
app = Flask("shop")
sockets.init_app(app)
print("fine")
"""


def test_without_flask_login_nothing_is_missed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
