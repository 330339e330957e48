"""What is too big is refused before it is read, whole or in pieces."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.support import BINARY, CONTINUATION, TEXT, frame

from .attack import KIB, MIB

if TYPE_CHECKING:
    from .attack import Peer
    from .conftest import Attack

MESSAGE_SIZE = MIB


def fragments(size: int, each: int) -> bytes:
    """Return a binary message of `size` bytes in frames of at most `each`."""
    starts = range(0, size, each)
    return b"".join(
        frame(
            BINARY if start == 0 else CONTINUATION,
            b"f" * min(each, size - start),
            fin=start + each >= size,
        )
        for start in starts
    )


def read_message(peer: Peer) -> bytes:
    got = peer.read_data()
    assert got.fin
    return got.payload


def test_200_000_empty_fragments_end_with_1009_and_flat_memory(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)
    flood = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 200_000

    with target.memory() as memory, target.peer("/echo") as peer:
        sender = threading.Thread(target=peer.send_anyway, args=(flood,))
        sender.start()
        assert peer.read_close() == 1009
        sender.join()

    assert memory.growth < MIB
    assert "too_many_fragments: fragments is 1024" in target.log


@pytest.mark.parametrize("declared", [MESSAGE_SIZE + 1, 2**31, 2**62])
def test_a_declared_length_is_refused_after_14_bytes(attack: Attack, declared: int) -> None:
    target = attack()
    header = frame(BINARY, length=declared)
    assert len(header) == 14

    with target.memory() as memory, target.peer("/echo") as peer:
        peer.send(header)
        assert peer.read_close() == 1009
        assert peer.read_rest() == b""

    assert memory.growth < MIB


def test_a_message_of_exactly_message_size_comes_back(attack: Attack) -> None:
    target = attack()

    with target.peer("/echo") as peer:
        peer.send(frame(BINARY, b"f" * MESSAGE_SIZE))
        assert read_message(peer) == b"f" * MESSAGE_SIZE
        peer.send(fragments(MESSAGE_SIZE, 64 * KIB))
        assert read_message(peer) == b"f" * MESSAGE_SIZE
        peer.leave()


@pytest.mark.parametrize(
    "message",
    [
        frame(BINARY, b"f" * (MESSAGE_SIZE + 1)),
        fragments(MESSAGE_SIZE + 1, 64 * KIB),
        fragments(MESSAGE_SIZE + 1, MESSAGE_SIZE),
    ],
    ids=["one frame", "17 fragments", "the last byte alone"],
)
def test_one_byte_more_is_1009(attack: Attack, message: bytes) -> None:
    target = attack()

    with target.peer("/echo") as peer:
        peer.send_anyway(message)
        assert peer.read_close() == 1009

    assert "message_too_big" in target.log


def test_100_unfinished_messages_hold_no_more_than_they_sent(attack: Attack) -> None:
    target = attack()
    most = 64 * KIB

    with target.memory() as memory:
        peers = [target.peer("/echo") for _ in range(100)]
        for peer in peers:
            peer.send(frame(BINARY, b"h" * most, fin=False))
        with target.peer("/echo") as other:
            other.echo("after them")
            other.leave()
        for peer in peers:
            peer.reset()
        target.wait_idle()

    # Twice: a bytearray grows by more than it needs.
    assert memory.growth < 100 * most * 2 + 2 * MIB
