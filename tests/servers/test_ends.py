"""How processes end, on every server: in time whatever handlers do, and every client is told."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from .conftest import SUITE, run
from .crowd import ends_of, enter, join

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Running

#: How each server is told to end; those that are missing here die of SIGTERM without a word.
BY_TERM = {name for name in SUITE if name.startswith(("gunicorn", "uwsgi"))}

#: Seconds: gunicorn's graceful timeout in these tests, our own last words, and a slow machine.
IN_TIME = 5 + 3 + 7


@pytest.mark.parametrize("name", SUITE)
def test_a_process_ends_in_time_whatever_its_handlers_do(name: str, tmp_path: Path) -> None:
    number = signal.SIGTERM if name in BY_TERM else signal.SIGINT

    async def work(server: Running) -> list[int]:
        paths = ("/ws/wait", "/ws/sleep", "/ws/token")
        clients = [await enter(server, path=path) for path in paths]
        for client, answer in zip(clients, ("waiting", "asleep"), strict=False):
            assert await client.recv() == answer
        await asyncio.sleep(0.3)  # in the middle of a request wsgiref swallows a ctrl-C
        server.process.send_signal(number)
        async with asyncio.timeout(IN_TIME):
            return [code for code, _, _ in await ends_of(clients)]

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
        client = await enter(server)
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
            return (await ends_of([client]))[0][0]

    with run(name, tmp_path, *extra) as server:
        assert asyncio.run(work(server)) == 1012
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_20_rounds_of_hup_under_200_sockets(tmp_path: Path) -> None:
    async def one_round(server: Running) -> tuple[set[int], float]:
        clients = await join(server, 200)
        server.process.send_signal(signal.SIGHUP)
        ends = await ends_of(clients)
        times = [when for _, _, when in ends]
        return {code for code, _, _ in ends}, max(times) - min(times)

    async def rounds(server: Running) -> list[tuple[set[int], float]]:
        return [await one_round(server) for _ in range(20)]

    with run("gunicorn-gthread", tmp_path) as server:
        outcomes = asyncio.run(rounds(server))
        assert [codes for codes, _ in outcomes] == [{1012}] * 20
        # Spread over a third of the time that gunicorn gives, not all at once: they come back.
        assert min(spread for _, spread in outcomes) > 1.0
        assert "Traceback" not in server.log
