"""The Flask app that is measured: a plain view, sockets that are pushed to, sockets that work."""

from __future__ import annotations

import itertools
import threading
import time

from flask import Flask

from ws_middleware import Anonymous, ServerLimits, WebSocket, WebSockets

#: Seconds of blocking work for each message, as a query of a database would take.
WORK = 0.05
#: Seconds between two looks at which sockets are due.
STEP = 0.001

app = Flask(__name__)
sockets = WebSockets(
    auth=Anonymous(),
    broker="memory://per-process",  # where there are several workers, each is counted for itself
    server_limits=ServerLimits(connections=None),
)

feed = sockets.route("/ws/feed")
work = sockets.route("/ws/work")


@work.on_message
def worked(ws: WebSocket, message: str | bytes) -> None:
    time.sleep(WORK)
    ws.send(message)


@app.get("/")
def index() -> str:
    return "http"


# --- a message a second for each socket of the feed -----------------------------------------------

_stop = threading.Event()


def _push_spread() -> None:
    """Send to one socket after the other, evenly over the second: a wake-up each."""
    targets = itertools.cycle(list(feed.everyone.local()))
    per_second = feed.everyone.count()
    start, sent = time.monotonic(), 0
    while not _stop.wait(STEP):
        due = int((time.monotonic() - start) * per_second)
        for ws in itertools.islice(targets, due - sent):
            ws.send("x" * 32)
        sent = due


def _push_at_once() -> None:
    """Send to all of them once a second: one call, one burst."""
    while not _stop.wait(1.0):
        feed.everyone.send("x" * 32)


@app.post("/push/<how>")
def push(how: str) -> tuple[str, int]:
    _stop.clear()
    target = {"spread": _push_spread, "at-once": _push_at_once}[how]
    threading.Thread(target=target, daemon=True).start()
    return "", 204


@app.post("/quiet")
def quiet() -> tuple[str, int]:
    _stop.set()
    return "", 204


sockets.init_app(app)
