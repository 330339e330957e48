"""The life of gunicorn's workers: how they end, and how they fork."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from .conftest import complaints, run
from .crowd import ends_of, enter, join

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

    from .conftest import Running


async def ends_by(server: Running, number: signal.Signals, count: int) -> set[tuple[int, str]]:
    """Send a signal to a server with so many sockets; return how these were closed."""
    clients = await join(server, count)
    server.process.send_signal(number)
    return {(code, reason) for code, reason, _ in await ends_of(clients)}


@pytest.mark.parametrize(
    ("number", "times"),
    [
        pytest.param(signal.SIGTERM, ("--graceful-timeout", "2"), id="graceful-timeout"),
        pytest.param(signal.SIGHUP, ("--timeout", "2"), id="timeout"),
    ],
)
def test_the_closes_are_spread_over_less_time_than_a_worker_has(
    number: signal.Signals, times: tuple[str, ...], tmp_path: Path
) -> None:
    # One every 20 ms would be three seconds, and the worker is killed after two.
    with run("gunicorn-gthread", tmp_path, *times) as server:
        assert asyncio.run(ends_by(server, number, 150)) == {(1012, "restart")}
        assert not complaints(server.log)


def test_drain_over_may_be_more_than_a_worker_has(tmp_path: Path) -> None:
    options = ("--graceful-timeout", "2")
    with run("gunicorn-gthread", tmp_path, *options, WSM_DRAIN_OVER="60") as server:
        ends = asyncio.run(ends_by(server, signal.SIGTERM, 150))
        assert ends == {(1012, "restart"), (1006, "")}


# --- forks ---------------------------------------------------------------------------------------


async def pid_of(client: ClientConnection) -> int:
    await client.send("?")
    return int(await client.recv())


def test_every_worker_of_a_preloaded_app_serves_sockets(tmp_path: Path) -> None:
    async def work(server: Running) -> None:
        clients = {}
        for _ in server.workers:
            client = await enter(server, path="/ws/process")
            worker = psutil.Process(await pid_of(client))
            clients[worker] = client
            worker.suspend()  # so that the next socket comes to another one
        assert set(clients) == set(server.workers)
        for worker, client in clients.items():
            worker.resume()
            assert await pid_of(client) == worker.pid
            await client.close()

    with run("gunicorn-preload", tmp_path, "--workers", "3") as server:
        server.until(lambda: len(server.workers) == 3)
        try:
            asyncio.run(work(server))
        finally:
            for worker in server.workers:
                worker.resume()
        assert not complaints(server.log)


@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-gthread"])
def test_a_child_of_a_view_holds_no_socket(name: str, tmp_path: Path) -> None:
    async def work(server: Running) -> None:
        client = await enter(server, path="/ws/process")
        (worker,) = server.workers
        assert await pid_of(client) == worker.pid
        assert server.post("/fork/0.0") == 200
        server.until(lambda: [each.status() for each in worker.children()] == ["zombie"])
        assert await pid_of(client) == worker.pid
        assert server.post("/fork/60.0") == 200
        (child,) = [each for each in worker.children() if each.status() != "zombie"]
        try:
            await client.send("terminate")
            # A connection that is just dropped ends when nobody has it any more.
            async with asyncio.timeout(20):
                assert [code for code, _, _ in await ends_of([client])] == [1006]
            later = await enter(server, path="/ws/process")
            assert await pid_of(later) == worker.pid
            assert child.is_running()
        finally:
            child.kill()
        await later.close()

    with run(name, tmp_path) as server:
        asyncio.run(work(server))
        assert not complaints(server.log)
