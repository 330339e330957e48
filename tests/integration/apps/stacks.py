"""One app within the middleware stacks that apps have; STACK says which."""

from __future__ import annotations

import gzip
import itertools
import logging
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import simple_websocket
from flask import Flask, Response, current_app, request, url_for
from flask_sock import Sock
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from ws_middleware import FlaskAuth, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from ws_middleware import UpgradeRequest, WebSocket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")


# --- middleware, as others write it --------------------------------------------------------------

trace: ContextVar[str] = ContextVar("trace", default="none")
numbers = itertools.count(1)


class RequestID:
    """Gives each request an id: in the environ, a context variable and the answer's head."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        number = environ["request_id"] = f"r{next(numbers)}"
        token = trace.set(number)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*headers, ("X-Request-ID", number)], *exc_info)

        try:
            return self.app(environ, start)
        finally:
            trace.reset(token)


class Gzip:
    """Compresses every answer: holds the head back until the body is there."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if "gzip" not in environ.get("HTTP_ACCEPT_ENCODING", ""):
            return self.app(environ, start_response)
        head: list[Any] = []
        body: list[bytes] = []

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], Any]:
            head[:] = [status, headers]
            return body.append

        chunks = self.app(environ, start)
        body.extend(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        packed = gzip.compress(b"".join(body))
        headers = [pair for pair in head[1] if pair[0].lower() != "content-length"]
        headers += [("Content-Encoding", "gzip"), ("Content-Length", str(len(packed)))]
        start_response(head[0], [*headers, ("Vary", "Accept-Encoding")])
        return [packed]


class SocketIO:
    """The shape of a Socket.IO server on simple-websocket: a path in front of the app."""

    def __init__(self, app: WSGIApplication) -> None:
        self.app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not environ["PATH_INFO"].startswith("/socket.io/"):
            return self.app(environ, start_response)
        if "HTTP_UPGRADE" not in environ:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"polling"]
        ws = simple_websocket.Server(environ)
        try:
            while True:
                ws.send(f"io {ws.receive()}")
        except simple_websocket.ConnectionClosed:
            pass
        if ws.mode == "gunicorn":
            raise StopIteration
        if ws.mode == "werkzeug":
            raise ConnectionError
        return []


def root(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """What is at the root of a site whose shop is mounted."""
    if environ["PATH_INFO"] != "/health":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"nothing of the root's"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


# --- the app -------------------------------------------------------------------------------------

flask_app = Flask(__name__)
flask_app.secret_key = "s" * 32


def header_user() -> str | None:
    return request.headers.get("X-User")


def any_user(upgrade: UpgradeRequest) -> str | None:
    return upgrade.headers.get("x-user")


sockets = WebSockets(auth=FlaskAuth(header_user))


async def tell(ws: WebSocket) -> None:
    """Say what a handler sees of the stack around it."""
    async for message in ws:
        seen = {"heard": message, "trace": trace.get(), "path": ws.request.path}
        client = ws.request.client
        ws.send_json({**seen, "peer": client and client[0], "scheme": ws.request.scheme})


sockets.route("/ws/flask")(tell)
sockets.route("/ws/own", auth=any_user)(tell)
sockets.route("/shop/ws/own", auth=any_user)(tell)
events = sockets.route("/ws/events", auth=any_user)


@events.on_message
def said(ws: WebSocket, message: str) -> None:
    ws.send_json({"heard": message, "trace": trace.get(), "app": current_app.name})


@flask_app.get("/health")
def health() -> str:
    return "ok"


@flask_app.get("/url")
def url() -> str:
    return url_for("ws:/ws/flask")


@flask_app.get("/page")
def page() -> Response:
    return Response("page " * 100, headers={"X-Trace": trace.get()})


@flask_app.route("/ws/view", websocket=True)
def view() -> Any:
    return sockets.upgrade(tell, user=header_user())


sock = Sock(flask_app)


@sock.route("/sock")  # type: ignore[untyped-decorator, unused-ignore]
def flask_sock(ws: Any) -> None:
    while True:
        ws.send(f"sock {ws.receive()}")


def wrap(*middleware: Callable[[WSGIApplication], WSGIApplication]) -> None:
    for each in middleware:
        flask_app.wsgi_app = each(flask_app.wsgi_app)  # type: ignore[assignment, method-assign]


def proxy_fix(app: WSGIApplication) -> WSGIApplication:
    return ProxyFix(app, x_for=1, x_proto=1, x_host=1)


def build(stack: str) -> WSGIApplication:
    if stack == "inside":
        wrap(Gzip, RequestID)
    elif stack == "fix-inside":
        wrap(proxy_fix)
    elif stack == "others":
        wrap(SocketIO)
    sockets.init_app(flask_app)
    if stack == "outside":
        wrap(Gzip, RequestID)
    elif stack == "fix-outside":
        wrap(proxy_fix)
    elif stack == "mounted":
        return DispatcherMiddleware(root, {"/shop": flask_app})
    elif stack == "around":
        return sockets.wsgi(DispatcherMiddleware(root, {"/shop": flask_app}))
    return flask_app


app = build(os.environ["STACK"])
