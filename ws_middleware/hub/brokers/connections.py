"""From servers to one connection that has been greeted: on an event loop, or in a thread.

Behind Sentinel it is the master's, by what a sentinel says and by its own word: a message that is
published on a replica reaches nobody who listens to the master.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from ws_middleware.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from redis.asyncio.connection import AbstractConnection
    from redis.connection import Connection

    from .addresses import Servers, Target

__all__ = ["FAILURES", "connect", "connected", "limit"]

#: What a server that is away, hangs or refuses us makes redis-py raise; and what it raises at
#: answers that are none.
FAILURES: Final = (RedisError, OSError, EOFError, ValueError, TypeError)

#: Seconds that a server has until it has greeted us.
_CONNECT: Final = 5.0

#: Seconds that an answer has, however late it is.
_LEAST: Final = 0.1

#: It needs no permission, names us in the server's list of clients, and tells the server's role.
_HELLO: Final = ("HELLO", "2", "SETNAME")
_FIND: Final = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME")


class _Line:
    """One connection on the running loop."""

    def __init__(self, servers: Servers, options: dict[str, Any]) -> None:
        self.connection = servers.waiting({**options, "socket_connect_timeout": _CONNECT})
        self.connection.redis_connect_func = self._greet
        self._name = servers.client_name
        self.role = ""
        self._transport: asyncio.WriteTransport | None = None

    async def open(self) -> None:
        try:
            async with asyncio.timeout(_CONNECT):
                await self.connection.connect()  # type: ignore[no-untyped-call]
        except TimeoutError:
            msg = f"no answer in {_CONNECT:g} s"
            raise TimeoutError(msg) from None

    async def _greet(self, connection: AbstractConnection) -> None:
        writer = connection._writer  # noqa: SLF001 - redis-py forgets it when it closes it
        assert writer is not None
        self._transport = writer.transport
        await connection.on_connect()
        with _greeting():
            self.role = _role(await self.ask(*_HELLO, self._name))

    async def ask(self, *command: str) -> Any:  # noqa: ANN401 - whatever is answered
        await self.connection.send_command(*command, check_health=False)
        return await self.connection.read_response()

    async def abort(self) -> None:
        """Close it at once: a server that hangs would never take what is still to be written."""
        with contextlib.suppress(Exception):
            await self.connection.disconnect(nowait=True)
        if self._transport is not None:
            self._transport.abort()


@contextlib.asynccontextmanager
async def connected(servers: Servers) -> AsyncIterator[AbstractConnection]:
    """Connect to the first server that greets us; how long an answer takes is not its matter.

    Raises:
        Exception: none does; it says why.
    """
    target, line = await _first(servers)
    servers.in_use[target.name] += 1
    try:
        yield line.connection
    finally:
        servers.in_use[target.name] -= 1
        await line.abort()


async def _first(servers: Servers) -> tuple[Target, _Line]:
    errors: dict[str, Exception] = {}
    for target in servers.candidates():
        try:
            return target, await _open(servers, target)
        except FAILURES as error:
            errors[target.name] = error
    raise _joined(errors)


async def _open(servers: Servers, target: Target) -> _Line:
    options = dict(target.options)
    if servers.kind == "sentinel":
        options.update(await _find(servers, target))
    line = _Line(servers, options)
    try:
        await line.open()
        _check_role(servers, options, line.role)
    except BaseException:
        await line.abort()
        raise
    return line


async def _find(servers: Servers, target: Target) -> dict[str, Any]:
    """Ask a sentinel where the master is."""
    line = _Line(servers, servers.as_sentinel(target))
    try:
        await line.open()
        async with asyncio.timeout(_CONNECT):
            return _read_found(servers, await line.ask(*_FIND, servers.service))
    finally:
        await line.abort()


# --- in a thread ---------------------------------------------------------------------------------


def connect(servers: Servers, until: float) -> Connection:
    """Connect to the first server that greets us before `until`, on the monotonic clock.

    Of the time that is left each step may use up a half: then the next server is tried, too.

    Raises:
        Exception: none does; it says why.
    """
    errors: dict[str, Exception] = {}
    for target in servers.candidates():
        try:
            return _connect(servers, _look_up(servers, target, until), until)
        except FAILURES as error:
            errors[target.name] = error
    raise _joined(errors)


def limit(connection: Connection, until: float) -> None:
    """Have the next read, and the next write, end at `until`, on the monotonic clock."""
    left = max(until - time.monotonic(), _LEAST)
    connection._sock.settimeout(left)  # type: ignore[attr-defined]  # noqa: SLF001 - no other way


def _look_up(servers: Servers, target: Target, until: float) -> dict[str, Any]:
    """Return the options for the server itself, which a sentinel may have to be asked for."""
    if servers.kind != "sentinel":
        return target.options
    sentinel = _greeted(servers, servers.as_sentinel(target), until)[0]
    try:
        found = _read_found(servers, _asked(sentinel, *_FIND, servers.service))
    finally:
        sentinel.disconnect()  # type: ignore[no-untyped-call]
    return {**target.options, **found}


def _connect(servers: Servers, options: dict[str, Any], until: float) -> Connection:
    connection, role = _greeted(servers, options, until)
    try:
        _check_role(servers, options, role)
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return connection


def _greeted(servers: Servers, options: dict[str, Any], until: float) -> tuple[Connection, str]:
    patience = (until - time.monotonic()) / 2
    if patience <= 0:
        msg = "no time is left for it"
        raise TimeoutError(msg)
    times = {"socket_timeout": patience, "socket_connect_timeout": patience}
    connection = servers.blocking({**options, **times})
    connection.socket_timeout = patience  # which redis-py 5.0 forgets for a socket file
    try:
        connection.connect()  # type: ignore[no-untyped-call]
        with _greeting():
            return connection, _role(_asked(connection, *_HELLO, servers.client_name))
    except BaseException:
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    return connection, ""


def _asked(connection: Connection, *command: str) -> Any:  # noqa: ANN401 - whatever is answered
    connection.send_command(*command, check_health=False)  # type: ignore[no-untyped-call]
    return connection.read_response()


# --- what both understand ------------------------------------------------------------------------


@contextlib.contextmanager
def _greeting() -> Iterator[None]:
    """Greet, where what does not know the greeting is a server, too."""
    try:
        yield
    except AuthenticationError as error:
        msg = "it wants a password, and the URL has none"
        raise AuthenticationError(msg) from error
    except ResponseError:  # older than Redis 6, or a proxy
        return


def _role(answer: Any) -> str:  # noqa: ANN401 - what HELLO answers: names and values in turn
    fields = dict(zip(answer[::2], answer[1::2], strict=False))
    role = fields.get(b"role", b"")
    return role.decode() if isinstance(role, bytes) else ""


def _check_role(servers: Servers, options: dict[str, Any], role: str) -> None:
    if servers.kind == "sentinel" and role not in {"master", ""}:
        msg = f"{options['host']}:{options['port']} is a {role}, and not yet the master"
        raise ConnectionError(msg)


def _read_found(servers: Servers, answer: Any) -> dict[str, Any]:  # noqa: ANN401 - host and port
    if answer is None:
        msg = f"it knows no service {servers.service!r}"
        raise ConnectionError(msg)
    host, port = answer
    return {"host": host.decode(), "port": int(port)}


def _joined(errors: dict[str, Exception]) -> Exception:
    """Return one error for those of all servers."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    said = "; ".join(f"{name}: {error}" for name, error in errors.items())
    return BrokerUnavailable(said)
