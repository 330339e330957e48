"""The same bytes say the same, however they are cut and whenever they come."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    head,
)

from .attack import KIB, MIB, both_loops, in_parallel

if TYPE_CHECKING:
    from .attack import Target
    from .conftest import Attack

#: Every kind of frame, every size of header, a control frame between fragments.
CONVERSATION = b"".join(
    (
        frame(TEXT, "grüß".encode(), key=b"\x01\x02\x03\x04"),
        frame(TEXT, b"fr", fin=False),
        frame(PING, b"between"),
        frame(CONTINUATION, b"ag", fin=False, key=b"abcd"),
        frame(CONTINUATION, b""),
        frame(BINARY, b"\x00\xff" * 70),
        frame(PONG, b"unasked"),
        frame(TEXT, b""),
        close_frame(4000, b"done"),
    )
)
ECHOES = [(TEXT, "grüß".encode()), (TEXT, b"frag"), (BINARY, b"\x00\xff" * 70), (TEXT, b"")]


def converse(target: Target, path: str, pieces: list[bytes]) -> None:
    """Send the pieces, each in a segment of its own, and check all that comes back."""
    with target.peer() as peer:
        for piece in pieces:
            peer.send(piece)
            if piece is not pieces[-1]:
                time.sleep(0.002)
        assert peer.status() == 101
        echoes, pongs = [], []
        while (got := peer.read_frame()).opcode != CLOSE:
            if got.opcode == PONG:
                pongs.append(got.payload)
            else:
                echoes.append((got.opcode, got.payload))
        assert got.close_code == 4000, path
        assert peer.read_rest() == b""
    assert echoes == ECHOES, [len(piece) for piece in pieces]
    assert pongs == [b"between"]


@pytest.mark.parametrize("path", ["/echo", "/events", "/auth?delay=0.001"])
def test_a_conversation_cut_at_every_byte(attack: Attack, loop: str, path: str) -> None:
    target = attack(loop=loop)
    stream = head(path) + CONVERSATION

    def cut(start: int) -> None:
        for offset in range(start, len(stream), 8):
            converse(target, path, [stream[:offset], stream[offset:]])

    in_parallel(*(functools.partial(cut, start) for start in range(1, 9)))


@pytest.mark.parametrize("path", ["/events", "/auth?delay=0.05"])
def test_a_conversation_byte_by_byte_and_in_one_piece(attack: Attack, path: str) -> None:
    target = attack()
    stream = head(path) + CONVERSATION

    converse(target, path, [stream])
    converse(target, path, [stream[index : index + 1] for index in range(len(stream))])


@pytest.mark.parametrize("path", ["/echo", "/events", "/auth?delay=0.1", "/auth-thread?delay=0.1"])
def test_a_frame_in_the_segment_of_the_handshake_is_answered(
    attack: Attack, loop: str, path: str
) -> None:
    target = attack(loop=loop)

    with target.peer() as peer:
        peer.send(head(path) + frame(TEXT, b"early"))
        assert peer.status() == 101
        assert peer.read_frame().payload == b"early"
        peer.leave()


@pytest.mark.parametrize("path", ["/auth?delay=0.7", "/auth-thread?delay=0.7"])
@both_loops("default")
def test_100_kib_before_the_verdict_are_all_echoed_after_it(target: Target, path: str) -> None:
    messages = [bytes([number]) * KIB for number in range(100)]
    start = time.monotonic()

    with target.memory() as memory, target.peer() as peer:
        peer.send(head(path) + b"".join(frame(BINARY, message) for message in messages))
        assert peer.status() == 101
        assert time.monotonic() - start >= 0.7
        for message in messages:
            assert peer.read_frame().payload == message
        peer.leave()

    assert memory.growth < MIB


def test_a_bad_frame_before_the_verdict_is_judged_after_it(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)

    with target.peer() as peer:
        peer.send(head("/auth?delay=0.1") + frame(TEXT, b"x", rsv=4))
        assert peer.status() == 101
        assert peer.read_close() == 1002
        assert peer.read_rest() == b""
