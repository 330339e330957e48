from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
import threading
import types
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.clients.python import connect, until
from ws_middleware import Anonymous, UpgradeRequest, WebSocket, WebSockets
from ws_middleware.net import watchdog as watchdog_module
from ws_middleware.net.watchdog import Watchdog, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from tests.conftest import Served
    from ws_middleware.net.runtime import Runtime

    Serve = Callable[[WebSockets], Served]

HERE = Path(__file__)


def here() -> FrameType:
    """Return the stack of who calls."""
    return sys._getframe(1)


# --- describe, on real frames --------------------------------------------------------------------


def test_without_us_on_the_stack_the_place_is_the_innermost_frame() -> None:
    place, whose = describe(here())
    name = "test_without_us_on_the_stack_the_place_is_the_innermost_frame"
    assert re.fullmatch(rf"{re.escape(str(HERE))}:[0-9]+ in {name}", place)
    assert whose == ""


def _library(callback: Callable[[], FrameType]) -> FrameType:
    """Stand in for a library that the app calls: a frame of another module."""
    module: dict[str, Any] = {"__name__": "requests.sessions", "callback": callback}
    code = compile("def send():\n    return callback()\n", "/lib/requests/sessions.py", "exec")
    exec(code, module)  # noqa: S102, RUF100 - the only way to have such a frame
    return cast("FrameType", module["send"]())


@pytest.mark.parametrize("below", ["nothing", "a library"])
def test_a_handler_is_the_place_with_its_socket_and_route(serve: Serve, below: str) -> None:
    found: Future[tuple[tuple[str, str], str]] = Future()
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/\x1b<int:number>".replace("\x1b", "é"))
    async def handler(ws: WebSocket, number: int) -> None:
        frame = here() if below == "nothing" else _library(lambda: sys._getframe(1))
        found.set_result((describe(frame), ws.id))

    with connect(serve(sockets), "/%C3%A97"):
        (place, whose), socket_id = found.result(5)
    assert place.startswith(f"{HERE}:")
    assert place.endswith(f" in {handler.handler.__qualname__}")  # type: ignore[union-attr]
    assert whose == f" (socket {socket_id}, route /\\xe9*)"


def test_a_helper_of_the_handler_is_named_by_the_line_of_the_handler(serve: Serve) -> None:
    found: Future[tuple[str, str]] = Future()
    sockets = WebSockets(auth=Anonymous())

    def helper() -> None:
        found.set_result(describe(here()))

    @sockets.route("/")
    async def handler(ws: WebSocket) -> None:
        helper()

    with connect(serve(sockets)):
        place, whose = found.result(5)
    assert place.endswith(f" in {handler.handler.__qualname__}")  # type: ignore[union-attr]
    assert whose


def test_an_authenticator_is_a_place_without_a_socket(serve: Serve) -> None:
    found: Future[tuple[str, str]] = Future()

    async def my_auth(request: UpgradeRequest) -> str:
        found.set_result(describe(here()))
        return "ann"

    sockets = WebSockets(auth=my_auth)
    sockets.route("/")
    with connect(serve(sockets)):
        place, whose = found.result(5)
    assert place.endswith(f" in {my_auth.__qualname__}")
    assert whose == ""


def test_an_app_whose_name_begins_like_ours_is_not_ours(serve: Serve) -> None:
    found: Future[tuple[str, str]] = Future()
    module = types.ModuleType("ws_middleware_demo")
    module.__dict__["look"] = lambda: describe(_library(lambda: sys._getframe(1)))
    module.__dict__["found"] = found
    source = "async def handler(ws):\n    found.set_result(look())\n"
    exec(compile(source, "/app/ws_middleware_demo.py", "exec"), module.__dict__)  # noqa: S102, RUF100
    sockets = WebSockets(auth=Anonymous())
    sockets.route("/")(module.handler)
    with connect(serve(sockets)):
        place, _ = found.result(5)
    assert place == "/app/ws_middleware_demo.py:2 in handler"


# --- when it speaks ------------------------------------------------------------------------------


class Blockable:
    """A loop in a thread, and what a watchdog wants of its runtime."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.size = 1
        self.thread = threading.Thread(target=self.loop.run_forever, name="blockable")
        self.thread.start()
        assert self.thread.ident is not None
        self.thread_id = self.thread.ident

    def block(self, release: threading.Event) -> None:
        self.loop.call_soon_threadsafe(release.wait, 10)

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture
def blockable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blockable]:
    monkeypatch.setattr(watchdog_module, "PATIENCE", 0.02)
    monkeypatch.setattr(watchdog_module, "_IDLE", 0.02)
    blockable = Blockable()
    yield blockable
    blockable.end()


@pytest.fixture
def watchdog(blockable: Blockable) -> Iterator[Watchdog]:
    watchdog = Watchdog(cast("Runtime", blockable))
    watchdog.start()
    yield watchdog
    watchdog.stop()


def _lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_it_counts_each_time_and_says_a_place_once_a_minute(
    blockable: Blockable, watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    for count in range(1, 4):
        release = threading.Event()
        threading.Timer(0.1, release.set).start()
        blockable.block(release)
        until(lambda count=count: sum(watchdog.counts.values()) == count)  # type: ignore[misc]
    (line,) = _lines(caplog)
    assert line.startswith("loop blocked 0.")
    assert "(1 times here)" in line
    watchdog._said = {place: said - 60 for place, said in watchdog._said.items()}
    release = threading.Event()
    threading.Timer(0.1, release.set).start()
    blockable.block(release)
    until(lambda: len(_lines(caplog)) == 2)
    assert "(4 times here)" in _lines(caplog)[1]


def test_a_loop_that_never_turns_again_is_told_all_the_same(
    blockable: Blockable, watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    try:
        blockable.block(release)
        until(lambda: _lines(caplog), 2)
    finally:
        release.set()


def test_it_ends_when_it_is_stopped_or_its_loop_is_closed(
    blockable: Blockable, watchdog: Watchdog
) -> None:
    def alive() -> int:
        return sum(each.name == "ws-watchdog" for each in threading.enumerate())

    others = alive() - 1
    blockable.end()
    until(lambda: alive() == others)
    idle = types.SimpleNamespace(size=0, thread_id=0, loop=None)
    second = Watchdog(cast("Runtime", idle))
    second.start()
    second.stop()
    until(lambda: alive() == others)
