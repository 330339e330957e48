"""A Flask app that Sentry watches; SENTRY says whether it begins before or after init_app."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

import sentry_sdk
from flask import Flask, request
from sentry_sdk.transport import Transport

from ws_middleware import FlaskAuth, WebSockets

if TYPE_CHECKING:
    from sentry_sdk.envelope import Envelope

    from ws_middleware import BlockingWebSocket, WebSocket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

sent: list[dict[str, Any]] = []
lock = threading.Lock()


class OnPurposeError(Exception):
    """Not what any code here raises by mistake."""


class Kept(Transport):
    """Keeps what would go to Sentry."""

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            event = item.payload.json
            if event is not None and item.type in {"event", "transaction"}:
                with lock:
                    sent.append({"type": item.type, **event})


def watch() -> None:
    sentry_sdk.init("http://key@sentry.example/1", transport=Kept, traces_sample_rate=1.0)


if os.environ["SENTRY"] == "before":
    watch()

app = Flask(__name__)
sockets = WebSockets(auth=FlaskAuth(lambda: request.headers.get("X-User")))
events = sockets.route("/ws/events")


@events.on_message
def said(ws: WebSocket, message: str) -> None:
    if message == "fail":
        raise OnPurposeError
    if message == "report":
        sentry_sdk.capture_message("by hand")
    sentry_sdk.set_user({"id": ws.user.id})
    ws.send("heard")


@sockets.route("/ws/talk")
async def talk(ws: WebSocket) -> None:
    async for message in ws:
        if message == "fail":
            raise OnPurposeError
        if message == "report":
            sentry_sdk.capture_message("by hand")
        await ws.send("heard")


@sockets.route("/ws/blocking")
def blocking(ws: BlockingWebSocket) -> None:
    for message in ws:
        if message == "fail":
            raise OnPurposeError
        if message == "report":
            sentry_sdk.capture_message("by hand")
        ws.send("heard")


@app.route("/ws/view", websocket=True)
def view() -> Any:
    return sockets.upgrade(talk, user=request.headers.get("X-User"))


@app.before_request
def before() -> None:
    if request.headers.get("X-Please") == "fail":
        raise OnPurposeError


@app.get("/health")
def health() -> str:
    return "ok"


@app.get("/sent")
def tell() -> list[dict[str, Any]]:
    """Say what went to Sentry since the last time."""
    with lock:
        told = sent[:]
        sent.clear()
    keep = ("type", "transaction", "level", "logger", "message", "logentry", "request", "user")
    return [
        {key: each.get(key) for key in keep}
        | {"error": [error["type"] for error in each.get("exception", {}).get("values", ())]}
        | {"trace": each.get("contexts", {}).get("trace", {}).get("trace_id")}
        for each in told
    ]


sockets.init_app(app)
if os.environ["SENTRY"] == "after":
    watch()
