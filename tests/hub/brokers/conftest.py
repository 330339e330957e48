from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.redis_server import RedisServer, find_redis

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    command = find_redis()
    if command is None:
        assert "CI" not in os.environ, "redis-server is missing"
        pytest.skip("redis-server is missing")
    server = RedisServer(command, tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.kill()
