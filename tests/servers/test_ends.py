"""How processes end, on every server: in time whatever handlers do, and every client is told."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import jwt
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.servers.app import KEY

from .conftest import COMMANDS, run

if TYPE_CHECKING:
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection

    from .conftest import Running

#: How each server is told to end; those that are missing here die of SIGTERM without a word.
BY_TERM = {name for name in COMMANDS if name.startswith(("gunicorn", "uwsgi"))}

#: Seconds: gunicorn's graceful timeout in these tests, our own last words, and a slow machine.
IN_TIME = 5 + 3 + 7


def bearer() -> dict[str, str]:
    token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 300}, KEY)
    return {"Authorization": f"Bearer {token}"}


async def come(server: Running, path: str) -> ClientConnection:
    return await connect(
        f"ws://127.0.0.1:{server.port}{path}",
        additional_headers=bearer(),
        compression=None,
        open_timeout=30,
        close_timeout=1,
        proxy=None,
    )


async def told(client: ClientConnection) -> tuple[int, float]:
    """Return the code that a client was closed with, and when."""
    with pytest.raises(ConnectionClosed):
        await client.recv()
    return client.close_code or 0, time.monotonic()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_process_ends_in_time_whatever_its_handlers_do(name: str, tmp_path: Path) -> None:
    number = signal.SIGTERM if name in BY_TERM else signal.SIGINT

    async def work(server: Running) -> list[int]:
        clients = [await come(server, path) for path in ("/ws/wait", "/ws/sleep", "/ws/token")]
        for client, answer in zip(clients, ("waiting", "asleep"), strict=False):
            assert await client.recv() == answer
        server.process.send_signal(number)
        async with asyncio.timeout(IN_TIME):
            return [(await told(client))[0] for client in clients]

    with run(name, tmp_path) as server:
        server.get("/")
        children = psutil.Process(server.process.pid).children(recursive=True)
        began = time.monotonic()
        codes = asyncio.run(work(server))
        assert codes == [1012] * 3
        server.process.wait(IN_TIME)
        psutil.wait_procs(children, timeout=IN_TIME)
        assert not any(child.is_running() for child in children)
        assert time.monotonic() - began < IN_TIME
        assert "Exception ignored" not in server.log
        assert "Fatal Python error" not in server.log


@pytest.mark.parametrize(
    ("number", "extra"),
    [
        pytest.param(signal.SIGTERM, (), id="TERM"),
        pytest.param(signal.SIGINT, (), id="INT"),
        pytest.param(signal.SIGQUIT, (), id="QUIT"),
        pytest.param(signal.SIGHUP, (), id="HUP"),
        pytest.param(None, ("--max-requests", "3"), id="max-requests"),
        pytest.param("touch", ("--reload",), id="reload"),
    ],
)
@pytest.mark.parametrize("name", ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"])
def test_gunicorn_says_restart_however_its_workers_end(
    name: str, number: signal.Signals | str | None, extra: tuple[str, ...], tmp_path: Path
) -> None:
    watched = tmp_path / "watched.py"
    watched.write_text("")
    if number == "touch":
        extra = (*extra, "--reload-engine", "poll", "--reload-extra-file", str(watched))

    async def work(server: Running) -> int:
        client = await come(server, "/ws/token")
        await client.send("x")
        assert await client.recv() == "x"
        if isinstance(number, signal.Signals):
            server.process.send_signal(number)
        elif number == "touch":
            await asyncio.sleep(1.1)  # the poll engine has to have seen the file as it was
            watched.write_text("# changed")
        else:
            for _ in range(3):
                await asyncio.to_thread(server.get, "/")
        async with asyncio.timeout(20):
            return (await told(client))[0]

    with run(name, tmp_path, *extra) as server:
        assert asyncio.run(work(server)) == 1012
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_20_rounds_of_hup_under_200_sockets(tmp_path: Path) -> None:
    async def one_round(server: Running) -> tuple[set[int], float]:
        clients = await asyncio.gather(*(come(server, "/ws/token") for _ in range(200)))
        ends = [asyncio.create_task(told(client)) for client in clients]
        server.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*ends)
        times = [when for _, when in outcomes]
        return {code for code, _ in outcomes}, max(times) - min(times)

    async def rounds(server: Running) -> list[tuple[set[int], float]]:
        return [await one_round(server) for _ in range(20)]

    with run("gunicorn-gthread", tmp_path) as server:
        outcomes = asyncio.run(rounds(server))
        assert [codes for codes, _ in outcomes] == [{1012}] * 20
        # Spread over four seconds, not all at once: each of them comes back.
        assert min(spread for _, spread in outcomes) > 1.0
        assert "Traceback" not in server.log
