from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.certificates import make_certificate
from tests.redis_server import RedisServer, need_redis
from tests.redis_sets import Cluster, Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Each way to reach a Redis.
KINDS = ("tcp", "unix", "tls", "sentinel", "cluster")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that nobody kills, with TCP, TLS and a socket file."""
    folder = tmp_path_factory.mktemp("r")
    server = RedisServer(need_redis(), folder, certificate=make_certificate(folder))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="package")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Master, replica and sentinel that nobody kills."""
    with Watched(tmp_path_factory.mktemp("w")) as watched:
        yield watched


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of which nobody kills a node."""
    with Cluster(tmp_path_factory.mktemp("c")) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def urls_of(request: pytest.FixtureRequest) -> Callable[[str], list[str]]:
    """Return what starts a Redis of a kind, and says what URLs lead there: to be used in turn."""

    def urls(kind: str) -> list[str]:
        if kind == "cluster":
            cluster: Cluster = request.getfixturevalue("cluster")
            return [cluster.url_of(node) for node in cluster.nodes]
        if kind == "sentinel":
            return [str(request.getfixturevalue("watched").url)]
        server: RedisServer = request.getfixturevalue("server")
        return [{"tcp": server.url, "unix": server.unix_url, "tls": server.tls_url}[kind]]

    return urls
