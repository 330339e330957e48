"""What does an echo cost a uvicorn process: on its own WebSocket classes, ours, behind our door?

A fixed number of small messages goes over 50 sockets, one in flight on each. What is counted is the
processor time of the server for each echo: it depends least on what else the machine does. The
conditions take turns within each round.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import psutil
from websockets.asyncio.client import connect

from .common.report import Report, arguments, median, spread
from .common.servers import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

OURS: Final = "ws_middleware.uvicorn:WebSocketProtocol"


class Condition(NamedTuple):
    """How the echo is served."""

    name: str
    app: str
    ws: str
    path: str = "/"


CONDITIONS: Final = (
    Condition("uvicorn, websockets-sansio", "bare", "websockets-sansio"),
    Condition("uvicorn, wsproto", "bare", "wsproto"),
    Condition("uvicorn, our class", "bare", OURS),
    Condition("our door, guarded, websockets-sansio", "guarded", "websockets-sansio"),
    Condition("our door, guarded, our class", "guarded", OURS),
    Condition("our door, our route, websockets-sansio", "guarded", "websockets-sansio", "/ours"),
    Condition("our door, our route, our class", "guarded", OURS, "/ours"),
)


async def echo(url: str, sockets: int, messages: int) -> None:
    """Send `messages` over each of so many sockets, one after the other."""

    async def one() -> None:
        async with connect(url, compression=None, ping_interval=None) as client:
            for _ in range(messages):
                await client.send("0123456789abcdef")
                await client.recv()

    await asyncio.gather(*(one() for _ in range(sockets)))


def measure(condition: Condition, sockets: int, messages: int) -> float:
    """Return the microseconds of the server's processor for an echo."""
    command = ["uvicorn", f"bench.apps.asgi_echo:{condition.app}", "--port", "{port}"]
    options = ["--ws", condition.ws, "--log-level", "warning", "--lifespan", "off"]
    with serve([*command, *options]) as server:
        url = f"ws://127.0.0.1:{server.port}{condition.path}"
        process = psutil.Process(server.process.pid)
        asyncio.run(echo(url, sockets, messages // 10 + 1))  # warm
        before = process.cpu_times()
        asyncio.run(echo(url, sockets, messages))
        after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return used / (sockets * messages) * 1e6


def ratio(its: float, first: float) -> float:
    """Return their ratio; none where the first was too short for the system's clock."""
    return its / first if first else math.nan


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--sockets", type=int, default=50)
    parser.add_argument("--messages", type=int, default=400, help="over each socket")
    args = parser.parse_args(argv)
    report = Report("asgi_echo", "An echo of 16 bytes on uvicorn")
    found: dict[str, list[float]] = {each.name: [] for each in CONDITIONS}
    for number in range(args.rounds):
        turned = CONDITIONS if number % 2 == 0 else tuple(reversed(CONDITIONS))
        for condition in turned:
            found[condition.name].append(measure(condition, args.sockets, args.messages))
    base = found[CONDITIONS[0].name]
    report.table(
        ("served by", "server us an echo", "ratio to the first"),
        [
            (
                name,
                f"{median(values):.1f}",
                spread([ratio(its, first) for its, first in zip(values, base, strict=True)]),
            )
            for name, values in found.items()
        ],
    )
    report.figures["microseconds"] = found
    report.publish(args.json)


if __name__ == "__main__":
    main()
