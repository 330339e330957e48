"""Pings by messages, where a server owns the frames: who is found dead, and who is not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.net.asgi_door import Control
from ws_middleware import Anonymous, Heartbeat, Limits, WebSocket, WebSockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.net.asgi_door import Connection, Door

    OpenDoor = Callable[..., Door]

BEAT = Heartbeat(interval=30, timeout=20, app_ping="ping", app_pong="pong")


class Route:
    """A route whose handler notes what it gets, on a server that the test plays."""

    def __init__(
        self,
        open_door: OpenDoor,
        heartbeat: Heartbeat | None = BEAT,
        *,
        jitter: float = 0.0,
        control: Control | None = None,
        **policy: Any,
    ) -> None:
        self.got: list[str | bytes] = []
        #: What holds the handler up.
        self.gate = asyncio.Event()
        self.gate.set()
        self.sockets = WebSockets(auth=Anonymous(), **policy)
        self.sockets.route("/{room}", heartbeat=heartbeat)(self.handle)
        self.door = open_door(self.sockets)
        self.door.engine.jitter = lambda: jitter
        self.connection = self.door.connect("/a", control=control)
        self.ws: WebSocket

    async def handle(self, ws: WebSocket, room: str) -> None:
        self.ws = ws
        async for message in ws:
            self.got.append(message)
            await self.gate.wait()

    def sleep(self, seconds: float) -> Connection:
        self.door.sleep(seconds)
        return self.connection


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The scopes of what was cut: there is no connection in these tests that could be."""
    found: list[object] = []
    where = "ws_middleware.net.asgi_cut.abort_connection"
    monkeypatch.setattr(where, lambda scope, told, **_: found.append(scope))
    return found


# --- when a ping is sent -------------------------------------------------------------------------


def test_a_ping_is_sent_each_interval_as_a_message_of_its_kind(open_door: OpenDoor) -> None:
    for ping in ("ping", "é", b"\x09"):
        it = Route(open_door, Heartbeat(interval=30, timeout=20, app_ping=ping))
        assert it.sleep(29.9).messages == []
        assert it.sleep(0.4).messages == [ping]
        it.connection.text("here")
        assert it.sleep(29).messages == [ping]
        assert it.sleep(1).messages == [ping] * 2


def test_the_first_comes_up_to_half_of_it_earlier(open_door: OpenDoor) -> None:
    it = Route(open_door, jitter=1.0)
    assert it.sleep(14.9).messages == []
    assert it.sleep(0.4).messages == ["ping"]
    it.connection.text("pong")
    assert it.sleep(29.5).messages == ["ping"]
    assert it.sleep(1).messages == ["ping"] * 2


@pytest.mark.parametrize(
    "heartbeat", [None, Heartbeat(), Heartbeat(app_ping=None)], ids=["off", "plain", "none"]
)
def test_nobody_is_pinged_where_no_route_asks_for_it(
    open_door: OpenDoor, heartbeat: Heartbeat | None
) -> None:
    it = Route(open_door, heartbeat)
    assert it.sleep(3600).messages == []
    assert it.connection.closed is None
    assert len(it.door.runtime.wheel) == 0
    it.connection.text("pong")
    assert it.got == ["pong"]


def test_where_the_frames_are_ours_their_pings_do_it(open_door: OpenDoor) -> None:
    it = Route(open_door, control=Control())
    assert it.sleep(3600).messages == []
    assert it.connection.closed is None
    it.connection.text("pong")
    assert it.got == ["pong"]


def test_what_an_app_asks_for_counts_on_its_routes_and_a_route_may_have_none(
    open_door: OpenDoor,
) -> None:
    sockets = WebSockets(auth=Anonymous(), heartbeat=Heartbeat(app_ping="ping"))
    sockets.route("/a")
    sockets.route("/b", heartbeat=Heartbeat(app_ping=None))
    door = open_door(sockets)
    pinged, left_alone = door.connect("/a"), door.connect("/b")
    door.sleep(31)
    assert (pinged.messages, left_alone.messages) == (["ping"], [])


def test_no_ping_is_sent_while_a_send_hangs_and_one_soon_after(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(29)
    it.connection.hold()
    it.ws.send("large")
    it.sleep(10)
    assert it.connection.go_on().messages == ["large"]
    assert it.sleep(1.5).messages == ["large", "ping"]
    assert it.sleep(19).closed is None
    assert it.sleep(1.5).closed == (1011, "no_pong")


def test_a_peer_that_takes_nothing_is_the_watch_over_sends(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    it = Route(open_door)
    it.sleep(29)
    it.connection.hold()
    it.ws.send("large")
    it.sleep(31)
    assert it.ws.close_code == 1006
    assert "why=write_timeout: a send has hung for 30 s" in caplog.text


def test_what_waits_for_its_turn_goes_first(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(29.5)
    it.door.loop.call_later(0, it.ws.send, "news")
    it.door.clock.time += 1.0
    it.door.settle()
    assert it.connection.messages == ["news"]
    assert it.sleep(1.5).messages == ["news", "ping"]


@pytest.mark.parametrize("slow", ["close", "drop_oldest", "latest_only"])
def test_a_ping_takes_no_messages_place_and_none_takes_its(open_door: OpenDoor, slow: str) -> None:
    it = Route(open_door, slow=slow)
    it.sleep(29.5)
    it.door.clock.time += 1.0  # the ping, and what is sent in the same turn
    it.door.loop.call_later(0, it.ws.send, "news")
    it.door.settle()
    assert sorted(it.sleep(2).messages) == ["news", "ping"]
    assert it.ws.link.messages == {"in": 0, "out": 1, "dropped": 0}


# --- who is dead ---------------------------------------------------------------------------------


def test_silence_is_death_after_the_timeout_as_on_our_own_port(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    it = Route(open_door)
    it.sleep(49.9)
    assert not it.ws.closed
    it.sleep(0.5)
    assert (it.ws.close_code, it.ws.close_reason) == (1011, "no_pong")
    assert it.connection.closed == (1011, "no_pong")
    assert it.connection.outcome is None
    assert "code=1011 by=us why=no_pong" in caplog.text


def test_its_connection_is_cut_a_second_later(open_door: OpenDoor, cuts: list[object]) -> None:
    it = Route(open_door)
    it.sleep(50.5)
    assert it.connection.closed
    assert cuts == []
    it.sleep(1)
    assert cuts == [it.connection.scope]


def test_a_close_that_it_does_not_take_ends_within_close_timeout(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(49.5)
    it.connection.hold()
    it.sleep(1)
    assert it.ws.close_code == 1011
    assert not it.connection.task.done()
    it.sleep(5)
    assert it.connection.outcome is None


@pytest.mark.parametrize("sign", ["pong", "anything", b"bytes", ""])
def test_any_message_is_life(open_door: OpenDoor, sign: str | bytes) -> None:
    it = Route(open_door)
    kind = "text" if isinstance(sign, str) else "bytes"
    for _ in range(5):
        it.sleep(31)
        it.connection.say({"type": "websocket.receive", kind: sign})
    assert it.connection.messages == ["ping"] * 5
    assert it.connection.closed is None


def test_a_message_before_the_ping_is_no_answer_to_it(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(29)
    it.connection.text("early")
    assert it.sleep(21.5).closed == (1011, "no_pong")


def test_silence_counts_for_nothing_while_we_read_nothing(open_door: OpenDoor) -> None:
    it = Route(open_door, limits=Limits(inbound_messages=1))
    it.gate.clear()
    it.sleep(31)  # the ping
    for _ in range(3):  # one is being handled, one waits, and one is with the server
        it.connection.text("work")
    assert it.connection.unread
    it.sleep(60)
    assert not it.ws.closed
    it.gate.set()
    it.sleep(5)
    assert it.got == ["work"] * 3
    assert not it.ws.closed


def test_after_that_all_of_the_timeout_is_left(open_door: OpenDoor) -> None:
    it = Route(open_door, limits=Limits(inbound_messages=1))
    it.gate.clear()
    it.sleep(25)
    it.connection.text("handled").text("waiting")
    it.sleep(40)
    assert it.connection.messages == ["ping"] * 2  # a lost peer shows itself by a send that fails
    it.gate.set()
    it.sleep(19.5)
    assert not it.ws.closed
    it.sleep(1)
    assert it.ws.close_code == 1011


def test_silence_counts_for_nothing_while_our_own_loop_stood_still(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(45)
    it.door.clock.time += 100
    it.door.settle()
    assert not it.ws.closed
    it.connection.text("pong")
    it.sleep(1)
    assert not it.ws.closed


def test_a_dead_peer_is_found_after_our_loop_stood_still(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(45)
    it.door.clock.time += 100
    it.sleep(1)
    assert it.ws.close_code == 1011


def test_the_time_that_a_ping_itself_hangs_is_not_the_peers(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(29.5)
    it.connection.hold()
    it.sleep(25)
    assert it.connection.go_on().messages == ["ping"]
    it.sleep(19.5)
    assert not it.ws.closed
    it.sleep(1)
    assert it.ws.close_code == 1011


def test_a_ping_that_the_server_does_not_take_is_an_end(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for error in (OSError("gone"), RuntimeError("not now")):
        it = Route(open_door)
        it.connection.error = error
        it.sleep(31)
        assert it.ws.close_code == 1006
        assert f"why=send failed: {type(error).__name__}" in caplog.text


def test_what_waits_for_a_dead_peer_is_dropped(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(40)
    it.connection.hold()
    for message in ("under way", "waiting"):
        it.ws.send(message)
        it.door.settle()
    it.sleep(10.3)
    assert it.ws.close_code == 1011
    assert it.connection.go_on().messages == ["ping", "under way"]
    assert it.connection.closed == (1011, "no_pong")


def test_a_socket_that_closes_is_not_found_dead_meanwhile(
    open_door: OpenDoor, cuts: list[object]
) -> None:
    it = Route(open_door)
    it.sleep(49.5)
    it.connection.hold()
    it.ws.close(4000)
    it.sleep(3)
    assert it.connection.go_on().closed == (4000, "")
    assert cuts == []


def test_a_socket_that_closes_in_the_same_turn_sends_no_ping(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(29.5)
    it.door.clock.time += 1.0
    it.door.loop.call_later(0, it.ws.close, 4000)
    it.door.settle()
    assert it.connection.messages == []
    assert it.connection.closed == (4000, "")


def test_one_that_closes_while_we_read_nothing_leaves_no_timer(open_door: OpenDoor) -> None:
    it = Route(open_door, limits=Limits(inbound_messages=1))
    it.gate.clear()
    it.sleep(31)
    it.connection.text("handled").text("waiting")
    it.ws.close(4000)
    it.door.settle()
    assert it.connection.closed == (4000, "")
    it.gate.set()
    it.door.settle()
    it.door.check_nothing_left()


def test_a_ping_under_way_ends_with_its_socket(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(29.5)
    it.connection.hold()
    it.sleep(1)
    it.ws.close(4000)
    assert it.connection.go_on().messages == ["ping"]
    assert it.connection.closed == (4000, "")
    assert it.sleep(3600).outcome is None
    it.door.check_nothing_left()


# --- the answers ---------------------------------------------------------------------------------


def test_answers_are_no_messages_where_the_route_knows_them(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.sleep(31)
    it.connection.text("pong").binary(b"pong").text("pongs")
    assert it.got == [b"pong", "pongs"]
    assert it.ws.link.messages["in"] == 2


def test_they_are_where_it_does_not(open_door: OpenDoor) -> None:
    it = Route(open_door, Heartbeat(app_ping="ping"))
    it.sleep(31)
    it.connection.text("pong")
    assert it.got == ["pong"]
    assert it.ws.latency is None


def test_they_count_against_no_limit(open_door: OpenDoor) -> None:
    it = Route(open_door, limits=Limits(inbound_messages=1, message_size=2))
    it.gate.clear()
    it.connection.text("x")
    for _ in range(50):
        it.connection.text("pong")
    assert it.connection.unread == 0
    assert not it.ws.closed


def test_latency_is_the_time_that_the_answer_took(open_door: OpenDoor) -> None:
    it = Route(open_door)
    it.connection.text("pong")  # to nothing
    assert it.ws.latency is None
    it.sleep(30)
    assert it.connection.messages == ["ping"]
    it.sleep(0.125)
    it.connection.text("pong")
    assert it.ws.latency == 0.125
    it.sleep(5)
    it.connection.text("pong")
    assert it.ws.latency == 0.125


def test_ping_is_still_for_servers_that_send_them(open_door: OpenDoor) -> None:
    it = Route(open_door)
    receipt = it.ws.ping()
    it.door.settle()
    with pytest.raises(RuntimeError, match=r"--ws ws_middleware\.uvicorn"):
        receipt.result(0)


# --- a wrapped app's own -------------------------------------------------------------------------


class Guarded:
    """A wrapped app that accepts when it is told to, and notes what it receives."""

    def __init__(self, open_door: OpenDoor, **policy: Any) -> None:
        self.received: list[Any] = []
        self.accepts = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.ended: BaseException | None = None
        self.sockets = WebSockets(auth=Anonymous())
        self.sockets.guard("/app", heartbeat=BEAT, **policy)
        self.door = open_door(self.sockets, self)
        self.door.engine.jitter = float
        self.connection = self.door.connect("/app")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.accepts.wait()
        await send({"type": "websocket.accept"})
        try:
            while not self.received or self.received[-1]["type"] != "websocket.disconnect":
                self.received.append(await receive())
            await self.goes_on.wait()
        except BaseException as error:
            self.ended = error
            raise

    def accept(self) -> Guarded:
        self.accepts.set()
        self.door.settle()
        return self


def test_an_app_is_told_of_a_dead_peer_and_cancelled_if_it_goes_on(open_door: OpenDoor) -> None:
    it = Guarded(open_door).accept()
    it.door.sleep(50.5)
    assert it.connection.messages == ["ping"]
    assert it.connection.closed == (1011, "no_pong")
    last = {"type": "websocket.disconnect", "code": 1011, "reason": "no_pong"}
    assert it.received == [{"type": "websocket.connect"}, last]
    assert it.ended is None
    it.door.sleep(5)
    assert isinstance(it.ended, asyncio.CancelledError)
    assert it.connection.outcome is None


def test_an_app_gets_no_answers_and_all_else(open_door: OpenDoor) -> None:
    it = Guarded(open_door).accept()
    it.door.sleep(31)
    it.connection.text("pong").text("x")
    it.door.sleep(21)
    assert [each.get("text") for each in it.received] == [None, "x"]
    assert it.connection.closed is None


def test_nobody_is_pinged_before_an_app_accepts(open_door: OpenDoor) -> None:
    it = Guarded(open_door)
    it.door.sleep(9)
    it.accept()
    it.door.sleep(29.5)
    assert it.connection.messages == []
    it.door.sleep(1)
    assert it.connection.messages == ["ping"]


def test_an_app_that_has_read_nothing_since_before_it_accepted_kills_nobody(
    open_door: OpenDoor,
) -> None:
    it = Guarded(open_door, limits=Limits(inbound_messages=1))
    it.connection.text("early").text("too early")
    assert it.connection.unread
    app, it.received = it.received, [{"type": "websocket.disconnect"}]  # it only waits
    it.accept()
    it.door.sleep(300)
    assert app == []
    assert it.connection.closed is None
    assert it.connection.messages == ["ping"] * 10
