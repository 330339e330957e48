from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.hub.members import Member
from ws_middleware.hub.audience import Audience
from ws_middleware.hub.hub import Sent
from ws_middleware.hub.registry import Address
from ws_middleware.receipt import Receipt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ws_middleware.types import EncodedMessage

ROOM = Address("room", "x", "/ws")


class Sending(NamedTuple):
    address: Address
    payload: bytes
    kind: str
    exclude: frozenset[str]


class Hub:
    """Takes down what an audience asks of it."""

    def __init__(self) -> None:
        self.sent: list[Sending] = []
        self.closed: list[tuple[Address, int, str, float]] = []
        self.members = [Member("1"), Member("2")]

    def send(
        self, address: Address, message: EncodedMessage, exclude: frozenset[str]
    ) -> Receipt[Sent]:
        self.sent.append(
            Sending(address, message.payload, "text" if message.is_text else "binary", exclude)
        )
        return Receipt.ready(Sent(2))

    def close(self, address: Address, code: int, reason: str, over: float) -> Receipt[Sent]:
        self.closed.append((address, code, reason, over))
        return Receipt.ready(Sent(2))

    def count(self, address: Address) -> int:
        return len(self.members)

    def count_everywhere(self, address: Address) -> Receipt[int]:
        return Receipt.ready(7 if address == ROOM else 0)

    def local(self, address: Address) -> Iterator[Member]:
        yield from self.members


def made() -> tuple[Audience[Any], Hub]:
    hub = Hub()
    return Audience(hub, ROOM), hub


def test_a_count_of_all_processes_is_the_hubs() -> None:
    assert made()[0].count_everywhere().result(0) == 7


def test_text_and_bytes_are_encoded_and_sent_on() -> None:
    audience, hub = made()
    receipt = audience.send("caf\xe9")
    audience.send(b"\xff")
    assert receipt.result() == Sent(2)
    assert hub.sent == [
        Sending(ROOM, b"caf\xc3\xa9", "text", frozenset()),
        Sending(ROOM, b"\xff", "binary", frozenset()),
    ]


def test_json_is_sent_as_text() -> None:
    audience, hub = made()
    audience.send_json({"a": "\xe9"}, exclude="1")
    assert hub.sent == [Sending(ROOM, b'{"a":"\xc3\xa9"}', "text", frozenset({"1"}))]


class Named:
    id = "named"


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        pytest.param(None, set(), id="none"),
        pytest.param("7", {"7"}, id="an-id"),
        pytest.param(Member("7"), {"7"}, id="a-socket"),
        pytest.param(Named(), {"named"}, id="anything-with-an-id"),
        pytest.param([], set(), id="empty-list"),
        pytest.param(["7", "8"], {"7", "8"}, id="list-of-ids"),
        pytest.param((Member("7"), "8"), {"7", "8"}, id="tuple-of-both"),
        pytest.param({"7", "8"}, {"7", "8"}, id="set"),
        pytest.param({"7": 1}, {"7"}, id="names-of-a-dict"),
        pytest.param({"7": 1}.keys(), {"7"}, id="dict-keys"),
        pytest.param([["7"], Member("8"), None], {"7", "8"}, id="nested"),
        pytest.param("", {""}, id="an-empty-id-is-nobody"),
    ],
)
def test_who_is_left_out(exclude: object, expected: set[str]) -> None:
    audience, hub = made()
    audience.send("x", exclude=exclude)
    assert hub.sent[0].exclude == frozenset(expected)


class Numbered:
    id = 7


@pytest.mark.parametrize(
    ("exclude", "shown"),
    [
        pytest.param(7, "7", id="number"),
        pytest.param(7.5, "7.5", id="float"),
        pytest.param(["7", 8], "8", id="number-in-a-list"),
        pytest.param(b"7", "55", id="bytes"),
        pytest.param(True, "True", id="bool"),
    ],
)
def test_another_shape_is_told_in_words(exclude: object, shown: str) -> None:
    audience, hub = made()
    with pytest.raises(TypeError) as caught:
        audience.send("x", exclude=exclude)
    assert str(caught.value) == (
        f"exclude takes a websocket, its id, or several of these, not {shown}"
    )
    assert hub.sent == []


def test_an_object_whose_id_is_no_text_is_no_socket() -> None:
    audience, hub = made()
    for exclude in (Numbered(), Member, (each for each in "78")):
        with pytest.raises(TypeError, match=r"^exclude takes a websocket, its id, or several"):
            audience.send("x", exclude=exclude)
    assert hub.sent == []


def test_the_senders_own_faults_raise_at_once() -> None:
    audience, hub = made()
    wrong: Any = {"a": 1}
    with pytest.raises(TypeError, match=r"^a message is str or bytes, not dict; see send_json$"):
        audience.send(wrong)
    with pytest.raises(ValueError):
        audience.send("\ud800")
    with pytest.raises(ValueError):
        audience.send_json(["\ud800"])
    with pytest.raises(ValueError):
        audience.send_json(float("nan"))
    with pytest.raises(TypeError):
        audience.send_json({1, 2})
    assert hub.sent == []


def test_closing() -> None:
    audience, hub = made()
    assert audience.close().result() == Sent(2)
    audience.close(4000, "bye", over=2.5)
    assert hub.closed == [(ROOM, 1000, "", 0.0), (ROOM, 4000, "bye", 2.5)]


@pytest.mark.parametrize(("code", "reason"), [(999, ""), (1006, ""), (5000, ""), (1000, "x" * 124)])
def test_what_may_not_be_in_a_close_frame_raises_at_once(code: int, reason: str) -> None:
    audience, hub = made()
    with pytest.raises(ValueError):
        audience.close(code, reason)
    assert hub.closed == []


def test_counting_and_looking() -> None:
    audience, hub = made()
    assert audience.count() == 2
    assert list(audience.local()) == hub.members


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (Address("room", "x", "/ws"), "<Audience room:x:/ws>"),
        (Address("room", "x"), "<Audience room:x>"),
        (Address("everyone"), "<Audience everyone>"),
        (Address("socket", "9f-1"), "<Audience socket:9f-1>"),
    ],
)
def test_its_repr_says_who(address: Address, expected: str) -> None:
    assert repr(Audience[Any](Hub(), address)) == expected
