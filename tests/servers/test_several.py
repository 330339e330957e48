"""Several workers on one Redis: a message reaches each member once, wherever it was sent."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from websockets.sync.client import connect

from ws_middleware import Publisher

from .conftest import COMMANDS, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from tests.redis_server import RedisServer

    from .conftest import Running

WORKERS = 3
#: Sockets of one worker.
MOST = 4

for worker in ("sync", "gthread"):
    COMMANDS[f"several-{worker}"] = [
        *("gunicorn", "--workers", str(WORKERS), "--worker-class", worker, "--threads", "2"),
        *("--graceful-timeout", "5", "--bind", "127.0.0.1:{port}", "tests.servers.shared:app"),
    ]


class Members:
    """Sockets in one room, two to four in every worker."""

    def __init__(self, server: Running, stack: ExitStack, path: str = "/ws/room/7") -> None:
        self.sockets: list[ClientConnection] = []
        #: The worker of each socket, and how many sockets each worker has.
        self.owners: list[str] = []
        self.pids: Counter[str] = Counter()
        end = time.monotonic() + 30
        while len(self.pids) < WORKERS or min(self.pids.values()) < 2:
            assert time.monotonic() < end, self.pids
            with ExitStack() as unless_kept:
                url = f"ws://127.0.0.1:{server.port}{path}"
                socket = unless_kept.enter_context(connect(url, compression=None))
                owner = str(socket.recv(10))
                if self.pids[owner] == MOST:  # the system gives one worker more than the others
                    continue
                stack.push(unless_kept.pop_all())
            self.owners.append(owner)
            self.pids[owner] += 1
            self.sockets.append(socket)

    def hear(self, count: int = 1, timeout: float = 10.0) -> list[list[str]]:
        return [[str(each.recv(timeout)) for _ in range(count)] for each in self.sockets]

    def hear_nothing(self) -> None:
        for each in self.sockets:
            with pytest.raises(TimeoutError):
                each.recv(0.05)

    def until_heard(self, server: Running, text: str, timeout: float = 20.0) -> None:
        """Send until every member has it: a subscription takes its time."""
        missing = set(range(len(self.sockets)))
        end = time.monotonic() + timeout
        while missing:
            assert time.monotonic() < end, (missing, server.log[-2000:])
            post(server, f"/send/7/{text}")
            for number in list(missing):
                try:
                    while self.sockets[number].recv(0.1) != text:
                        pass
                    missing.discard(number)
                except TimeoutError:
                    continue
        for each in self.sockets:  # what came more than once
            try:
                while each.recv(0.3):
                    pass
            except TimeoutError:
                continue


def post(server: Running, path: str) -> dict[str, Any]:
    with urlopen(Request(server.origin + path, method="POST"), timeout=20) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


@contextmanager
def several(
    redis: RedisServer, folder: Path, name: str = "several-gthread"
) -> Iterator[tuple[Running, Members]]:
    with (
        run(name, folder, WSM_BROKER=redis.url, WSM_PREFIX="test") as server,
        ExitStack() as stack,
    ):
        members = Members(server, stack)
        members.until_heard(server, "ready")
        yield server, members
        assert "Traceback" not in server.log, server.log[-3000:]


@pytest.mark.parametrize("name", ["several-sync", "several-gthread"])
def test_a_view_in_any_worker_reaches_every_member_once(
    redis: RedisServer, tmp_path: Path, name: str
) -> None:
    with several(redis, tmp_path, name) as (server, members):
        pids = set()
        for number in range(60):
            told = post(server, f"/send/7/{number}")
            assert told["published"]
            assert told["local"] == members.pids[str(told["pid"])]
            pids.add(told["pid"])
        assert len(pids) > 1
        heard = members.hear(60)
        assert all(sorted(each, key=int) == [str(number) for number in range(60)] for each in heard)
        post(server, "/send/8/elsewhere")
        members.hear_nothing()


def test_a_member_reaches_the_others_in_order(redis: RedisServer, tmp_path: Path) -> None:
    with several(redis, tmp_path) as (_, members):
        first, *others = members.sockets
        for number in range(100):
            first.send(str(number))
        for each in others:
            assert [each.recv(10) for _ in range(100)] == [str(number) for number in range(100)]
        with pytest.raises(TimeoutError):
            first.recv(0.2)


def test_other_processes_reach_every_member(redis: RedisServer, tmp_path: Path) -> None:
    with several(redis, tmp_path) as (_, members):
        Publisher(redis.url, prefix="test").route("/ws/room/*").room(7).send("published")
        assert members.hear() == [["published"]] * len(members.sockets)
        with redis.client as client:
            client.publish("test:room::7", '{"v": 1, "text": "by hand"}')
        assert members.hear() == [["by hand"]] * len(members.sockets)
        code = "from tests.servers.shared import sockets; sockets.room(7).send('from a shell')"
        environ = {"WSM_BROKER": redis.url, "WSM_PREFIX": "test", "PATH": ""}
        subprocess.run([sys.executable, "-c", code], check=True, env=environ, timeout=30)
        assert members.hear() == [["from a shell"]] * len(members.sockets)
        Publisher(redis.url, prefix="other").room(7).send("of another app")
        Publisher(redis.url, prefix="test").route("/ws/other/*").room(7).send("of another route")
        members.hear_nothing()


@pytest.mark.slow
def test_redis_killed_and_restarted(redis: RedisServer, tmp_path: Path) -> None:
    with several(redis, tmp_path) as (server, members):
        redis.kill()
        told = post(server, "/send/7/local")
        assert told["took"] < 1  # it does not wait for Redis, which takes seconds
        assert not told["published"]  # after a while: it waits for Redis
        local = [each for each in members.sockets if is_heard(each, "local")]
        assert len(local) == members.pids[str(told["pid"])]
        redis.start()
        members.until_heard(server, "back")
        server.until(lambda: server.log.count("is back after") == WORKERS)


@pytest.mark.slow
def test_redis_stopped_for_a_while(redis: RedisServer, tmp_path: Path) -> None:
    with several(redis, tmp_path) as (server, members):
        redis.send(signal.SIGSTOP)
        assert post(server, "/send/7/hangs")["took"] < 1
        server.until(lambda: "deaf: two beats" in server.log, 20)
        redis.send(signal.SIGCONT)
        members.until_heard(server, "back")


def is_heard(client: ClientConnection, text: str) -> bool:
    try:
        return client.recv(0.2) == text
    except TimeoutError:
        return False
