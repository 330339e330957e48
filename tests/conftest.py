from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.redis_server import RedisServer, find_redis
from tests.support import RawPeer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ws_middleware import WebSockets


class Served(NamedTuple):
    """A running `WebSockets` on its own port."""

    sockets: WebSockets
    address: tuple[str, int]

    def url(self, path: str = "/") -> str:
        return f"ws://{self.address[0]}:{self.address[1]}{path}"

    @property
    def origin(self) -> str:
        """The origin that "same-origin" lets in."""
        return f"http://{self.address[0]}:{self.address[1]}"

    def peer(self, timeout: float = 10.0) -> RawPeer:
        return RawPeer(self.address, timeout)


Serve = "Callable[[WebSockets], Served]"


@pytest.fixture
def serve() -> Iterator[Callable[[WebSockets], Served]]:
    """Serve a `WebSockets` on a port of its own until the test ends."""
    served: list[WebSockets] = []

    def start(sockets: WebSockets) -> Served:
        served.append(sockets)
        return Served(sockets, sockets.listen("127.0.0.1", 0))

    yield start
    for sockets in served:
        sockets.close(timeout=3).result(10)


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may kill, stop and start again."""
    command = find_redis()
    if command is None:
        assert "CI" not in os.environ, "redis-server is missing"
        pytest.skip("redis-server is missing")
    server = RedisServer(command, tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.kill()
