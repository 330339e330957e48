"""What those who operate it see and do: several workers and a process of its own, on one Redis."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from .conftest import COMMANDS, ROOT, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

    from tests.redis_server import RedisServer

    from .conftest import Running

WORKERS = 3

COMMANDS |= {
    f"operated-{workers}": [
        *("gunicorn", "--workers", str(workers), "--threads", "2", "--graceful-timeout", "5"),
        *("--bind", "127.0.0.1:{port}", "tests.servers.operated:app"),
    ]
    for workers in (1, WORKERS)
}


def enter(address: str, path: str) -> ClientConnection:
    origin = Origin(address.replace("ws://", "http://"))
    return connect(address + path, origin=origin, compression=None)


def ask(server: Running, path: str, method: str = "POST") -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(Request(server.origin + path, method=method), timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def ended(client: ClientConnection) -> tuple[int | None, str | None]:
    """Wait for the end of a socket, and return code and reason."""
    try:
        while True:
            client.recv(20)
    except ConnectionClosed:
        return client.close_code, client.close_reason


@contextmanager
def operated(
    redis: RedisServer, folder: Path, workers: int = WORKERS, **environ: str
) -> Iterator[Running]:
    settings = {"WSM_BROKER": redis.url, "WSM_PREFIX": "ops", **environ}
    with run(f"operated-{workers}", folder, tls=None, **settings) as server:
        yield server
        assert "Traceback" not in server.log, server.log[-3000:]


@contextmanager
def beside(redis: RedisServer) -> Iterator[str]:
    """A process of its own with the same sockets; its address."""
    command = [sys.executable, "-m", "ws_middleware", "serve", "tests.servers.operated:sockets"]
    environ = {"WSM_BROKER": redis.url, "WSM_PREFIX": "ops", "PATH": "", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, cwd=ROOT, env=environ, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()


def gather(
    server: Running, path: str, stack: ExitStack, processes: int = WORKERS
) -> dict[str, list[ClientConnection]]:
    """Open sockets until every worker has two; return them by the worker's pid."""
    found: dict[str, list[ClientConnection]] = {}
    end = time.monotonic() + 30
    while len(found) < processes or min(map(len, found.values())) < 2:
        assert time.monotonic() < end, {pid: len(each) for pid, each in found.items()}
        client = stack.enter_context(enter(f"ws://127.0.0.1:{server.port}", path))
        found.setdefault(str(client.recv(10)), []).append(client)
    return found


def test_workers_and_a_process_of_its_own_are_one(redis: RedisServer, tmp_path: Path) -> None:
    with operated(redis, tmp_path) as server, beside(redis) as address, ExitStack() as stack:
        by_pid = gather(server, "/ws/room/7?user=ann", stack)
        apart = [stack.enter_context(enter(address, "/ws/room/7?user=bob")) for _ in range(2)]
        by_pid[str(apart[0].recv(10))] = apart
        apart[1].recv(10)
        clients = [client for each in by_pid.values() for client in each]
        until(lambda: ask(server, "/count/7")[1]["everywhere"] == len(clients))

        senders = Counter[int]()
        for number in range(40):
            told = ask(server, f"/send/7/{number}")[1]
            assert told["local"] == len(by_pid[str(told["pid"])])
            assert told["published"]
            senders[told["pid"]] += 1
        assert len(senders) > 1
        everything = {str(number) for number in range(40)}
        assert all({each.recv(10) for _ in everything} == everything for each in clients)

        # From the process of its own to all; `exclude` holds everywhere.
        apart[0].send("from apart")
        assert [each.recv(10) for each in clients if each is not apart[0]] == ["from apart"] * (
            len(clients) - 1
        )
        for each in clients:
            with pytest.raises(TimeoutError):
                each.recv(0.05)

        found = ask(server, "/stats")[1]
        assert found["missing"] == 0
        sockets = {str(each["pid"]): each["sockets"] for each in found["processes"]}
        assert sockets == {pid: len(each) for pid, each in by_pid.items()}
        assert all(each["ready"] and each["host"] for each in found["processes"])
        assert {each["users"] for each in found["processes"]} == {1}
        with urlopen(f"{server.origin}/all-metrics", timeout=20) as answer:
            metrics = answer.read().decode()
        assert all(f'pid="{pid}"' in metrics for pid in by_pid)

        ask(server, "/send-away/bob")
        assert [ended(each) for each in apart] == [(4401, "logged_out")] * 2
        until(lambda: ask(server, "/count/7")[1]["everywhere"] == len(clients) - 2)


@pytest.mark.slow
def test_readyz_says_that_redis_is_not_heard_and_that_it_is_again(
    redis: RedisServer, tmp_path: Path
) -> None:
    with operated(redis, tmp_path, workers=1) as server:
        until(lambda: ask(server, "/readyz", "GET")[0] == 200)
        with enter(f"ws://127.0.0.1:{server.port}", "/ws/room/7?user=ann") as client:
            client.recv(10)
            redis.send(signal.SIGSTOP)
            stopped = time.monotonic()
            # Promised within 15 s, and 12 by its own count; the rest is for a busy machine.
            until(lambda: ask(server, "/readyz", "GET")[0] == 503, 18)
            print(f"\ndeaf after {time.monotonic() - stopped:.1f} s")
            said = ask(server, "/readyz", "GET")[1]
            assert (said["status"], said["reasons"]) == ("not ready", ["broker_away"])
            assert ask(server, "/livez", "GET")[0] == 200
            told = ask(server, "/send/7/local")[1]
            assert (told["local"], told["published"]) == (1, False)
            assert client.recv(10) == "local"
            redis.send(signal.SIGCONT)
            until(lambda: ask(server, "/readyz", "GET")[0] == 200)
        assert "deaf: two beats" in server.log


def test_readyz_and_upgrades_while_it_drains(redis: RedisServer, tmp_path: Path) -> None:
    with operated(redis, tmp_path, workers=1) as server, ExitStack() as stack:
        address = f"ws://127.0.0.1:{server.port}"
        clients = [stack.enter_context(enter(address, "/ws/room/7?user=ann")) for _ in range(4)]
        ask(server, "/drain")
        status, said = ask(server, "/readyz", "GET")
        assert (status, said["reasons"]) == (503, ["draining"])
        assert ask(server, "/livez", "GET")[0] == 200
        with pytest.raises(InvalidStatus) as caught:
            enter(address, "/ws/room/7?user=ann").__enter__()
        assert caught.value.response.status_code == 503
        assert caught.value.response.body is not None
        assert json.loads(caught.value.response.body)["code"] == "going_away"
        assert {ended(each) for each in clients} == {(1012, "restart")}
        until(lambda: ask(server, "/readyz", "GET")[0] == 200)  # it begins anew
        with enter(address, "/ws/room/7?user=ann") as client:
            client.recv(10)


def test_after_a_gap_sockets_come_anew_where_the_route_says_so(
    redis: RedisServer, tmp_path: Path
) -> None:
    with operated(redis, tmp_path) as server, ExitStack() as stack:
        exact = gather(server, "/ws/exact?user=ann", stack)
        kept = gather(server, "/ws/room/7?user=ann", stack)
        until(lambda: ask(server, "/stats")[1]["missing"] == 0)
        with redis.client as client:
            client.client_kill_filter(_type="pubsub")
        found = {ended(each) for clients in exact.values() for each in clients}
        assert found == {(1013, "messages_missed")}
        server.until(lambda: server.log.count("is back after") == WORKERS)
        ask(server, "/send/7/next")
        assert {each.recv(10) for clients in kept.values() for each in clients} == {"next"}


def test_switched_off_for_the_whole_server(redis: RedisServer, tmp_path: Path) -> None:
    with operated(redis, tmp_path, WSM_DISABLED="1") as server:
        for _ in range(2 * WORKERS):
            with pytest.raises(InvalidStatus, match="503"):
                enter(f"ws://127.0.0.1:{server.port}", "/ws/room/7?user=ann").__enter__()
            status, said = ask(server, "/readyz", "GET")
            assert status == 503
            assert "disabled" in said["reasons"]
        with urlopen(f"{server.origin}/metrics", timeout=10) as answer:
            assert b'ws_middleware_refused_total{host="' in answer.read()
