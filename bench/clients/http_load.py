"""HTTP load in a process of its own, at a rate that does not wait for the server.

Requests are due at fixed times, and each is measured from the time it was due: a server that stands
still for a second has a second's worth of slow answers, not one. What the load generator itself
was late by is measured too, so that one sees whose delay it was.

Prints JSON: `ms` (a latency for each answer), `lag_ms` (how late each request was sent), `errors`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import selectors
import time
from collections import deque
from typing import NamedTuple

#: Seconds for an answer; after it the request is an error.
_TIMEOUT = 10.0


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Load:
    """Requests to one address, and what became of them."""

    def __init__(self, port: int, path: str, *, keep_alive: bool) -> None:
        self._port = port
        self._keep_alive = keep_alive
        field = "" if keep_alive else "Connection: close\r\n"
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{field}\r\n"
        self._request = head.encode()
        self._idle: deque[_Connection] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self.ms: list[float] = []
        self.lag_ms: list[float] = []
        self.errors = 0

    async def run(self, rate: float, seconds: float) -> None:
        """Send `rate` requests a second; return when all have been answered."""
        start = time.perf_counter() + 0.05
        for number in range(round(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self.lag_ms.append((time.perf_counter() - due) * 1000)
            task = asyncio.create_task(self._one(due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._tasks:
            await asyncio.wait(self._tasks)
        for connection in self._idle:
            connection.writer.close()

    async def _one(self, due: float) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._ask()
        except (OSError, EOFError, TimeoutError, ValueError):
            self.errors += 1
        else:
            self.ms.append((time.perf_counter() - due) * 1000)

    async def _ask(self) -> None:
        while self._idle:
            connection = self._idle.popleft()
            try:
                return await self._exchange(connection)
            except (OSError, EOFError):  # the server may end an idle connection at any time
                connection.writer.close()
        await self._exchange(_Connection(*await asyncio.open_connection("127.0.0.1", self._port)))
        return None

    async def _exchange(self, connection: _Connection) -> None:
        connection.writer.write(self._request)
        head = await connection.reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != b"200":
            msg = f"expected 200, got {head[:40]!r}"
            raise ValueError(msg)
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await connection.reader.readexactly(int(length))
        if self._keep_alive:
            self._idle.append(connection)
        else:
            connection.writer.close()


def _exact_loop() -> asyncio.AbstractEventLoop:
    # epoll counts in milliseconds, and would send each request up to one too late.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--path", default="/")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--keep-alive", action="store_true")
    args = parser.parse_args()
    load = Load(args.port, args.path, keep_alive=args.keep_alive)
    with asyncio.Runner(loop_factory=_exact_loop) as runner:
        runner.run(load.run(args.rate, args.seconds))
    print(json.dumps({"ms": load.ms, "lag_ms": load.lag_ms, "errors": load.errors}))


if __name__ == "__main__":
    main()
