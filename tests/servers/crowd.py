"""Many clients at once, on one event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from .app import KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from websockets.asyncio.client import ClientConnection

    from .conftest import Running

__all__ = ["ends_of", "enter", "join"]

#: Connects under way at the same time.
AT_ONCE = 40


async def enter(server: Running, number: int = 0, path: str = "/ws/token") -> ClientConnection:
    """Connect as one of twenty users, by a token."""
    claims = {"sub": f"user{number % 20}", "exp": int(time.time()) + 600}
    return await connect(
        f"ws://127.0.0.1:{server.port}{path}",
        additional_headers={"Authorization": f"Bearer {jwt.encode(claims, KEY)}"},
        compression=None,
        open_timeout=60,
        ping_interval=None,
        proxy=None,
    )


async def join(server: Running, count: int) -> list[ClientConnection]:
    """Connect many, some at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> ClientConnection:
        async with gate:
            return await enter(server, number)

    return list(await asyncio.gather(*map(one, range(count))))


async def ends_of(clients: Iterable[ClientConnection]) -> list[tuple[int, str, float]]:
    """Wait until all have been closed; return code, reason and time of each."""

    async def end(client: ClientConnection) -> tuple[int, str, float]:
        try:
            while True:
                await client.recv()
        except ConnectionClosed:
            return client.close_code or 0, client.close_reason or "", time.monotonic()

    async with asyncio.timeout(60):
        return list(await asyncio.gather(*map(end, clients)))
