"""An app that asks of gevent what greenlets make difficult: `green.py PORT [asyncio]`."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # gunicorn's worker patches by itself
    from gevent import monkey

    monkey.patch_all()
    if sys.argv[2:] == ["asyncio"]:
        sys.modules["uvloop"] = None  # type: ignore[assignment]

import asyncio
import itertools
import logging
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import gevent
from flask import Flask, request

from ws_middleware import Anonymous, Receipt, WebSockets

if TYPE_CHECKING:
    from ws_middleware.blocking import BlockingWebSocket
    from ws_middleware.websocket import WebSocket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

app = Flask(__name__)
sockets = WebSockets(auth=Anonymous(), allowed_hosts=["127.0.0.1"])

#: A connection as a pool keeps it: made in one greenlet, used in others.
pooled, other_end = socket.socketpair()


def answer_pooled() -> None:
    while True:
        other_end.sendall(other_end.recv(100).upper())


def ask_pooled(text: str) -> str:
    pooled.sendall(text.encode())
    time.sleep(0.01)
    return pooled.recv(100).decode()


#: How often the other greenlets have run.
turns = itertools.count()


def turn() -> None:
    while True:
        next(turns)
        time.sleep(0.01)


def lookup() -> str:
    return ask_pooled("thread")


@sockets.route("/echo")
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        if message == "to_thread":
            await ws.send(await asyncio.to_thread(lookup))
        elif message == "getaddrinfo":
            found = await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            await ws.send(str(len(found) > 0))
        else:
            await ws.send(message)


events = sockets.route("/events")


@events.on_message
def said(ws: WebSocket, message: str) -> None:
    spawned = gevent.spawn(ask_pooled, message)
    thread = threading.Thread(target=spawned.join)
    thread.start()
    thread.join()
    ws.send(spawned.get()).result(5)


@sockets.route("/conversation")
def converse(ws: BlockingWebSocket) -> None:
    try:
        ws.receive(timeout=0.01)
    except TimeoutError:
        ws.send("nothing yet")
    for message in ws:
        ws.send(ask_pooled(str(message)))


def authenticate(upgrade: object) -> str:
    return ask_pooled("ann")


@sockets.route("/user", auth=authenticate)
async def tell(ws: WebSocket) -> None:
    await ws.send(ws.user.id)
    await ws.wait_closed()


@app.get("/")
def index() -> str:
    return "http"


@app.get("/run")
def run() -> str:
    return asyncio.run(asyncio.sleep(0.01, "ran"))


@app.get("/burn")
def burn() -> str:
    logging.getLogger("app").info("burning")
    end = time.monotonic() + float(request.args["seconds"])
    while time.monotonic() < end:
        pass
    return "burnt"


@app.get("/wait")
def wait() -> str:
    """Wait for the loop in a view, and tell how often other greenlets ran meanwhile."""
    receipt: Receipt[str] = Receipt()
    runtime = sockets._front.open()[1].ensure()
    runtime.run(lambda: runtime.later(0.5, partial(receipt.resolve, "")))
    before = next(turns)
    receipt.result(5)
    return str(next(turns) - before)


@app.get("/publish")
def publish() -> str:
    return str(sockets.everyone.send("published").result(5).local)


@app.get("/close")
def close() -> str:
    sockets.close(timeout=5).result()
    return "closed"


@app.get("/talk")
def talk() -> str:
    for number in range(200):
        logging.getLogger("app").info("line %d", number)
        time.sleep(0)
    return "talked"


gevent.spawn(answer_pooled)
gevent.spawn(turn)
sockets.init_app(app)

if __name__ == "__main__":
    from gevent.pywsgi import WSGIServer

    WSGIServer(("127.0.0.1", int(sys.argv[1])), app).serve_forever()
