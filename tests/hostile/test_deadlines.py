"""Every state has a deadline: the defaults, all waited for at the same time."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import close_frame, head

from .attack import ACROSS, KIB, MIB, TICK, Peer, answer_of, both_loops, in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .attack import Target

HEAD_TIMEOUT = 5.0
DEFAULT_CLOSE_TIMEOUT = 5.0


def expect_408(target: Target, head_bytes: Iterator[bytes]) -> None:
    """Send the head at its own pace until there is an answer."""
    start = time.monotonic()
    with Peer(target.address) as peer:
        peer.socket.settimeout(0.5)
        for piece in head_bytes:
            peer.send(piece)
            try:
                peer._more()
                break
            except TimeoutError:
                continue
        peer.socket.settimeout(10)
        assert answer_of(peer) == 408
    took = time.monotonic() - start
    assert HEAD_TIMEOUT <= took < HEAD_TIMEOUT + TICK + ACROSS, took


def silence() -> Iterator[bytes]:
    while True:
        yield b""


def byte_by_byte(text: bytes) -> Iterator[bytes]:
    for index in range(len(text)):
        yield text[index : index + 1]


def half(text: bytes) -> Iterator[bytes]:
    yield text[: len(text) // 2]
    yield from silence()


def all_but_the_last(text: bytes) -> Iterator[bytes]:
    yield text[:-1]
    yield from silence()


def expect_default_cut(target: Target) -> None:
    start = time.monotonic()
    with target.peer("/leave") as silent, target.peer("/leave") as half:
        for peer in (silent, half):
            assert peer.read_close() == 1000
        half.send(close_frame()[:5])
        assert silent.is_gone()
        took = time.monotonic() - start
        assert half.is_gone()
    assert DEFAULT_CLOSE_TIMEOUT <= took < DEFAULT_CLOSE_TIMEOUT + TICK + ACROSS


def end_and_never_read(target: Target) -> None:
    with target.peer("/burst", receive_buffer=4 * KIB) as peer:
        time.sleep(0.05)
        peer.end()
        # Closed with 1013 or lost: after five seconds without a byte taken it goes in any case.
        target.wait_idle(2 * DEFAULT_CLOSE_TIMEOUT + TICK + ACROSS)
        assert peer.is_gone()


@pytest.mark.slow
@both_loops("default")
def test_whoever_is_silent_is_cut_in_time(target: Target) -> None:
    heads: list[Callable[[], Iterator[bytes]]] = [
        silence,
        functools.partial(byte_by_byte, head("/echo")),
        functools.partial(half, head("/echo")),
        functools.partial(all_but_the_last, head("/echo")),
    ]

    with target.memory() as memory:
        in_parallel(
            *(functools.partial(expect_408, target, each()) for each in heads * 5),
            functools.partial(expect_default_cut, target),
            functools.partial(end_and_never_read, target),
        )

    assert memory.growth < 4 * MIB
