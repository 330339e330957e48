"""The `ws` package of Node.js, which the clients of many apps are written with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from tests.clients.python import until
from ws_middleware import JWTAuth, WebSocket, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Served

pytestmark = pytest.mark.node

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".cache" / "node"
WS = "ws@8"
KEY = "k" * 32


@pytest.fixture(scope="module")
def node() -> str:
    """Return the path of node, with `ws` installed in FOLDER."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        missing = "node" if found is None else "npm"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{missing} is not installed, and CI must have it")
        pytest.skip(f"{missing} is not installed")
    if not (FOLDER / "node_modules" / "ws" / "package.json").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / "package.json").write_text('{"private": true}\n')
        command = [npm, "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", WS]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    return found


def test_nodes_ws_talks_to_us(node: str, serve: Callable[[WebSockets], Served]) -> None:
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
    script = str(Path(__file__).with_name("client.mjs"))
    command = [node, script, str(FOLDER), served.url(""), token]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)

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
