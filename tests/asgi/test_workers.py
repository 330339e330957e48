"""Several workers of one ASGI server: with Redis between them, and without."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.asgi.servers import run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.asgi.servers import Running
    from tests.redis_server import RedisServer

pytestmark = pytest.mark.slow

#: Servers that can have several workers.
SEVERAL = ["uvicorn sansio", "hypercorn", "granian", "gunicorn asgi", "gunicorn uvicorn"]


def check_served(server: Running) -> None:
    with server.connect("/ws/echo") as client:
        client.send("x")
        assert client.recv(10) == "x"


@pytest.mark.parametrize("name", SEVERAL)
def test_sockets_are_served_and_a_send_says_that_a_broker_is_needed(
    name: str, tmp_path: Path
) -> None:
    with run(name, tmp_path, workers=2) as server:
        check_served(server)
        for _ in range(4):  # whichever of them it comes to
            told = server.post("send", "room", "lobby", "x")
            assert "redis://" in told["error"]
            assert "memory://per-process" in told["error"]


@pytest.mark.parametrize(
    ("name", "environ", "has_siblings"),
    [
        pytest.param("uvicorn sansio", {"WEB_CONCURRENCY": "2"}, True, id="uvicorn-variable"),
        pytest.param("uvicorn run", {}, True, id="uvicorn.run"),
        pytest.param("gunicorn asgi", {"WEB_CONCURRENCY": "2"}, True, id="gunicorn-variable"),
        pytest.param("uvicorn alone", {"WEB_CONCURRENCY": "2"}, False, id="Server.serve"),
        pytest.param("hypercorn", {"WEB_CONCURRENCY": "2"}, False, id="hypercorn-variable"),
        pytest.param("gunicorn uvicorn", {}, False, id="one-worker"),
        pytest.param("granian", {}, False, id="granian-one-worker"),
    ],
)
def test_how_many_there_are_is_what_the_server_has_made_of_it(
    name: str,
    environ: dict[str, str],
    has_siblings: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    with run(name, tmp_path, has_control=False, environ=environ) as server:
        check_served(server)
        told = server.post("send", "room", "lobby", "x")
        assert ("error" in told) is has_siblings


@pytest.mark.parametrize("name", ["uvicorn sansio", "gunicorn uvicorn"])
def test_rooms_and_users_span_the_workers(name: str, tmp_path: Path, redis: RedisServer) -> None:
    broker = {"WSM_BROKER": redis.url, "WSM_PREFIX": "asgi"}
    with run(name, tmp_path, workers=2, environ=broker) as server, ExitStack() as stack:
        clients: list[Any] = []
        pids: set[Any] = set()
        while len(pids) < 2 or len(clients) < 4:
            assert len(clients) < 100, "the kernel gives all connections to one worker"
            clients.append(stack.enter_context(server.connect("/ws/member/lobby", user="bob")))
            pids.add(clients[-1].recv(10))
        until_heard(server, clients)
        for number in range(20):
            server.post("send", "room", "lobby", number)
            server.post("send", "user", "bob", f"for-bob-{number}")
        wanted = [text for number in range(20) for text in (str(number), f"for-bob-{number}")]
        assert [[each.recv(10) for _ in wanted] for each in clients] == [wanted] * len(clients)
        clients[0].send("from a client")
        assert [each.recv(10) for each in clients] == ["from a client"] * len(clients)


def until_heard(server: Running, clients: list[Any]) -> None:
    """Send until every worker hears the others; then take what has come of that."""
    end = time.monotonic() + 15
    missing = set(clients)
    while missing:
        assert time.monotonic() < end, server.log[-2000:]
        server.post("send", "room", "lobby", "probe")
        missing = {each for each in missing if not is_heard(each)}
    server.post("send", "room", "lobby", "now")
    for each in clients:
        while each.recv(10) != "now":
            pass


def is_heard(client: Any) -> bool:
    try:
        return bool(client.recv(0.2) == "probe")
    except TimeoutError:
        return False
