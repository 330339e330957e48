from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.core.drive import (
    HEARTBEAT,
    NONCE,
    T0,
    WALL,
    bytewise,
    deciding,
    frames_of,
    limits,
    new_session,
    opened,
    policy,
    pull_all,
    split_answer,
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
from ws_middleware.config import Heartbeat, ServerLimits
from ws_middleware.core.events import Closed, PongReceived, RefusedBySession
from ws_middleware.core.handshake import refusal_bytes
from ws_middleware.core.session import Session, SessionStateError, State, Wants
from ws_middleware.core.states import TABLE, Did
from ws_middleware.types import EncodedMessage, Refusal, UpgradeRequest

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
JUST_BEFORE = 0.001
LATER = T0 + 1.0
CLOSE_TIMEOUT = 3.0  # of `drive.limits`
LINGER = 5.0  # of a connection that never got a policy

FORBIDDEN = Refusal(403, "not_allowed", "you may not")
BROKEN = frame(0x3, b"broken")


def text(payload: bytes) -> Frame:
    return Frame(fin=True, opcode=TEXT, payload=payload)


def pong(payload: bytes) -> Frame:
    return Frame(fin=True, opcode=PONG, payload=payload)


def closing(payload: bytes) -> Frame:
    return Frame(fin=True, opcode=CLOSE, payload=payload)


def feed(session: Session, data: bytes, now: float = T0) -> None:
    session.receive_data(data, now)


def where(session: Session) -> tuple[State, Wants]:
    return session.state, session.wants


# --- the table -----------------------------------------------------------------------------------


def we_closed() -> Session:
    session = opened()
    session.close(1000, "", T0)
    assert pull_all(session) == [Closed(1000, "", "us", "closed")]
    return session


def peer_closed() -> Session:
    session = opened()
    feed(session, close_frame(1000))
    assert pull_all(session) == [Closed(1000, "", "peer", "closed")]
    return session


def peer_failed() -> Session:
    session = opened()
    feed(session, BROKEN)
    assert len(pull_all(session)) == 1
    return session


def both_closed() -> Session:
    session = we_closed()
    feed(session, close_frame(1000))
    return session


def refused() -> Session:
    session = deciding()
    session.refuse(FORBIDDEN, T0)
    return session


def refused_as_close() -> Session:
    session = deciding()
    session.refuse(Refusal(403, "not_allowed", "you may not", as_close=True), T0)
    return session


def no_head() -> Session:
    session = new_session()
    feed(session, b"\x00")
    assert len(pull_all(session)) == 1
    return session


def lost() -> Session:
    session = opened()
    session.receive_eof(T0)
    assert len(pull_all(session)) == 1
    return session


def time_passes(session: Session) -> None:
    session.handle_timeout(session.next_deadline() or T0 + 1e9)


WHAT_HAPPENS: dict[str, Callable[[Session], object]] = {
    "head": lambda session: feed(session, head()),
    "no head": lambda session: feed(session, b"\x00"),
    "message": lambda session: feed(session, frame(TEXT, b"hello")),
    "ping": lambda session: feed(session, frame(PING, b"?")),
    "close frame": lambda session: feed(session, close_frame(1000)),
    "broken frame": lambda session: feed(session, BROKEN),
    "eof": lambda session: session.receive_eof(T0),
    "time": time_passes,
    "accept": lambda session: session.accept(policy(), subprotocol=None, now=T0),
    "refuse": lambda session: session.refuse(FORBIDDEN, T0),
    "send": lambda session: session.send("hello"),
    "send ping": lambda session: session.ping(T0),
    "close": lambda session: session.close(1001, "", T0),
}


class Move(NamedTuple):
    did: Did
    state: State
    wants: Wants


NOT_NOW = "SessionStateError"
LOSE = Move(Did.LOSE, State.CLOSED, Wants.ABORT)
REFUSE = Move(Did.REFUSE, State.CLOSING, Wants.EOF)
RECEIVE_CLOSE = Move(Did.RECEIVE_CLOSE, State.CLOSING, Wants.EOF)
FAIL = Move(Did.FAIL, State.CLOSING, Wants.EOF)

#: All is said, and the peer has a while to hang up.
ENDED: dict[str, Move | str] = {
    "eof": LOSE,
    "time": LOSE,
    "accept": NOT_NOW,
    "refuse": NOT_NOW,
    "send": NOT_NOW,
    "send ping": NOT_NOW,
}

#: From where, and what then moves it or is refused; all the rest of `WHAT_HAPPENS` is ignored.
LIFE: dict[Callable[[], Session], dict[str, Move | str]] = {
    new_session: {
        "head": Move(Did.COMPLETE_HEAD, State.DECIDING, Wants.READ),
        "no head": REFUSE,
        "eof": LOSE,
        "time": REFUSE,
        "accept": NOT_NOW,
        "refuse": NOT_NOW,
        "send": NOT_NOW,
        "send ping": NOT_NOW,
        "close": NOT_NOW,
    },
    deciding: {
        "eof": LOSE,
        "time": REFUSE,
        "accept": Move(Did.ACCEPT, State.OPEN, Wants.READ),
        "refuse": REFUSE,
        "send": NOT_NOW,
        "send ping": NOT_NOW,
        "close": NOT_NOW,
    },
    opened: {
        "head": FAIL,
        "close frame": RECEIVE_CLOSE,
        "broken frame": FAIL,
        "eof": LOSE,
        "accept": NOT_NOW,
        "refuse": NOT_NOW,
        "close": Move(Did.SEND_CLOSE, State.CLOSING, Wants.READ),
    },
    we_closed: {
        "head": FAIL,
        "close frame": RECEIVE_CLOSE,
        "broken frame": FAIL,
        "eof": LOSE,
        "time": LOSE,
        "accept": NOT_NOW,
        "refuse": NOT_NOW,
        "send": NOT_NOW,
        "send ping": NOT_NOW,
    },
    **dict.fromkeys((peer_closed, peer_failed, both_closed), ENDED),
    **dict.fromkeys((refused, refused_as_close, no_head), ENDED),
    lost: {"accept": NOT_NOW, "refuse": NOT_NOW, "send": NOT_NOW, "send ping": NOT_NOW},
}


@pytest.mark.parametrize("what", WHAT_HAPPENS)
@pytest.mark.parametrize("start", LIFE, ids=lambda start: start.__name__)
def test_whatever_happens_wherever(start: Callable[[], Session], what: str) -> None:
    session = start()
    before = where(session)
    outcome = LIFE[start].get(what)
    if outcome == NOT_NOW:
        with pytest.raises(SessionStateError, match=f"the session is {session.state.name}"):
            WHAT_HAPPENS[what](session)
    else:
        WHAT_HAPPENS[what](session)
    pull_all(session)
    if isinstance(outcome, Move):
        assert where(session) == (outcome.state, outcome.wants)
    else:
        assert where(session) == before


def test_the_table_has_these_moves_and_no_other() -> None:
    moves = {
        (start().state, outcome.did): (outcome.state, outcome.wants)
        for start, outcomes in LIFE.items()
        for outcome in outcomes.values()
        if isinstance(outcome, Move)
    }
    assert moves == TABLE


def test_nothing_leads_out_of_closed() -> None:
    assert not [state for state, _ in TABLE if state is State.CLOSED]


@pytest.mark.parametrize("start", LIFE, ids=lambda start: start.__name__)
def test_every_state_but_an_idle_websocket_and_the_end_has_a_deadline(
    start: Callable[[], Session],
) -> None:
    session = start()
    has_none = session.state in {State.OPEN, State.CLOSED}
    assert (session.next_deadline() is None) == has_none


@pytest.mark.parametrize(
    ("command", "message"),
    [
        pytest.param("accept", "accept needs DECIDING, the session is HEAD", id="accept"),
        pytest.param("refuse", "refuse needs DECIDING, the session is HEAD", id="refuse"),
        pytest.param("send", "send needs OPEN, the session is HEAD", id="send"),
        pytest.param("send ping", "ping needs OPEN, the session is HEAD", id="ping"),
        pytest.param("close", "close needs OPEN, the session is HEAD", id="close"),
    ],
)
def test_a_command_in_the_wrong_state_says_what_it_needs(command: str, message: str) -> None:
    with pytest.raises(SessionStateError, match=f"^{message}$"):
        WHAT_HAPPENS[command](new_session())


# --- HEAD ----------------------------------------------------------------------------------------


def test_a_head_is_reported_as_its_request() -> None:
    session = new_session()
    feed(session, b"GET /a?b HTTP/1.1\r\nHost: c\r\n\r\n", T0 + 2.5)
    assert pull_all(session, T0 + 2.5) == [
        UpgradeRequest(
            method="GET",
            target="/a?b",
            http_version="1.1",
            head=b"host:c",
            client=("192.0.2.7", 4711),
            scheme="https",
            received_at=WALL + 2.5,
        )
    ]
    assert session.data_to_send() == b""


def test_a_bad_head_is_answered_and_reported() -> None:
    session = new_session()
    feed(session, b"\x00", T0 + 2.0)
    (event,) = pull_all(session)
    assert isinstance(event, RefusedBySession)
    assert (event.refusal.status, event.refusal.code) == (400, "head_malformed")
    assert event.request is None
    assert session.data_to_send() == refusal_bytes(event.refusal, WALL + 2.0)
    assert session.next_deadline() == T0 + 2.0 + LINGER


def test_the_head_has_a_total_time_that_bytes_do_not_prolong() -> None:
    session = new_session()
    assert session.next_deadline() == T0 + 5.0
    for i, byte in enumerate(bytewise(head()[:48])):
        feed(session, byte, T0 + i * 0.1)
        session.handle_timeout(T0 + i * 0.1)
    assert session.next_deadline() == T0 + 5.0
    session.handle_timeout(T0 + 5.0 - JUST_BEFORE)
    assert where(session) == (State.HEAD, Wants.READ)
    session.handle_timeout(T0 + 5.0)
    assert where(session) == (State.CLOSING, Wants.EOF)
    (event,) = pull_all(session)
    assert event == RefusedBySession(Refusal(408, "head_timeout", "no whole head in 5 s"), None)
    assert split_answer(session.data_to_send()).status_line == "HTTP/1.1 408 Request Timeout"


def test_a_refused_peer_has_a_while_to_hang_up() -> None:
    session = no_head()
    session.handle_timeout(T0 + LINGER - JUST_BEFORE)
    assert where(session) == (State.CLOSING, Wants.EOF)
    session.handle_timeout(T0 + LINGER)
    assert where(session) == (State.CLOSED, Wants.ABORT)
    assert pull_all(session) == []


# --- DECIDING ------------------------------------------------------------------------------------


def test_the_verdict_has_a_deadline_from_the_head_on() -> None:
    session = new_session()
    feed(session, head(), T0 + 3.0)
    (request,) = pull_all(session)
    assert session.next_deadline() == T0 + 13.0
    session.handle_timeout(T0 + 13.0 - JUST_BEFORE)
    assert where(session) == (State.DECIDING, Wants.READ)
    session.handle_timeout(T0 + 13.0)
    assert where(session) == (State.CLOSING, Wants.EOF)
    (event,) = pull_all(session)
    assert isinstance(event, RefusedBySession)
    assert (event.refusal.status, event.refusal.code) == (503, "upgrade_timeout")
    assert event.request is request
    assert session.data_to_send() == refusal_bytes(event.refusal, WALL + 13.0)


@pytest.mark.parametrize(
    ("size", "wants"),
    [
        pytest.param(0, Wants.READ, id="none"),
        pytest.param(16 * KIB - 1, Wants.READ, id="one byte under the limit"),
        pytest.param(16 * KIB, Wants.HOLD, id="at the limit"),
        pytest.param(64 * KIB, Wants.HOLD, id="a whole read"),
    ],
)
@pytest.mark.parametrize("with_head", [True, False])
def test_early_bytes_are_read_up_to_a_limit(size: int, wants: Wants, *, with_head: bool) -> None:
    early = bytes(size)
    session = deciding(early if with_head else b"")
    if not with_head:
        feed(session, early)
    assert where(session) == (State.DECIDING, wants)
    assert pull_all(session) == []


def test_early_bytes_are_kept_for_after_the_verdict() -> None:
    session = deciding(frame(TEXT, b"with the head") + frame(TEXT, b"cut")[:4])
    feed(session, frame(TEXT, b"cut")[4:])
    feed(session, frame(BINARY, bytes(16 * KIB)))
    assert where(session) == (State.DECIDING, Wants.HOLD)
    session.accept(policy(), subprotocol=None, now=T0)
    assert where(session) == (State.OPEN, Wants.READ)
    feed(session, frame(TEXT, b"late"))
    assert pull_all(session) == ["with the head", "cut", bytes(16 * KIB), "late"]


@pytest.mark.parametrize("data", [BROKEN, b"\xff" * 100, frame(TEXT, b"\xff"), close_frame(999)])
def test_early_bytes_are_never_a_refusal(data: bytes) -> None:
    session = deciding(data)
    assert where(session) == (State.DECIDING, Wants.READ)
    assert session.data_to_send() == b""
    session.accept(policy(), subprotocol=None, now=T0)
    (event,) = pull_all(session)
    assert isinstance(event, Closed)
    assert event.by == "us"


def test_accept_says_101_with_what_the_verdict_brought() -> None:
    session = deciding(subprotocols="chat, bearer")
    session.accept(policy(), subprotocol="chat", headers=[("Set-Cookie", "a=1")], now=T0)
    answer = split_answer(session.data_to_send())
    assert answer.status_line == "HTTP/1.1 101 Switching Protocols"
    assert answer.all("Sec-WebSocket-Protocol") == ["chat"]
    assert answer.all("Set-Cookie") == ["a=1"]
    assert answer.rest == b""


def test_a_header_that_is_not_allowed_leaves_the_verdict_out() -> None:
    session = deciding()
    with pytest.raises(ValueError, match="HTTP does not allow"):
        session.accept(policy(), subprotocol=None, headers=[("X", "a\r\nb")], now=T0)
    with pytest.raises(ValueError, match="HTTP does not allow"):
        session.refuse(Refusal(403, "c", "d", headers=(("X", "a\r\nb"),)), T0)
    with pytest.raises(ValueError, match="at most 123 bytes"):
        session.refuse(Refusal(403, "c" * 124, "d", as_close=True), T0)
    assert where(session) == (State.DECIDING, Wants.READ)
    assert session.data_to_send() == b""
    session.accept(policy(), subprotocol=None, now=T0)
    assert session.state is State.OPEN


def test_refuse_says_it_in_http() -> None:
    session = deciding(frame(TEXT, b"early"))
    session.refuse(FORBIDDEN, T0 + 4.0)
    assert session.data_to_send() == refusal_bytes(FORBIDDEN, WALL + 4.0)
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert session.next_deadline() == T0 + 4.0 + LINGER
    assert pull_all(session) == []


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        pytest.param(None, [], id="none offered"),
        pytest.param("chat", ["chat"], id="one"),
        pytest.param("bearer, abc, chat", ["bearer"], id="the first of several"),
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 503])
def test_refuse_says_it_as_a_close_frame(
    status: int, offered: str | None, chosen: list[str]
) -> None:
    session = deciding(frame(TEXT, b"early"), subprotocols=offered)
    cookie = (("Set-Cookie", "a=1"),)
    session.refuse(Refusal(status, "the_code", "d", "w", headers=cookie, as_close=True), T0)
    answer = split_answer(session.data_to_send())
    assert answer.status_line == "HTTP/1.1 101 Switching Protocols"
    assert len(answer.all("Sec-WebSocket-Accept")) == 1
    assert answer.all("Sec-WebSocket-Protocol") == chosen
    assert answer.all("Set-Cookie") == ["a=1"]
    assert frames_of(answer.rest) == [
        closing((4000 + status).to_bytes(2, "big") + b"the_code"),
    ]
    assert where(session) == (State.CLOSING, Wants.EOF)
    feed(session, frame(TEXT, b"late"))
    assert pull_all(session) == []


def test_a_peer_that_is_refused_while_it_is_held_is_read_again() -> None:
    session = deciding(bytes(64 * KIB))
    assert where(session) == (State.DECIDING, Wants.HOLD)
    session.refuse(FORBIDDEN, T0)
    assert where(session) == (State.CLOSING, Wants.EOF)


# --- OPEN: messages and limits -------------------------------------------------------------------


def test_messages_come_one_at_a_time_and_in_order() -> None:
    session = opened()
    feed(session, frame(TEXT, b"a") + frame(BINARY, b"b"))
    feed(session, frame(TEXT, b"c", fin=False) + frame(PING) + frame(CONTINUATION, b"d"))
    assert [session.next_event(T0) for _ in range(4)] == ["a", b"b", "cd", None]


def test_the_limits_are_those_of_the_policy() -> None:
    session = opened(of=limits(message_size=10))
    feed(session, frame(TEXT, b"x" * 10) + frame(TEXT, b"x" * 11))
    assert pull_all(session) == [
        "x" * 10,
        Closed(1009, "", "us", "message_too_big: 11 bytes declared, message_size is 10"),
    ]
    assert frames_of(session.data_to_send()) == [closing(b"\x03\xf1")]


def test_send_returns_the_size_of_the_frame() -> None:
    session = opened()
    assert session.send("ab") == 4
    assert session.send(b"x" * 126) == 130
    assert session.send(EncodedMessage("é")) == 4
    assert [each.payload for each in frames_of(session.data_to_send())] == [
        b"ab",
        b"x" * 126,
        "é".encode(),
    ]
    assert session.data_to_send() == b""


def test_a_text_that_cannot_be_sent_queues_nothing() -> None:
    session = opened()
    with pytest.raises(ValueError, match="surrogates"):
        session.send("\ud800")
    assert session.data_to_send() == b""


def test_reading_waits_while_there_is_no_room() -> None:
    session = opened()
    session.pause(T0)
    assert where(session) == (State.OPEN, Wants.HOLD)
    session.resume(T0)
    assert where(session) == (State.OPEN, Wants.READ)


def test_a_pause_ends_with_the_websocket() -> None:
    ours = opened()
    ours.pause(T0)
    ours.close(1000, "", T0)
    assert where(ours) == (State.CLOSING, Wants.READ)
    theirs = opened()
    theirs.pause(T0)
    feed(theirs, close_frame(1000))
    pull_all(theirs)
    assert where(theirs) == (State.CLOSING, Wants.EOF)
    lost_one = opened()
    lost_one.pause(T0)
    lost_one.receive_eof(T0)
    pull_all(lost_one)
    assert where(lost_one) == (State.CLOSED, Wants.ABORT)


# --- OPEN: their pings ---------------------------------------------------------------------------


def test_all_pings_of_one_read_are_answered_in_order() -> None:
    session = opened()
    payloads = [b"", b"1", b"\xff" * 125]
    feed(session, b"".join(frame(PING, payload) for payload in payloads))
    assert pull_all(session) == []
    assert frames_of(session.data_to_send()) == [pong(payload) for payload in payloads]
    assert session.data_to_send() == b""


def test_of_unsent_pongs_only_the_newest_outlives_a_read() -> None:
    session = opened()
    for data in (frame(PING, b"1") + frame(PING, b"2"), frame(PING, b"3") + frame(PING, b"4")):
        feed(session, data)
        assert pull_all(session) == []
    assert frames_of(session.data_to_send()) == [pong(b"2"), pong(b"3"), pong(b"4")]


def test_pongs_that_are_sent_between_reads_are_all_sent() -> None:
    session = opened()
    sent = []
    for i in range(5):
        feed(session, frame(PING, b"%d" % i))
        pull_all(session)
        sent += frames_of(session.data_to_send())
    assert sent == [pong(b"%d" % i) for i in range(5)]


def test_unsent_pongs_are_bounded() -> None:
    session = opened()
    for i in range(10_000):
        feed(session, frame(PING, b"%d" % i))
        pull_all(session)
    assert frames_of(session.data_to_send()) == [pong(b"9998"), pong(b"9999")]


def test_a_pong_goes_before_messages_that_are_sent_after_its_ping() -> None:
    session = opened()
    session.send("before")
    feed(session, frame(PING, b"?"))
    pull_all(session)
    session.send("after")
    assert frames_of(session.data_to_send()) == [text(b"before"), pong(b"?"), text(b"after")]


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda session: session.close(1000, "", T0), id="our close"),
        pytest.param(lambda session: feed(session, close_frame(1000)), id="their close"),
        pytest.param(lambda session: feed(session, BROKEN), id="their error"),
    ],
)
def test_nothing_follows_a_close_frame(end: Callable[[Session], None]) -> None:
    session = opened()
    session.send("before")
    feed(session, frame(PING, b"?"))
    pull_all(session)
    session.ping(T0)
    end(session)
    pull_all(session)
    sent = frames_of(session.data_to_send())
    assert sent[0] == text(b"before")
    assert [each.opcode for each in sent[1:]] == [CLOSE]
    feed(session, frame(PING, b"?"))
    pull_all(session)
    assert session.data_to_send() == b""


# --- OPEN: our pings -----------------------------------------------------------------------------


def test_only_one_ping_waits_unsent() -> None:
    session = opened()
    payloads = {session.ping(T0 + i) for i in range(100)}
    (payload,) = payloads
    assert payload.startswith(NONCE)
    assert frames_of(session.data_to_send()) == [Frame(fin=True, opcode=PING, payload=payload)]
    assert session.data_to_send() == b""


def test_every_ping_has_its_own_payload() -> None:
    session = opened()
    payloads = []
    for _ in range(100):
        payloads.append(session.ping(T0))
        session.data_to_send()
    assert len(set(payloads)) == 100
    assert max(map(len, payloads)) <= 125


def test_a_pong_tells_the_latency_of_its_ping() -> None:
    session = opened()
    payload = session.ping(T0 + 10.0)
    session.data_to_send()
    feed(session, frame(PONG, payload), T0 + 12.5)
    assert pull_all(session, T0 + 12.5) == [PongReceived(payload, 2.5)]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"unasked", id="unasked for"),
        pytest.param(NONCE + b"\x00\x00\x00\x02", id="the payload of a ping to come"),
    ],
)
def test_a_pong_that_answers_nothing_is_ignored(payload: bytes) -> None:
    session = opened()
    session.ping(T0)
    feed(session, frame(PONG, payload))
    assert pull_all(session) == []
    assert session.state is State.OPEN


def test_a_second_pong_to_one_ping_is_ignored() -> None:
    session = opened()
    payload = session.ping(T0)
    feed(session, frame(PONG, payload) * 2)
    assert pull_all(session) == [PongReceived(payload, 0.0)]


def test_a_pong_answers_the_pings_before_it_too() -> None:
    session = opened()
    payloads = []
    for i in range(3):
        payloads.append(session.ping(T0 + i))
        session.data_to_send()
    feed(session, frame(PONG, payloads[1]))
    expected = [PongReceived(payloads[0], 10.0), PongReceived(payloads[1], 9.0)]
    assert pull_all(session, T0 + 10.0) == expected
    feed(session, frame(PONG, payloads[2]))
    assert pull_all(session, T0 + 10.0) == [PongReceived(payloads[2], 8.0)]


def test_of_unanswered_pings_the_newest_sixteen_are_known() -> None:
    session = opened()
    payloads = []
    for i in range(17):
        payloads.append(session.ping(T0 + i))
        session.data_to_send()
    feed(session, b"".join(frame(PONG, payload) for payload in payloads))
    events = pull_all(session, T0 + 20.0)
    assert events == [PongReceived(payloads[i], 20.0 - i) for i in range(1, 17)]


# --- OPEN: the heartbeat -------------------------------------------------------------------------


def test_pings_go_out_at_the_interval() -> None:
    session = opened(HEARTBEAT)
    assert session.next_deadline() == T0 + 30.0
    session.handle_timeout(T0 + 30.0 - JUST_BEFORE)
    assert session.data_to_send() == b""
    session.handle_timeout(T0 + 30.0)
    (ping,) = frames_of(session.data_to_send())
    assert (ping.opcode, ping.payload[: len(NONCE)]) == (PING, NONCE)
    assert session.next_deadline() == T0 + 50.0


def test_jitter_shortens_the_first_interval() -> None:
    session = new_session(jitter=1.0)
    feed(session, head())
    pull_all(session)
    session.accept(policy(HEARTBEAT), subprotocol=None, now=T0 + 2.0)
    assert session.next_deadline() == T0 + 2.0 + 15.0


def test_a_dead_peer_is_closed_with_1011_and_let_go() -> None:
    session = opened(HEARTBEAT)
    session.handle_timeout(T0 + 30.0)
    session.data_to_send()
    session.handle_timeout(T0 + 50.0 - JUST_BEFORE)
    assert session.state is State.OPEN
    session.handle_timeout(T0 + 50.0)
    assert where(session) == (State.CLOSED, Wants.ABORT)
    assert pull_all(session) == [Closed(1011, "no_pong", "us", "no_pong")]
    assert frames_of(session.data_to_send()) == [closing(b"\x03\xf3no_pong")]
    assert session.data_to_send() == b""
    assert session.next_deadline() is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(PONG), id="a pong"),
        pytest.param(frame(TEXT, b"a"), id="a message"),
        pytest.param(frame(BINARY, length=1000), id="half a message"),
        pytest.param(b"\x81", id="half a header"),
    ],
)
def test_any_byte_is_life(data: bytes) -> None:
    session = opened(HEARTBEAT)
    session.handle_timeout(T0 + 30.0)
    feed(session, data, T0 + 49.0)
    session.handle_timeout(T0 + 50.0)
    assert session.state is State.OPEN
    assert session.next_deadline() == T0 + 60.0


def test_while_reading_waits_pings_go_on_and_nobody_dies() -> None:
    session = opened(HEARTBEAT)
    session.handle_timeout(T0 + 30.0)
    session.pause(T0 + 40.0)
    pings = []
    for seconds in range(40, 300):
        session.handle_timeout(T0 + seconds)
        pings += [seconds for _ in frames_of(session.data_to_send())]
    assert pings == [40, *range(60, 300, 30)]
    session.resume(T0 + 300.0)
    session.handle_timeout(T0 + 310.0 - JUST_BEFORE)
    assert session.state is State.OPEN
    session.handle_timeout(T0 + 310.0)
    assert pull_all(session) == [Closed(1011, "no_pong", "us", "no_pong")]


def test_a_stall_of_our_loop_is_not_the_peers() -> None:
    session = opened(HEARTBEAT)
    session.handle_timeout(T0 + 30.0)
    session.loop_stood_still(9.0)
    session.handle_timeout(T0 + 59.0 - JUST_BEFORE)
    assert where(session) == (State.OPEN, Wants.READ)
    session.handle_timeout(T0 + 59.0)
    assert where(session) == (State.CLOSED, Wants.ABORT)


def test_another_heartbeat_counts_from_when_it_is_set() -> None:
    session = opened(HEARTBEAT)
    session.handle_timeout(T0 + 30.0)
    session.data_to_send()
    session.set_heartbeat(Heartbeat(interval=5.0, timeout=2.0), T0 + 40.0)
    assert session.next_deadline() == T0 + 45.0
    session.handle_timeout(T0 + 45.0)
    assert [each.opcode for each in frames_of(session.data_to_send())] == [PING]
    session.handle_timeout(T0 + 47.0)
    assert pull_all(session) == [Closed(1011, "no_pong", "us", "no_pong")]


def test_a_heartbeat_can_be_switched_off_and_on() -> None:
    session = opened(HEARTBEAT)
    session.handle_timeout(T0 + 30.0)
    session.data_to_send()
    session.set_heartbeat(None, T0 + 40.0)
    assert session.next_deadline() is None
    session.handle_timeout(T0 + 1000.0)
    assert (session.state, session.data_to_send()) == (State.OPEN, b"")
    session.set_heartbeat(HEARTBEAT, T0 + 1000.0)
    assert session.next_deadline() == T0 + 1030.0


def test_a_heartbeat_that_is_set_while_reading_waits_blames_nobody() -> None:
    session = opened(None)
    session.pause(T0)
    session.set_heartbeat(HEARTBEAT, T0)
    session.handle_timeout(T0 + 30.0)
    session.handle_timeout(T0 + 300.0)
    assert session.state is State.OPEN
    session.resume(T0 + 300.0)
    session.handle_timeout(T0 + 320.0)
    assert where(session) == (State.CLOSED, Wants.ABORT)


def test_a_heartbeat_is_set_on_an_open_session_only() -> None:
    with pytest.raises(SessionStateError, match="set_heartbeat needs OPEN"):
        deciding().set_heartbeat(HEARTBEAT, T0)


def test_without_a_heartbeat_nothing_is_due() -> None:
    session = opened(None)
    assert session.next_deadline() is None
    session.handle_timeout(T0 + 1e6)
    session.pause(T0)
    session.loop_stood_still(5.0)
    session.resume(T0)
    assert session.data_to_send() == b""
    assert session.state is State.OPEN


# --- closing -------------------------------------------------------------------------------------


def test_our_close_waits_for_its_answer() -> None:
    session = opened()
    session.send("before")
    session.close(4001, "bye", LATER)
    assert frames_of(session.data_to_send()) == [text(b"before"), closing(b"\x0f\xa1bye")]
    assert pull_all(session) == [Closed(4001, "bye", "us", "closed")]
    assert where(session) == (State.CLOSING, Wants.READ)
    assert session.next_deadline() == LATER + CLOSE_TIMEOUT
    feed(session, frame(TEXT, b"too late") + frame(PING, b"?"), LATER)
    assert pull_all(session) == []
    feed(session, close_frame(4001), LATER + 2.0)
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert session.next_deadline() == LATER + 2.0 + CLOSE_TIMEOUT
    assert pull_all(session) == []
    assert session.data_to_send() == b""
    session.receive_eof(LATER + 2.0)
    assert where(session) == (State.CLOSED, Wants.ABORT)


def test_a_peer_that_does_not_answer_our_close_is_let_go() -> None:
    session = we_closed()
    session.handle_timeout(T0 + CLOSE_TIMEOUT - JUST_BEFORE)
    assert where(session) == (State.CLOSING, Wants.READ)
    session.handle_timeout(T0 + CLOSE_TIMEOUT)
    assert where(session) == (State.CLOSED, Wants.ABORT)
    assert pull_all(session) == []
    assert session.data_to_send() == b""


def test_a_lost_peer_gets_no_ping_and_no_pong() -> None:
    session = opened()
    feed(session, frame(PING, b"?"))
    pull_all(session)
    session.ping(T0)
    session.receive_eof(T0)
    assert pull_all(session) == [Closed(1006, "", "peer", "connection_lost")]
    assert session.data_to_send() == b""


def test_an_answer_that_is_broken_is_an_answer() -> None:
    session = we_closed()
    session.data_to_send()
    feed(session, BROKEN, LATER)
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert session.next_deadline() == LATER + CLOSE_TIMEOUT
    assert session.data_to_send() == b""
    assert pull_all(session) == []


def test_an_answer_may_come_in_pieces_behind_a_message() -> None:
    session = opened()
    data = frame(TEXT, b"half") + close_frame(1000)
    feed(session, data[:3])
    session.close(1000, "", T0)
    for byte in bytewise(data[3:-1]):
        feed(session, byte)
        assert where(session) == (State.CLOSING, Wants.READ)
    feed(session, data[-1:])
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert pull_all(session) == [Closed(1000, "", "us", "closed")]


@pytest.mark.parametrize(
    ("code", "echo"),
    [
        pytest.param(None, b"", id="no code"),
        pytest.param(1000, b"\x03\xe8", id="1000"),
        pytest.param(1014, b"\x03\xf6", id="1014"),
        pytest.param(3000, b"\x0b\xb8", id="3000"),
        pytest.param(4999, b"\x13\x87", id="4999"),
    ],
)
def test_the_peers_close_is_answered_with_its_code(code: int | None, echo: bytes) -> None:
    session = opened()
    reason = b"" if code is None else b"bye"
    feed(session, frame(TEXT, b"last") + close_frame(code, reason) + frame(TEXT, b"late"), LATER)
    assert pull_all(session, LATER) == [
        "last",
        Closed(code or 1005, reason.decode(), "peer", "closed"),
    ]
    assert frames_of(session.data_to_send()) == [closing(echo)]
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert session.next_deadline() == LATER + CLOSE_TIMEOUT


def test_close_frames_that_cross() -> None:
    session = opened()
    feed(session, frame(TEXT, b"unread") + close_frame(1001))
    session.close(4000, "ours", LATER)
    assert frames_of(session.data_to_send()) == [closing(b"\x0f\xa0ours")]
    assert pull_all(session) == [Closed(4000, "ours", "us", "closed")]
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert session.next_deadline() == LATER + CLOSE_TIMEOUT


@pytest.mark.parametrize("start", [we_closed, peer_closed, peer_failed, refused, lost])
def test_closing_twice_is_nothing(start: Callable[[], Session]) -> None:
    session = start()
    session.data_to_send()
    before = (where(session), session.next_deadline())
    session.close(1000, "again", LATER)
    assert (where(session), session.next_deadline()) == before
    assert session.data_to_send() == b""
    assert pull_all(session) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(1005, "", id="no code"),
        pytest.param(1006, "", id="no frame"),
        pytest.param(999, "", id="too low"),
        pytest.param(5000, "", id="too high"),
        pytest.param(1000, "r" * 124, id="a reason too long"),
    ],
)
def test_a_close_that_must_not_be_sent_changes_nothing(code: int, reason: str) -> None:
    session = opened()
    feed(session, frame(PING, b"?"))
    pull_all(session)
    with pytest.raises(ValueError, match=r"close (code|reason)"):
        session.close(code, reason, T0)
    assert session.state is State.OPEN
    assert frames_of(session.data_to_send()) == [pong(b"?")]
    assert pull_all(session) == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(BROKEN, 1002, id="protocol"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="bad UTF-8"),
        pytest.param(frame(BINARY, length=2**62), 1009, id="too big"),
    ],
)
def test_a_broken_frame_ends_the_websocket(data: bytes, code: int) -> None:
    session = opened()
    feed(session, frame(TEXT, b"good") + data + frame(TEXT, b"late"), LATER)
    good, closed = pull_all(session, LATER)
    assert good == "good"
    assert isinstance(closed, Closed)
    assert (closed.code, closed.reason, closed.by) == (code, "", "us")
    assert frames_of(session.data_to_send()) == [closing(code.to_bytes(2, "big"))]
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert session.next_deadline() == LATER + CLOSE_TIMEOUT
    feed(session, frame(TEXT, b"later") + frame(PING), LATER)
    assert pull_all(session) == []
    assert session.data_to_send() == b""


@pytest.mark.parametrize(
    "start", [peer_closed, peer_failed, both_closed, refused, refused_as_close, no_head]
)
def test_the_rest_is_thrown_away_up_to_16_mebibytes(start: Callable[[], Session]) -> None:
    session = start()
    for _ in range(16 * 16):
        feed(session, frame(TEXT, b"late") + bytes(64 * KIB - 10))
    assert where(session) == (State.CLOSING, Wants.EOF)
    feed(session, b"x")
    assert where(session) == (State.CLOSED, Wants.ABORT)
    assert pull_all(session) == []


# --- the peer's end ------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [new_session, deciding])
def test_an_end_before_the_verdict_is_the_end(start: Callable[[], Session]) -> None:
    session = start()
    session.receive_eof(T0)
    assert where(session) == (State.CLOSED, Wants.ABORT)
    assert session.next_deadline() is None
    assert session.data_to_send() == b""
    assert pull_all(session) == []


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"", id="at a frame's end"),
        pytest.param(frame(TEXT, b"cut")[:4], id="in a frame"),
        pytest.param(frame(TEXT, b"cut", fin=False), id="in a message"),
    ],
)
@pytest.mark.parametrize("handled", [True, False])
def test_messages_before_the_end_are_still_pulled(rest: bytes, *, handled: bool) -> None:
    session = opened()
    feed(session, frame(TEXT, b"a") + frame(TEXT, b"b") + rest)
    session.receive_eof(T0)
    assert where(session) == (State.OPEN, Wants.READ)
    assert pull_all(session, handled=handled) == [
        "a",
        "b",
        Closed(1006, "", "peer", "connection_lost"),
    ]
    assert where(session) == (State.CLOSED, Wants.ABORT)
    assert session.data_to_send() == b""


def test_an_end_behind_a_close_frame_is_a_close() -> None:
    session = opened()
    feed(session, frame(TEXT, b"a") + close_frame(1000))
    session.receive_eof(T0)
    assert pull_all(session) == ["a", Closed(1000, "", "peer", "closed")]


@pytest.mark.parametrize(
    "start", [we_closed, peer_closed, peer_failed, both_closed, refused, refused_as_close, no_head]
)
def test_an_end_while_closing_is_no_second_event(start: Callable[[], Session]) -> None:
    session = start()
    session.receive_eof(T0)
    assert where(session) == (State.CLOSED, Wants.ABORT)
    assert pull_all(session) == []
    assert session.data_to_send() == b""


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(close_frame(1000), 1000, id="its close frame"),
        pytest.param(BROKEN, 1002, id="its broken frame"),
    ],
)
def test_a_peer_that_has_ended_its_half_is_answered_and_not_waited_for(
    end: bytes, code: int
) -> None:
    # There is nothing left to read, so there is nothing to linger for.
    session = opened()
    feed(session, frame(TEXT, b"unread") + end)
    session.receive_eof(T0)
    assert len(pull_all(session)) == 2
    assert frames_of(session.data_to_send()) == [closing(code.to_bytes(2, "big"))]
    assert where(session) == (State.CLOSED, Wants.ABORT)


def test_no_answer_is_waited_for_from_a_peer_that_has_ended_its_half() -> None:
    session = opened()
    feed(session, frame(TEXT, b"unread"))
    session.receive_eof(T0)
    session.close(1001, "", T0)
    assert pull_all(session) == [Closed(1001, "", "us", "closed")]
    assert frames_of(session.data_to_send()) == [closing(b"\x03\xe9")]
    assert where(session) == (State.CLOSED, Wants.ABORT)


# --- an end that is held back --------------------------------------------------------------------


ENDS = pytest.mark.parametrize(
    ("end", "closed"),
    [
        pytest.param(
            close_frame(1000, b"bye"), Closed(1000, "bye", "peer", "closed"), id="a close frame"
        ),
        pytest.param(
            BROKEN,
            Closed(1002, "", "us", "protocol_error: Invalid opcode 0x3"),
            id="a broken frame",
        ),
    ],
)


def held(end: bytes) -> Session:
    """Return a session whose peer's end waits for the message before it, since `T0`."""
    session = opened(HEARTBEAT)
    feed(session, frame(TEXT, b"question") + end + frame(TEXT, b"late"))
    assert session.next_event(T0, handled=True) == "question"
    assert session.next_event(T0, handled=False) is None
    assert session.holds_end
    assert where(session) == (State.OPEN, Wants.READ)
    assert session.next_deadline() == T0 + 0.5
    return session


@ENDS
def test_the_end_waits_for_the_messages_before_it(end: bytes, closed: Closed) -> None:
    session = held(end)
    session.send("answer")
    assert pull_all(session, T0 + 0.1, handled=True) == [closed]
    assert not session.holds_end
    answer, goodbye = frames_of(session.data_to_send())
    assert answer == text(b"answer")
    assert goodbye == closing(closed.code.to_bytes(2, "big"))
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert session.next_deadline() == T0 + 0.1 + CLOSE_TIMEOUT


@ENDS
def test_the_end_waits_for_half_a_second_at_most(end: bytes, closed: Closed) -> None:
    session = held(end)
    for now in (T0 + 0.1, T0 + 0.3, T0 + 0.5 - JUST_BEFORE):
        session.handle_timeout(now)
        assert pull_all(session, now, handled=False) == []
        assert session.next_deadline() == T0 + 0.5
    session.handle_timeout(T0 + 0.5)
    assert pull_all(session, T0 + 0.5, handled=False) == [closed]
    assert session.state is State.CLOSING


@ENDS
def test_the_end_does_not_wait_if_all_is_handled(end: bytes, closed: Closed) -> None:
    session = opened()
    feed(session, frame(TEXT, b"question") + end)
    assert pull_all(session, handled=True) == ["question", closed]


def test_only_the_end_is_held_back() -> None:
    session = opened()
    feed(session, frame(TEXT, b"a") + frame(PING, b"?") + frame(TEXT, b"b"))
    assert pull_all(session, handled=False) == ["a", "b"]
    assert not session.holds_end
    assert frames_of(session.data_to_send()) == [pong(b"?")]


@ENDS
def test_no_byte_behind_a_held_end_counts(end: bytes, closed: Closed) -> None:
    session = held(end)
    feed(session, frame(TEXT, b"later") + frame(PING, b"?") + close_frame(4000) + BROKEN)
    assert pull_all(session, handled=False) == []
    assert pull_all(session, handled=True) == [closed]
    assert [each.opcode for each in frames_of(session.data_to_send())] == [CLOSE]


@ENDS
def test_the_connections_end_behind_a_held_end_does_not_replace_it(
    end: bytes, closed: Closed
) -> None:
    session = held(end)
    session.receive_eof(T0)
    assert pull_all(session, handled=False) == []
    assert pull_all(session, handled=True) == [closed]


@ENDS
def test_our_close_takes_a_held_end_for_its_answer(end: bytes, closed: Closed) -> None:
    session = held(end)
    session.send("answer")
    session.close(1001, "ours", T0 + 0.2)
    assert frames_of(session.data_to_send()) == [text(b"answer"), closing(b"\x03\xe9ours")]
    assert pull_all(session, T0 + 0.2) == [Closed(1001, "ours", "us", "closed")]
    assert where(session) == (State.CLOSING, Wants.EOF)
    assert not session.holds_end


def test_no_ping_goes_to_a_peer_whose_end_is_held() -> None:
    session = held(close_frame(1000))
    session.handle_timeout(T0 + 30.0)
    assert session.data_to_send() == b""
    assert session.state is State.OPEN


# --- the second way in ---------------------------------------------------------------------------


def from_request(early: bytes = b"") -> tuple[Session, UpgradeRequest]:
    request = UpgradeRequest(
        method="GET",
        target="/",
        http_version="1.1",
        head=b"host:a\nsec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-protocol:chat",
        client=("192.0.2.7", 4711),
        received_at=WALL,
    )
    session = Session.from_request(request, early, ServerLimits(), now=T0, ping_payload=NONCE)
    return session, request


def test_a_ready_request_begins_with_the_verdict() -> None:
    session, request = from_request()
    assert where(session) == (State.DECIDING, Wants.READ)
    assert session.next_deadline() == T0 + 10.0
    (event,) = pull_all(session)
    assert event is request
    session.accept(policy(), subprotocol="chat", now=T0)
    answer = split_answer(session.data_to_send())
    assert answer.all("Sec-WebSocket-Accept") == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]
    assert session.state is State.OPEN


def test_a_ready_request_brings_its_early_bytes() -> None:
    session, _ = from_request(frame(TEXT, b"early") + b"\x81")
    pull_all(session)
    session.accept(policy(), subprotocol=None, now=T0)
    feed(session, frame(TEXT, b"late")[1:])
    assert pull_all(session) == ["early", "late"]


def test_many_early_bytes_of_a_ready_request_are_held() -> None:
    session, _ = from_request(bytes(16 * KIB))
    assert where(session) == (State.DECIDING, Wants.HOLD)


def test_a_ready_request_is_refused_at_its_own_time() -> None:
    session, _ = from_request()
    session.refuse(FORBIDDEN, T0 + 5.0)
    assert session.data_to_send() == refusal_bytes(FORBIDDEN, WALL + 5.0)
