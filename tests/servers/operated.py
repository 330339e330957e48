"""A Flask app that is operated: who is where, how it is, and sent away."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from flask import Flask, jsonify

from ws_middleware import Limits, WebSockets

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from ws_middleware import WebSocket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

app = Flask(__name__)
sockets = WebSockets(
    auth=lambda request: request.query["user"], limits=Limits(connections_per_user=None)
)


@sockets.route("/ws/room/<room>")
async def member(ws: WebSocket, room: str) -> None:
    await ws.send(str(os.getpid()))
    async for message in ws:
        sockets.room(room).send(message, exclude=ws)


exact = sockets.route("/ws/exact", gap="close")


@exact.on_open
def opened(ws: WebSocket) -> None:
    ws.send(str(os.getpid()))


@app.get("/")
def index() -> str:
    return "http"


@app.get("/livez")
@app.get("/readyz")
@app.get("/metrics")
def health() -> Any:
    return sockets.health_wsgi


@app.get("/all-metrics")
def all_metrics() -> str:
    return sockets.metrics(everywhere=True).result(15)


@app.post("/send/<room>/<text>")
def send(room: str, text: str) -> ResponseReturnValue:
    sent = sockets.room(room).send(text).result(15)
    return jsonify(pid=os.getpid(), local=sent.local, published=sent.published)


@app.post("/count/<room>")
def count(room: str) -> ResponseReturnValue:
    audience = sockets.room(room)
    return jsonify(here=audience.count(), everywhere=audience.count_everywhere().result(15))


@app.post("/stats")
def stats() -> ResponseReturnValue:
    found = sockets.stats(everywhere=True).result(15)
    return jsonify(processes=found.processes, missing=found.missing)


@app.post("/send-away/<user>")
def send_away(user: str) -> ResponseReturnValue:
    sockets.user(user).close(4401, "logged_out").result(15)
    return jsonify()


@app.post("/drain")
def drain() -> ResponseReturnValue:
    sockets.close(code=1012, reason="restart", over=8, timeout=12)
    return jsonify()


sockets.init_app(app)
