"""SIGTERM held back from whoever has set a handler of it, and given back as it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from ws_middleware.net.sigterm import Hold, find_obstacle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Loop = asyncio.AbstractEventLoop

ROOT = Path(__file__).parents[2]
SIGTERM, SIGUSR1 = signal.SIGTERM, signal.SIGUSR1


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals of this process are at the end as they were."""
    before = {each: signal.getsignal(each) for each in (SIGTERM, SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.new_event_loop])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    made: Loop = request.param()
    yield made
    made.close()


class Heard:
    """What was heard of signals, in order."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def note(self, *what: Any) -> None:
        self.all.append(what[0])

    async def until(self, *expected: Any) -> None:
        end = time.monotonic() + 10
        while self.all != list(expected):
            assert time.monotonic() < end, self.all
            assert len(self.all) <= len(expected), self.all
            await asyncio.sleep(0.001)


def by_signal(loop: Loop, heard: Heard) -> None:
    """As uvicorn does."""
    signal.signal(SIGTERM, lambda *_: heard.note("server"))


def by_loop(loop: Loop, heard: Heard) -> None:
    """As gunicorn's own worker, granian and hypercorn do."""
    loop.add_signal_handler(SIGTERM, heard.note, "server")


WAYS = [by_signal, by_loop]


@pytest.mark.parametrize("way", WAYS)
def test_the_server_hears_nothing_until_it_is_passed_on(
    loop: Loop, way: Callable[[Loop, Heard], None]
) -> None:
    heard = Heard()

    async def serve() -> None:
        way(loop, heard)
        hold = Hold(loop, lambda: heard.note("ours"))
        hold.take()
        assert hold.is_ours
        for number in range(1, 4):
            os.kill(os.getpid(), SIGTERM)
            await heard.until(*["ours"] * number)
        hold.pass_on()
        await heard.until("ours", "ours", "ours", "server")
        assert not hold.is_ours
        os.kill(os.getpid(), SIGTERM)
        await heard.until("ours", "ours", "ours", "server", "server")

    loop.run_until_complete(serve())


def test_a_loop_hears_of_every_other_signal_meanwhile_and_after(loop: Loop) -> None:
    heard = Heard()

    async def serve() -> None:
        by_loop(loop, heard)
        loop.add_signal_handler(SIGUSR1, heard.note, "usr1")
        hold = Hold(loop, lambda: heard.note("ours"))
        hold.take()
        os.kill(os.getpid(), SIGUSR1)
        await heard.until("usr1")
        os.kill(os.getpid(), SIGTERM)
        await heard.until("usr1", "ours")
        hold.pass_on()
        await heard.until("usr1", "ours", "server")
        os.kill(os.getpid(), SIGUSR1)
        await heard.until("usr1", "ours", "server", "usr1")

    loop.run_until_complete(serve())


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_it(loop: Loop, way: Callable[[Loop, Heard], None]) -> None:
    heard = Heard()

    async def serve() -> None:
        way(loop, heard)
        before = (open_files(), signal.getsignal(SIGTERM), wakeup())
        hold = Hold(loop, lambda: None)
        hold.take()
        hold.pass_on()
        await heard.until("server")
        await asyncio.sleep(0)
        assert (open_files(), signal.getsignal(SIGTERM), wakeup()) == before

    loop.run_until_complete(serve())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def wakeup() -> int:
    current = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(current)
    return current


def test_it_may_be_passed_on_in_the_handler_itself(loop: Loop) -> None:
    heard = Heard()

    async def serve() -> None:
        by_loop(loop, heard)

        def pass_on() -> None:
            heard.note("ours")
            hold.pass_on()

        hold = Hold(loop, pass_on)
        hold.take()
        os.kill(os.getpid(), SIGTERM)
        await heard.until("ours", "server")

    loop.run_until_complete(serve())


def test_who_has_set_another_handler_since_keeps_it_and_hears_nothing_of_ours(loop: Loop) -> None:
    heard = Heard()

    async def serve() -> None:
        by_signal(loop, heard)
        hold = Hold(loop, lambda: None)
        hold.take()
        signal.signal(SIGTERM, lambda *_: heard.note("another"))
        assert not hold.is_ours
        hold.pass_on()
        assert heard.all == ["server"]
        os.kill(os.getpid(), SIGTERM)
        await heard.until("server", "another")

    loop.run_until_complete(serve())


def test_a_server_that_has_ended_meanwhile_is_not_ended_again(loop: Loop) -> None:
    """As uvicorn, which puts back at its end what it found: the system's own action, most often."""
    heard = Heard()
    by_signal(loop, heard)
    hold = Hold(loop, lambda: None)
    hold.take()
    signal.signal(SIGTERM, signal.SIG_DFL)
    hold.pass_on()
    assert heard.all == ["server"]


def test_a_loop_that_ends_meanwhile_takes_nothing_with_it() -> None:
    """As granian's stops and runs again: on uvloop with another descriptor for signals."""
    heard = Heard()
    loop = uvloop.new_event_loop()
    hold = Hold(loop, lambda: heard.note("ours"))

    async def begin() -> None:
        by_loop(loop, heard)
        hold.take()

    async def go_on() -> None:
        descriptor = wakeup()
        hold.pass_on()
        assert wakeup() == descriptor
        await heard.until("server")

    loop.run_until_complete(begin())
    loop.run_until_complete(go_on())
    loop.close()


@pytest.mark.parametrize(
    ("handler", "obstacle"),
    [
        (signal.SIG_DFL, "the server has no handler of SIGTERM in this process"),
        (signal.SIG_IGN, "SIGTERM is ignored in this process"),
        (lambda *_: None, None),
    ],
)
def test_what_is_in_the_way(handler: Any, obstacle: str | None) -> None:
    signal.signal(SIGTERM, handler)
    assert find_obstacle() == obstacle


def test_another_thread_is_in_the_way() -> None:
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(find_obstacle()))
    thread.start()
    thread.join()
    assert found[0] is not None
    assert "not in the main thread" in found[0]


FORK = """
import asyncio, os, signal, sys, time
from ws_middleware.net.sigterm import Hold

heard = []
loop = asyncio.new_event_loop()


async def serve():
    if sys.argv[1] == "signal":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    else:
        loop.add_signal_handler(signal.SIGTERM, heard.append, "server")
    hold = Hold(loop, lambda: heard.append("ours"))
    hold.take()
    child = os.fork()
    if not child:
        hold.let_go()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
        os._exit(5)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    await asyncio.sleep(0.05)  # long enough for what must not come
    os.kill(os.getpid(), signal.SIGTERM)
    while not heard:
        await asyncio.sleep(0)
    print(status, heard)


loop.run_until_complete(serve())
"""


@pytest.mark.parametrize(("way", "status"), [("signal", 7), ("loop", 5)])
def test_a_forked_child_is_as_without_it(way: str, status: int) -> None:
    command = [sys.executable, "-c", FORK, way]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (f"{status} ['ours']\n", "")
