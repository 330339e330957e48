"""HTTP beside sockets, in rounds: a new server each, all conditions on it, every other round in
the opposite order, so that the noise of the machine falls on all of them alike.

Ratios are taken within a round. The median of five ratios says more than the ratio of medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .clients import Load, Sockets, load
from .report import median, spread
from .servers import Server, serve

if TYPE_CHECKING:
    import argparse

    from .report import Report

__all__ = ["Condition", "Plan", "Results", "add_arguments", "make_plan", "measure"]

#: Seconds for a server to come to rest between two measurements.
_SETTLE: Final = 1.0
#: Sockets opened and closed at first, so that whatever starts has started.
_FIRST: Final = 10

Act = Callable[[Server, Sockets], None]


def _nothing(server: Server, sockets: Sockets) -> None:
    """Leave the sockets idle."""


@dataclass(frozen=True)
class Condition:
    """What goes on beside the HTTP requests: whether there are sockets, and what they do."""

    name: str
    has_sockets: bool = True
    begin: Act = _nothing
    end: Act = _nothing


@dataclass(frozen=True)
class Plan:
    """What is to be measured. The first condition is the one that others are compared with."""

    command: list[str]
    path: str
    conditions: tuple[Condition, ...]
    sockets: int
    rounds: int
    rate: float
    seconds: float
    attempts: int


@dataclass
class Results:
    """A list for each condition and way of connecting, an entry a round."""

    loads: dict[tuple[str, bool], list[Load]] = field(default_factory=dict)
    #: Messages a second that the sockets got.
    received: dict[str, list[float]] = field(default_factory=dict)
    threads: list[tuple[int, int]] = field(default_factory=list)
    rss_per_socket: list[float] = field(default_factory=list)
    connect_ms: list[float] = field(default_factory=list)

    def add(self, condition: str, loads: dict[bool, Load], received: float) -> None:
        """Note what a condition came to in a round."""
        for keep_alive, each in loads.items():
            self.loads.setdefault((condition, keep_alive), []).append(each)
        self.received.setdefault(condition, []).append(received)

    def figures(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "loads": [
                {"condition": name, "keep_alive": keep_alive, "rounds": [asdict(x) for x in each]}
                for (name, keep_alive), each in self.loads.items()
            ],
            "received_per_second": self.received,
            "threads": self.threads,
            "rss_per_socket": self.rss_per_socket,
        }

    def tell_http(self, report: Report, base: str) -> None:
        """Add the table of latencies, each condition compared with `base`."""
        rows = []
        for (name, keep_alive), loads in self.loads.items():
            bases = self.loads[base, keep_alive]
            ratios = [mine.p99 / its.p99 for mine, its in zip(loads, bases, strict=True)]
            rows.append(
                (
                    name,
                    "on" if keep_alive else "off",
                    f"{median([each.p50 for each in loads]):.2f}",
                    f"{median([each.p99 for each in loads]):.2f}",
                    spread(ratios),
                    f"{median([each.lag_p99 for each in loads]):.2f}",
                    f"{max(each.others for each in loads):.2f}",
                    sum(each.errors for each in loads),
                    f"{median(self.received[name]):.0f}",
                )
            )
        columns = (
            "sockets",
            "keep-alive",
            "p50 ms",
            "p99 ms",
            "p99, ratio",
            "client's own lag",
            "others",
        )
        report.table((*columns, "errors", "messages/s"), rows)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a plan is made of."""
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=200.0, help="HTTP requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each HTTP measurement")
    parser.add_argument(
        "--attempts", type=int, default=5, help="at a measurement while others use the machine"
    )


def make_plan(
    args: argparse.Namespace, command: list[str], path: str, conditions: tuple[Condition, ...]
) -> Plan:
    """Return the plan that the arguments ask for."""
    numbers = (args.sockets, args.rounds, args.rate, args.seconds, args.attempts)
    return Plan(command, path, conditions, *numbers)


def measure(plan: Plan, report: Report) -> Results:
    """Carry out a plan."""
    results = Results()
    for number in range(plan.rounds):
        conditions = plan.conditions if number % 2 == 0 else plan.conditions[::-1]
        with serve(plan.command) as server, Sockets(server, plan.path) as sockets:
            _weigh(plan, server, sockets, results)
            for condition in conditions:
                report.progress(f"round {number + 1} of {plan.rounds}, {condition.name}")
                _measure_one(plan, condition, server, sockets, results)
    return results


def _weigh(plan: Plan, server: Server, sockets: Sockets, results: Results) -> None:
    """Open the sockets for the first time, and see what they add."""
    _warm_up(plan, server)
    sockets.open(min(_FIRST, plan.sockets))
    sockets.close()
    time.sleep(_SETTLE)
    threads, rss = server.threads(), server.rss()
    opened = sockets.open(plan.sockets)
    if opened.failed:
        msg = f"{opened.failed} of {plan.sockets} sockets could not be opened"
        raise RuntimeError(msg)
    time.sleep(_SETTLE)
    results.threads.append((threads, server.threads()))
    results.rss_per_socket.append((server.rss() - rss) / plan.sockets)
    results.connect_ms.append(median(opened.ms))


def _warm_up(plan: Plan, server: Server) -> None:
    load(server, rate=plan.rate, seconds=min(1.0, plan.seconds), keep_alive=True)


def _measure_one(
    plan: Plan, condition: Condition, server: Server, sockets: Sockets, results: Results
) -> None:
    if condition.has_sockets and not sockets.count:
        sockets.open(plan.sockets)
    elif not condition.has_sockets:
        sockets.close()
    time.sleep(_SETTLE)
    condition.begin(server, sockets)
    start, before = time.monotonic(), sockets.received
    loads = {
        keep_alive: load(
            server,
            rate=plan.rate,
            seconds=plan.seconds,
            keep_alive=keep_alive,
            attempts=plan.attempts,
            beside=[sockets.pid],
        )
        for keep_alive in (True, False)
    }
    received = (sockets.received - before) / (time.monotonic() - start)
    condition.end(server, sockets)
    results.add(condition.name, loads, received)
