"""Rooms, users, everyone: sends and closes that reach whom they should, from anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
import struct
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

import pytest

from tests.clients.python import connect, end_of, until
from tests.support import BINARY, CLOSE, TEXT, frame
from ws_middleware import (
    Anonymous,
    Audience,
    BlockingWebSocket,
    Limits,
    MessageTooBig,
    Receipt,
    Route,
    Sent,
    UpgradeRequest,
    WebSocket,
    WebSockets,
)
from ws_middleware.hub import audience as audience_module
from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.sync.client import ClientConnection

    from tests.conftest import Served
    from tests.support import RawPeer
    from ws_middleware.net.runtime import Runtime

    Serve = Callable[[WebSockets], Served]

#: Who hears something, by user and path.
WHO = ["ann /a/1", "ann /a/2", "ann /b/1", "bob /a/1", "bob /b/2"]


def by_query(request: UpgradeRequest) -> str:
    return request.query["user"]


class Crowd:
    """Five sockets of two users on two routes, each in the room of its path."""

    def __init__(self, serve: Serve, stack: contextlib.ExitStack) -> None:
        self.sockets = WebSockets(auth=by_query)
        self.a = self.sockets.route("/a/<int:room>")
        self.b = self.sockets.route("/b/<room>")
        self.served = serve(self.sockets)
        self.clients: dict[str, ClientConnection] = {}
        for who in WHO:
            user, path = who.split()
            client = connect(self.served, f"{path}?user={user}")
            self.clients[who] = stack.enter_context(client)

    def hear(self) -> dict[str, list[str]]:
        """Return what each has heard; all have heard what was sent before."""
        self.sockets.everyone.send("end").result(5)
        heard: dict[str, list[str]] = {}
        for who, client in self.clients.items():
            heard[who] = []
            while (message := client.recv(5)) != "end":
                heard[who].append(str(message))
        return heard

    def who_heard(self, message: str) -> list[str]:
        heard = self.hear()
        assert all(messages in ([], [message]) for messages in heard.values())
        return [who for who, messages in heard.items() if messages]

    def ws(self, who: str) -> WebSocket:
        user, path = who.split()
        route = self.a if path.startswith("/a") else self.b
        (found,) = (ws for ws in route.user(user).local() if ws.request.path == path)
        return found


@pytest.fixture
def crowd(serve: Serve) -> Any:
    with contextlib.ExitStack() as stack:
        yield Crowd(serve, stack)


def runtime_of(sockets: WebSockets) -> Runtime:
    sidecar = sockets._front.sidecar
    assert sidecar is not None
    return sidecar.ensure()


# --- who hears -----------------------------------------------------------------------------------

AUDIENCES: list[tuple[str, Callable[[Crowd], Audience[WebSocket]], list[str]]] = [
    ("a room of a route", lambda c: c.a.room("1"), ["ann /a/1", "bob /a/1"]),
    ("a room by number", lambda c: c.a.room(1), ["ann /a/1", "bob /a/1"]),
    ("a room of all routes", lambda c: c.sockets.room("1"), ["ann /a/1", "ann /b/1", "bob /a/1"]),
    ("a user of a route", lambda c: c.a.user("ann"), ["ann /a/1", "ann /a/2"]),
    ("a user of all routes", lambda c: c.sockets.user("ann"), ["ann /a/1", "ann /a/2", "ann /b/1"]),
    ("everyone of a route", lambda c: c.b.everyone, ["ann /b/1", "bob /b/2"]),
    ("everyone", lambda c: c.sockets.everyone, WHO),
    ("one socket", lambda c: c.sockets.socket(c.ws("bob /b/2").id), ["bob /b/2"]),
    ("an empty room", lambda c: c.a.room("9"), []),
    ("nobody", lambda c: c.sockets.user("eve"), []),
    ("no socket", lambda c: c.sockets.socket("gone-1"), []),
]


@pytest.mark.parametrize(
    ("audience", "who"), [each[1:] for each in AUDIENCES], ids=[each[0] for each in AUDIENCES]
)
def test_an_audience_reaches_its_own_and_nobody_else(
    crowd: Crowd, audience: Callable[[Crowd], Audience[WebSocket]], who: list[str]
) -> None:
    found = audience(crowd)
    assert found.count() == len(who)
    assert sorted(f"{ws.user.id} {ws.request.path}" for ws in found.local()) == sorted(who)
    assert found.send("x").result(5) == Sent(local=len(who))
    assert crowd.who_heard("x") == who


def test_a_parameter_called_room_is_the_first_room(crowd: Crowd) -> None:
    assert crowd.ws("ann /a/2").rooms == {"2"}
    assert crowd.ws("bob /b/2").rooms == {"2"}


@pytest.mark.parametrize(
    ("path", "url", "room"),
    [
        ("/<room>", "/caf%C3%A9", "café"),
        ("/<path:room>", "/a/b", "a/b"),
        ("/<uuid:room>", f"/{UUID(int=7)}", str(UUID(int=7))),
        ("/<int:room>", "/007", "7"),
        ("/<float:room>", "/1.5", "1.5"),
    ],
)
def test_a_room_from_the_path_is_text_whatever_its_converter(
    serve: Serve, path: str, url: str, room: str
) -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route(path)
    with connect(serve(sockets), url, open_timeout=3) as client:
        (ws,) = route.everyone.local()
        assert ws.rooms == {room}
        route.room(room).send("x")
        assert client.recv(5) == "x"


# --- exclude -------------------------------------------------------------------------------------


def test_exclude_takes_a_websocket_an_id_or_a_collection_of_these(crowd: Crowd) -> None:
    ann, bob = crowd.ws("ann /a/1"), crowd.ws("bob /b/2")
    for exclude, left_out in (
        (ann, {"ann /a/1"}),
        (ann.id, {"ann /a/1"}),
        ([ann, bob.id], {"ann /a/1", "bob /b/2"}),
        ({ann.id, bob.id}, {"ann /a/1", "bob /b/2"}),
        ((bob,), {"bob /b/2"}),
        (None, set()),
        ([], set()),
        ("no such id", set()),
        (crowd.a.user("ann").local(), {"ann /a/1", "ann /a/2"}),
    ):
        wanted = exclude if not isinstance(exclude, type(crowd.a.everyone.local())) else [*exclude]
        sent = crowd.sockets.everyone.send("x", exclude=wanted).result(5)
        assert sent.local == len(WHO) - len(left_out)
        assert set(crowd.who_heard("x")) == set(WHO) - left_out


@pytest.mark.parametrize("wrong", [1, 1.5, object(), b"id", [1], [[object()]], True])
def test_exclude_of_another_type_is_a_type_error(crowd: Crowd, wrong: Any) -> None:
    with pytest.raises(TypeError, match="exclude takes a websocket"):
        crowd.sockets.everyone.send("x", exclude=wrong)
    with pytest.raises(TypeError, match="exclude takes a websocket"):
        crowd.sockets.everyone.send_json({}, exclude=wrong)


def test_a_handler_sends_to_all_but_itself(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    chat = sockets.route("/chat/<int:room>")

    @chat.on_message
    def said(ws: WebSocket, message: str, room: int) -> None:
        chat.room(room).send_json({"text": message}, exclude=ws)

    served = serve(sockets)
    with connect(served, "/chat/1") as one, connect(served, "/chat/1") as two:
        one.send("from one")
        assert two.recv(5) == '{"text":"from one"}'
        two.send("from two")
        assert one.recv(5) == '{"text":"from two"}'


# --- from anywhere -------------------------------------------------------------------------------


def test_from_a_coroutine_on_another_loop(crowd: Crowd) -> None:
    async def elsewhere() -> Sent:
        return await crowd.b.everyone.send_json([1])

    assert asyncio.run(elsewhere()) == Sent(2)
    assert crowd.who_heard("[1]") == ["ann /b/1", "bob /b/2"]


def test_from_the_sockets_own_loop_the_receipt_is_ready(serve: Serve) -> None:
    outcome: Future[tuple[bool, Sent]] = Future()
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")

    @route
    async def handler(ws: WebSocket) -> None:
        receipt = route.everyone.send("x")
        outcome.set_result((receipt.done, await receipt))
        await ws.wait_closed()

    with connect(serve(sockets)) as client:
        assert client.recv(5) == "x"
    assert outcome.result(5) == (True, Sent(1))


def test_many_threads_at_once_each_in_its_order(crowd: Crowd) -> None:
    def work(name: str) -> None:
        for number in range(50):
            crowd.sockets.everyone.send(f"{name}{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for messages in crowd.hear().values():
        for name in "abcd":
            own = [each for each in messages if each[0] == name]
            assert own == [f"{name}{number}" for number in range(50)]


def test_a_room_joined_in_a_thread_is_reached_by_what_it_sends_next(crowd: Crowd) -> None:
    for number in range(50):
        crowd.ws("ann /b/1").join(f"room {number}")
        assert crowd.sockets.room(f"room {number}").send("x").result(5).local == 1


def test_without_a_door_there_is_nobody_and_no_error() -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")
    assert route.everyone.send("x").result(1) == Sent(0)
    assert sockets.user("ann").close().result(1) == Sent(0)
    assert list(sockets.everyone.local()) == []
    assert sockets.everyone.count() == 0


def test_a_callback_of_a_receipt_may_send(crowd: Crowd, caplog: pytest.LogCaptureFixture) -> None:
    go = threading.Event()
    everyone = crowd.sockets.everyone
    runtime_of(crowd.sockets).run(lambda: go.wait(5))  # so that all are under way
    receipt = everyone.send("first")
    receipt.add_done_callback(lambda: everyone.send("from the callback"))
    others = [everyone.send("second"), everyone.send("third")]
    go.set()
    for each in (receipt, *others):
        assert each.result(5) == Sent(5)
    for messages in crowd.hear().values():
        assert sorted(messages) == ["first", "from the callback", "second", "third"]
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


# --- what is sent --------------------------------------------------------------------------------


def test_a_message_is_encoded_once_for_all(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[EncodedMessage] = []

    class Counted(EncodedMessage):
        __slots__ = ()

        def __init__(self, message: Any) -> None:
            super().__init__(message)
            made.append(self)

    monkeypatch.setattr(audience_module, "EncodedMessage", Counted)
    crowd.sockets.everyone.send("x").result(5)
    assert len(made) == 1
    assert list(made[0].frames.values()) == [b"\x81\x01x"]


def test_what_is_wrong_with_a_message_is_raised_at_once(crowd: Crowd) -> None:
    everyone = crowd.sockets.everyone
    with pytest.raises(TypeError, match="send_json"):
        everyone.send({"a": 1})  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        everyone.send("\ud800")
    with pytest.raises(TypeError):
        everyone.send_json(object())
    with pytest.raises(ValueError):
        everyone.send_json(float("inf"))
    assert all(messages == [] for messages in crowd.hear().values())


def test_binary_and_text(crowd: Crowd) -> None:
    crowd.sockets.socket(crowd.ws("bob /b/2").id).send(b"\x00\xff")
    crowd.sockets.socket(crowd.ws("bob /b/2").id).send("é")
    client = crowd.clients["bob /b/2"]
    assert [client.recv(5), client.recv(5)] == [b"\x00\xff", "é"]


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 1.5, b"x", True, ["x"], object()])
def test_names_of_another_type_are_a_type_error_that_says_so(wrong: Any) -> None:
    sockets = WebSockets(auth=Anonymous())
    route = sockets.route("/")
    for owner in (sockets, route):
        with pytest.raises(TypeError, match="room must be str, int or UUID"):
            owner.room(wrong)
        with pytest.raises(TypeError, match="user id must be str, int or UUID"):
            owner.user(wrong)
    with pytest.raises(TypeError, match="socket id must be str, int or UUID"):
        sockets.socket(wrong)


@pytest.mark.parametrize("wrong", ["", "x" * 256, "é" * 128, "a\x00", "a\nb", "a\x85", "\ud800"])
def test_what_can_be_no_name_is_a_value_error(wrong: str) -> None:
    sockets = WebSockets(auth=Anonymous())
    for method in (sockets.room, sockets.user, sockets.socket):
        with pytest.raises(ValueError, match="1 to 255 bytes"):
            method(wrong)


def test_a_user_in_place_of_its_id_is_named(crowd: Crowd) -> None:
    with pytest.raises(TypeError, match=r"did you mean user\.id\?"):
        crowd.sockets.user(crowd.ws("ann /a/1").user)  # type: ignore[arg-type]


def test_numbers_and_uuids_become_text(serve: Serve) -> None:
    number = UUID(int=7)
    sockets = WebSockets(auth=lambda request: 42)
    sockets.route("/")
    with connect(serve(sockets)) as client:
        (ws,) = sockets.user(42).local()
        ws.join(number)
        assert ws.rooms == {str(number)}
        sockets.room(number).send("x")
        assert client.recv(5) == "x"


def test_the_anonymous_are_in_no_user_audience(serve: Serve) -> None:
    sockets = WebSockets(auth=Anonymous())
    sockets.route("/")
    with connect(serve(sockets)):
        assert sockets.everyone.count() == 1
        with pytest.raises(ValueError):
            sockets.user("")


# --- closing -------------------------------------------------------------------------------------


def test_close_reaches_every_tab_of_a_user_with_its_code(crowd: Crowd) -> None:
    assert crowd.sockets.user("ann").close(4403, "banned").result(5) == Sent(3)
    for who, client in crowd.clients.items():
        if who.startswith("ann"):
            assert end_of(client) == (4403, "banned")
    until(lambda: crowd.sockets.user("ann").count() == 0)
    assert crowd.sockets.everyone.count() == 2


def test_close_over_time_spreads(crowd: Crowd) -> None:
    ends: dict[str, float] = {}

    def watch(who: str) -> None:
        assert end_of(crowd.clients[who]) == (1012, "restart")
        ends[who] = time.monotonic()

    threads = [threading.Thread(target=watch, args=(who,)) for who in WHO]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    assert crowd.sockets.everyone.close(1012, "restart", over=0.5).result(5) == Sent(5)
    assert 0.35 < time.monotonic() - begun < 1.5
    for thread in threads:
        thread.join(5)
    moments = sorted(ends.values())
    assert len(moments) == 5
    assert moments[-1] - moments[0] > 0.3
    assert max(b - a for a, b in itertools.pairwise(moments)) < 0.35


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (1006, ""), (999, ""), (1000, "x" * 124)])
def test_a_code_or_reason_that_may_not_be_sent_is_a_value_error_at_once(
    crowd: Crowd, code: int, reason: str
) -> None:
    with pytest.raises(ValueError):
        crowd.sockets.everyone.close(code, reason)
    crowd.sockets.everyone.send("all still here")
    assert crowd.who_heard("all still here") == WHO


# --- peers that break ----------------------------------------------------------------------------


def break_by_reset(peer: RawPeer) -> None:
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()


def break_by_not_reading(peer: RawPeer) -> None:
    """Take nothing until the end of the test."""


def break_by_half_close(peer: RawPeer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("how", [break_by_reset, break_by_not_reading, break_by_half_close])
def test_a_broken_peer_does_not_keep_others_from_their_messages(
    serve: Serve, how: Callable[[RawPeer], None], caplog: pytest.LogCaptureFixture
) -> None:
    sockets = WebSockets(auth=Anonymous(), limits=Limits(outbound_bytes=256 * 1024))
    route = sockets.route("/")
    served = serve(sockets)
    heard: list[int] = []

    def listen(client: ClientConnection) -> None:
        while (message := client.recv(5)) != "end":
            heard.append(len(message))

    with connect(served) as first, served.peer() as peer, connect(served) as last:
        peer.upgrade()
        listeners = [threading.Thread(target=listen, args=(each,)) for each in (first, last)]
        for listener in listeners:
            listener.start()
        how(peer)
        for _ in range(100):
            route.everyone.send(b"x" * 100_000).result(5)
            time.sleep(0.001)
        route.everyone.send("end")
        for listener in listeners:
            listener.join(5)
        assert heard == [100_000] * 200
        until(lambda: route.everyone.count() == 2)
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


def test_a_link_that_raises_does_not_keep_others_from_their_messages(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = crowd.ws("ann /a/1")

    class Broken:
        def deliver(self, message: EncodedMessage) -> None:
            raise OSError

        def __getattr__(self, name: str) -> Any:
            return getattr(link, name)

    link, broken.link = broken.link, Broken()
    receipt = crowd.sockets.everyone.send("x")
    assert receipt.result(5).local in {4, 5}
    broken.link = link
    assert set(crowd.who_heard("x")) >= set(WHO) - {"ann /a/1"}


# --- what nobody can send ------------------------------------------------------------------------

OUTBOUND_BYTES = 1000
MESSAGE_SIZE = 300_000


class Room:
    """Two who listen in a room, and every place from which something can be sent to it."""

    def __init__(self, serve: Serve, stack: contextlib.ExitStack) -> None:
        limits = Limits(outbound_bytes=OUTBOUND_BYTES, message_size=MESSAGE_SIZE)
        self.sockets = WebSockets(auth=Anonymous(), limits=limits)
        self.everyone = self.sockets.route("/listen").everyone
        self.act: Callable[[Audience[WebSocket]], object]
        self.outcome: SimpleQueue[Exception | None] = SimpleQueue()
        self.sockets.route("/a conversation")(self._in_conversation)
        self.sockets.route("/a def conversation")(self._in_def_conversation)
        self.sockets.route("/an event").on_message(self._in_event)
        self.sockets.route("/a def event").on_message(self._in_def_event)
        self.sockets.route("/json")(self._pass_on)
        self.sockets.route("/json in a thread")(self._pass_on_in_thread)
        self.sockets.route("/json.loads").on_message(self._pass_on_without_care)
        self.served = serve(self.sockets)
        self._listeners = [stack.enter_context(connect(self.served, "/listen")) for _ in range(2)]

    def hear(self) -> list[list[str]]:
        """Return what each has heard; the last is the next message, which must come."""
        self.everyone.send("next").result(5)
        heard: list[list[str]] = []
        for client in self._listeners:
            heard.append([])
            while not heard[-1] or heard[-1][-1] != "next":
                heard[-1].append(str(client.recv(5)))
        return heard

    def do(self, where: str, act: Callable[[Audience[WebSocket]], object]) -> Exception | None:
        """Do it there, and return what it raised."""
        self.act = act
        if where == "a view":
            threading.Thread(target=self._try).start()
            return self.outcome.get(timeout=5)
        with connect(self.served, f"/{quote(where)}") as client:
            client.send("now")
            return self.outcome.get(timeout=5)

    def _try(self) -> None:
        try:
            self.act(self.everyone)
        except Exception as error:
            self.outcome.put(error)
        else:
            self.outcome.put(None)

    async def _in_conversation(self, ws: WebSocket) -> None:
        await ws.receive()
        self._try()

    def _in_def_conversation(self, ws: BlockingWebSocket) -> None:
        ws.receive()
        self._try()

    async def _in_event(self, ws: WebSocket, message: str) -> None:
        self._try()

    def _in_def_event(self, ws: WebSocket, message: str) -> None:
        self._try()

    async def _pass_on(self, ws: WebSocket) -> None:
        while True:
            self.everyone.send_json(await ws.receive_json())

    def _pass_on_in_thread(self, ws: BlockingWebSocket) -> None:
        while True:
            self.everyone.send_json(ws.receive_json())

    def _pass_on_without_care(self, ws: WebSocket, message: str) -> None:
        self.everyone.send_json(json.loads(message))


@pytest.fixture
def room(serve: Serve) -> Any:
    with contextlib.ExitStack() as stack:
        yield Room(serve, stack)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


PLACES = ["a view", "a conversation", "a def conversation", "an event", "a def event"]

UNSENDABLE: dict[str, tuple[Callable[[Audience[WebSocket]], object], type[Exception]]] = {
    "a lone surrogate": (lambda room: room.send("\ud800"), ValueError),
    "no text and no bytes": (lambda room: room.send([]), TypeError),  # type: ignore[arg-type]
    "one byte too many": (lambda room: room.send(b"x" * (OUTBOUND_BYTES + 1)), MessageTooBig),
    "NaN": (lambda room: room.send_json(float("nan")), ValueError),
    "Infinity": (lambda room: room.send_json([float("inf")]), ValueError),
    "1e999": (lambda room: room.send_json({"a": 1e999}), ValueError),
    "a lone surrogate in JSON": (lambda room: room.send_json(["\udfff"]), ValueError),
    "an object": (lambda room: room.send_json({"a": object()}), TypeError),
    "nested too deep": (lambda room: room.send_json(nested(100_000)), ValueError),
}


@pytest.mark.parametrize("where", PLACES)
def test_what_cannot_be_sent_is_the_callers_error_and_all_get_the_next_message(
    room: Room, where: str
) -> None:
    for name, (act, error) in UNSENDABLE.items():
        raised = room.do(where, act)
        assert isinstance(raised, error), f"{name}: {raised!r}"
        assert room.hear() == [["next"]] * 2, name


@pytest.mark.parametrize("where", PLACES)
def test_a_callback_that_raises_keeps_nobody_from_the_next_message(
    room: Room, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        msg = "a bug of the app's"
        raise LookupError(msg)

    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait(5)

    def send(audience: Audience[WebSocket]) -> None:
        # Not done when it gets its callback: from the loop's own thread it would be.
        runtime = runtime_of(room.sockets)
        if not runtime.is_current():
            runtime.run(hold)
            assert held.wait(5)
        receipt = audience.send("x")
        if not receipt.done:
            receipt.add_done_callback(fail)
        go.set()

    assert room.do(where, send) is None
    assert room.hear() == [["x", "next"]] * 2
    failures = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert all(each.exc_info and isinstance(each.exc_info[1], LookupError) for each in failures)
    assert len(failures) == (0 if where in {"a conversation", "an event"} else 1)


FROM_CLIENTS: dict[str, tuple[bytes, tuple[int, bytes]]] = {
    "NaN": (frame(TEXT, b'{"a":NaN}'), (1007, b"bad_message")),
    "Infinity": (frame(TEXT, b"Infinity"), (1007, b"bad_message")),
    "-Infinity": (frame(TEXT, b"[-Infinity]"), (1007, b"bad_message")),
    "1e999": (frame(TEXT, b"1e999"), (1007, b"bad_message")),
    "100,000 brackets": (frame(TEXT, b"[" * 100_000), (1007, b"bad_message")),
    "100,000 lists": (frame(TEXT, b"[" * 100_000 + b"]" * 100_000), (1007, b"bad_message")),
    "a lone surrogate": (frame(TEXT, b'"\\ud800"'), (1007, b"bad_message")),
    "no UTF-8 as binary": (frame(BINARY, b'"\xff"'), (1007, b"bad_message")),
    "no UTF-8 as text": (frame(TEXT, b'"\xff"'), (1007, b"")),
    "too big": (frame(TEXT, b"x" * (MESSAGE_SIZE + 1)), (1009, b"")),
    "too big to pass on": (frame(TEXT, b'"' + b"x" * OUTBOUND_BYTES + b'"'), (1011, b"")),
}


@pytest.mark.parametrize("path", ["/json", "/json%20in%20a%20thread"])
@pytest.mark.parametrize(("sent", "end"), FROM_CLIENTS.values(), ids=FROM_CLIENTS)
def test_what_a_client_may_not_send_ends_that_client_and_all_others_get_the_next_message(
    room: Room, path: str, sent: bytes, end: tuple[int, bytes]
) -> None:
    with room.served.peer() as peer:
        peer.upgrade(path)
        peer.send(frame(TEXT, b'{"a":1}') + sent)
        got = peer.read_frame()
    assert (got.opcode, got.close_code) == (CLOSE, end[0])
    assert got.payload[2:].startswith(end[1])
    assert room.hear() == [['{"a":1}', "next"]] * 2


@pytest.mark.parametrize("sent", ["NaN", "[Infinity]", "1e999", '"\\ud800"'])
def test_what_json_loads_lets_in_does_not_get_out(room: Room, sent: str) -> None:
    with connect(room.served, "/json.loads") as client:
        client.send(sent)
        assert end_of(client)[0] == 1011
    assert room.hear() == [["next"]] * 2


# --- the registry --------------------------------------------------------------------------------


def test_the_registry_is_empty_when_all_are_gone(serve: Serve) -> None:
    with contextlib.ExitStack() as stack:
        crowd = Crowd(serve, stack)
        runtime = runtime_of(crowd.sockets)
        crowd.ws("ann /a/1").join("another")
        crowd.ws("ann /a/2").terminate()
        crowd.b.everyone.close()
        crowd.clients["bob /a/1"].socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not len(runtime.registry))
    assert list(runtime.registry.addresses) == []
    until(lambda: not runtime.links)
    until(lambda: not runtime._tasks)
    engine = crowd.sockets._front.engine
    assert engine is not None
    assert engine._servers == {}
    assert engine.gate.counts == (0, 0, 0)
    until(lambda: len(runtime.wheel) == 0)


def test_a_socket_that_has_left_is_reached_no_more(crowd: Crowd) -> None:
    ws = crowd.ws("ann /a/1")
    crowd.clients["ann /a/1"].close()
    until(lambda: ws.closed)
    assert crowd.sockets.socket(ws.id).send("x").result(5) == Sent(0)
    assert crowd.sockets.user("ann").count() == 2


def test_an_audience_can_be_kept_and_shown(crowd: Crowd) -> None:
    kept = crowd.a.room("late")
    assert repr(kept) == "<Audience room:late:/a/*>"
    assert kept.count() == 0
    crowd.ws("bob /b/2").join("late")
    assert kept.count() == 0  # that one is on another route
    crowd.ws("bob /a/1").join("late")
    assert kept.send("x").result(5) == Sent(1)


def test_routes_and_audiences_have_their_types() -> None:
    sockets = WebSockets(auth=Anonymous())
    route: Route = sockets.route("/")
    receipt: Receipt[Sent] = route.everyone.send("x")
    assert isinstance(receipt, Receipt)
