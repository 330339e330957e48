"""An app without a framework on whatever uvicorn is there: `versions_app.py class|door PORT`.

`class`: our protocol class under the app. `door`: our door before it, on uvicorn's own class.
Versions whose command takes a class are started by it, with `app` of this module.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

import uvicorn

from ws_middleware import Anonymous, WebSockets
from ws_middleware.uvicorn import WebSocketProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ws_middleware import WebSocket

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
print("this is uvicorn", uvicorn.__version__, flush=True)

#: What the app has seen of the ends of its sockets.
seen: list[Any] = []


async def echo(receive: Any, send: Any) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        kind = "text" if event.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: event[kind]})
    seen.append([event["code"], event.get("reason")])


async def give_up(receive: Any, send: Any) -> None:
    await send({"type": "websocket.send", "text": "last"})


async def fail(receive: Any, send: Any) -> None:
    msg = "on purpose"
    raise RuntimeError(msg)


async def close(receive: Any, send: Any) -> None:
    await send({"type": "websocket.close", "code": 4001, "reason": "mine"})


OPEN: dict[str, Callable[[Any, Any], Awaitable[None]]] = {
    "/echo": echo,
    "/return": give_up,
    "/raise": fail,
    "/close": close,
}


async def ping(scope: Any, send: Any) -> None:
    await scope["extensions"]["ws_middleware.control"].ping()
    await send({"type": "websocket.send", "text": "answered"})


async def deny(send: Any) -> None:
    kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": 418, "headers": [(b"x-tea", b"green")]})
    await send({"type": f"{kind}.body", "body": b"short ", "more_body": True})
    await send({"type": f"{kind}.body", "body": b"and stout"})


async def answer(send: Any) -> None:
    body = json.dumps(seen).encode()
    length = str(len(body)).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    )
    await send({"type": "http.response.body", "body": body})


async def app(scope: Any, receive: Any, send: Any) -> None:
    event = await receive()
    if scope["type"] == "lifespan":
        await send({"type": f"{event['type']}.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        await answer(send)
    elif scope["path"] == "/deny":
        await deny(send)
    else:
        await send({"type": "websocket.accept"})
        if scope["path"] == "/ping":
            await ping(scope, send)
        await OPEN.get(scope["path"], echo)(receive, send)


def door() -> Any:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/ours")
    async def ours(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    return sockets.asgi(app)


def main() -> None:
    what, port = sys.argv[1], int(sys.argv[2])
    protocol: Any = WebSocketProtocol if what == "class" else "auto"
    served, pings = (app, 0.3) if what == "class" else (door(), 20.0)
    uvicorn.run(served, port=port, ws=protocol, ws_ping_interval=pings, ws_ping_timeout=pings)


if __name__ == "__main__":
    main()
