"""A Flask app for several workers: one room, a view that sends to it, and who served what."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from flask import Flask, jsonify

from ws_middleware import Anonymous, Limits, WebSockets

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from ws_middleware import WebSocket

logging.basicConfig(level=logging.INFO, format="%(process)d %(levelname)s %(name)s %(message)s")

app = Flask(__name__)
sockets = WebSockets(auth=Anonymous(), limits=Limits(connections_per_user=None))


@sockets.route("/ws/room/<room>")
async def member(ws: WebSocket, room: str) -> None:
    await ws.send(str(os.getpid()))
    async for message in ws:
        sockets.room(room).send(message, exclude=ws)


sockets.route("/ws/other/<room>")


@sockets.on_gap
def gap(since: object, until: object) -> None:
    logging.getLogger("tests").info("a gap from %s to %s", since, until)


@app.get("/")
def index() -> str:
    return "http"


@app.post("/send/<room>/<text>")
def send(room: str, text: str) -> ResponseReturnValue:
    began = time.perf_counter()
    receipt = sockets.room(room).send(text)
    took = time.perf_counter() - began
    sent = receipt.result(15)
    return jsonify(pid=os.getpid(), local=sent.local, published=sent.published, took=took)


@app.post("/fire/<room>/<text>")
def fire(room: str, text: str) -> ResponseReturnValue:
    """Send as a view does that has no time to ask what became of it."""
    began = time.perf_counter()
    sockets.room(room).send(text)
    return jsonify(pid=os.getpid(), took=time.perf_counter() - began)


sockets.init_app(app)
