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

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

app = Flask(__name__)
sockets = WebSockets(auth=Anonymous(), limits=Limits(connections_per_user=None))
gaps: list[float] = []


@sockets.route("/ws/room/<room>")
async def member(ws: WebSocket, room: str) -> None:
    await ws.send(str(os.getpid()))
    async for message in ws:
        sockets.room(room).send(message, exclude=ws)


sockets.route("/ws/other/<room>")


@sockets.on_gap
def gap(since: object, until: object) -> None:
    gaps.append(time.time())


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


sockets.init_app(app)
