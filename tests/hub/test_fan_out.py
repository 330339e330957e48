"""What is wrong with one message, one link or one callback is nobody else's trouble."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.hub.members import Branch, Link, Member
from ws_middleware.errors import MessageTooBig
from ws_middleware.hub.audience import Audience
from ws_middleware.hub.fan_out import TURN
from ws_middleware.hub.hub import Hub, Sent
from ws_middleware.hub.registry import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from ws_middleware.types import EncodedMessage

EVERYONE = Address("everyone")
OUTBOUND_BYTES = 1000


class House:
    """A hub with one loop and three sockets."""

    def __init__(self, *ids: str, direct: bool = True) -> None:
        self.branch = Branch(*(ids or "123"), direct=direct)
        self.hub = Hub()
        self.hub.outbound_bytes["/ws"] = OUTBOUND_BYTES
        self.hub.attach(self.branch)
        self.everyone: Audience[Member] = Audience(self.hub, EVERYONE)

    def run(self) -> None:
        self.branch.run_posted()
        self.branch.clock.run()

    @property
    def heard(self) -> list[list[str]]:
        return [member.link.texts for member in self.branch.members]


# --- messages ------------------------------------------------------------------------------------


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


class Unwilling(dict[str, int]):
    def items(self) -> Any:
        msg = "not now"
        raise LookupError(msg)


POISON: dict[str, tuple[Callable[[Audience[Member]], object], type[Exception]]] = {
    "a lone surrogate": (lambda all_: all_.send("\ud800"), ValueError),
    "half a pair at the end": (lambda all_: all_.send("x" * 100 + "\udbff"), ValueError),
    "no text and no bytes": (lambda all_: all_.send({"a": 1}), TypeError),  # type: ignore[arg-type]
    "None": (lambda all_: all_.send(None), TypeError),  # type: ignore[arg-type]
    "one byte too many": (lambda all_: all_.send(b"x" * (OUTBOUND_BYTES + 1)), MessageTooBig),
    "too big as UTF-8 only": (lambda all_: all_.send("\xe9" * OUTBOUND_BYTES), MessageTooBig),
    "NaN": (lambda all_: all_.send_json(float("nan")), ValueError),
    "Infinity": (lambda all_: all_.send_json([float("inf")]), ValueError),
    "-Infinity": (lambda all_: all_.send_json({"a": float("-inf")}), ValueError),
    "1e999": (lambda all_: all_.send_json(1e999), ValueError),
    "a lone surrogate in JSON": (lambda all_: all_.send_json(["\udfff"]), ValueError),
    "a lone surrogate as a name": (lambda all_: all_.send_json({"\ud800": 1}), ValueError),
    "an object": (lambda all_: all_.send_json(object()), TypeError),
    "bytes in JSON": (lambda all_: all_.send_json({"a": b"x"}), TypeError),
    "a set": (lambda all_: all_.send_json({1, 2}), TypeError),
    "a name that is a tuple": (lambda all_: all_.send_json({(1, 2): 3}), TypeError),
    "itself": (lambda all_: all_.send_json(itself()), ValueError),
    "nested too deep": (lambda all_: all_.send_json(nested(100_000)), ValueError),
    "an object that raises": (lambda all_: all_.send_json(Unwilling(a=1)), LookupError),
    "JSON too big": (lambda all_: all_.send_json("x" * OUTBOUND_BYTES), MessageTooBig),
    "not to be excluded": (lambda all_: all_.send("x", exclude=1), TypeError),
    "no close code": (lambda all_: all_.close(1006), ValueError),
    "no close reason": (lambda all_: all_.close(1000, "\ud800"), ValueError),
}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("where", ["on the loop", "in a view's thread"])
@pytest.mark.parametrize(("poison", "error"), POISON.values(), ids=POISON)
def test_the_caller_is_told_at_once_and_the_next_message_reaches_all(
    poison: Callable[[Audience[Member]], object], error: type[Exception], where: str
) -> None:
    house = House(direct=where == "on the loop")
    before = house.everyone.send("before")
    with pytest.raises(error):
        poison(house.everyone)
    after = house.everyone.send("after")
    house.run()
    assert house.heard == [["before", "after"]] * 3
    assert [each.result(0) for each in (before, after)] == [Sent(3), Sent(3)]
    assert house.branch.clock.idle


def test_what_just_fits_is_sent() -> None:
    house = House()
    house.everyone.send("x" * OUTBOUND_BYTES)
    house.everyone.send_json("x" * (OUTBOUND_BYTES - 2))
    assert [[len(text) for text in texts] for texts in house.heard] == [[OUTBOUND_BYTES] * 2] * 3


# --- links ---------------------------------------------------------------------------------------


class Broken(Link):
    """Raises whatever it is asked."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.asked = 0

    def deliver(self, message: EncodedMessage) -> None:
        self.asked += 1
        raise self.error

    def close(self, code: int, reason: str) -> None:
        self.asked += 1
        raise self.error


ERRORS = [OSError("gone"), RuntimeError("loop"), AssertionError(), RecursionError(), MemoryError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("place", [0, TURN - 1, TURN, TURN + 1])
def test_a_link_that_raises_keeps_nobody_from_this_message_or_the_next(
    place: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(*map(str, range(TURN + 2)))
    broken = house.branch.members[place].link = Broken(error)
    receipts = [house.everyone.send("one"), house.everyone.send("two")]
    house.run()
    heard = house.heard
    assert heard.pop(place) == []
    assert heard == [["one", "two"]] * (TURN + 1)
    assert broken.asked == 2  # it is not given up: whether it has ended is for it to say
    assert all(receipt.done for receipt in receipts)
    assert house.branch.clock.idle
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in logged] == [
        f"a link failed to take a message for socket {place}"
    ] * 2
    assert [record.exc_info and record.exc_info[1] for record in logged] == [error] * 2


@pytest.mark.parametrize("over", [0.0, 3.0])
def test_a_link_that_raises_keeps_nobody_from_being_closed(over: float) -> None:
    house = House()
    house.branch.members[1].link = Broken(OSError())
    receipt = house.everyone.close(1012, "restart", over=over)
    house.run()
    assert [len(member.link.closed) for member in house.branch.members] == [1, 0, 1]
    assert receipt.done


def test_if_all_links_raise_the_loop_goes_on() -> None:
    house = House()
    links = [member.link for member in house.branch.members]
    for member in house.branch.members:
        member.link = Broken(OSError())
    house.everyone.send("lost")
    for member, link in zip(house.branch.members, links, strict=True):
        member.link = link
    assert house.everyone.send("next").result(0) == Sent(3)
    assert house.heard == [["next"]] * 3


# --- callbacks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("over", [None, 0.0, 3.0], ids=["a send", "a close", "a spread close"])
def test_a_callback_that_raises_keeps_no_later_send_from_anybody(
    over: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(direct=False)
    everyone = house.everyone
    receipt = everyone.send("x") if over is None else everyone.close(1012, over=over)
    error = LookupError("a bug of the app's")

    def fail() -> None:
        raise error

    receipt.add_done_callback(fail)
    house.run()
    assert receipt.done
    following = everyone.send("next")
    house.run()
    assert following.result(0) == Sent(3)
    assert [texts[-1] for texts in house.heard] == ["next"] * 3
    assert [each.exc_info and each.exc_info[1] for each in caplog.records] == [error]
