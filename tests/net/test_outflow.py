from __future__ import annotations

import base64

import pytest

from tests.net.fakes import FakeTransport
from tests.support import BINARY, TEXT, head
from ws_middleware import Anonymous, ConnectionClosed, Limits, ServerLimits, WebSockets
from ws_middleware.core.session import Session, State
from ws_middleware.net.outflow import HIGH, Outflow
from ws_middleware.types import EncodedMessage


class Sending:
    """An open session with its outflow over a transport that the test drives."""

    def __init__(self, **limits: float) -> None:
        sockets = WebSockets(auth=Anonymous(), limits=Limits(**limits))  # type: ignore[arg-type]
        route = sockets.route("/")
        policy = sockets._front.resolve(route).policy
        self.session = Session(ServerLimits(), now=0, ping_payload=b"ping")
        self.session.receive_data(head("/"), 0)
        assert self.session.next_event(0) is not None
        self.transport = FakeTransport()
        self.out = Outflow(self.transport.as_transport, self.session, lambda _: None)
        self.session.accept(policy, subprotocol=None, now=0)
        self.out.open(policy.limits)
        self.out.flush()
        assert self.transport.writes.pop().startswith(b"HTTP/1.1 101")

    def stall(self, size: int, now: float = 0) -> None:
        """Let the transport hold `size` bytes and say that it takes no more."""
        self.transport.size = size
        self.out.pause(now)

    def written(self) -> bytes:
        written = b"".join(self.transport.writes)
        self.transport.writes.clear()
        return written


def frame_of(payload: bytes, opcode: int = BINARY) -> bytes:
    size = len(payload)
    assert size < 65536
    return (
        bytes([0x80 | opcode])
        + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big"))
        + payload
    )


def test_the_transport_is_told_when_to_push_back() -> None:
    assert Sending().transport.limits == (HIGH, 16 * 1024)


def test_all_that_a_turn_produces_is_one_write() -> None:
    it = Sending()
    for number in range(10):
        assert it.out.send(str(number))
    assert it.transport.writes == []
    it.out.flush()
    assert it.transport.writes == [b"".join(frame_of(b"%d" % i, TEXT) for i in range(10))]


def test_a_turn_that_produces_much_is_written_in_pieces() -> None:
    it = Sending()
    for _ in range(10):
        it.out.send(b"x" * 30_000)
    assert [len(each) for each in it.transport.writes] == [3 * 30_004] * 3
    it.out.flush()
    assert it.written() == frame_of(b"x" * 30_000) * 10


def test_nothing_to_write_is_no_write() -> None:
    it = Sending()
    it.out.flush()
    assert it.transport.writes == []


def test_while_the_transport_is_paused_messages_wait_whole() -> None:
    it = Sending()
    it.stall(100_000)
    it.out.send("a")
    it.out.send(b"b")
    it.out.flush()
    assert it.transport.writes == []
    assert it.out.waiting == (100_002, 2)
    it.transport.size = 0
    it.out.resume()
    assert it.written() == frame_of(b"a", TEXT) + frame_of(b"b")
    assert it.out.waiting == (0, 0)


def test_what_waited_comes_before_what_is_sent_later() -> None:
    it = Sending()
    it.stall(100_000)
    for number in range(5):
        it.out.send(str(number))
    it.transport.size = 0
    it.out.resume()
    it.out.send("5")
    it.out.flush()
    assert it.written() == b"".join(frame_of(b"%d" % i, TEXT) for i in range(6))


def test_a_resume_hands_on_until_the_transport_has_enough_again() -> None:
    it = Sending()
    it.stall(100_000)
    for _ in range(10):
        it.out.send(b"x" * 40_000)
    it.transport.size = 0
    write = it.transport.write

    def write_and_push_back(data: bytes) -> None:
        write(data)
        it.stall(len(data))

    it.transport.write = write_and_push_back  # type: ignore[method-assign]
    it.out.resume()
    assert it.written() == frame_of(b"x" * 40_000) * 2
    assert it.out.waiting[1] == 8


def test_too_much_is_refused_and_what_waits_stays() -> None:
    it = Sending(outbound_bytes=1000)
    it.stall(500)
    assert it.out.send(b"x" * 500)
    assert not it.out.send(b"x")
    it.transport.size = 0
    it.out.resume()
    assert it.written() == frame_of(b"x" * 500)


def test_an_encoded_message_is_framed_once() -> None:
    first, second = Sending(), Sending()
    message = EncodedMessage("x")
    first.out.send(message)
    (frame,) = message.frames.values()
    second.out.send(message)
    assert list(message.frames.values()) == [frame]
    assert next(iter(message.frames.values())) is frame


# --- receipts ------------------------------------------------------------------------------------


def test_a_sender_waits_for_nothing_while_little_waits() -> None:
    it = Sending()
    it.out.send(b"x" * 1000)
    assert it.out.drained() is None


def test_a_sender_waits_while_the_transport_is_paused() -> None:
    it = Sending()
    it.stall(100_000)
    it.out.send(b"x")
    receipt = it.out.drained()
    assert receipt is not None
    assert not receipt.done
    it.out.flush()
    assert not receipt.done
    it.transport.size = 0
    it.out.resume()
    assert receipt.done


def test_a_sender_who_had_much_of_a_turn_waits_for_its_end() -> None:
    it = Sending()
    it.out.send(b"x" * 40_000)
    assert it.out.drained() is None
    it.out.send(b"x" * 40_000)
    receipt = it.out.drained()
    assert receipt is not None
    assert not receipt.done
    it.out.flush()
    assert receipt.done


def test_who_waits_is_told_when_nobody_will() -> None:
    it = Sending()
    it.stall(100_000)
    it.out.send(b"x")
    receipt = it.out.drained()
    assert receipt is not None
    it.out.fail(ConnectionClosed(1006))
    with pytest.raises(ConnectionClosed):
        receipt.result(0)


# --- the end -------------------------------------------------------------------------------------


def test_a_close_comes_behind_all_that_waited_whatever_the_transport_says() -> None:
    it = Sending()
    it.stall(100_000)
    it.out.send("last words")
    it.out.hand_over()
    it.session.close(1000, "", 0)
    assert it.session.state is State.CLOSING
    it.out.flush()
    assert it.written() == frame_of(b"last words", TEXT) + b"\x88\x02\x03\xe8"


def test_what_is_dropped_is_not_sent() -> None:
    it = Sending()
    it.stall(100_000)
    it.out.send("dropped")
    it.out.drop()
    it.session.close(1013, "", 0)
    it.out.flush()
    assert it.written() == b"\x88\x02\x03\xf5"


# --- a peer that takes nothing -------------------------------------------------------------------


def test_a_write_without_progress_is_stalled_after_its_timeout() -> None:
    it = Sending(write_timeout=10)
    assert it.out.deadline is None
    assert not it.out.is_stalled(100)
    it.stall(100_000, now=100)
    assert it.out.deadline == 110
    assert not it.out.is_stalled(109)
    assert it.out.is_stalled(110)


def test_progress_starts_the_timeout_anew() -> None:
    it = Sending(write_timeout=10)
    it.stall(100_000, now=100)
    it.transport.size = 99_999
    assert not it.out.is_stalled(110)
    assert it.out.deadline == 120
    assert it.out.is_stalled(120)


def test_a_transport_that_goes_on_is_not_stalled() -> None:
    it = Sending(write_timeout=10)
    it.stall(100_000, now=100)
    it.transport.size = 0
    it.out.resume()
    assert it.out.deadline is None
    assert not it.out.is_stalled(1000)


def test_before_it_is_open_it_counts_and_has_no_deadline() -> None:
    session = Session(ServerLimits(), now=0, ping_payload=base64.b64decode(b"AAAA"))
    transport = FakeTransport()
    out = Outflow(transport.as_transport, session, lambda _: None)
    out.pause(0)
    assert out.deadline is None
    assert out.waiting == (0, 0)
    out.drop()
    out.hand_over()
    out.resume()
    out.flush()
    assert transport.writes == []
