"""An app that uses all of Flask's hooks and flask-login, and tells what ran."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, flash, g, get_flashed_messages, jsonify, request, session
from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

from ws_middleware import FlaskAuth, Limits, WebSockets

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from ws_middleware import WebSocket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

app = Flask(__name__)
app.secret_key = "s" * 32
manager = LoginManager(app)
manager.login_view = "login_page"
sockets = WebSockets(auth=FlaskAuth(), limits=Limits(connections_per_user=None))

#: What ran, in order, for requests with an X-Traced field, and for sockets.
trace: list[str] = []
lock = threading.Lock()


class OnPurposeError(Exception):
    """Not what any code here raises by mistake."""


def note(what: str) -> None:
    with lock:
        trace.append(what)


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


@manager.user_loader  # type: ignore[untyped-decorator, unused-ignore]
def load(name: str) -> User:
    if "Upgrade" in request.headers:
        note("user_loader")
    return User(name)


# --- hooks, in the order in which Flask runs them ------------------------------------------------


def is_upgrade() -> bool:
    return "Upgrade" in request.headers


@app.before_request
def first() -> AnyResponse | None:
    g.request_id = request.headers.get("X-Request-ID", "none")
    if is_upgrade():
        note("before_request")
        match request.headers.get("X-Please"):
            case "forbid":
                abort(403)
            case "teapot":
                abort(418)
            case "fail":
                raise OnPurposeError
            case "count":
                session["seen"] = session.get("seen", 0) + 1
                flash("seen")
    return None


@app.after_request
def after(response: Response) -> Response:
    if is_upgrade():
        note("after_request")
        response.headers["X-Request-ID"] = g.request_id
        response.headers["X-Seen-By"] = "after_request"
    return response


@app.teardown_request
def torn(error: BaseException | None) -> None:
    if is_upgrade():
        note(f"teardown_request {error!r}")


@app.teardown_appcontext
def torn_app(error: BaseException | None) -> None:
    if "tell" in g:
        note(f"teardown_appcontext {g.tell}")


@app.errorhandler(418)
def teapot(error: Exception) -> tuple[Response, int, dict[str, str]]:
    note("errorhandler")
    return jsonify(error="short and stout"), 418, {"X-Pot": "tea"}


# --- sockets -------------------------------------------------------------------------------------

events = sockets.route("/ws/events")


@events.on_message
def said(ws: WebSocket, message: str) -> None:
    note(f"on_message {message}")
    before = g.get("tell")
    g.tell = message
    ws.send_json({"user": ws.user.id, "g": before, "request": has_request()})


@sockets.route("/ws/talk")
async def talk(ws: WebSocket) -> None:
    note("talk")
    g.tell = f"talk of {ws.user.id}"
    async for message in ws:
        ws.send_json({"heard": message, "g": g.tell, "request": has_request()})


async def greet(ws: WebSocket) -> None:
    note("greet")
    ws.send_json({"user": ws.user.id, "request": has_request()})
    await ws.wait_closed()


def has_request() -> bool:
    try:
        return bool(request.path)
    except RuntimeError:
        return False


@app.route("/ws/view", websocket=True)
@login_required  # type: ignore[untyped-decorator, unused-ignore]
def view() -> Any:
    note("view")
    return sockets.upgrade(greet, user=current_user.get_id())


# --- pages ---------------------------------------------------------------------------------------


@app.get("/health")
def health() -> str:
    return "ok"


@app.get("/login")
def login_page() -> str:
    return "who are you?"


@app.get("/login/<name>")
def log_in(name: str) -> str:
    login_user(User(name))
    return name


@app.get("/session")
def tell_session() -> dict[str, Any]:
    return {"seen": session.get("seen"), "flashed": get_flashed_messages()}


@app.post("/say/<text>")
def say(text: str) -> dict[str, int | None]:
    """Send to all from within a request: its context must stay here."""
    return {"sockets": sockets.everyone.send(text).result(5).local}


@app.get("/trace")
def tell() -> list[str]:
    """Say what ran since the last time."""
    with lock:
        told = trace[:]
        trace.clear()
    return told


sockets.init_app(app)
