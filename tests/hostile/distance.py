"""A long way between a client and a server: a TCP proxy whose bytes take their time.

It takes no more than a TCP would have under way: ten segments at first, and a byte more for each
that has been acknowledged, so twice as many after each way there and back (RFC 6928, RFC 5681
section 3.1). What is more waits at the server.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Final, Self

__all__ = ["Distance"]

#: Ten segments of an Ethernet.
_FIRST_WINDOW: Final = 10 * 1460
#: Bytes that the proxy's own sockets and streams may swallow: little beside what is sent.
_BUFFER: Final = 16 * 1024


class Distance:
    """Listens at `address`, and is `delay` seconds away from `target`, each way."""

    def __init__(self, target: tuple[str, int], delay: float) -> None:
        self.address: tuple[str, int]
        self._target = target
        self._delay = delay
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *args: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_BUFFER)
        self.address = self._server.sockets[0].getsockname()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._connect(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = socket.socket()
        there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        there.settimeout(0)
        await self._loop.sock_connect(there, self._target)
        far_reader, far_writer = await asyncio.open_connection(sock=there, limit=_BUFFER)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_Way(self._delay).carry(reader, far_writer))
                ways.create_task(_Way(self._delay).carry(far_reader, writer))
        except* OSError:  # one of the two has gone
            pass
        finally:
            far_writer.close()
            writer.close()


class _Way:
    """One direction of one connection."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._window = _FIRST_WINDOW
        self._under_way = 0
        self._flying: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._has_room.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry everything, and the end behind it."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take(reader))
            both.create_task(self._land(writer))

    async def _take(self, reader: asyncio.StreamReader) -> None:
        loop, data = asyncio.get_running_loop(), b"first"
        while data:
            await self._has_room.wait()
            data = await reader.read(self._window - self._under_way)
            self._flying.put_nowait((loop.time() + self._delay, data))
            self._under_way += len(data)
            if self._under_way >= self._window:
                self._has_room.clear()

    async def _land(self, writer: asyncio.StreamWriter) -> None:
        loop, data = asyncio.get_running_loop(), b"first"
        while data:
            due, data = await self._flying.get()
            await asyncio.sleep(due - loop.time())
            writer.write(data)
            await writer.drain()
            loop.call_later(self._delay, self._acknowledge, len(data))
        writer.write_eof()

    def _acknowledge(self, count: int) -> None:
        self._under_way -= count
        self._window += count
        self._has_room.set()
