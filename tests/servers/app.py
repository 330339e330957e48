"""A Flask app with sockets on its own port, for every WSGI server there is to run it."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from flask import Flask, abort, current_app, request, session
from werkzeug.middleware.proxy_fix import ProxyFix

from ws_middleware import FlaskAuth, JWTAuth, Limits, WebSockets

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from ws_middleware import BlockingWebSocket, UpgradeRequest, WebSocket

KEY = "k" * 32

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

app = Flask(__name__)
app.secret_key = "s" * 32


def user() -> str | None:
    return session.get("user")


def may_enter(_user: object, upgrade: UpgradeRequest) -> bool:
    return bool(current_app) and upgrade.path_params["room"] != 13


sockets = WebSockets(auth=FlaskAuth(user), limits=Limits(connections_per_user=None))
chat = sockets.route("/ws/chat/<int:room>", authorize=may_enter)


@chat.on_message
def said(ws: WebSocket, message: str | bytes, room: int) -> None:
    assert current_app.name
    chat.room(room).send(message)


@sockets.route("/ws/token", auth=JWTAuth(KEY, algorithms=["HS256"]))
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@sockets.route("/ws/wait", auth=JWTAuth(KEY, algorithms=["HS256"]))
def wait(ws: BlockingWebSocket) -> None:
    ws.send("waiting")
    ws.receive()


@sockets.route("/ws/sleep", auth=JWTAuth(KEY, algorithms=["HS256"]))
def sleep(ws: BlockingWebSocket) -> None:
    ws.send("asleep")
    time.sleep(60)


@sockets.route("/ws/process", auth=JWTAuth(KEY, algorithms=["HS256"]))
async def process(ws: WebSocket) -> None:
    async for message in ws:
        if message == "terminate":
            ws.terminate()
        else:
            await ws.send(str(os.getpid()))


async def greet(ws: WebSocket) -> None:
    await ws.send(f"hello {ws.user.id}")
    await ws.wait_closed()


@app.before_request
def before() -> None:
    if "X-Teapot" in request.headers:
        abort(418)


@app.get("/login/<name>")
def login(name: str) -> str:
    session["user"] = name
    return name


@app.get("/")
def index() -> str:
    return "http"


@app.get("/nap/<float:seconds>")
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@app.post("/fork/<float:seconds>")
def fork(seconds: float) -> str:
    """Leave a child behind that lives for a while."""
    pid = os.fork()
    if not pid:
        time.sleep(seconds)
        os._exit(0)
    return str(pid)


@app.post("/say/<int:room>")
def say(room: int) -> tuple[str, int]:
    chat.room(room).send("from a view")
    return "", 204


@app.route("/ws/view", websocket=True)
def view() -> Any:
    return sockets.upgrade(greet, user=user())


def believe_the_proxy() -> None:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1)  # type: ignore[method-assign]


if os.environ.get("PROXY_FIX") == "inside":
    believe_the_proxy()
sockets.init_app(app)
if os.environ.get("PROXY_FIX") == "outside":
    believe_the_proxy()
application: WSGIApplication = app
