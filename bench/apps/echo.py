"""Apps that echo: an ASGI app, bare and behind our door, and a Flask app."""

from __future__ import annotations

from typing import Any

from flask import Flask

from ws_middleware import Anonymous, WebSocket, WebSockets

__all__ = ["bare", "flask_app", "guarded"]


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401
    """Send every message back; a page for whoever asks whether it is up."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"up"})
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


_sockets = WebSockets(auth=Anonymous())


@_sockets.route("/ours")
async def _echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


#: The app's own WebSocket behind our door; a route of ours is at another path.
guarded = _sockets.asgi(bare)

flask_app = Flask(__name__)
_sockets.init_app(flask_app)


@flask_app.get("/")
def _index() -> str:
    return "up"
