"""A room that everybody is in, and views that send to it and tell what that cost them."""

from __future__ import annotations

import time

from flask import Flask

from ws_middleware import Anonymous, ServerLimits, WebSockets

app = Flask(__name__)
# The broker is in the environment: WSM_BROKER.
sockets = WebSockets(auth=Anonymous(), server_limits=ServerLimits(connections=None))
feed = sockets.route("/ws/<room>")


@app.get("/")
def index() -> str:
    return "http"


@app.post("/send/<int:count>/<int:size>")
def send(count: int, size: int) -> dict[str, float]:
    """Send `count` messages at once; return when the first was, and microseconds for each."""
    room, message = feed.room("all"), "x" * size
    start = time.perf_counter()
    for _ in range(count):
        room.send(message)
    return {"at": start, "us": (time.perf_counter() - start) / count * 1e6}


sockets.init_app(app)
