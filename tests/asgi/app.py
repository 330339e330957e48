"""The routes in front of a Starlette app that has WebSockets of its own, for every ASGI server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.asgi.routes import BEAT, control, pour, seen, sockets
from ws_middleware import Limits
from ws_middleware.asgi import WebSocketMiddleware
from ws_middleware.errors import BrokerRequired
from ws_middleware.starlette import principal

if TYPE_CHECKING:
    from starlette.requests import Request

control()

sockets.guard("/native/limited", limits=Limits(message_size=64 * 1024))
sockets.guard("/native/pinged", heartbeat=BEAT)
for path in ("/native/flood", "/native/stopped"):
    sockets.guard(path, limits=Limits(write_timeout=0.5))


async def index(request: Request) -> PlainTextResponse:
    return PlainTextResponse("http")


async def send(request: Request) -> JSONResponse:
    """Send to a room or a user, as a view does."""
    kind, name, text = (request.path_params[key] for key in ("kind", "name", "text"))
    try:
        sent = await getattr(sockets, kind)(name).send(text)
    except BrokerRequired as error:
        return JSONResponse({"error": str(error)})
    return JSONResponse({"local": sent.local, "published": sent.published})


async def echo(ws: WebSocket) -> None:
    """As an app has it that knows nothing of us."""
    await ws.accept(ws.scope["subprotocols"][0] if ws.scope["subprotocols"] else None)
    await send_back(ws)


async def pinged(ws: WebSocket) -> None:
    await ws.accept()
    await ws.send_text("hello")
    await send_back(ws)


async def send_back(ws: WebSocket) -> None:
    while (message := await ws.receive())["type"] != "websocket.disconnect":
        if message.get("text") is not None:
            await ws.send_text(message["text"])
        else:
            await ws.send_bytes(message["bytes"])
    seen.append([ws.url.path, message["code"], message.get("reason")])


async def known(ws: WebSocket) -> None:
    """Say who it is, and join a room of the hub's."""
    await ws.accept()
    sockets.from_scope(ws.scope).join("natives")
    await ws.send_json([principal(ws).id, ws.user.id, ws.query_params.get("token")])
    with contextlib.suppress(WebSocketDisconnect):
        await ws.receive_text()


async def give_up(ws: WebSocket) -> None:
    await ws.accept()
    await ws.send_text("last")


async def fail(ws: WebSocket) -> None:
    await ws.accept()
    await ws.receive_text()
    msg = "on purpose"
    raise RuntimeError(msg)


async def close(ws: WebSocket) -> None:
    await ws.accept()
    await ws.close(ws.path_params["code"], "since it was asked for")


async def deny(ws: WebSocket) -> None:
    raise HTTPException(402, "pay first", headers={"X-Price": "5"})


async def fail_early(ws: WebSocket) -> None:
    msg = "on purpose"
    raise RuntimeError(msg)


async def refuse(ws: WebSocket) -> None:
    await ws.close(4000)


async def flood(ws: WebSocket) -> None:
    """Send to a peer that takes nothing, until that is noticed."""
    await ws.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await pour(ws.url.path, ws.send_bytes)
        await ws.receive()


async def undecided(ws: WebSocket) -> None:
    """Neither accept nor refuse, before long."""
    seen.append([ws.url.path])
    await asyncio.sleep(60)


async def slow(ws: WebSocket) -> None:
    """Take nothing for a while, as an app that waits for its database."""
    await ws.accept()
    await asyncio.sleep(float(ws.query_params["seconds"]))
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await ws.send_text(await ws.receive_text())


starlette = Starlette(
    routes=[
        Route("/", index),
        Route("/send/{kind}/{name}/{text}", send, methods=["POST"]),
        WebSocketRoute("/native/echo", echo),
        WebSocketRoute("/native/limited", echo),
        WebSocketRoute("/native/pinged", pinged),
        WebSocketRoute("/native/known", known),
        WebSocketRoute("/native/return", give_up),
        WebSocketRoute("/native/raise", fail),
        WebSocketRoute("/native/close/{code:int}", close),
        WebSocketRoute("/native/deny", deny),
        WebSocketRoute("/native/early", fail_early),
        WebSocketRoute("/native/refuse", refuse),
        WebSocketRoute("/native/flood", flood),
        WebSocketRoute("/native/stopped", flood),
        WebSocketRoute("/native/slow", slow),
        WebSocketRoute("/native/undecided", undecided),
    ]
)
starlette.add_middleware(WebSocketMiddleware, sockets=sockets)
app = starlette
