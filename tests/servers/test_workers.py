"""The life of gunicorn's workers: how they end, and how they fork."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from .conftest import complaints, run
from .crowd import ends_of, join

if TYPE_CHECKING:
    from pathlib import Path

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
