"""The `ws` package of Node.js, which the clients of many apps are written with."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.clients.python import until
from ws_middleware import JWTAuth, WebSocket, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients.conftest import Node
    from tests.conftest import Served

pytestmark = pytest.mark.node

KEY = "k" * 32


def test_nodes_ws_talks_to_us(node: Node, serve: Callable[[WebSockets], Served]) -> None:
    sockets = WebSockets(auth=JWTAuth(KEY, algorithms=["HS256"]))
    ends: list[tuple[int | None, str]] = []

    @sockets.route("/echo")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)
        ends.append((ws.close_code, ws.close_reason))

    @sockets.route("/closes")
    async def closes(ws: WebSocket) -> None:
        ws.close(4002, "from us")

    @sockets.route("/pings")
    async def pings(ws: WebSocket) -> None:
        await ws.send(str(await ws.ping()))
        await ws.wait_closed()

    served = serve(sockets)
    token = jwt.encode({"sub": "ann", "exp": time.time() + 60}, KEY, "HS256")
    seen: dict[str, Any] = json.loads(node.run("client.mjs", served.url(""), token))

    assert seen["text"] == {"same": True, "isBinary": False}
    assert seen["binary"] == {"same": True, "isBinary": True}
    assert seen["empty"] == {"same": True, "isBinary": False}
    assert seen["staysConnected"] == {"protocol": "bearer", "extensions": "", "closed": False}
    assert seen["withoutToken"]["status"] == 401
    assert seen["withoutToken"]["body"]["code"] == "credential_missing"
    assert seen["weClose"] == {"code": 4001, "reason": ""}  # of a close the code is echoed
    until(lambda: (4001, "from node") in ends)
    assert seen["theyClose"] == {"code": 4002, "reason": "from us"}
    assert seen["ping"]["pong"] == "payload"
    assert 0 < seen["ping"]["latency"] < 5
