"""What does an echo cost: on uvicorn's WebSocket classes, on ours, behind our door, under gunicorn?

A fixed number of messages goes over 50 sockets: small ones, one or several in flight on each, and
large ones. What is counted is the processor time of the server for each echo: it depends least on
what else the machine does. The conditions take turns within each round.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from websockets.asyncio.client import connect

from .common.report import Report, arguments, median, spread
from .common.servers import gunicorn, serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.asyncio.client import ClientConnection

    from .common.servers import Server


class Condition(NamedTuple):
    """How the echo is served."""

    name: str
    command: list[str]
    path: str = "/"


class Load(NamedTuple):
    """What goes over each socket."""

    size: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.size} bytes, {self.in_flight} in flight"


def uvicorn(app: str, ws: str) -> list[str]:
    """Return the command of uvicorn with one of the apps."""
    command = ["uvicorn", f"bench.apps.echo:{app}", "--port", "{port}", "--ws", ws]
    return [*command, "--log-level", "warning", "--lifespan", "off"]


SANSIO: Final = "websockets-sansio"
OURS: Final = "ws_middleware.uvicorn:WebSocketProtocol"

CONDITIONS: Final = (
    Condition("uvicorn, websockets-sansio", uvicorn("bare", SANSIO)),
    Condition("uvicorn, wsproto", uvicorn("bare", "wsproto")),
    Condition("uvicorn, our class", uvicorn("bare", OURS)),
    Condition("our door, guarded, websockets-sansio", uvicorn("guarded", SANSIO)),
    Condition("our door, guarded, our class", uvicorn("guarded", OURS)),
    Condition("our door, our route, websockets-sansio", uvicorn("guarded", SANSIO), "/ours"),
    Condition("our door, our route, our class", uvicorn("guarded", OURS), "/ours"),
    Condition("Flask on gunicorn, our route", gunicorn("bench.apps.echo:flask_app"), "/ours"),
)
LOADS: Final = (Load(16, 1), Load(16, 8), Load(16 * 1024, 1))


async def echo(url: str, load: Load, sockets: int, messages: int) -> None:
    """Send `messages` over each of so many sockets."""
    text = "x" * load.size

    async def ask(client: ClientConnection, rounds: int) -> None:
        for _ in range(rounds):
            for _ in range(load.in_flight):
                await client.send(text)
            for _ in range(load.in_flight):
                await client.recv()

    async def one() -> None:
        async with connect(url, compression=None, ping_interval=None) as client:
            await ask(client, -(-messages // load.in_flight))

    await asyncio.gather(*(one() for _ in range(sockets)))


def used(server: Server) -> float:
    """Return the seconds of processor time that a server has used."""
    times = [each.cpu_times() for each in server.workers]
    return sum(each.user + each.system for each in times)


def measure(condition: Condition, load: Load, sockets: int, messages: int) -> float:
    """Return the microseconds of the server's processor for an echo."""
    with serve(condition.command) as server:
        url = f"ws://127.0.0.1:{server.port}{condition.path}"
        asyncio.run(echo(url, load, sockets, messages // 10 + 1))  # warm
        before = used(server)
        asyncio.run(echo(url, load, sockets, messages))
        return (used(server) - before) / (sockets * messages) * 1e6


def ratio(its: float, first: float) -> float:
    """Return their ratio; none where the first was too short for the system's clock."""
    return its / first if first else math.nan


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--sockets", type=int, default=50)
    parser.add_argument("--messages", type=int, default=400, help="over each socket")
    args = parser.parse_args(argv)
    report = Report("echo", "An echo")
    for load in LOADS:
        found: dict[str, list[float]] = {each.name: [] for each in CONDITIONS}
        for number in range(args.rounds):
            turned = CONDITIONS if number % 2 == 0 else tuple(reversed(CONDITIONS))
            for condition in turned:
                cost = measure(condition, load, args.sockets, args.messages)
                found[condition.name].append(cost)
        base = found[CONDITIONS[0].name]
        report.table(
            (str(load), "server us an echo", "ratio to the first"),
            [
                (
                    name,
                    f"{median(values):.1f}",
                    spread([ratio(its, first) for its, first in zip(values, base, strict=True)]),
                )
                for name, values in found.items()
            ],
        )
        report.figures[str(load)] = found
    report.publish(args.json)


if __name__ == "__main__":
    main()
