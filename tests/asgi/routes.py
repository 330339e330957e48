"""What every door and server is asked about: routes of ours, and a port to see and to act by."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from ws_middleware import Granted, Heartbeat, JWTAuth, Limits, Principal, WebSockets
from ws_middleware.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ws_middleware import BlockingWebSocket, UpgradeRequest, WebSocket

__all__ = ["BEAT", "KEY", "control", "pour", "seen", "sockets"]

KEY = "k" * 32

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")

tokens = JWTAuth(KEY, algorithms=["HS256"])
sockets = WebSockets(auth=tokens, limits=Limits(connections_per_user=None))

#: What handlers and apps have seen of the end of their sockets, newest last.
seen: list[list[Any]] = []


@sockets.route("/ws/echo")
async def echo(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@sockets.route("/ws/blocking")
def blocking(ws: BlockingWebSocket) -> None:
    for message in ws:
        ws.send(message)


@sockets.route("/ws/return")
async def give_up(ws: WebSocket) -> None:
    await ws.send("last")


@sockets.route("/ws/raise")
async def fail(ws: WebSocket) -> None:
    await ws.receive()
    msg = "on purpose"
    raise RuntimeError(msg)


@sockets.route("/ws/close/<int:code>")
async def close(ws: WebSocket, code: int) -> None:
    await ws.close(code, "since it was asked for")


async def decide_some_day(request: UpgradeRequest) -> str:
    seen.append(["/ws/undecided"])
    await asyncio.sleep(60)
    return "nobody"


decide_some_day.ambient = False  # type: ignore[attr-defined]  # it looks at nothing
sockets.route("/ws/undecided", auth=decide_some_day)


ends = sockets.route("/ws/ends")


@ends.on_close
async def note_end(ws: WebSocket) -> None:
    seen.append(["ends", ws.close_code, ws.close_reason])


room = sockets.route("/ws/room/<room>")


@room.on_message
def said(ws: WebSocket, message: str, room: str) -> None:
    """In a thread."""
    sockets.room(room).send(f"{threading.current_thread().name.split('_')[0]} {message}")


@sockets.route("/ws/member/<room>")
async def member(ws: WebSocket, room: str) -> None:
    """Say which process it is, and pass on what comes."""
    await ws.send(str(os.getpid()))
    async for message in ws:
        sockets.room(room).send(message)


#: What is sent to a peer that takes nothing: more than any kernel takes, and less than it costs to
#: find out that a server has no bound of its own.
FLOOD = 64 * [b"x" * 1024**2]


async def pour(path: str, send: Callable[[bytes], Awaitable[object]]) -> None:
    """Send to a peer that takes nothing, and note how that ends, and how long the last send took.

    By the clock of this process: nobody else has to have a turn for it.
    """
    began = time.monotonic()
    try:
        for piece in FLOOD:
            began = time.monotonic()
            await send(piece)
    except BaseException as error:
        seen.append([path, type(error).__name__, time.monotonic() - began])
        raise
    seen.append([path, "all sent", time.monotonic() - began])


@sockets.route("/ws/flood", limits=Limits(write_timeout=0.5, outbound_bytes=2 * 1024**2))
async def flood(ws: WebSocket) -> None:
    await pour("/ws/flood", ws.send)
    await ws.wait_closed()


#: By pings where the frames are ours, by messages elsewhere.
BEAT = Heartbeat(interval=1, timeout=1, app_ping="ping", app_pong="pong")

pinged = sockets.route("/ws/pinged", heartbeat=BEAT)


@pinged.on_open
async def greet(ws: WebSocket) -> None:
    await ws.send("hello")


@pinged.on_message
async def send_back(ws: WebSocket, message: str) -> None:
    await ws.send(message)


@pinged.on_close
async def note_pinged(ws: WebSocket) -> None:
    seen.append(["/ws/pinged", ws.close_code, ws.close_reason])


def may_not(user: Principal, request: UpgradeRequest) -> bool:
    return False


sockets.route("/ws/forbidden", authorize=may_not)
sockets.route("/ws/once", limits=Limits(connections_per_user=1))
sockets.route("/ws/told", refuse_with="close")


def cookie(request: UpgradeRequest) -> Granted:
    if "teapot" in request.query:
        headers = [("X-Tea", "green"), ("Set-Cookie", "a=b")]
        raise Refused(418, "teapot", headers=headers, body=b"short and stout")
    return Granted(Principal("ann"), headers=(("Set-Cookie", "seen=yes"), ("X-One", "1")))


cookie.ambient = False  # type: ignore[attr-defined]
sockets.route("/ws/cookie", auth=cookie)


# --- from outside --------------------------------------------------------------------------------


LOOKS: dict[str, Callable[[], Any]] = {
    "ready": lambda: sockets.ready().reasons,
    "count": sockets.everyone.count,
    "seen": lambda: seen,
}


def act(command: str, *arguments: str) -> Any:
    if command == "pause":
        return sockets.pause().result(5)
    if command == "resume":
        return sockets.resume()
    if command == "send":
        kind, name, text = arguments
        return getattr(sockets, kind)(name).send(text).result(5).local
    if command in LOOKS:
        return LOOKS[command]()
    if command == "close":
        return sockets.close(code=int(arguments[0]), timeout=5).result(10)
    msg = f"there is no command {command!r}"
    raise ValueError(msg)


class _Control(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        try:
            answer, status = act(*self.path.strip("/").split("/")), 200
        except Exception as error:
            answer, status = repr(error), 500
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing: the log is the server's."""


def control() -> None:
    """Open the port to see and to act by, in the process that serves, where there is one."""
    port = int(os.environ.get("CONTROL_PORT") or 0)
    if not port:
        return
    server = ThreadingHTTPServer(("127.0.0.1", port), _Control)
    threading.Thread(target=server.serve_forever, daemon=True).start()
