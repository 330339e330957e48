"""A server that says what no Redis can be brought to say at will."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GREETING = b"*4\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$5\r\nproto\r\n:2\r\n"


class Scripted:
    """How often it was connected to, and what it was told.

    `script` takes a command and returns the answer as RESP, or `None` to end the connection.
    """

    def __init__(self, script: Callable[[list[bytes]], bytes | None], delay: float) -> None:
        self.script = script
        self._delay = delay
        self.connections = 0
        self.commands: list[list[bytes]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (answer := self.answer(await read_command(reader))) is not None:
                if self.commands[-1][0] == b"PUBLISH":
                    await asyncio.sleep(self._delay)
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def answer(self, command: list[bytes]) -> bytes | None:
        self.commands.append(command)
        if command[0] == b"HELLO":
            return GREETING
        if command[0] == b"CLIENT":
            return b"+OK\r\n"
        return self.script(command)


@asynccontextmanager
async def scripted(
    script: Callable[[list[bytes]], bytes | None], *, port: int = 0, delay: float = 0.0
) -> AsyncIterator[Scripted]:
    """Serve; each message that is published is answered `delay` seconds later."""
    told = Scripted(script, delay)
    server = await asyncio.start_server(told.serve, "127.0.0.1", port)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()


async def read_command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readexactly(1) + await reader.readline())[1:])
    parts = []
    for _ in range(count):
        size = int((await reader.readline())[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts


def confirmations(command: list[bytes]) -> bytes:
    """Answer SUBSCRIBE or UNSUBSCRIBE as Redis does."""
    kind = command[0].lower()
    return b"".join(
        b"*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:1\r\n" % (len(kind), kind, len(name), name)
        for name in command[1:]
    )


def obedient(command: list[bytes]) -> bytes:
    """Answer everything as Redis does where nobody listens."""
    return b":0\r\n" if command[0] == b"PUBLISH" else confirmations(command)
