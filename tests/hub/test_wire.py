from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ws_middleware.hub.envelope import (
    Answer,
    Ask,
    Beat,
    Close,
    Envelope,
    channel_of,
    node_channel,
    node_of,
)
from ws_middleware.hub.registry import Address
from ws_middleware.hub.wire import Dropped, read, write
from ws_middleware.types import EncodedMessage

CHANNEL = "wsm:shop:room:/ws/chat/*:7"
SECRET = b"s" * 32
LARGEST = 1000


def shown(envelope: Envelope | Dropped) -> tuple[Any, ...]:
    assert isinstance(envelope, Envelope), envelope
    action: Any = envelope.action
    if isinstance(action, EncodedMessage):
        action = (action.is_text, action.payload)
    return action, envelope.exclude, envelope.node, envelope.socket


def taken(fields: object, **given: Any) -> Envelope | Dropped:
    data = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return read(data, channel=CHANNEL, largest=LARGEST, **given)


# --- channels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "channel"),
    [
        pytest.param(
            Address("room", "7", "/ws/chat/*"), "wsm:shop:room:/ws/chat/*:7", id="room of a route"
        ),
        pytest.param(Address("room", "7"), "wsm:shop:room::7", id="room of all routes"),
        pytest.param(Address("user", "a:b"), "wsm:shop:user::a%3Ab", id="a colon in a name"),
        pytest.param(
            Address("user", "ann@example.org"), "wsm:shop:user::ann@example.org", id="an address"
        ),
        pytest.param(Address("room", "Köln 1"), "wsm:shop:room::K%C3%B6ln%201", id="not ASCII"),
        pytest.param(Address("room", "100%"), "wsm:shop:room::100%25", id="a percent sign"),
        pytest.param(Address("everyone"), "wsm:shop:everyone:", id="everyone"),
        pytest.param(
            Address("everyone", "", "news"), "wsm:shop:everyone:news", id="everyone of a route"
        ),
        pytest.param(Address("socket", "9f2c-1a"), "wsm:shop:node:9f2c", id="one socket"),
    ],
)
def test_channels_can_be_read_and_written_by_hand(address: Address, channel: str) -> None:
    assert channel_of("wsm:shop", address) == channel


@given(st.lists(st.tuples(st.text(min_size=1), st.none() | st.text(min_size=1)), unique=True))
def test_no_two_addresses_share_a_channel(places: list[tuple[str, str | None]]) -> None:
    addresses = [Address(kind, name, route) for name, route in places for kind in ("room", "user")]
    assert len({channel_of("p", address) for address in addresses}) == len(addresses)


def test_a_node_listens_to_itself() -> None:
    assert node_channel("wsm:shop", node_of("9f2c-1a")) == "wsm:shop:node:9f2c"


# --- there and back ------------------------------------------------------------------------------

ENVELOPES = [
    pytest.param(Envelope(EncodedMessage("hé\n")), id="text"),
    pytest.param(Envelope(EncodedMessage("")), id="empty text"),
    pytest.param(Envelope(EncodedMessage(b"\x00\xff")), id="binary"),
    pytest.param(Envelope(Close(4401, "logged_out", 2.5)), id="close"),
    pytest.param(Envelope(Beat(17), node="9f2c"), id="beat"),
    pytest.param(Envelope(Ask("1f", "stats"), node="9f2c"), id="question"),
    pytest.param(
        Envelope(Ask("2", "count", Address("room", "7", "/ws/*")), node="9f2c"), id="of a room"
    ),
    pytest.param(Envelope(Ask("3", "who", Address("everyone")), node="9f2c"), id="of everyone"),
    pytest.param(Envelope(Answer("1f", {"pid": 7, "x": [None, "é"]}), node="a"), id="answer"),
    pytest.param(Envelope(Answer("1f", None), node="a"), id="an answer that is nothing"),
    pytest.param(
        Envelope(EncodedMessage("x"), frozenset({"a-1", "b-2"}), "9f2c", "9f2c-1"), id="all fields"
    ),
]


@pytest.mark.parametrize("secret", [pytest.param(None, id="plain"), pytest.param(SECRET, id="s")])
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_what_is_written_is_read(envelope: Envelope, secret: bytes | None) -> None:
    data = write(envelope, channel=CHANNEL, now=1000.0, secret=secret)
    found = read(data, channel=CHANNEL, largest=LARGEST, now=1010.0, secret=secret)
    assert shown(found) == shown(envelope)


def test_what_is_written_is_plain_json() -> None:
    data = write(Envelope(EncodedMessage("hé"), frozenset({"b", "a"}), "9f2c"), channel=CHANNEL)
    assert json.loads(data) == {"v": 1, "text": "hé", "exclude": ["a", "b"], "node": "9f2c"}


def test_by_hand_any_json_is_a_text_message() -> None:
    found = taken({"v": 1, "json": {"hi": [1, "é"]}, "from_the_future": True})
    assert shown(found)[0] == (True, '{"hi":[1,"é"]}'.encode())


def test_the_largest_message_comes_through_however_it_is_written() -> None:
    for message in (b"\xff" * LARGEST, "\x01" * LARGEST):
        envelope = Envelope(EncodedMessage(message))
        data = write(envelope, channel=CHANNEL, now=0.0, secret=SECRET)
        found = read(data, channel=CHANNEL, largest=LARGEST, secret=SECRET)
        assert shown(found) == shown(envelope)


def question(node: str = "", **fields: Any) -> dict[str, Any]:
    return {"v": 1, "ask": {"id": "1", "question": "count", **fields}, "node": node}


# --- what is dropped -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", Dropped.MALFORMED, id="nothing"),
        pytest.param(b"\xff\xfe", Dropped.MALFORMED, id="no UTF-8"),
        pytest.param(b"[]", Dropped.MALFORMED, id="no object"),
        pytest.param(b"[" * 50_000, Dropped.MALFORMED, id="nested deep"),
        pytest.param({"text": "x"}, Dropped.MALFORMED, id="no version"),
        pytest.param({"v": True, "text": "x"}, Dropped.MALFORMED, id="a version that is no number"),
        pytest.param({"v": 2, "text": "x"}, Dropped.VERSION, id="another major"),
        pytest.param({"v": 1}, Dropped.MALFORMED, id="nothing to do"),
        pytest.param({"v": 1, "text": "x", "base64": ""}, Dropped.MALFORMED, id="two things to do"),
        pytest.param({"v": 1, "text": 1}, Dropped.MALFORMED, id="text that is none"),
        pytest.param(b'{"v":1,"text":"\\ud800"}', Dropped.MALFORMED, id="a lone surrogate"),
        pytest.param(b'{"v":1,"json":NaN}', Dropped.MALFORMED, id="NaN"),
        pytest.param(b'{"v":1,"json":1e999}', Dropped.MALFORMED, id="infinity"),
        pytest.param({"v": 1, "base64": "!"}, Dropped.MALFORMED, id="base64 that is none"),
        pytest.param({"v": 1, "base64": "é"}, Dropped.MALFORMED, id="base64 that is not ASCII"),
        pytest.param({"v": 1, "text": "x" * 1001}, Dropped.OVERSIZED, id="a message too large"),
        pytest.param(b" " * 100_000, Dropped.OVERSIZED, id="an envelope too large"),
        pytest.param({"v": 1, "close": 1000}, Dropped.MALFORMED, id="close is no object"),
        pytest.param({"v": 1, "close": {"code": 1006}}, Dropped.MALFORMED, id="a code not to send"),
        pytest.param({"v": 1, "close": {"code": "1000"}}, Dropped.MALFORMED, id="code as text"),
        pytest.param(
            {"v": 1, "close": {"code": 1000, "reason": "x" * 124}}, Dropped.MALFORMED, id="reason"
        ),
        pytest.param(
            {"v": 1, "close": {"code": 1000, "over": 10**400}}, Dropped.MALFORMED, id="huge over"
        ),
        pytest.param({"v": 1, "beat": "1"}, Dropped.MALFORMED, id="a beat that is no number"),
        pytest.param({"v": 1, "text": "x", "exclude": "a-1"}, Dropped.MALFORMED, id="exclude"),
        pytest.param({"v": 1, "text": "x", "exclude": [1]}, Dropped.MALFORMED, id="excluded id"),
        pytest.param(
            {"v": 1, "text": "x", "exclude": ["a"] * 1001}, Dropped.MALFORMED, id="many excluded"
        ),
        pytest.param({"v": 1, "text": "x", "node": 1}, Dropped.MALFORMED, id="node"),
        pytest.param(question(), Dropped.MALFORMED, id="a question of nobody"),
        pytest.param(question(node="\n"), Dropped.MALFORMED, id="a node that is no name"),
        pytest.param(question(node="a", id=1), Dropped.MALFORMED, id="a question without an id"),
        pytest.param(question(node="a", id="x" * 256), Dropped.MALFORMED, id="a long id"),
        pytest.param(question(node="a", question="eval"), Dropped.MALFORMED, id="another question"),
        pytest.param(question(node="a", question=["count"]), Dropped.MALFORMED, id="as a list"),
        pytest.param(question(node="a", at={}), Dropped.MALFORMED, id="of no kind"),
        pytest.param(question(node="a", at={"kind": "room"}), Dropped.MALFORMED, id="of no name"),
        pytest.param(
            question(node="a", at={"kind": "everyone", "route": ""}), Dropped.MALFORMED, id="route"
        ),
        pytest.param({"v": 1, "answer": 7}, Dropped.MALFORMED, id="an answer that is no object"),
        pytest.param({"v": 1, "answer": {"id": "1"}}, Dropped.MALFORMED, id="without a value"),
        pytest.param({"v": 1, "answer": {"value": 1}}, Dropped.MALFORMED, id="to no question"),
        pytest.param({"v": 1, "text": "x", "socket": None}, Dropped.MALFORMED, id="socket"),
    ],
)
def test_what_cannot_be_read_is_dropped(data: object, why: Dropped) -> None:
    assert taken(data) is why


def test_closes_are_spread_over_an_hour_at_most() -> None:
    for over, expected in ((-5, 0.0), (10**9, 3600.0)):
        found = taken({"v": 1, "close": {"code": 1012, "over": over}})
        assert shown(found)[0] == Close(1012, "", expected)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"channel": "wsm:shop:everyone:"}, Dropped.FORGED, id="another channel"),
        pytest.param({"secret": b"t" * 32}, Dropped.FORGED, id="another secret"),
        pytest.param({"now": 1060.1}, Dropped.STALE, id="replayed later"),
        pytest.param({"now": 939.9}, Dropped.STALE, id="from the future"),
    ],
)
def test_a_signature_counts_on_its_channel_for_a_minute(
    changes: dict[str, Any], why: Dropped
) -> None:
    envelope = Envelope(EncodedMessage("x"))
    data = write(envelope, channel=CHANNEL, now=1000.0, secret=SECRET)
    asked: dict[str, Any] = {"channel": CHANNEL, "now": 1000.0, "secret": SECRET}
    assert shown(read(data, largest=LARGEST, **asked)) == shown(envelope)
    assert read(data, largest=LARGEST, **{**asked, **changes}) is why


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"v": 1, "text": "x"}, id="unsigned"),
        pytest.param({"v": 1, "signed": '{"v":1,"text":"x"}', "hmac": ""}, id="empty"),
        pytest.param({"v": 1, "signed": '{"v":1,"text":"x"}', "hmac": "é"}, id="not ASCII"),
        pytest.param({"v": 1, "signed": {"v": 1}, "hmac": "0" * 64}, id="no text"),
    ],
)
def test_with_a_secret_only_what_is_signed_is_taken(fields: object) -> None:
    assert taken(fields, secret=SECRET) is Dropped.FORGED


def test_without_a_secret_a_signed_envelope_is_nothing_to_do() -> None:
    data = write(Envelope(EncodedMessage("x")), channel=CHANNEL, secret=SECRET)
    assert read(data, channel=CHANNEL, largest=LARGEST) is Dropped.MALFORMED


@given(st.binary(), st.sampled_from([None, SECRET]))
def test_no_bytes_raise(data: bytes, secret: bytes | None) -> None:
    assert isinstance(taken(data, secret=secret), (Envelope, Dropped))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        *("v", "text", "json", "base64", "close", "ask", "answer", "beat"),
        *("exclude", "node", "socket", "signed", "hmac", "at"),
    ]
)
ASKED = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "question": st.sampled_from(["count", "who", "stats"]) | JSON,
        "at": JSON
        | st.fixed_dictionaries(
            {}, optional={"kind": st.sampled_from(["room", "gap"]), "name": JSON, "route": JSON}
        ),
        "value": JSON,
    },
)


@given(st.dictionaries(FIELDS, JSON), st.sampled_from([None, SECRET]))
def test_no_fields_raise(fields: dict[str, Any], secret: bytes | None) -> None:
    found = taken({"v": 1, **fields}, secret=secret)
    assert isinstance(found, (Envelope, Dropped))


@given(st.sampled_from(["ask", "answer"]), ASKED, JSON)
def test_no_question_and_no_answer_raises(kind: str, fields: dict[str, Any], node: object) -> None:
    found = taken({"v": 1, kind: fields, "node": node})
    assert isinstance(found, (Envelope, Dropped))
