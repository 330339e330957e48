"""The server under attack: `python -m tests.hostile.server --loop asyncio --interval 1`.

Prints its port on a line of its own, and logs to stderr. Then it answers each line on stdin with a
line of JSON, a `Report`; `collect` runs the garbage collector first. It ends at the end of stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, get_args

from ws_middleware import (
    Anonymous,
    Audience,
    Heartbeat,
    Limits,
    Principal,
    Receipt,
    ServerLimits,
    UpgradeRequest,
    WebSocket,
    WebSockets,
)
from ws_middleware.config import Slow
from ws_middleware.core.session import Session
from ws_middleware.net.link import SocketLink
from ws_middleware.net.serving import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: What must be gone when its connection is.
KEPT = (WebSocket, SocketLink, Session, Server, UpgradeRequest)

#: What the `/burst` routes send, unless the peer is closed before.
BURST_SIZE = 16 * 1024
BURST_COUNT = 1024

#: What `/pieces` sends.
PIECE = 64 * 1024
PIECES = 128

#: How long `/work` works on each message.
WORK = 0.05

#: The rooms that a socket of `/rooms` enters beside its own.
ROOMS = 10


class Report(TypedDict):
    """What the server holds. When nobody is connected all is zero but threads, `fds`, `blocks`."""

    sockets: int
    registered: int
    addresses: int
    timed: int
    undecided: int
    admitted: int
    users: int
    served: int
    tasks: int
    handlers: int
    threads: int
    auth_threads: int
    fds: int
    objects: int
    blocks: int


class SlowAuth:
    """Lets everybody in, after the time that the query asks for; anybody is a user."""

    ambient = False

    async def __call__(self, request: UpgradeRequest) -> Principal:
        await asyncio.sleep(float(request.query["delay"]))
        return Principal("slow")


class SlowThreadAuth:
    """The same, as a plain function would do it."""

    ambient = False

    def __call__(self, request: UpgradeRequest) -> Principal:
        time.sleep(float(request.query["delay"]))
        return Principal("slow")


class Handlers:
    """What is served, and how many conversations are under way."""

    def __init__(self) -> None:
        self.running = 0

    def counted(
        self, handler: Callable[[WebSocket], Awaitable[None]]
    ) -> Callable[[WebSocket], Awaitable[None]]:
        """Count the conversations that `handler` holds."""

        async def conversation(ws: WebSocket) -> None:
            self.running += 1
            try:
                await handler(ws)
            finally:
                self.running -= 1

        return conversation


async def echo(ws: WebSocket) -> None:
    """Send every message back as it came."""
    async for message in ws:
        await ws.send(message)


def echo_event(ws: WebSocket, message: str | bytes) -> None:
    """Do the same from a thread."""
    ws.send(message)


async def tick(ws: WebSocket) -> None:
    """Send a message ten times a second."""
    while not ws.closed:
        await ws.send("tick")
        await asyncio.sleep(0.1)


async def never_receive(ws: WebSocket) -> None:
    """Take no message, ever."""
    await asyncio.sleep(3600)


async def leave(ws: WebSocket) -> None:
    """Return at once, which closes the socket with 1000."""


def burst_message(number: int) -> bytes:
    """Make one of a burst: no two share their bytes."""
    return number.to_bytes(4, "big") * (BURST_SIZE // 4)


async def burst(ws: WebSocket) -> None:
    """Send much and wait for nobody."""
    for number in range(BURST_COUNT):
        if ws.closed:
            break
        ws.send(burst_message(number))
        await asyncio.sleep(0)
    await ws.wait_closed()


def burst_event(ws: WebSocket, message: str | bytes) -> None:
    """Do the same from a thread, which nothing slows down."""
    for number in range(BURST_COUNT):
        if ws.closed:
            break
        ws.send(burst_message(number))


def piece(number: int) -> bytes:
    """Make one of the pieces."""
    return number.to_bytes(2, "big") + bytes([number % 256]) * (PIECE - 2)


def send_pieces(ws: WebSocket, message: str | bytes) -> None:
    """Send piece after piece, each when the peer has taken enough of those before."""
    for number in range(PIECES):
        ws.send(piece(number)).result(30)


def work(ws: WebSocket, message: str | bytes) -> None:
    """Be busy for a while, then answer."""
    time.sleep(WORK)
    ws.send(message)


def enter(ws: WebSocket, room: str) -> None:
    """Enter several rooms, and tell those who are in one of them."""
    for number in range(ROOMS):
        ws.join(f"{room}{number}")
    ws.route.room(f"{room}0").send("came")


def tell(ws: WebSocket, message: str | bytes, room: str) -> None:
    """Pass a message on to the room, and go from one room into another."""
    ws.route.room(room).send(message)
    ws.leave(f"{room}1")
    ws.join(f"{room}{ROOMS}")


def went(ws: WebSocket, room: str) -> None:
    """Tell those who are left."""
    ws.route.room(room).send("went")


def steady_message(number: int) -> bytes:
    """Make one of those that `/steady` sends: 1 to 4 KiB, and no two are the same."""
    return number.to_bytes(4, "big") + bytes([number % 251]) * (1020 + number * 997 % 3072)


def send_steadily(audience: Audience[WebSocket], count: int, rate: float) -> None:
    """Send `count` messages, `rate` a second, from a thread that a view could be in."""
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / rate - time.monotonic()))
        audience.send(steady_message(number))


async def block(ws: WebSocket) -> None:
    """Make the worst mistake there is: hold the loop, as long and as often as the message says."""
    async for message in ws:
        seconds, times = str(message).split()
        for _ in range(int(times)):
            time.sleep(float(seconds))  # noqa: ASYNC251 - the mistake that the watchdog is to find
            await asyncio.sleep(0)
        await ws.send("awake")


def make_sockets(options: argparse.Namespace, handlers: Handlers) -> WebSockets:
    """Make the application."""
    heartbeat = Heartbeat(interval=options.interval, timeout=options.timeout)
    sockets = WebSockets(
        auth=Anonymous(),
        heartbeat=None if options.no_heartbeat else heartbeat,
        limits=Limits(connections_per_user=None, **dict(options.limit)),
        server_limits=ServerLimits(**dict(options.server_limit)),
    )
    conversations = {
        "/echo": echo,
        "/ticker": tick,
        "/slow": never_receive,
        "/leave": leave,
        "/burst": burst,
    }
    routes = {path: sockets.route(path) for path in conversations}
    for path, handler in conversations.items():
        routes[path](handlers.counted(handler))

    for slow in get_args(Slow)[1:]:
        sockets.route(f"/burst-{slow}", slow=slow)(handlers.counted(burst))
        event = sockets.route(f"/burst-events-{slow}", slow=slow)
        event.on_message(burst_event)

    @sockets.route("/sweep")
    async def sweep(ws: WebSocket) -> None:
        async for _ in ws:
            await routes["/echo"].everyone.close(1001)

    sockets.route("/block", heartbeat=None)(block)  # not counted: the watchdog names the outermost
    sockets.route("/auth", auth=SlowAuth())(handlers.counted(echo))
    sockets.route("/auth-thread", auth=SlowThreadAuth())(handlers.counted(echo))
    sockets.route("/events").on_message(echo_event)
    sockets.route("/burst-events").on_message(burst_event)
    sockets.route("/pieces").on_message(send_pieces)
    sockets.route("/work").on_message(work)
    sockets.route("/push")
    feed = sockets.route("/feed/<room>")

    @sockets.route("/steady").on_message
    def steady(ws: WebSocket, message: str | bytes) -> None:
        room, count, rate = str(message).split()
        send_steadily(feed.room(room), int(count), float(rate))
        ws.send("done")

    rooms = sockets.route("/rooms/<room>")
    rooms.on_open(enter)
    rooms.on_message(tell)
    rooms.on_close(went)
    return sockets


def report(sockets: WebSockets, handlers: Handlers, *, collect: bool) -> Report:
    """Return what the server holds, counted on its loop, between two turns."""
    sidecar, engine = sockets._front.sidecar, sockets._front.engine
    assert sidecar is not None
    assert engine is not None
    runtime = sidecar.ensure()
    receipt: Receipt[Report] = Receipt()
    if collect:
        gc.collect()

    def count() -> None:
        undecided, admitted, users = engine.gate.counts
        receipt.resolve(
            Report(
                sockets=len(runtime.links),
                registered=len(runtime.registry),
                addresses=len(list(runtime.registry.addresses)),
                timed=len(runtime.wheel),
                undecided=undecided,
                admitted=admitted,
                users=users,
                served=len(engine._servers),
                tasks=len(asyncio.all_tasks(runtime.loop)),
                handlers=handlers.running,
                threads=threading.active_count(),
                auth_threads=engine.threads["auth"].threads,
                fds=len(list(Path("/proc/self/fd").iterdir())),
                objects=sum(isinstance(each, KEPT) for each in gc.get_objects()) if collect else 0,
                blocks=sys.getallocatedblocks(),
            )
        )

    runtime.run(count)
    return receipt.result(30)


def main() -> None:
    """Serve until stdin ends."""
    options = _options()
    if options.loop == "asyncio":
        sys.modules["uvloop"] = None  # type: ignore[assignment] # the documented way to hide one
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    handlers = Handlers()
    sockets = make_sockets(options, handlers)
    _, port = sockets.listen("127.0.0.1", 0)
    print(port, flush=True)
    for line in sys.stdin:
        print(json.dumps(report(sockets, handlers, collect="collect" in line)), flush=True)
    sockets.close(timeout=5).result(10)


def _number(text: str) -> tuple[str, float | None]:
    name, _, value = text.partition("=")
    if value == "none":
        return name, None
    return name, float(value) if "." in value else int(value)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.server")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    parser.add_argument("--interval", type=float, default=30.0, help="of the heartbeat")
    parser.add_argument("--timeout", type=float, default=20.0, help="of the heartbeat")
    parser.add_argument("--no-heartbeat", action="store_true")
    parser.add_argument("--limit", type=_number, action="append", default=[], metavar="NAME=N")
    parser.add_argument("--server-limit", type=_number, action="append", default=[], metavar="N=N")
    return parser.parse_args()


if __name__ == "__main__":
    main()
