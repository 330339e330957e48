"""What `ws-middleware serve` serves in the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask

from ws_middleware import Anonymous, WebSockets

if TYPE_CHECKING:
    from ws_middleware import WebSocket

sockets = WebSockets(auth=lambda request: request.query["user"])
nothing = object()


@sockets.route("/ws/chat/<room>")
async def chat(ws: WebSocket, room: str) -> None:
    async for message in ws:
        sockets.room(room).send(message, exclude=ws)


sockets.route("/ws/news")


def create_app() -> Flask:
    app = Flask("shop")
    open_to_all = WebSockets(auth=Anonymous())
    open_to_all.route("/ws/made")
    open_to_all.init_app(app)
    return app
