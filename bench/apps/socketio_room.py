"""The same with Flask-SocketIO and its Redis message queue, for comparison."""

from __future__ import annotations

import os
import time

from flask import Flask
from flask_socketio import SocketIO, join_room

app = Flask(__name__)
socketio = SocketIO(app, message_queue=os.environ["REDIS_URL"], async_mode="gevent")


@socketio.on("connect")  # type: ignore[untyped-decorator]  # it has no types
def came() -> None:
    join_room("all")


@app.get("/")
def index() -> str:
    return "http"


@app.post("/send/<int:count>/<int:size>")
def send(count: int, size: int) -> dict[str, float]:
    message = "x" * size
    start = time.perf_counter()
    for _ in range(count):
        socketio.emit("message", message, to="all")
    return {"at": start, "us": (time.perf_counter() - start) / count * 1e6}
