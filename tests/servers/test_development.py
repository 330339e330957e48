"""werkzeug's reloader and processes, and a server that nobody knows."""

from __future__ import annotations

import asyncio
import os
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import psutil
import pytest

from .conftest import COMMANDS, complaints, is_up, run
from .crowd import ends_of, enter, join
from .test_wsgi import refused

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Running

#: Not in the table of those that the whole suite runs on.
FLASK = ["flask", "--app", "tests.servers.app", "run", "--debug", "--port", "{port}"]
COMMANDS.update(
    {
        "flask-debug": FLASK,
        "werkzeug-processes": ["tests.servers.serve", "werkzeug-processes", "{port}"],
        "minimal": ["tests.servers.serve", "minimal", "{port}"],
    }
)


async def says_its_process(server: Running) -> int:
    client = await enter(server, path="/ws/process")
    await client.send("?")
    pid = int(await client.recv())
    await client.close()
    return pid


def test_the_reloader_closes_sockets_and_the_next_process_serves(tmp_path: Path) -> None:
    touched = tmp_path / "touched.py"
    touched.touch()

    async def work(server: Running) -> None:
        (before,) = server.workers
        clients = await join(server, 5)
        assert await says_its_process(server) == before.pid
        os.utime(touched, (time.time() + 2, time.time() + 2))
        ends = {(code, reason) for code, reason, _ in await ends_of(clients)}
        assert ends == {(1012, "restart")}
        server.until(lambda: [each.pid for each in server.workers] not in ([before.pid], []))
        server.until(lambda: is_up(server.origin))
        assert await says_its_process(server) != before.pid

    with run("flask-debug", tmp_path, "--extra-files", str(touched)) as server:
        asyncio.run(work(server))
        # The process that only restarts the other one has nothing of ours.
        assert psutil.Process(server.process.pid).num_threads() == 1
        assert not complaints(server.log, "This is a development server", "Debugger is active")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param(
            "werkzeug-processes",
            f"Werkzeug/{version('werkzeug')}: with processes=N the process that has the connection "
            "ends with the request; run it threaded (the default)",
            id="werkzeug-processes",
        ),
        pytest.param(
            "minimal",
            "Unheard-of/0.1: its socket is not in the environ; serve WebSockets on a port of their "
            "own, sockets.listen(port=8001), and send their paths there at the proxy "
            "(docs/wsgi-servers.md)",
            id="unknown",
        ),
    ],
)
def test_a_server_whose_socket_cannot_be_had_is_told_apart(
    name: str, why: str, tmp_path: Path
) -> None:
    with run(name, tmp_path) as server:
        assert refused(server, "/ws/view", server.cookie()) == (501, "server_unsupported")
        assert server.get("/") == "http"
        (line,) = complaints(server.log, "This is a development server")
        assert line == f"WARNING ws_middleware.gate refused /ws/view: server_unsupported. {why}"
