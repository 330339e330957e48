"""The clients, each in a process of its own, so that they share no interpreter with a server."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .quiet import quietest
from .report import percentile
from .servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .servers import Server

__all__ = ["Load", "Opened", "Sockets", "load"]


@dataclass(frozen=True)
class Load:
    """What became of the requests of an HTTP load. All times in milliseconds, from the due time."""

    p50: float
    p99: float
    #: How late the load generator itself was, at its 99th percentile.
    lag_p99: float
    answers: int
    errors: int
    #: Cores that processes other than ours used meanwhile.
    others: float


def load(
    server: Server,
    *,
    rate: float,
    seconds: float,
    keep_alive: bool,
    attempts: int = 1,
    beside: Sequence[int] = (),
) -> Load:
    """Ask for the plain view, `rate` times a second.

    It is done again, up to `attempts` times, while processes that are neither the server's nor
    `beside` it keep the machine busy.
    """
    command = [str(server.port), "--rate", str(rate), "--seconds", str(seconds)]
    if keep_alive:
        command.append("--keep-alive")
    command = _module("http_load", *command)

    def once() -> bytes:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout

    ours = [*(each.pid for each in server.workers), *beside]
    out, others = quietest(attempts, ours, once)
    result = json.loads(out)
    ms = result["ms"]
    return Load(
        p50=percentile(ms, 50),
        p99=percentile(ms, 99),
        lag_p99=percentile(result["lag_ms"], 99),
        answers=len(ms),
        errors=result["errors"],
        others=others,
    )


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"bench.clients.{name}", *arguments]


@dataclass(frozen=True)
class Opened:
    """What became of an attempt to open many sockets."""

    opened: int
    failed: int
    #: Milliseconds that each took, from connect() to the 101.
    ms: list[float]
    #: From the first to the last.
    seconds: float


class Sockets:
    """A process that holds WebSockets; a context manager."""

    def __init__(self, server: Server, path: str, *options: str) -> None:
        self._process = subprocess.Popen(
            _module("sockets", str(server.port), path, *options),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        # An end of the orders is the end of the process, and of its sockets.
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _ask(self, **order: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    @property
    def pid(self) -> int:
        """The process that holds them."""
        return self._process.pid

    def open(self, count: int, *, at_once: int = 40, timeout: float = 30.0) -> Opened:
        """Open `count` more, `at_once` at a time, each within `timeout` seconds."""
        return Opened(**self._ask(do="open", count=count, at_once=at_once, timeout=timeout))

    def send(self, rate: float) -> None:
        """Begin to send `rate` text frames a second, over all sockets in turn."""
        self._ask(do="send", rate=rate)

    def rest(self) -> None:
        """Send no more."""
        self._ask(do="rest")

    @property
    def received(self) -> int:
        """Messages that have come so far."""
        return int(self._ask(do="report")["received"])

    def watch(self) -> None:
        """Note from now on when a message has come to every socket."""
        self._ask(do="watch")

    @property
    def seen_by_all(self) -> list[float]:
        """The times at which every socket had one message more, as time.perf_counter has them."""
        return list(self._ask(do="seen_by_all")["at"])

    @property
    def count(self) -> int:
        """Sockets that are open."""
        return int(self._ask(do="report")["open"])

    def close(self) -> None:
        """Close them all, with the handshake."""
        self._ask(do="close")
