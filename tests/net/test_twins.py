"""A link looks only at what may have changed: it must never differ from one that looks always."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.net.fakes import FakeLoop
from tests.net.test_link import Linked
from tests.support import BINARY, CONTINUATION, PING, PONG, TEXT, close_frame, frame
from ws_middleware.core.session import Session, State, Wants
from ws_middleware.net.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.core.events import Event


class Watchful(Session):
    """A session of which there is always news, and which has no more only if it has said so."""

    has_news = property(lambda _: True, lambda *_: None)

    def next_event(self, now: float, *, handled: bool = True) -> Event | None:
        event = super().next_event(now, handled=handled)
        self.is_drained = event is None
        return event


class Twin(Linked):
    """One of two connections to which the same happens."""

    def __init__(self, loop: FakeLoop, *, watchful: bool) -> None:
        #: What the app has seen and done, in order.
        self.seen: list[Any] = []
        self.is_lost = False
        self.is_busy = False
        super().__init__(
            loop, Runtime(loop.as_loop), accepts=False, inbound_messages=4, message_size=2000
        )
        if watchful:
            self.link._session.__class__ = Watchful

    @property
    def is_served(self) -> bool:
        return self.link._websocket is not None

    def feed(self, data: bytes) -> None:
        for at in range(0, len(data), 60_000):
            # A transport does not read for a protocol that has paused it.
            if self.is_lost or self.reading == ["pause"]:
                self.seen.append("not read")
                return
            super().feed(data[at : at + 60_000])

    @property
    def reading(self) -> list[str]:
        return [each for each in self.transport.told if each in {"pause", "resume"}][-1:]

    # --- what may happen ---------------------------------------------------------------------

    def accept(self) -> None:
        if self.engine.request is not None and self.link.is_deciding:
            self.engine.accept(self.link)
            self.websocket.inbox.on_message = self.come

    def come(self) -> None:
        """Do what a message asks for, from inside of the link."""
        inbox = self.websocket.inbox
        if self.is_busy or not inbox:
            return
        message = inbox.messages[-1]
        if message == "close":
            self.websocket.close(4000, "asked")
        elif message == "say":
            self.websocket.send("said")
        elif message == "take":
            self.take_one()
        elif message == "ping":
            self.websocket.ping()

    def take_one(self) -> None:
        self.is_busy = True
        if self.is_served and self.websocket.inbox:
            self.seen.append(self.websocket.inbox.take())
            self.link.resume()
        self.is_busy = False

    def come_back(self) -> None:
        if self.is_served and not self.websocket.inbox:
            self.websocket.inbox.in_hand = False
            self.link.resume()

    def take_all(self) -> None:
        while self.is_served and self.websocket.inbox:
            self.take_one()
        self.come_back()

    def send(self, message: str | bytes) -> None:
        if self.is_served:
            self.seen.append(self.websocket.send(message).done)

    def close(self) -> None:
        if self.is_served:
            self.websocket.close(4001)

    def push_back(self) -> None:
        if not self.is_lost and not self.link.out._paused:
            self.transport.size = 100_000
            self.link.pause_writing()

    def take_more(self) -> None:
        if not self.is_lost and self.link.out._paused:
            self.transport.size = 0
            self.link.resume_writing()

    def end(self) -> None:
        if not self.is_lost and not self.link._eof:
            self.link.eof_received()

    def lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.link.connection_lost(None)

    # --- how it is -----------------------------------------------------------------------------

    @property
    def outside(self) -> Any:
        """All that can be told from outside."""
        link = self.link
        return (
            [each.rpartition(b"\r\n\r\n")[2] for each in self.transport.writes],
            self.transport.told,
            (self.engine.closes, self.engine.refusals, self.engine.unread),
            self.seen,
            (link.taken, link.sent, link._session.state, link._unread_since),
            (link._armed, link._due()),
            [list(self.websocket.inbox.messages), self.websocket.latency] if self.is_served else [],
        )

    def check(self) -> None:
        """What must be so when a turn is over and nothing is due to run."""
        link, session = self.link, self.link._session
        if self.is_lost:
            return
        assert (self.reading == ["pause"]) is (session.wants is Wants.HOLD)
        due = link._due()
        assert due is None or (link._armed is not None and link._armed <= due)
        if session.state is not State.OPEN or not link.out._paused:
            assert not session.has_output


def framed(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    return frame(opcode, payload, key=b"\x37\xfa\x21\x3d", fin=fin)


#: More than is read before the verdict, and more than a full inbox.
FILL = [framed(TEXT, b"z" * 1900)] * 10
#: More than one turn has for a peer.
MANY = [framed(TEXT, b"take")] * 600
ASK = framed(PING, b"you?")
END = close_frame(1000)

FRAMES = [
    *[framed(TEXT, each) for each in (b"x", b"", b"close", b"say", b"take", b"ping")],
    framed(TEXT, b"y" * 1900),
    framed(BINARY, b"\x00"),
    framed(BINARY, b"begun", fin=False),
    framed(CONTINUATION, b"ended"),
    framed(PING, b""),
    ASK,
    framed(PONG, b"ping\x00\x00\x00\x01"),
    END,
    b"".join(MANY),
    b"".join(FILL),
]


def feed(frames: list[bytes], cut: int) -> Callable[[Twin], None]:
    """Return what has frames read in two pieces; the first ends so many bytes before the end."""
    data = b"".join(frames)

    def step(twin: Twin) -> None:
        for piece in (data[:-cut], data[-cut:]):
            if piece:
                twin.feed(piece)

    return step


FEEDS = st.builds(
    feed, st.lists(st.sampled_from(FRAMES), min_size=1, max_size=5), st.integers(1, 9)
)
CALLS = st.sampled_from(
    [
        Twin.accept,
        Twin.take_one,
        Twin.take_all,
        Twin.come_back,
        Twin.push_back,
        Twin.take_more,
        lambda twin: twin.send("a"),
        lambda twin: twin.send(b"b" * 70_000),
        lambda twin: twin.is_served and twin.websocket.ping(),
        Twin.close,
        Twin.end,
        Twin.lose,
    ]
)
STEPS = st.one_of(FEEDS, CALLS, st.sampled_from([0.1, 0.6, 4.0, 31.0, 130.0]))


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(is_quick=st.booleans(), steps=st.lists(st.tuples(STEPS, st.booleans()), max_size=20))
@example(is_quick=False, steps=[(feed(FILL, 1), True), (Twin.accept, True)])
@example(is_quick=True, steps=[(feed(MANY, 1), True), (feed([END], 1), True)])
@example(is_quick=True, steps=[(feed(FILL, 1), True), (31.0, True), (Twin.take_all, True)])
@example(is_quick=True, steps=[(feed(FILL, 0), True), (Twin.end, True)])
@example(is_quick=True, steps=[(Twin.close, True), (feed([*MANY, END], 7), True)])
@example(
    is_quick=True, steps=[(Twin.push_back, True), (feed([ASK], 1), True), (Twin.take_more, True)]
)
def test_a_link_that_looks_only_at_news_does_what_one_does_that_always_looks(
    is_quick: bool,  # noqa: FBT001
    steps: list[tuple[Any, bool]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        loop = FakeLoop(patch)
        twins = [Twin(loop, watchful=False), Twin(loop, watchful=True)]
        for step, rests in [(Twin.accept, True)] * is_quick + steps:
            if isinstance(step, float):
                loop.sleep_to(loop.now + step)
            else:
                for twin in twins:
                    step(twin)
            while rests and loop.ready:
                loop.turn()
            assert twins[0].outside == twins[1].outside
            if not loop.ready:
                twins[0].check()
