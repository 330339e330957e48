"""The same with flask-sock, for comparison: an open socket is a busy worker thread."""

from __future__ import annotations

from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)


@sock.route("/ws/feed")  # type: ignore[untyped-decorator]  # it has no types
def feed(ws: object) -> None:
    while True:
        ws.receive()  # type: ignore[attr-defined]


@app.get("/")
def index() -> str:
    return "http"
