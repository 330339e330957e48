"""Loops that are somebody else's: several of them, one after the other, closed, and stuck."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from ws_middleware import Anonymous, WebSocket, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.net.asgi_door import Door

    OpenDoor = Callable[..., Door]


def waiting() -> WebSockets:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def wait(ws: WebSocket) -> None:
        await ws.wait_closed()

    return sockets


def branches(door: Door) -> int:
    return len(door.sockets._hub._branches)


def test_a_send_reaches_the_sockets_of_every_loop(open_door: OpenDoor) -> None:
    door = open_door(waiting())
    other = door.another()
    one, two = door.connect(), other.connect()
    assert branches(door) == 2
    receipt = door.sockets.everyone.send("x")
    door.settle()
    assert (one.messages, two.messages) == (["x"], [])
    other.settle()
    assert two.messages == ["x"]
    assert receipt.result(0).local == 2
    other.leave()


def test_a_loop_in_another_thread_is_reached_from_this_one(open_door: OpenDoor) -> None:
    door = open_door(waiting())
    other = door.another()
    two = []

    def elsewhere() -> None:
        two.append(other.connect())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    door.connect()
    door.sockets.everyone.close(4000)
    door.settle()
    assert two[0].closed is None, "that is for the other loop to do"
    other.settle()
    assert two[0].closed == (4000, "")
    other.leave()


def test_a_loop_that_was_closed_is_forgotten_with_all_that_it_had(open_door: OpenDoor) -> None:
    door = open_door(waiting())
    other = door.another()
    for _ in range(2):
        other.connect()
    assert door.engine.gate.counts[1] == 2
    collect = other.crash()
    assert door.sockets.everyone.send("x").result(0).local == 0, "nobody waits for it"
    assert door.connect().is_accepted
    assert door.engine.gate.counts[1] == 1
    assert branches(door) == 1
    assert len(door.engine._servers) == 1
    collect()
    assert door.engine.gate.counts[1] == 1


def test_a_loop_that_was_closed_is_held_by_nothing(open_door: OpenDoor) -> None:
    door = open_door(waiting())
    other = door.another()
    other.connect().disconnect()
    other.loop.close()
    loop = weakref.ref(other.loop)
    del other
    door.connect()
    gc.collect()
    assert loop() is None


def test_one_loop_after_the_other_in_one_thread(open_door: OpenDoor) -> None:
    door = open_door(waiting())
    for _ in range(5):
        other = door.another()
        other.connect().disconnect()
        other.connect().cancel()
        other.loop.close()
    door.connect()
    assert branches(door) == 1
    assert door.engine.gate.counts[1] == 1


def test_close_reaches_every_loop(open_door: OpenDoor) -> None:
    door = open_door(waiting())
    other = door.another()
    one, two = door.connect(), other.connect()
    closed = door.sockets.close(code=1012, timeout=3)
    door.settle()
    other.settle()
    assert one.closed == two.closed == (1012, "")
    other.sleep(2)
    door.sleep(2)
    assert closed.done
    assert branches(door) == 0
    other.leave()


@pytest.mark.parametrize("is_closed", [False, True])
def test_close_does_not_wait_for_a_loop_that_does_not_turn(
    open_door: OpenDoor,
    caplog: pytest.LogCaptureFixture,
    is_closed: bool,  # noqa: FBT001
) -> None:
    door = open_door(waiting())
    other = door.another()
    other.connect()
    collect = other.crash() if is_closed else other.leave
    door.connect().disconnect()
    closed = door.sockets.close(timeout=0.2)
    door.sleep(2)
    closed.result(5)
    assert branches(door) == 0
    assert ("does not turn" in caplog.text) is not is_closed
    collect()


def test_a_door_that_was_closed_begins_nothing(open_door: OpenDoor) -> None:
    door = open_door(waiting())
    door.connect()
    hosted: Any = door.front._own[2]
    door.sockets.close(timeout=3)
    other = door.another()
    assert other.connect().denial[0] == 503
    assert hosted._runtimes == {}
    door.sleep(4)
    assert branches(door) == 0
    other.loop.close()


async def serve(sockets: WebSockets, heard: list[Any]) -> None:
    """Be a server of one connection, on a loop of asyncio's own."""
    done = asyncio.Event()
    came: asyncio.Queue[Any] = asyncio.Queue()
    came.put_nowait({"type": "websocket.connect"})

    async def app(*given: object) -> None: ...

    async def send(event: Any) -> None:
        heard.append(event)
        if event["type"] == "websocket.close":
            done.set()

    scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": [], "scheme": "ws"}
    await asyncio.gather(sockets.asgi(app)(scope, came.get, send), done.wait())


def test_real_loops_in_threads_of_their_own() -> None:
    sockets = waiting()
    heard: list[list[Any]] = [[], [], []]
    threads = [
        threading.Thread(target=lambda each=each: asyncio.run(serve(sockets, each)))
        for each in heard
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 10
    while sockets.everyone.count() < 3:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert sockets.everyone.send("x").result(10).local == 3
    sockets.everyone.close(4000)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    kinds = ["websocket.accept", "websocket.send", "websocket.close"]
    assert [[event["type"] for event in each] for each in heard] == [kinds] * 3
    sockets.close(timeout=3).result(10)


def test_def_events_of_a_close_have_their_turn_before_the_threads_end() -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")
    left, over = threading.Event(), threading.Event()

    @route.on_close
    def gone(ws: WebSocket) -> None:
        time.sleep(0.1)  # it is not the loop that waits
        left.set()

    async def run() -> None:
        await serve(sockets, [])
        await asyncio.to_thread(over.wait, 10)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    end = time.monotonic() + 10
    while not sockets.everyone.count():
        assert time.monotonic() < end
        time.sleep(0.01)
    sockets.close(timeout=5).result(10)
    assert left.is_set()
    over.set()
    thread.join(10)
