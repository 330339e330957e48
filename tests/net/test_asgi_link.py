"""Our own routes behind the ASGI door, on a server that the test plays, by its own clock."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.net.asgi_door import Control, Door
from ws_middleware import (
    Anonymous,
    ConnectionClosed,
    Granted,
    Heartbeat,
    Limits,
    Principal,
    Receipt,
    WebSocket,
    WebSockets,
)
from ws_middleware.net.abort import warn_uncut

if TYPE_CHECKING:
    from collections.abc import Callable

    OpenDoor = Callable[..., Door]


def echoing(**policy: Any) -> WebSockets:
    sockets = WebSockets(auth=Anonymous(), **policy)

    @sockets.route("/")
    async def echo(ws: WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    return sockets


def waiting(**policy: Any) -> tuple[WebSockets, list[WebSocket]]:
    """Return sockets with a route whose handler only waits, and those that came."""
    sockets = WebSockets(auth=Anonymous(), **policy)
    came: list[WebSocket] = []

    @sockets.route("/{room}")
    async def wait(ws: WebSocket, room: str) -> None:
        came.append(ws)
        await ws.wait_closed()

    return sockets, came


# --- messages ------------------------------------------------------------------------------------


def test_text_comes_back_as_text_and_bytes_as_bytes(open_door: OpenDoor) -> None:
    connection = open_door(echoing()).connect()
    connection.text("é").binary(b"\x00").text("").binary(b"")
    assert connection.is_accepted
    assert connection.messages == ["é", b"\x00", "", b""]


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"text": "x", "bytes": None}, id="text"),
        pytest.param({"text": None, "bytes": b"x"}, id="bytes"),
        pytest.param({"text": None, "bytes": bytearray(b"x")}, id="bytearray"),
        pytest.param({"bytes": memoryview(b"x")}, id="memoryview"),
    ],
)
def test_a_server_may_name_both_kinds_and_mean_one(
    open_door: OpenDoor, event: dict[str, Any]
) -> None:
    connection = open_door(echoing()).connect().say({"type": "websocket.receive", **event})
    assert connection.messages == ["x" if event.get("text") else b"x"]
    assert type(connection.messages[0]) in {str, bytes}


def test_an_event_with_nothing_in_it_is_none(open_door: OpenDoor) -> None:
    connection = open_door(echoing()).connect()
    connection.say({"type": "websocket.receive", "text": None}).say({"type": "websocket.new"})
    assert connection.messages == []
    assert not connection.task.done()


def test_a_message_that_comes_while_the_server_still_accepts_is_not_lost(
    open_door: OpenDoor,
) -> None:
    connection = open_door(echoing()).connect(held=True).text("early")
    assert connection.sent == []
    assert connection.go_on().messages == ["early"]


def test_what_a_handler_sends_before_the_accept_is_out_comes_behind_it(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def greet(ws: WebSocket) -> None:
        await ws.send("hello")
        await ws.wait_closed()

    connection = open_door(sockets).connect(held=True)
    assert connection.go_on().is_accepted
    assert connection.messages == ["hello"]


def test_the_accept_has_the_subprotocol_and_what_the_authenticator_adds(
    open_door: OpenDoor,
) -> None:
    async def auth(request: object) -> Granted:
        return Granted("ann", headers=(("Set-Cookie", "a=b"), ("Content-Type", "text/html")))

    sockets = WebSockets(auth=auth, origins=["https://x.example"])
    sockets.route("/", subprotocols=["b", "a"])
    headers = ((b"sec-websocket-protocol", b"a, b"), (b"origin", b"https://x.example"))
    (accept,) = open_door(sockets).connect(headers=headers, subprotocols=["a", "b"]).sent
    assert accept["subprotocol"] == "b"
    assert accept["headers"] == [(b"set-cookie", b"a=b")]


# --- the end, by the handler ---------------------------------------------------------------------


@pytest.mark.parametrize("held", [False, True])
def test_a_handler_that_returns_at_once_is_an_accept_and_a_close(
    open_door: OpenDoor,
    held: bool,  # noqa: FBT001
) -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def gone(ws: WebSocket) -> None:
        await ws.send("bye")

    connection = open_door(sockets).connect(held=held).go_on()
    assert connection.is_accepted
    assert connection.messages == ["bye"]
    assert connection.closed == (1000, "")
    assert connection.outcome is None


def test_a_handler_that_raises_is_1011_and_no_exception_of_the_servers(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def fail(ws: WebSocket) -> None:
        raise ZeroDivisionError

    connection = open_door(sockets).connect()
    assert connection.closed == (1011, "internal_error")
    assert connection.outcome is None
    assert "ZeroDivisionError" in caplog.text


def test_a_close_comes_after_all_that_was_sent(open_door: OpenDoor) -> None:
    sockets, came = waiting()
    connection = open_door(sockets).connect("/a").hold()
    for number in range(3):
        came[0].send(str(number))
    came[0].close(4000, "enough")
    came[0].send("late")
    assert connection.go_on().messages == ["0", "1", "2"]
    assert connection.closed == (4000, "enough")


def test_nothing_is_received_any_more_when_a_close_is_sent(open_door: OpenDoor) -> None:
    sockets, came = waiting()
    door = open_door(sockets)
    connection = door.connect("/a").text("x")
    came[0].close(4000)
    door.settle()
    assert connection.closed == (4000, "")
    assert not connection.received_at_close, "granian sends no close then"


@pytest.mark.parametrize(("code", "sent"), [(1012, 4012), (1000, 1000), (3001, 3001), (4001, 4001)])
def test_daphne_is_given_codes_that_it_takes(open_door: OpenDoor, code: int, sent: int) -> None:
    sockets, came = waiting()
    door = open_door(sockets)
    connection = door.connect("/a", scheme=None)  # by which it is known
    came[0].close(code)
    door.settle()
    assert connection.closed == (sent, "")
    assert came[0].close_code == code


# --- the end, by the peer or the server ----------------------------------------------------------


@pytest.mark.parametrize(("said", "code"), [(4001, 4001), (None, 1005), (1006, 1006)])
def test_the_peers_close_ends_the_conversation(
    open_door: OpenDoor, said: int | None, code: int
) -> None:
    sockets, came = waiting()
    connection = open_door(sockets).connect("/a").disconnect(said, "why")
    assert (came[0].close_code, came[0].close_reason) == (code, "why")
    assert connection.closed is None
    assert connection.outcome is None


def test_after_the_peers_end_nothing_more_is_received(open_door: OpenDoor) -> None:
    connection = open_door(echoing()).connect().disconnect()
    assert connection.receiving == 0


def test_messages_before_the_end_are_still_taken(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())
    taken: list[str | bytes] = []

    @sockets.route("/")
    async def slow(ws: WebSocket) -> None:
        async for message in ws:
            taken.append(message)
            await asyncio.sleep(1)

    door = open_door(sockets)
    door.connect().text("a").text("b").disconnect()
    door.sleep(3)
    assert taken == ["a", "b"]


def test_a_receive_that_raises_is_an_end(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sockets, came = waiting()
    connection = open_door(sockets).connect("/a").say(RuntimeError("gone"))
    assert came[0].close_code == 1006
    assert connection.outcome is None
    assert "code=1006 by=peer why=receive failed: RuntimeError" in caplog.text


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("not now")])
def test_a_send_that_raises_is_an_end(open_door: OpenDoor, error: Exception) -> None:
    connection = open_door(echoing()).connect()
    connection.error = error
    connection.text("x")
    assert connection.messages == []
    assert connection.outcome is None


def test_an_accept_that_raises_is_an_end(open_door: OpenDoor) -> None:
    sockets, came = waiting()
    connection = open_door(sockets).connect("/a", held=True)
    connection.error = OSError("gone")
    connection.go_on()
    assert came[0].close_code == 1006
    assert connection.outcome is None


@pytest.mark.parametrize("moment", ["accept", "open", "send", "close"])
def test_a_server_that_ends_is_told_to_the_peer_and_leaves_nothing_behind(
    open_door: OpenDoor, moment: str
) -> None:
    sockets, came = waiting()
    door = open_door(sockets)
    connection = door.connect("/a", held=moment == "accept")
    if moment in {"send", "close"}:
        connection.hold()
        came[0].send("x")
    if moment == "close":
        came[0].close(4000)
    connection.cancel()
    if moment == "open":
        assert connection.closed == (1012, "restart")
    door.sleep(1.5)
    assert isinstance(connection.outcome, asyncio.CancelledError)
    door.check_nothing_left()


# --- peers that do not keep up -------------------------------------------------------------------


def test_reading_stops_where_the_inbox_is_full_and_goes_on_later(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous(), limits=Limits(inbound_messages=3))

    @sockets.route("/")
    async def slow(ws: WebSocket) -> None:
        async for message in ws:
            await asyncio.sleep(1)
            await ws.send(message)

    door = open_door(sockets)
    connection = door.connect()
    for number in range(10):
        connection.text(str(number))
    assert connection.unread == 6  # one is being handled, three wait
    door.sleep(10)
    assert connection.messages == [str(number) for number in range(10)]


def test_messages_that_nobody_takes_for_two_minutes_are_1008(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(auth=Anonymous(), limits=Limits(inbound_messages=1))

    @sockets.route("/")
    async def deaf(ws: WebSocket) -> None:
        await asyncio.sleep(3600)

    door = open_door(sockets)
    connection = door.connect().text("a").text("b")
    door.sleep(119)
    assert connection.closed is None
    door.sleep(1.25)
    assert connection.closed == (1008, "messages_not_taken")
    assert "handler test_messages_that_nobody_takes" in caplog.text


def test_a_handler_that_takes_its_time_is_no_deaf_one(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())

    @sockets.route("/")
    async def slow(ws: WebSocket) -> None:
        async for message in ws:
            await asyncio.sleep(30)
            await ws.send(message)

    door = open_door(sockets)
    connection = door.connect()
    for number in range(20):
        connection.text(str(number))
    assert connection.unread
    door.sleep(30 * 21)
    assert connection.messages == [str(number) for number in range(20)]
    assert connection.closed is None


def test_a_send_that_hangs_ends_after_three_write_timeouts(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sockets, came = waiting(limits=Limits(write_timeout=2))
    door = open_door(sockets)
    control = Control()
    connection = door.connect("/a", control=control).hold()
    receipt = came[0].send(b"x" * 100_000)
    door.sleep(5.9)
    assert not came[0].closed
    door.sleep(0.5)
    assert came[0].close_code == 1006
    assert control.aborted == 1
    assert connection.outcome is None
    with pytest.raises(ConnectionClosed):
        receipt.result(0)
    assert "code=1006 by=peer why=write_timeout: a send has hung for 6 s" in caplog.text


def test_sends_that_get_through_are_looked_at_seldom_and_harm_nobody(open_door: OpenDoor) -> None:
    sockets, came = waiting(limits=Limits(write_timeout=2))
    door = open_door(sockets)
    connection = door.connect("/a")
    for _ in range(20):
        came[0].send("x")
        door.sleep(1)
    assert len(connection.messages) == 20
    assert len(door.runtime.wheel) <= 1
    connection.hold()
    came[0].send("x")
    door.sleep(5.9)
    assert not came[0].closed
    connection.go_on()
    door.sleep(60)
    assert not came[0].closed


def test_a_close_that_does_not_get_out_ends_after_close_timeout(open_door: OpenDoor) -> None:
    sockets, came = waiting(limits=Limits(close_timeout=2))
    door = open_door(sockets)
    control = Control()
    connection = door.connect("/a", control=control).hold()
    gone = came[0].close(4000)
    door.sleep(1.9)
    assert not gone.done
    door.sleep(0.5)
    assert gone.done
    assert connection.outcome is None
    assert control.aborted == 1


def test_a_server_that_ends_before_a_peer_that_takes_nothing_has_it_cut(
    open_door: OpenDoor,
) -> None:
    sockets, came = waiting(limits=Limits(close_timeout=2))
    door = open_door(sockets)
    control = Control()
    connection = door.connect("/a", control=control).hold()
    came[0].send("x")
    door.settle()
    connection.disconnect(1012)  # as uvicorn's shutdown does, which then waits for the transport
    assert came[0].close_code == 1012
    assert connection.outcome is None
    assert control.aborted == 0
    door.sleep(2)
    assert control.aborted == 1


def test_where_nothing_can_be_cut_the_server_is_asked_to_close(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    sockets, came = waiting()
    door = open_door(sockets)
    connection = door.connect("/a")
    came[0].terminate()
    door.settle()
    assert connection.closed == (1001, "going_away")
    assert came[0].close_code == 1006
    assert connection.outcome is None


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        pytest.param({}, [], id="nothing-said"),
        pytest.param(
            {"heartbeat": Heartbeat(interval=5)},
            [Heartbeat(interval=5, timeout=20, app_ping=None, app_pong=None)],
            id="given",
        ),
        pytest.param({"heartbeat": Heartbeat(app_ping="?")}, [], id="nothing-said-of-times"),
        pytest.param({"heartbeat": None}, [None], id="off"),
    ],
)
def test_a_server_that_lets_us_pings_as_the_app_has_said(
    open_door: OpenDoor, policy: dict[str, Any], told: list[Heartbeat | None]
) -> None:
    control = Control()
    open_door(echoing(**policy)).connect(control=control)
    assert control.heartbeats == told


def test_a_hand_that_sets_no_heartbeat_is_one_all_the_same(open_door: OpenDoor) -> None:
    class Older:
        """As one of a test kit may be."""

        def abort(self) -> None:
            pass

    control: Any = Older()
    connection = open_door(echoing(heartbeat=None)).connect(control=control)
    assert connection.is_accepted


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are looked for in /proc")
@pytest.mark.parametrize("may_cut", [True, False])
def test_a_connection_is_cut_by_its_descriptor_unless_the_app_forbids_it(
    open_door: OpenDoor,
    caplog: pytest.LogCaptureFixture,
    may_cut: bool,  # noqa: FBT001
) -> None:
    warn_uncut.cache_clear()
    sockets, came = waiting(abort_by_descriptor=may_cut)
    door = open_door(sockets)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), 5)
        server, _ = listener.accept()
    with client, server:
        door.connect("/a", client=server.getpeername(), server=server.getsockname())
        came[0].terminate()
        door.settle()
        client.settimeout(10)
        if may_cut:
            assert client.recv(1) == b"", "it was not cut"
        else:
            server.sendall(b"x")
            assert client.recv(1) == b"x"
    assert ("abort_by_descriptor is False" in caplog.text) is not may_cut


def test_what_waits_for_a_slow_peer_is_bounded(open_door: OpenDoor) -> None:
    sockets, came = waiting(limits=Limits(outbound_bytes=1000))
    door = open_door(sockets)
    connection = door.connect("/a").hold()
    for _ in range(3):
        sockets.room("a").send(b"x" * 400)
        door.settle()  # the first is with the server
    assert not came[0].closed
    sockets.room("a").send(b"x" * 400)
    door.settle()
    assert came[0].close_code == 1013
    connection.go_on()
    assert connection.messages == [b"x" * 400]
    assert connection.closed == (1013, "slow_consumer")


def test_a_burst_in_one_turn_says_nothing_of_the_peer(open_door: OpenDoor) -> None:
    sockets, _ = waiting(limits=Limits(outbound_bytes=1000))
    door = open_door(sockets)
    connection = door.connect("/a")
    for _ in range(10):
        sockets.room("a").send(b"x" * 400)
    door.settle()
    assert connection.messages == [b"x" * 400] * 10


@pytest.mark.parametrize(
    ("slow", "kept"), [("drop_oldest", [0, 8, 9]), ("latest_only", [0, 9])], ids=str
)
def test_messages_are_dropped_where_the_route_says_so(
    open_door: OpenDoor, slow: str, kept: list[int]
) -> None:
    sockets, came = waiting(limits=Limits(outbound_bytes=1000), slow=slow)
    door = open_door(sockets)
    connection = door.connect("/a").hold()
    for number in range(10):
        came[0].send(bytes([number]) * 400)
        door.settle()
    connection.go_on()
    assert [message[0] for message in connection.messages] == kept
    assert came[0].link.messages == {"in": 0, "out": 10, "dropped": 10 - len(kept)}


def test_a_sender_who_waits_for_its_receipts_keeps_the_peers_pace(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())
    done = []

    @sockets.route("/")
    async def flood(ws: WebSocket) -> None:
        for number in range(2000):
            await ws.send(str(number))
            done.append(number)
        await ws.wait_closed()

    connection = open_door(sockets).connect(held=True)
    assert len(done) < 600
    connection.go_on()
    assert connection.messages == [str(number) for number in range(2000)]


def test_empty_messages_count_too(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())
    sent = []

    @sockets.route("/")
    async def flood(ws: WebSocket) -> None:
        while True:
            await ws.send(b"")
            sent.append(1)

    connection = open_door(sockets).connect(held=True)
    assert len(sent) < 600
    connection.disconnect()


# --- limits and time -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fits", "is_too_big"), [("é" * 5, "é" * 5 + "x"), ("x" * 10, "x" * 11), (b"x" * 10, b"x" * 11)]
)
def test_a_message_may_have_message_size_and_no_byte_more(
    open_door: OpenDoor, fits: str | bytes, is_too_big: str | bytes
) -> None:
    connection = open_door(echoing(limits=Limits(message_size=10))).connect()
    kind = "text" if isinstance(fits, str) else "bytes"
    connection.say({"type": "websocket.receive", kind: fits})
    assert connection.messages == [fits]
    connection.say({"type": "websocket.receive", kind: is_too_big})
    assert connection.closed == (1009, "message_too_big")
    connection.say({"type": "websocket.receive", kind: fits})
    assert connection.outcome is None


def test_a_credential_that_expires_is_4401_on_time(open_door: OpenDoor) -> None:
    async def auth(request: Any) -> Principal:
        return Principal("ann", expires_at=request.received_at + 10)

    sockets = WebSockets(auth=auth, origins=["https://x.example"])
    sockets.route("/")
    door = open_door(sockets)
    connection = door.connect(headers=((b"origin", b"https://x.example"),))
    door.sleep(9.9)
    assert connection.closed is None
    door.sleep(0.5)
    assert connection.closed == (4401, "credential_expired")


def test_an_idle_socket_has_no_timer_and_no_task_but_the_one_that_receives(
    open_door: OpenDoor,
) -> None:
    sockets = WebSockets(auth=Anonymous())
    sockets.route("/")
    door = open_door(sockets)
    door.connect()
    door.sleep(31)  # the look at the accept's own send
    assert len(door.runtime.wheel) == 0
    assert len(asyncio.all_tasks(door.loop)) == 2  # and the server's own


# --- the hub and other threads -------------------------------------------------------------------


def test_rooms_users_and_everyone_are_reached_in_order(open_door: OpenDoor) -> None:
    sockets, _ = waiting()
    door = open_door(sockets)
    one, other = door.connect("/a"), door.connect("/b")
    for number in range(5):
        sockets.room("a").send(str(number))
        sockets.everyone.send_json(number)
    door.settle()
    assert one.messages == ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"]
    assert other.messages == ["0", "1", "2", "3", "4"]
    assert sockets.room("a").count() == 1
    one.disconnect()
    assert sockets.room("a").count() == 0


def test_other_threads_send_and_close(open_door: OpenDoor) -> None:
    sockets, came = waiting()
    door = open_door(sockets)
    connection = door.connect("/a")
    receipts: list[Receipt[Any]] = []

    def elsewhere() -> None:
        receipts.extend([came[0].send("x"), sockets.room("a").send("y"), came[0].close(4000)])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert connection.messages == []
    door.settle()
    assert connection.messages == ["x", "y"]
    assert connection.closed == (4000, "")
    assert all(each.done for each in receipts)


def test_pings_need_a_server_that_sends_them(open_door: OpenDoor) -> None:
    sockets, came = waiting()
    door = open_door(sockets)
    door.connect("/a")
    receipt = came[0].ping()
    door.settle()
    with pytest.raises(RuntimeError, match=r"--ws ws_middleware\.uvicorn"):
        receipt.result(0)
    control = Control()
    connection = door.connect("/a", control=control)
    answered, lost = came[1].ping(), came[1].ping()
    door.settle()
    control.pings[0].set_result(0.25)
    door.settle()
    assert (answered.result(0), came[1].latency) == (0.25, 0.25)
    connection.disconnect()
    control.pings[1].set_exception(ConnectionClosed(1006))
    door.settle()
    with pytest.raises(ConnectionClosed):
        lost.result(0)
    with pytest.raises(ConnectionClosed):
        came[1].ping().result(0)


def test_events_are_served_like_conversations(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/{room}")
    heard: list[object] = []

    @route.on_open
    async def came(ws: WebSocket, room: str) -> None:
        await ws.send(f"hello {room}")

    @route.on_message
    async def said(ws: WebSocket, message: str, room: str) -> None:
        heard.append(message)

    @route.on_close
    async def left(ws: WebSocket, room: str) -> None:
        heard.append(ws.close_code)

    connection = open_door(sockets).connect("/a").text("x").disconnect(4000)
    assert connection.messages == ["hello a"]
    assert heard == ["x", 4000]


def test_what_is_said_to_a_push_only_route_is_thrown_away(open_door: OpenDoor) -> None:
    sockets = WebSockets(auth=Anonymous(), limits=Limits(inbound_messages=1))
    sockets.route("/")
    connection = open_door(sockets).connect()
    for _ in range(20):
        connection.text("x")
    assert connection.unread == 0


# --- close() -------------------------------------------------------------------------------------


def test_close_sends_everybody_away_and_lets_nobody_in(open_door: OpenDoor) -> None:
    sockets, _ = waiting()
    door = open_door(sockets)
    connections = [door.connect("/a") for _ in range(4)]
    closed = sockets.close(code=1012, reason="restart", over=3, timeout=10)
    door.settle()
    assert [each.closed for each in connections].count((1012, "restart")) == 1
    late = door.connect("/a")
    assert late.denial[0] == 503
    assert b"going_away" in late.denial[2]
    door.sleep(3)
    assert [each.closed for each in connections] == [(1012, "restart")] * 4
    door.sleep(5)
    assert closed.done


def test_close_ends_in_time_with_peers_that_take_nothing(open_door: OpenDoor) -> None:
    sockets, _ = waiting()
    door = open_door(sockets)
    control = Control()
    stuck = door.connect("/a", control=control).hold()
    closed = sockets.close(code=1012, timeout=3)
    door.sleep(3)
    assert closed.done
    assert control.aborted == 1
    assert stuck.outcome is None


def test_after_close_all_is_as_new(open_door: OpenDoor) -> None:
    sockets = echoing()
    door = open_door(sockets)
    door.connect()
    closed = sockets.close(timeout=3)
    door.sleep(3)
    assert closed.done
    again = Door(sockets)
    assert again.connect().text("x").messages == ["x"]
    again.close()


# --- the log -------------------------------------------------------------------------------------


def test_the_log_has_one_line_on_open_and_one_on_close(
    open_door: OpenDoor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    connection = open_door(echoing()).connect().text("x")
    connection.disconnect(4001, "done")
    lines = [each.getMessage() for each in caplog.records if each.name == "ws_middleware.socket"]
    assert [line.split()[0] for line in lines] == ["open", "close"]
    assert lines[1].endswith("code=4001 by=peer why=closed after=0s in=1 out=1")
