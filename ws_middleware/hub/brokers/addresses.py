"""From a URL to connections: one Redis, one behind Sentinel, or a cluster."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import redis
import redis.sentinel
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry as BlockingRetry

from ws_middleware.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio.connection import AbstractConnection

__all__ = ["Servers"]

#: Seconds that a connection may take.
_CONNECT: Final = 5.0

_FORMS: Final = (
    "redis://host:6379/0, rediss://host:6379/0 (TLS), redis+unix:///path/to/socket, "
    "redis+cluster://host1:6379,host2:6379, redis+sentinel://host1:26379,host2:26379/service"
)


class Servers:
    """Where Redis is. Its text form has no password in it.

    Args:
        url: `redis://`, `rediss://` (TLS), `redis+unix://`, `redis+cluster://` with several hosts,
            or `redis+sentinel://` with those of the sentinels and the service's name as path; user
            and password before the host, redis-py's options as its query.

    Raises:
        ConfigError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._scheme, _, self._kind = parts.scheme.partition("+")
            userinfo, _, self._hosts = parts.netloc.rpartition("@")
            self._user = f"{userinfo}@" if userinfo else ""
            self._path, self._query = parts.path, f"?{parts.query}" if parts.query else ""
            self._urls = itertools.cycle(self._split())
            for each in self._split():
                ConnectionPool.from_url(each)
        except ValueError as error:
            msg = f"broker {_without_password(url)!r} is none ({error}); write {_FORMS}"
            raise ConfigError(msg) from None

    def __str__(self) -> str:
        kind = f"+{self._kind}" if self._kind else ""
        return f"{self._scheme}{kind}://{self._hosts}{self._path}"

    def _split(self) -> list[str]:
        """Return a URL of redis-py's for each server that may be tried."""
        if self._scheme not in {"redis", "rediss"}:
            msg = f"there is no scheme {self._scheme!r}"
            raise ValueError(msg)
        if self._kind == "unix":
            return [f"unix://{self._user}{self._path}{self._query}"]
        if self._kind not in {"", "cluster", "sentinel"}:
            msg = f"there is no kind {self._kind!r}"
            raise ValueError(msg)
        if self._kind == "sentinel" and not self._path.strip("/"):
            msg = "the service's name is missing"
            raise ValueError(msg)
        # In a cluster what is published on one node is heard on all of them, so any will do.
        hosts = [self._hosts] if not self._kind else self._hosts.split(",")
        path = self._path if not self._kind else ""
        return [f"{self._scheme}://{self._user}{host}{path}{self._query}" for host in hosts]

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[AbstractConnection]:
        """Connect to the next server that may be tried; how long an answer takes is not its matter.

        Raises:
            RedisError, OSError: it is not there.
        """
        connection = await self._make()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
        finally:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)

    async def _make(self) -> AbstractConnection:
        options: dict[str, Any] = {
            "socket_timeout": None,
            "socket_connect_timeout": _CONNECT,
            "retry": Retry(NoBackoff(), 0),  # we try again, and say so
            "protocol": 2,
            "client_name": "ws_middleware",
        }
        url = next(self._urls)
        pool = ConnectionPool.from_url(url, **options)
        if self._kind == "sentinel":
            host, port = await self._find_master(url)
            pool.connection_kwargs.update(host=host, port=port)
        connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    def client(self, patience: float) -> redis.Redis:
        """Return a client for threads, of the next server that may be tried.

        `patience` is in seconds, for its connection and again for each answer.

        Raises:
            RedisError, OSError: no sentinel knows where the service is.
        """
        options: dict[str, Any] = {
            "socket_timeout": patience,
            "socket_connect_timeout": patience,
            "retry": BlockingRetry(NoBackoff(), 0),
            "client_name": "ws_middleware",
        }
        url = next(self._urls)
        pool = redis.ConnectionPool.from_url(url, **options)
        if self._kind == "sentinel":
            where = (pool.connection_kwargs["host"], pool.connection_kwargs.get("port", 26379))
            sentinel = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
                [where], sentinel_kwargs={"socket_timeout": patience}
            )
            host, port = sentinel.discover_master(  # type: ignore[no-untyped-call]
                self._service
            )
            pool.connection_kwargs.update(host=host, port=port)
        return redis.Redis(connection_pool=pool)

    @property
    def _service(self) -> str:
        return unquote(self._path.strip("/"))

    async def _find_master(self, url: str) -> tuple[str, int]:
        kwargs = ConnectionPool.from_url(url).connection_kwargs
        where = (kwargs["host"], kwargs.get("port", 26379))
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            [where], sentinel_kwargs={"socket_timeout": _CONNECT}
        )
        try:
            host, port = await sentinel.discover_master(self._service)
        finally:
            for each in sentinel.sentinels:
                await each.aclose()
        return str(host), int(port)


def _without_password(url: str) -> str:
    """Return what may be shown of a URL that could not be taken apart."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
