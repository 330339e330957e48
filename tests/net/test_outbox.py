from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ws_middleware.config import DEFAULT_LIMITS, Limits
from ws_middleware.net.outbox import Outbox
from ws_middleware.types import EncodedMessage

if TYPE_CHECKING:
    from ws_middleware.config import Slow


def outbox(slow: Slow = "close", **limits: int) -> Outbox:
    return Outbox(Limits(**limits).inherit(DEFAULT_LIMITS), slow)


def texts(box: Outbox) -> list[str]:
    return [str(box.take()) for _ in range(len(box))]


def test_what_was_put_is_taken_in_its_order_and_counted() -> None:
    box = outbox()
    for message in ("é", b"abc", EncodedMessage("x")):
        assert box.put(message, 0)
    assert (len(box), box.bytes) == (3, 6)
    first, second, third = (box.take() for _ in range(3))
    assert (first, second) == ("é", b"abc")
    assert isinstance(third, EncodedMessage)
    assert (len(box), box.bytes) == (0, 0)


def test_an_encoded_message_waits_as_it_is() -> None:
    message = EncodedMessage(b"x" * 100)
    boxes = [outbox() for _ in range(3)]
    for box in boxes:
        box.put(message, 0)
    assert all(box.take() is message for box in boxes)


def test_bytes_are_bounded_with_what_waits_elsewhere() -> None:
    box = outbox(outbound_bytes=100)
    assert box.put(b"x" * 60, 40)
    assert not box.put(b"x", 40)
    assert box.put(b"x" * 40, 0)
    assert not box.put(b"x", 0)
    assert box.put(b"", 0)
    assert (len(box), box.bytes) == (3, 100)


def test_messages_are_bounded() -> None:
    box = outbox(outbound_messages=2)
    assert [box.put(b"", 0) for _ in range(3)] == [True, True, False]
    box.take()
    assert box.put(b"", 0)


def test_what_was_refused_is_not_counted() -> None:
    box = outbox(outbound_bytes=10)
    assert not box.put(b"x" * 11, 0)
    assert (len(box), box.bytes) == (0, 0)
    assert not box


def test_clear_forgets_all() -> None:
    box = outbox()
    box.put(b"abc", 0)
    box.clear()
    assert (len(box), box.bytes) == (0, 0)


def test_the_oldest_make_room() -> None:
    box = outbox("drop_oldest", outbound_bytes=10)
    assert all(box.put(text, 0) for text in ("aaaa", "bbbb", "cc", "dddd", "e"))
    assert (len(box), box.bytes, box.dropped) == (3, 7, 2)
    assert texts(box) == ["cc", "dddd", "e"]


def test_the_oldest_make_room_by_number_too() -> None:
    box = outbox("drop_oldest", outbound_messages=2)
    assert all(box.put(text, 0) for text in "abc")
    assert texts(box) == ["b", "c"]


def test_one_that_would_not_fit_alone_is_dropped_itself() -> None:
    box = outbox("drop_oldest", outbound_bytes=10)
    box.put("aaaa", 0)
    assert box.put("bbbb", 7)
    assert (len(box), box.bytes, box.dropped) == (0, 0, 2)


def test_only_the_newest_waits() -> None:
    box = outbox("latest_only", outbound_bytes=10)
    assert all(box.put(text, 3) for text in ("aa", "bb", "cc"))
    assert box.dropped == 2
    assert texts(box) == ["cc"]
    assert box.put("x" * 8, 3)
    assert (len(box), box.dropped) == (0, 3)


def test_a_text_that_is_none_is_refused_when_it_is_put_in() -> None:
    box = outbox()
    with pytest.raises(ValueError, match="surrogates not allowed"):
        box.put("\ud800", 0)
    assert (len(box), box.bytes) == (0, 0)
