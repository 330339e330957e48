"""Many at once, on every server: no upgrade and no page is lost, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from .crowd import AT_ONCE, enter

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

    from .conftest import Running

CONNECTS = 600
OPEN = 200


class Crowd:
    """Clients that come at most so many at once; the oldest go when too many are there."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._places = asyncio.Semaphore(AT_ONCE)
        self._open: deque[ClientConnection] = deque()
        self.pages = 0

    async def come(self, number: int) -> str:
        """Connect, be answered, and stay."""
        async with self._places:
            client = await enter(self._server, number)
            await client.send(str(number))
            answer = await client.recv()
            self._open.append(client)
            while len(self._open) > OPEN - AT_ONCE:
                await self._open.popleft().close()
            return str(answer)

    async def read_pages(self) -> None:
        """Ask for page after page, one at a time."""
        while True:
            assert await asyncio.to_thread(self._server.get, "/") == "http"
            self.pages += 1

    async def leave(self) -> None:
        for client in self._open:
            await client.close()


async def storm(server: Running) -> tuple[list[str], int]:
    """Return what each client was answered, and how many pages were read meanwhile."""
    crowd = Crowd(server)
    reader = asyncio.create_task(crowd.read_pages())
    try:
        answers = await asyncio.gather(*(crowd.come(number) for number in range(CONNECTS)))
        if reader.done():
            reader.result()
        return answers, crowd.pages
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await crowd.leave()


def test_of_600_connects_with_pages_beside_them_none_is_lost(server: Running) -> None:
    server.get("/")
    asyncio.run(storm_once(server))
    threads, fds = server.usage()
    answers, pages = asyncio.run(storm(server))
    assert answers == [str(number) for number in range(CONNECTS)]
    assert pages > 0
    server.until(lambda: server.usage()[1] <= fds + 2)
    assert server.usage()[0] <= threads + 4


async def storm_once(server: Running) -> None:
    """Have one client, so that whatever starts has started."""
    crowd = Crowd(server)
    await crowd.come(0)
    await crowd.leave()
