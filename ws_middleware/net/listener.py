"""Our own port: a listening socket whose connections become links of one runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .link import SocketLink

if TYPE_CHECKING:
    import asyncio

    from .engine import Engine
    from .runtime import Runtime

__all__ = ["Listener"]

#: Connections that the kernel holds for us while we are busy: a deploy brings all clients at once.
_BACKLOG = 1024


class Listener:
    """One or more listening sockets (a name can have several addresses) of one runtime."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @classmethod
    async def open(
        cls, engine: Engine, runtime: Runtime, host: str, port: int, *, reuse_port: bool
    ) -> Listener:
        """Bind and listen. On the runtime's loop.

        Raises:
            OSError: the address cannot be had.
        """
        server = await runtime.loop.create_server(
            lambda: SocketLink(engine, runtime),
            host,
            port,
            reuse_port=reuse_port or None,
            backlog=_BACKLOG,
        )
        return cls(server)

    @property
    def address(self) -> tuple[str, int]:
        """The address that was bound: with port 0, the port that the kernel chose."""
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    @property
    def filenos(self) -> list[int]:
        """The descriptors, for a forked child to let go of."""
        return [sock.fileno() for sock in self._server.sockets]

    def close(self) -> None:
        """Stop listening; connections go on."""
        self._server.close()
