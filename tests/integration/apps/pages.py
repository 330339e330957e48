"""An app with every kind of HTTP answer; with SOCKETS=1 it has sockets as well."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, abort, redirect, request, send_file, session, stream_with_context
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ws_middleware import FlaskAuth, WebSockets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug.wrappers import Response as AnyResponse

# A signed session says when it was signed; two servers have to say the same.
time.time = lambda: 1_800_000_000.0

app = Flask(__name__)
app.secret_key = "s" * 32

closed: list[str] = []


class OnPurposeError(Exception):
    """Not what any code here raises by mistake."""


@app.get("/health")
def health() -> str:
    return "ok"


@app.route("/echo", methods=["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def echo() -> Response:
    body = request.get_data()
    return Response(body, headers={"X-Length": str(len(body)), "X-Method": request.method})


@app.post("/upload")
def upload() -> dict[str, Any]:
    """Read slowly, as a view does that writes to disk."""
    size, first = 0, b""
    while chunk := request.stream.read(1000):
        size += len(chunk)
        first = first or chunk[:10]
    return {"size": size, "first": first.decode()}


@app.post("/unread")
def unread() -> str:
    return "not interested"


@app.get("/stream")
def stream() -> Response:
    def chunks() -> Iterator[str]:
        yield f"{request.path}: "
        for number in range(5):
            yield f"{number} " * 100

    response = Response(stream_with_context(chunks()), mimetype="text/plain")
    response.call_on_close(lambda: closed.append("stream"))
    return response


@app.get("/stream/fails")
def stream_fails() -> Response:
    def chunks() -> Iterator[bytes]:
        yield b"before"
        raise OnPurposeError

    return Response(chunks(), headers={"Content-Length": "100"})


@app.get("/closed")
def tell_closed() -> list[str]:
    return closed


@app.get("/large")
def large() -> bytes:
    return bytes(range(256)) * 12_000


@app.get("/empty")
def empty() -> tuple[str, int]:
    return "", 204


@app.get("/file")
def file() -> Response:
    return send_file(Path(__file__).with_name("pages.py"), conditional=True, max_age=None)


@app.get("/memory")
def memory() -> Response:
    return send_file(io.BytesIO(b"x" * 100_000), "application/octet-stream", etag="e1")


@app.get("/moved")
def moved() -> AnyResponse:
    return redirect("/health", 308)


@app.get("/cookies")
def cookies() -> Response:
    session["count"] = session.get("count", 0) + 1
    response = Response(f"{sorted(request.cookies)}")
    response.set_cookie("one", "1", max_age=60, samesite="Lax")
    response.set_cookie("two", 'q"uo;ted ü')
    return response


@app.get("/abort/<int:status>")
def abort_with(status: int) -> str:
    abort(status)


@app.get("/fails")
def fails() -> str:
    raise OnPurposeError


@app.get("/environ")
def environ() -> dict[str, str]:
    """What else the app can see of a request: nothing of ours is in it."""
    told = {
        key: str(value)
        for key, value in request.environ.items()
        if not key.startswith(("werkzeug.", "gunicorn.", "wsgi.", "waitress.", "REMOTE_PORT"))
    }
    told.pop("SERVER_PORT")
    told.pop("HTTP_HOST")
    return told


def plain(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Use what PEP 3333 has beside the usual: write(), exc_info, and an answer begun late."""
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("X-Two", "a")])
    if environ["PATH_INFO"] == "/write":
        write(b"written ")
    elif environ["PATH_INFO"] == "/again":
        try:
            raise OnPurposeError  # noqa: TRY301
        except OnPurposeError:
            import sys  # noqa: PLC0415

            start_response("503 Not Now", [("X-Two", "b")], sys.exc_info())
    yield b"yielded"


app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/plain": plain})  # type: ignore[method-assign]

if os.environ.get("SOCKETS"):
    sockets = WebSockets(auth=FlaskAuth(lambda: session.get("user")))
    sockets.route("/ws/<int:room>")
    sockets.init_app(app)
