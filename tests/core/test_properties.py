from __future__ import annotations

from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Close
from websockets.frames import Frame as TheirFrame
from websockets.protocol import CLIENT, Protocol
from websockets.protocol import State as TheirState
from websockets.server import ServerProtocol

from tests.core.drive import (
    HEARTBEAT,
    NONCE,
    T0,
    frames_of,
    limits,
    new_session,
    policy,
    pull_all,
    split_answer,
    whole,
)
from tests.support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close_frame,
    frame,
    head,
)
from ws_middleware.config import ServerLimits
from ws_middleware.core.encoding import encode, encode_close, encode_ping
from ws_middleware.core.events import Closed, PongReceived, RefusedBySession
from ws_middleware.core.framing import Failed, Framing, PeerClosed, PeerPinged, PeerPonged
from ws_middleware.core.handshake import HeadReader, accept_bytes, refusal_bytes
from ws_middleware.core.session import Session, SessionStateError, State, Wants
from ws_middleware.types import Refusal, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ws_middleware.core.events import Event
    from ws_middleware.core.framing import Frame as OurFrame

FIXED = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

#: Small, so that they are met often.
SMALL_HEAD = ServerLimits(head_size=200, head_fields=4)
SMALL = limits(message_size=200, fragments=4)
HEAD = head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==")


# --- bytes ---------------------------------------------------------------------------------------


def rarely(usual: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 12 + list(others))


PAYLOADS = st.one_of(
    st.text(max_size=10).map(str.encode),
    st.binary(max_size=10),
    st.integers(115, 210).map(lambda size: b"x" * size),
)

#: Frames with everything that can be wrong with one.
FRAMES = st.builds(
    frame,
    st.sampled_from([TEXT, BINARY, CONTINUATION] * 4 + [PING, PONG, CLOSE, 0x3, 0xB]),
    st.one_of(PAYLOADS, st.just(b"\x03\xe8"), st.just(b"\x03\xf6bye")),
    fin=st.sampled_from([True, True, False]),
    key=rarely(b"\x37\xfa\x21\x3d", None, bytes(4)),
    rsv=rarely(0, 1, 2, 4),
    length=rarely(None, 0, 300, 70_000, 2**62, 2**63),
)
WILD_STREAMS = st.lists(FRAMES, max_size=8).map(b"".join)

KEYS = st.binary(min_size=4, max_size=4)
CONTROLS = st.lists(
    st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125), KEYS), max_size=2
)


def fragments_of(payload: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(payload[:size])
        payload = payload[size:]
    return [*pieces, payload]


@st.composite
def valid_streams(draw: st.DrawFn, times: tuple[int, ...] = (1,)) -> bytes:
    """Draw messages in fragments with control frames between them, and perhaps a close."""
    stream = []
    for _ in range(draw(st.integers(0, 5))):
        is_text = draw(st.booleans())
        payload = draw(st.text(max_size=12)).encode() if is_text else draw(st.binary(max_size=12))
        pieces = fragments_of(
            payload * draw(st.sampled_from(times)), draw(st.lists(st.integers(0, 9), max_size=3))
        )
        for i, piece in enumerate(pieces):
            opcode = CONTINUATION if i else TEXT if is_text else BINARY
            stream.append(frame(opcode, piece, fin=i == len(pieces) - 1, key=draw(KEYS)))
            for control, content, key in draw(CONTROLS):
                stream.append(frame(control, content, key=key))
    if draw(st.booleans()):
        code = draw(st.sampled_from([None, 1000, 1001, 1013, 1014, 3000, 4999]))
        reason = "" if code is None else draw(st.text(max_size=20))
        stream.append(close_frame(code, reason.encode()))
    return b"".join(stream)


FRAME_BYTES = st.one_of(
    WILD_STREAMS, valid_streams(), st.tuples(valid_streams(), WILD_STREAMS).map(b"".join)
)

HEAD_PARTS = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"GET",
            b" ",
            b"/",
            b"HTTP/1.1",
            b"\r\n",
            b"\n",
            b"\r",
            b"\r\n\r\n",
            b"Host: a\r\n",
            b"X-Fold: a\r\n b\r\n",
            b":",
            b"\t",
            b"\x00",
            b"\xe9",
            b"Content-Length: 1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close, Upgrade\r\n",
            b"p" * 60,
        ]
    ),
    max_size=12,
).map(b"".join)


@st.composite
def edited_heads(draw: st.DrawFn) -> bytes:
    data = bytearray(HEAD)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 10))] = draw(st.binary(max_size=10))
    return bytes(data)


HEADS = st.one_of(st.just(HEAD), edited_heads(), HEAD_PARTS, st.binary(max_size=100))
ANY_BYTES = st.one_of(st.binary(max_size=100), FRAME_BYTES, HEADS)
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=10)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut `data` into pieces of `sizes`, over and over."""
    pieces: list[bytes] = []
    for size in cycle(sizes):
        if not data:
            return pieces
        pieces.append(data[:size])
        data = data[size:]
    raise AssertionError


# --- no bytes make any call raise ----------------------------------------------------------------


def read_head(
    pieces: list[bytes], of: ServerLimits = SMALL_HEAD
) -> tuple[UpgradeRequest | Refusal | None, bytes]:
    """Return the result, and what is behind the head."""
    reader = HeadReader(of)
    for i, piece in enumerate(pieces):
        result = reader.receive_data(piece)
        if result is not None:
            return result, reader.trailing + b"".join(pieces[i + 1 :])
    return None, b""


def read_frames(pieces: Iterable[bytes]) -> list[OurFrame]:
    framing = Framing(SMALL)
    frames = []
    for piece in pieces:
        framing.receive_data(piece)
        while (each := framing.next_event()) is not None:
            frames.append(each)
    return frames


@FIXED
@given(data=st.one_of(HEADS, HEADS.flatmap(lambda start: st.binary().map(start.__add__))))
def test_any_bytes_are_a_head_a_refusal_or_not_enough(data: bytes) -> None:
    result, _ = read_head(whole(data), ServerLimits())
    if isinstance(result, Refusal):
        assert 400 <= result.status < 500
        assert split_answer(refusal_bytes(result, 0.0)).rest
    elif isinstance(result, UpgradeRequest):
        # All that can be asked of it can be asked of any.
        answer = accept_bytes(result, subprotocol=None, headers=())
        assert split_answer(answer).rest == b""
        assert all(name == name.lower() for name in result.headers)
        asked = (result.path, result.query, result.cookies, result.subprotocols, result.host)
        assert len(asked) == 5
        assert repr(result).startswith("<UpgradeRequest ")


@FIXED
@given(data=ANY_BYTES)
def test_any_bytes_are_frames_or_a_failure(data: bytes) -> None:
    frames = read_frames(whole(data))
    ends = [each for each in frames if isinstance(each, (Failed, PeerClosed))]
    assert len(ends) <= 1
    assert ends == frames[len(frames) - len(ends) :]
    for end in ends:
        if isinstance(end, Failed):
            assert end.code in {1002, 1007, 1009}
        else:
            assert encode_close(None if end.code == 1005 else end.code)
    for each in frames:
        if isinstance(each, str):
            assert len(each.encode()) <= 200
        elif isinstance(each, bytes):
            assert len(each) <= 200


# --- events are the same however the bytes are cut -----------------------------------------------


def plain(event: object) -> object:
    """Return an event without what is only for the log and says where a decoder stopped."""
    if isinstance(event, Closed):
        return (event.code, event.reason, event.by, event.why.partition(":")[0])
    if isinstance(event, Failed):
        return (event.code, event.why.partition(":")[0])
    if isinstance(event, RefusedBySession):
        return plain(event.refusal)
    if isinstance(event, Refusal):
        return (event.status, event.code, event.detail)
    return event


@FIXED
@given(data=HEADS, behind=st.binary(max_size=30), sizes=SIZES)
def test_a_head_is_the_same_however_it_is_cut(data: bytes, behind: bytes, sizes: list[int]) -> None:
    one, one_rest = read_head(whole(data + behind))
    two, two_rest = read_head(cut(data + behind, sizes))
    assert plain(one) == plain(two)
    if isinstance(one, UpgradeRequest):
        assert one_rest == two_rest


@FIXED
@given(padding=st.integers(100, 260), fields=st.integers(0, 5), sizes=SIZES)
def test_the_limits_of_a_head_are_the_same_however_it_is_cut(
    padding: int, fields: int, sizes: list[int]
) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * fields
    data = start + b"P: " + b"p" * (padding - len(start) - 7) + b"\r\n\r\n"
    result, _ = read_head(cut(data, sizes))
    if len(data) > 200:
        assert plain(result) == (431, "head_too_large", "the head is over 200 bytes")
    elif fields + 2 > 4:
        assert plain(result) == (431, "too_many_fields", "the head has over 4 fields")
    else:
        assert isinstance(result, UpgradeRequest)


@FIXED
@given(data=st.one_of(FRAME_BYTES, st.binary(max_size=60)), sizes=SIZES)
def test_frames_are_the_same_however_they_are_cut(data: bytes, sizes: list[int]) -> None:
    one, two = read_frames(whole(data)), read_frames(cut(data, sizes))
    assert [plain(each) for each in one] == [plain(each) for each in two]


class Trace(NamedTuple):
    """What came out of a session."""

    events: list[object]
    out: bytes
    state: State
    wants: Wants


def trace(pieces: list[bytes]) -> Trace:
    session = Session(SMALL_HEAD, now=T0, ping_payload=NONCE)
    events: list[object] = []
    out = b""
    for piece in pieces:
        session.receive_data(piece, T0)
        while (event := session.next_event(T0)) is not None:
            events.append(plain(event))
            if isinstance(event, UpgradeRequest):
                session.accept(policy(of=SMALL), subprotocol=None, now=T0)
        out += session.data_to_send()
    return Trace(events, out, session.state, session.wants)


def without_pongs(out: bytes) -> tuple[bytes, list[Frame], list[Frame]]:
    """Split what was sent into the head, the frames that are no pongs, and the pongs."""
    top, _, rest = out.partition(b"\r\n\r\n")
    frames = frames_of(rest) if top.startswith(b"HTTP/1.1 101 ") else []
    pongs = [each for each in frames if each.opcode == PONG]
    return top, [each for each in frames if each.opcode != PONG], pongs


@FIXED
@given(data=st.one_of(FRAME_BYTES.map(HEAD.__add__), HEADS), sizes=SIZES)
def test_a_session_is_the_same_however_its_bytes_are_cut(data: bytes, sizes: list[int]) -> None:
    one, two = trace(whole(data)), trace(cut(data, sizes))
    assert one.events == two.events
    assert (one.state, one.wants) == (two.state, two.wants)
    one_head, one_frames, one_pongs = without_pongs(one.out)
    two_head, two_frames, two_pongs = without_pongs(two.out)
    assert (one_head, one_frames) == (two_head, two_frames)
    if one.state is State.OPEN:
        assert one_pongs == two_pongs
    else:  # a close frame takes the place of pongs that were not sent before it
        assert one_pongs == two_pongs[: len(one_pongs)]


# --- whatever is done ----------------------------------------------------------------------------


class Act(NamedTuple):
    """One call, with what it takes besides the time."""

    name: str
    argument: Any = None


DATA = st.builds(Act, st.just("data"), ANY_BYTES)
ACTS = st.one_of(
    DATA,
    DATA,
    st.builds(Act, st.just("time"), st.floats(0.0, 40.0)),
    st.builds(Act, st.just("pull"), st.booleans()),
    st.builds(Act, st.just("pull"), st.booleans()),
    st.builds(Act, st.just("close"), st.sampled_from([1000, 1001, 1011, 4000])),
    st.builds(Act, st.just("refuse"), st.booleans()),
    st.builds(Act, st.just("send"), st.one_of(st.text(max_size=5), st.binary(max_size=5))),
    st.sampled_from(
        [Act(name) for name in ("accept", "ping", "drain", "pause", "resume", "late", "eof")]
    ),
)
ORDER = list(State)


class Life:
    """A session to which anything happens, and what must hold after each call."""

    def __init__(self) -> None:
        self.session = new_session()
        self.now = T0
        self.events: list[Event] = []
        self.out = b""

    def do(self, act: Act) -> None:
        before = self.session.state
        with suppress(SessionStateError):
            getattr(self, act.name)(act.argument)
        self.check(before)

    def data(self, data: bytes) -> None:
        self.session.receive_data(data, self.now)

    def time(self, seconds: float) -> None:
        self.now += seconds
        self.session.handle_timeout(self.now)

    def pull(self, handled: bool) -> None:  # noqa: FBT001 - drawn
        self.events += pull_all(self.session, self.now, handled=handled)

    def close(self, code: int) -> None:
        self.session.close(code, "why", self.now)

    def refuse(self, as_close: bool) -> None:  # noqa: FBT001 - drawn
        self.session.refuse(Refusal(403, "c", "d", as_close=as_close), self.now)

    def send(self, message: str | bytes) -> None:
        self.session.send(message)

    def accept(self, _: None) -> None:
        chosen = policy(HEARTBEAT, SMALL)
        self.session.accept(chosen, subprotocol=None, now=self.now)

    def ping(self, _: None) -> None:
        self.session.ping(self.now)

    def drain(self, _: None) -> None:
        self.out += self.session.data_to_send()

    def pause(self, _: None) -> None:
        self.session.pause(self.now)

    def resume(self, _: None) -> None:
        self.session.resume(self.now)

    def late(self, _: None) -> None:
        self.session.loop_stood_still(0.2)

    def eof(self, _: None) -> None:
        self.session.receive_eof(self.now)

    def check(self, before: State) -> None:
        session = self.session
        assert ORDER.index(session.state) >= ORDER.index(before), "life goes one way"
        assert (session.state is State.CLOSED) == (session.wants is Wants.ABORT)
        assert (session.state is State.CLOSED) == (session.next_deadline() is None)

    def end(self) -> None:
        """Let the peer hang up and time pass; take all there is."""
        self.eof(None)
        self.pull(handled=True)
        self.drain(None)
        self.time((self.session.next_deadline() or self.now) - self.now)
        self.pull(handled=True)
        self.drain(None)
        assert self.session.state is State.CLOSED


def opened_life() -> Life:
    life = Life()
    life.do(Act("data", HEAD))
    life.do(Act("accept"))
    assert life.session.state is State.OPEN
    return life


def deciding_life() -> Life:
    life = Life()
    life.do(Act("data", HEAD))
    assert life.session.state is State.DECIDING
    return life


LIVES = pytest.mark.parametrize("start", [Life, deciding_life, opened_life])


@LIVES
@FIXED
@given(acts=st.lists(ACTS, max_size=25))
def test_whatever_is_done_only_a_command_in_a_wrong_state_raises(
    start: Callable[[], Life], acts: list[Act]
) -> None:
    life = start()
    for act in acts:
        life.do(act)


@LIVES
@FIXED
@given(acts=st.lists(ACTS, max_size=25))
def test_whatever_is_done_events_come_in_order(start: Callable[[], Life], acts: list[Act]) -> None:
    life = start()
    for act in acts:
        life.do(act)
    life.end()
    kinds = [type(event) for event in life.events]
    assert kinds.count(UpgradeRequest) <= 1
    assert kinds.count(Closed) + kinds.count(RefusedBySession) <= 1
    if UpgradeRequest in kinds:
        assert kinds[0] is UpgradeRequest
    if Closed in kinds:
        assert kinds[-1] is Closed
    if RefusedBySession in kinds:
        assert kinds[-1] is RefusedBySession
    if {str, bytes, PongReceived} & set(kinds):
        assert kinds[0] is UpgradeRequest
        assert kinds[-1] is Closed


@LIVES
@FIXED
@given(acts=st.lists(ACTS, max_size=25))
def test_whatever_is_done_what_is_sent_is_whole_and_ends_with_a_close(
    start: Callable[[], Life], acts: list[Act]
) -> None:
    life = start()
    for act in acts:
        life.do(act)
    life.end()
    if not life.out:
        return
    if life.out.startswith(b"HTTP/1.1 101 "):
        answer = split_answer(life.out)
        opcodes = [each.opcode for each in frames_of(answer.rest)]
        assert CLOSE not in opcodes[:-1]
    else:
        answer = split_answer(life.out)
        assert answer.status_line.startswith(("HTTP/1.1 4", "HTTP/1.1 503 "))
        assert answer.all("Content-Length") == [str(len(answer.rest))]
        assert answer.all("Connection") == ["close"]


@LIVES
@FIXED
@given(acts=st.lists(ACTS, max_size=15), more=st.lists(ACTS, max_size=15))
def test_after_the_end_there_is_no_event_and_no_byte(
    start: Callable[[], Life], acts: list[Act], more: list[Act]
) -> None:
    life = start()
    for act in acts:
        life.do(act)
    life.end()
    life.events, life.out = [], b""
    for act in more:
        life.do(act)
    life.pull(handled=True)
    life.drain(None)
    assert (life.events, life.out) == ([], b"")
    assert (life.session.state, life.session.wants) == (State.CLOSED, Wants.ABORT)


# --- nothing splits an answer --------------------------------------------------------------------


ANY_TEXT = st.text(st.characters(max_codepoint=0x17F), max_size=10)


@FIXED
@given(name=st.one_of(st.just("X-Name"), ANY_TEXT), value=ANY_TEXT)
def test_no_header_ever_splits_an_answer(name: str, value: str) -> None:
    refusal = Refusal(403, "c", "d", headers=((name, value),))
    with suppress(ValueError):
        answer = split_answer(refusal_bytes(refusal, 0.0))
        assert len(answer.headers) <= 6
        assert answer.all("Content-Length") == [str(len(answer.rest))]
        assert b'"status": 403' in answer.rest
    request = UpgradeRequest("GET", "/", "1.1", b"host:a")
    with suppress(ValueError):
        answer = split_answer(
            accept_bytes(request, subprotocol=value, headers=[(name, value), ("X-Last", "1")])
        )
        assert answer.headers[-1] == ("X-Last", "1")
        assert answer.all("Sec-WebSocket-Protocol") == [value]
        assert len(answer.headers) <= 6
        assert answer.rest == b""


@FIXED
@given(detail=st.text(max_size=20), code=st.text(max_size=20), status=st.integers(400, 599))
def test_any_refusal_can_be_sent(detail: str, code: str, status: int) -> None:
    answer = split_answer(refusal_bytes(Refusal(status, code, detail), 0.0))
    assert answer.all("Content-Length") == [str(len(answer.rest))]


# --- another implementation reads the same -------------------------------------------------------


def their_reading(protocol: Protocol, pieces: Iterable[bytes]) -> list[OurFrame]:
    """Read with `websockets`, and put fragments together."""
    read: list[OurFrame] = []
    opcode, parts = 0, b""
    for piece in pieces:
        protocol.receive_data(piece)
        for each in protocol.events_received():
            assert isinstance(each, TheirFrame)
            payload = bytes(each.data)
            if each.opcode == PING:
                read.append(PeerPinged(payload))
            elif each.opcode == PONG:
                read.append(PeerPonged(payload))
            elif each.opcode == CLOSE:
                close = Close.parse(payload)
                read.append(PeerClosed(int(close.code), close.reason))
            else:
                opcode, parts = int(each.opcode) or opcode, parts + payload
                if each.fin:
                    read.append(parts.decode() if opcode == TEXT else parts)
                    parts = b""
    assert protocol.parser_exc is None, "a valid stream"
    return read


@FIXED
@given(data=valid_streams(times=(1, 1, 1, 40, 8000)), sizes=SIZES)
def test_websockets_reads_the_same_messages(data: bytes, sizes: list[int]) -> None:
    theirs = their_reading(ServerProtocol(state=TheirState.OPEN), whole(data))
    framing = Framing(limits())
    ours: list[OurFrame] = []
    for piece in cut(data, [size * 50 for size in sizes]):
        framing.receive_data(piece)
        while (each := framing.next_event()) is not None:
            ours.append(each)
    assert ours == theirs


@FIXED
@given(
    messages=st.lists(st.one_of(st.text(max_size=20), st.binary(max_size=20)), max_size=5),
    long=st.sampled_from([1, 7, 40, 4000]),
    reason=st.text(max_size=20),
)
def test_websockets_reads_what_we_send(messages: list[str | bytes], long: int, reason: str) -> None:
    sent = [message * long for message in messages]
    data = b"".join(encode(message) for message in sent)
    data += encode_ping(b"?") + encode_close(4000, reason)
    assert their_reading(Protocol(CLIENT), whole(data)) == [
        *sent,
        PeerPinged(b"?"),
        PeerClosed(4000, reason),
    ]
