"""A link over a transport and a loop that the test drives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.net.fakes import FakeLoop, FakeTransport
from tests.support import BINARY, CONTINUATION, PING, TEXT, close_frame, frame, head
from ws_middleware import Anonymous, Heartbeat, Limits, Principal, ServerLimits, WebSockets
from ws_middleware.core.session import Session
from ws_middleware.net.link import SocketLink
from ws_middleware.net.runtime import FLUSH, Runtime
from ws_middleware.websocket import WebSocket

if TYPE_CHECKING:
    from ws_middleware.core.events import Closed, RefusedBySession
    from ws_middleware.types import UpgradeRequest


class Transport(FakeTransport):
    """One that also says what it was told of reading and of ends."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 5000) if name == "peername" else None

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")


class Accepting:
    """Lets everybody in."""

    def __init__(self, **limits: Any) -> None:
        sockets = WebSockets(
            auth=Anonymous(), limits=Limits(**limits), heartbeat=Heartbeat(interval=30, timeout=20)
        )
        self.route = sockets.route("/")
        self.policy = sockets._front.resolve(self.route).policy
        self.closes: list[Closed] = []
        self.refusals: list[str] = []
        self.unread = 0
        self.accepts = True
        self.request: UpgradeRequest | None = None

    def new_session(self, client: tuple[str, int] | None, now: float) -> Session:
        return Session(ServerLimits(), now=now, ping_payload=b"ping", client=client)

    def decide(self, link: SocketLink, request: UpgradeRequest, now: float) -> None:
        self.request = request
        if self.accepts:
            self.accept(link)

    def accept(self, link: SocketLink) -> None:
        assert self.request is not None
        websocket = WebSocket(
            id="1",
            link=link,
            route=self.route,
            request=self.request,
            user=Principal(""),
            subprotocol=None,
            limits=self.policy.limits,
        )
        link.accept(websocket, self.policy, (), None)
        link.begin()

    def refused(self, link: SocketLink, event: RefusedBySession, now: float) -> None:
        self.refusals.append(event.refusal.code)

    def warn_unread(self, websocket: WebSocket, seconds: float) -> None:
        self.unread += 1

    def closed(self, link: SocketLink, websocket: WebSocket, event: Closed) -> None:
        self.closes.append(event)
        websocket.ended(event.code, event.reason, by_us=event.by == "us")


class Linked:
    """An open connection, or one that waits for the verdict."""

    def __init__(
        self,
        loop: FakeLoop,
        runtime: Runtime | None = None,
        *,
        accepts: bool = True,
        **limits: Any,
    ) -> None:
        self.loop = loop
        self.runtime = runtime or Runtime(loop.as_loop)
        self.engine = Accepting(**limits)
        self.engine.accepts = accepts
        self.link = SocketLink(cast("Any", self.engine), self.runtime)
        self.transport = Transport()
        self.link.connection_made(self.transport.as_transport)
        self.feed(head("/"))
        self.turn()
        if accepts:
            assert self.transport.writes.pop().startswith(b"HTTP/1.1 101")

    @property
    def websocket(self) -> WebSocket:
        assert self.link._websocket is not None
        return self.link._websocket

    def feed(self, data: bytes) -> None:
        self.link.get_buffer(-1)[: len(data)] = data
        self.link.buffer_updated(len(data))

    def turn(self) -> None:
        self.loop.turn()

    def take(self) -> list[str | bytes]:
        """Take what has come, as a handler does."""
        taken = []
        while self.websocket.inbox:
            taken.append(self.websocket.inbox.take())
            self.link.resume()
        self.websocket.inbox.in_hand = False
        self.link.resume()
        return taken


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> FakeLoop:
    return FakeLoop(monkeypatch)


def test_messages_that_there_is_room_for_ask_nothing_of_the_transport(loop: FakeLoop) -> None:
    it = Linked(loop)
    it.feed(frame(TEXT, b"one") + frame(BINARY, b"two"))
    it.turn()
    assert it.take() == ["one", b"two"]
    assert (it.transport.told, it.transport.writes) == ([], [])
    assert it.link.taken == 2


def test_a_full_inbox_pauses_reading_until_half_of_it_is_taken(loop: FakeLoop) -> None:
    it = Linked(loop, inbound_messages=4)
    it.feed(frame(TEXT, b"x") * 10)
    assert it.transport.told == ["pause"]
    assert len(it.websocket.inbox) == 4
    assert len(it.take()) == 10
    assert it.transport.told[-1] == "resume"


def test_an_inbox_that_the_last_message_of_a_read_has_filled_pauses_reading(loop: FakeLoop) -> None:
    it = Linked(loop, inbound_messages=4)
    it.feed(frame(TEXT, b"x") * 4)
    assert it.transport.told == ["pause"]
    assert len(it.take()) == 4
    assert it.transport.told == ["pause", "resume"]


def test_one_peer_gets_256_events_a_turn_and_is_not_read_meanwhile(loop: FakeLoop) -> None:
    it = Linked(loop, inbound_messages=10_000)
    it.feed(frame(TEXT, b"x") * 600)
    assert (it.link.taken, it.transport.told) == (256, ["pause"])
    it.turn()
    assert (it.link.taken, it.transport.told) == (512, ["pause"])
    it.turn()
    assert (it.link.taken, it.transport.told) == (600, ["pause", "resume"])
    assert not loop.ready


def in_fragments(count: int) -> bytes:
    begun = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * (count - 2)
    return begun + frame(CONTINUATION)


def test_messages_in_many_fragments_are_fewer_a_turn(loop: FakeLoop) -> None:
    it = Linked(loop, inbound_messages=10_000)
    it.feed(in_fragments(400) * 8)
    assert (it.link.taken, it.transport.told) == (3, ["pause"])
    it.turn()
    assert (it.link.taken, it.transport.told) == (6, ["pause"])
    it.turn()
    assert (it.link.taken, it.transport.told) == (8, ["pause", "resume"])
    assert not loop.ready


def test_fragments_after_our_close_hold_nobody_up_either(loop: FakeLoop) -> None:
    it = Linked(loop)
    it.websocket.close()
    it.turn()
    it.feed(in_fragments(400) * 10 + close_frame(1000))
    assert it.transport.told == ["pause"]
    it.turn()
    assert it.transport.told == ["pause"]
    it.turn()
    assert it.transport.told == ["pause", "resume", "eof"]


def test_a_ping_is_answered_at_the_end_of_the_turn(loop: FakeLoop) -> None:
    it = Linked(loop)
    it.feed(frame(PING, b"you?") + frame(TEXT, b"x"))
    assert it.transport.writes == []
    it.turn()
    assert it.transport.writes == [b"\x8a\x04you?"]


def test_what_comes_before_the_verdict_is_read_up_to_a_bound(loop: FakeLoop) -> None:
    it = Linked(loop, accepts=False)
    it.feed(frame(TEXT, b"x" * 8000))
    assert it.transport.told == []
    it.feed(frame(TEXT, b"x" * 8500))
    assert it.transport.told == ["pause"]
    it.engine.accept(it.link)
    assert it.transport.told == ["pause", "resume"]
    assert it.link.taken == 2


def test_a_pong_that_had_to_wait_for_the_transport_goes_out_when_it_takes_more(
    loop: FakeLoop,
) -> None:
    it = Linked(loop)
    it.transport.size = 100_000
    it.link.pause_writing()
    it.feed(frame(PING, b"you?"))
    it.turn()
    assert it.transport.writes == []
    it.transport.size = 0
    it.link.resume_writing()
    it.turn()
    assert it.transport.writes == [b"\x8a\x04you?"]


def test_a_peer_is_not_dead_for_a_ping_that_was_never_sent(loop: FakeLoop) -> None:
    it = Linked(loop)
    loop.sleep_to(loop.now + 28)
    it.transport.size = 100_000
    it.link.pause_writing()
    loop.sleep_to(loop.now + 4)
    it.turn()
    it.transport.size = 0
    it.link.resume_writing()
    it.turn()
    assert [each[0] for each in it.transport.writes] == [0x89]


def test_pings_of_ours_go_out_at_their_time(loop: FakeLoop) -> None:
    it = Linked(loop)
    loop.sleep_to(loop.now + 31)
    it.turn()
    assert [each[0] for each in it.transport.writes] == [0x89]


def test_messages_put_off_no_deadline(loop: FakeLoop) -> None:
    it = Linked(loop)
    began = loop.now
    for second in range(1, 60):
        loop.sleep_to(began + second)
        it.feed(frame(TEXT, b"x"))
        it.turn()
        it.take()
    assert [each[0] for each in it.transport.writes] == [0x89]


def test_a_close_waits_for_the_messages_before_it_but_not_for_long(loop: FakeLoop) -> None:
    it = Linked(loop)
    it.feed(frame(TEXT, b"last") + close_frame(1000))
    it.turn()
    assert it.engine.closes == []
    assert it.take() == ["last"]
    it.turn()
    assert [each.code for each in it.engine.closes] == [1000]
    assert it.transport.writes == [b"\x88\x02\x03\xe8"]
    assert it.transport.told == ["eof"]

    it = Linked(loop)
    it.feed(frame(TEXT, b"never taken") + close_frame(1000))
    loop.sleep_to(loop.now + 1)
    assert [each.code for each in it.engine.closes] == [1000]


def test_nothing_is_written_to_a_connection_that_is_gone(loop: FakeLoop) -> None:
    it = Linked(loop)
    it.websocket.send("too late")
    it.link.connection_lost(None)
    it.turn()
    assert it.transport.writes == []
    assert [each.code for each in it.engine.closes] == [1006]


def test_so_many_links_are_written_to_in_a_turn_and_each_is_written_to_once(loop: FakeLoop) -> None:
    runtime = Runtime(loop.as_loop)
    all_of_them = [Linked(loop, runtime) for _ in range(2 * FLUSH + 1)]
    for each in all_of_them:
        each.websocket.send("one")
    for turn in range(1, 4):
        loop.turn()
        written = [each for each in all_of_them if each.transport.writes]
        assert len(written) == min(turn * FLUSH, len(all_of_them))
        for each in all_of_them:
            each.websocket.send(str(turn))
    while loop.ready:
        loop.turn()
    sent = b"\x81\x03one\x81\x011\x81\x012\x81\x013"
    assert all(b"".join(each.transport.writes) == sent for each in all_of_them)
    assert all_of_them[-1].transport.writes[0] == b"\x81\x03one\x81\x011\x81\x012"


def test_a_link_that_cannot_be_written_to_keeps_no_other_from_it(
    loop: FakeLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(loop.as_loop)
    broken, other = Linked(loop, runtime), Linked(loop, runtime)

    def write(_: bytes) -> None:
        msg = "Cannot call write() after write_eof()"
        raise RuntimeError(msg)

    monkeypatch.setattr(broken.transport, "write", write)
    for each in (broken, other):
        each.websocket.send("x")
    with pytest.raises(RuntimeError, match="write_eof"):  # asyncio logs it, and turns on
        loop.turn()
    loop.turn()
    assert other.transport.writes == [b"\x81\x01x"]
    other.websocket.send("y")
    loop.turn()
    assert other.transport.writes[1:] == [b"\x81\x01y"]
