"""The server under test: `python -m tests.conformance.echo_server --port 0 --raised`.

Prints the bound port on a line of its own, then echoes until SIGTERM or SIGINT. With `--uvicorn`
it is an ASGI app on uvicorn, whose WebSocket protocol is our core.
"""

from __future__ import annotations

import argparse
import signal
import threading
from typing import TYPE_CHECKING, Any

import uvicorn

from ws_middleware import Anonymous, Limits, WebSockets
from ws_middleware.uvicorn import WebSocketProtocol

if TYPE_CHECKING:
    from ws_middleware import WebSocket

MIB = 1024**2

#: Room for all of 9.*: messages of 16 MiB, and 4 MiB in fragments of 64 bytes.
RAISED = Limits(
    message_size=32 * MIB,
    fragments=1_000_000,
    inbound_bytes=64 * MIB,
    outbound_bytes=64 * MIB,
)

CLOSE_TIMEOUT = 5.0


def make_sockets(*, raised: bool) -> WebSockets:
    """Make the echo application, with raised limits or with those that everybody gets."""
    if raised:
        sockets = WebSockets(auth=Anonymous(), limits=RAISED)
    else:
        sockets = WebSockets(auth=Anonymous())
    sockets.route("/echo")(echo)
    return sockets


async def echo(ws: WebSocket) -> None:
    """Send every message back as it came."""
    async for message in ws:
        await ws.send(message)


async def asgi_echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send every message back as it came, as an ASGI app."""
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        kind = "text" if "text" in event else "bytes"
        await send({"type": "websocket.send", kind: event[kind]})


def run_uvicorn(port: int) -> None:
    """Serve the ASGI app until told to stop."""
    ours: Any = WebSocketProtocol  # uvicorn's types know its own only
    config = uvicorn.Config(
        asgi_echo, port=port, ws=ours, ws_max_size=32 * MIB, lifespan="off", log_level="warning"
    )
    sock = config.bind_socket()
    print(sock.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[sock])


def main() -> None:
    """Serve until told to stop."""
    options = _options()
    if options.uvicorn:
        run_uvicorn(options.port)
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sockets = make_sockets(raised=options.raised)
    _, port = sockets.listen("127.0.0.1", options.port)
    print(port, flush=True)
    stop.wait()
    sockets.close(timeout=CLOSE_TIMEOUT).result()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.echo_server")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free one")
    limits = parser.add_mutually_exclusive_group(required=True)
    limits.add_argument("--raised", action="store_true", help="limits with room for every case")
    limits.add_argument("--default", action="store_true", help="the library's default limits")
    limits.add_argument("--uvicorn", action="store_true", help="an ASGI app on uvicorn, raised")
    return parser.parse_args()


if __name__ == "__main__":
    main()
