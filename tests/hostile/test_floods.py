"""Peers that send without end, or that don't read: bounded memory, and nobody else waits."""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import BINARY, PING, TEXT, close_frame, frame, head

from .attack import ACROSS, KIB, MIB, TICK, Latencies, Peer, both_loops, in_parallel, wait_until
from .server import BURST_COUNT, burst_message

if TYPE_CHECKING:
    from .attack import Target
    from .conftest import Attack

OUTBOUND_BYTES = MIB
INBOUND_BYTES = 2 * MIB

#: What Python's allocator and the kernel's rounding may add.
ALLOCATOR = 2 * MIB


@pytest.mark.slow
def test_50_mib_of_pings_from_a_peer_that_does_not_read(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)
    pings = frame(PING, b"p" * 125) * 1000

    with (
        target.memory() as memory,
        Latencies(target) as others,
        target.peer("/echo", receive_buffer=4 * KIB) as peer,
    ):
        sent = 0
        while sent < 50 * MIB and peer.send_anyway(pings):
            sent += len(pings)
    print(f"\n{sent / MIB:.1f} MiB of pings on {loop}: {memory.growth / MIB:+.2f} MiB, {others}")

    others.check()
    assert memory.growth < 2 * MIB
    # Either all of it was taken, or the peer was cut for not reading.
    assert sent >= 50 * MIB or "why=write_timeout" in target.log


@both_loops("quick")
def test_30_mib_of_messages_to_an_echo_from_a_peer_that_does_not_read(target: Target) -> None:
    message = frame(BINARY, b"m" * (64 * KIB))

    with (
        target.memory() as memory,
        Latencies(target) as others,
        target.peer("/echo", receive_buffer=4 * KIB) as peer,
    ):
        start = time.monotonic()
        sent = 0
        while sent < 30 * MIB and peer.send_anyway(message):
            sent += len(message)
        wait_until(lambda: "why=write_timeout" in target.log, 1.0)
        took = time.monotonic() - start
        assert peer.is_gone()
    print(
        f"\n{sent / MIB:.1f} MiB of messages: {memory.growth / MIB:+.2f} MiB, "
        f"cut after {took:.1f} s, {others}"
    )

    others.check()
    # While there is progress into the kernel's buffers, the time does not run.
    assert 2.0 <= took < 2.0 + TICK + 2 * ACROSS
    assert memory.growth < INBOUND_BYTES + OUTBOUND_BYTES + ALLOCATOR


@pytest.mark.parametrize("path", ["/burst", "/burst-events"])
def test_a_slow_consumer_is_closed_with_1013(attack: Attack, loop: str, path: str) -> None:
    target = attack("default", loop)

    with (
        target.memory() as memory,
        Latencies(target) as others,
        target.peer(path, receive_buffer=4 * KIB) as peer,
    ):
        peer.send(frame(TEXT, b"begin"))
        wait_until(lambda: "why=slow_consumer" in target.log, 10)
        # It wakes up in time to be told why.
        received = 0
        while (got := peer.read_data()).payload == burst_message(received):
            received += 1
        assert got.close_code == 1013
        assert got.payload[2:] == b"slow_consumer"
        peer.send(close_frame(1013))
        assert peer.read_rest() == b""
    print(f"\n{path} on {loop}: {memory.growth / MIB:+.2f} MiB, {others}")

    others.check()
    assert memory.growth < OUTBOUND_BYTES + ALLOCATOR


@pytest.mark.parametrize("slow", ["drop_oldest", "latest_only"])
@pytest.mark.parametrize("path", ["/burst", "/burst-events"])
def test_a_slow_consumer_may_miss_messages_instead(
    attack: Attack, loop: str, path: str, slow: str
) -> None:
    target = attack("default", loop)

    with target.memory() as memory, target.peer(f"{path}-{slow}", receive_buffer=4 * KIB) as peer:
        peer.send(frame(TEXT, b"begin"))
        time.sleep(ACROSS)  # it sleeps, and wakes up in time
        numbers = [int.from_bytes(peer.read_data().payload[:4], "big")]
        while numbers[-1] < BURST_COUNT - 1:
            numbers.append(int.from_bytes(peer.read_data().payload[:4], "big"))
        peer.send(close_frame(1000))
        wait_until(lambda: f"dropped={BURST_COUNT - len(numbers)}" in target.log, 5)

    assert numbers == sorted(set(numbers))
    assert len(numbers) < BURST_COUNT
    assert memory.growth < OUTBOUND_BYTES + ALLOCATOR


@both_loops("quick")
def test_a_slow_consumer_that_never_reads_is_gone_after_close_timeout(target: Target) -> None:
    with target.memory() as memory, target.peer("/burst", receive_buffer=4 * KIB) as peer:
        wait_until(lambda: "why=slow_consumer" in target.log, 10)
        assert target.wait_idle(1.0 + TICK + ACROSS) < 1.0 + TICK + ACROSS
        assert peer.is_gone()

    assert memory.growth < OUTBOUND_BYTES + ALLOCATOR


@both_loops("default")
def test_what_a_thread_sends_while_the_loop_stands_still_is_bounded(target: Target) -> None:
    with (
        target.memory() as memory,
        target.peer("/burst-events") as peer,
        target.peer("/block") as blocker,
    ):
        peer.send(frame(TEXT, b"begin"))
        blocker.send(frame(TEXT, b"1 1"))
        assert blocker.read_data().payload == b"awake"
        blocker.leave()
        peer.reset()

    assert memory.growth < OUTBOUND_BYTES + ALLOCATOR


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/echo", "/events"])
def test_tiny_messages_by_the_segment_delay_nobody_else(
    attack: Attack, loop: str, path: str
) -> None:
    target = attack(loop=loop)
    tiny = frame(TEXT, b"t")
    assert len(tiny) == 7
    segment = tiny * (64 * KIB // len(tiny))
    segments = 4

    def read_all(peer: Peer) -> None:
        left = segments * (len(segment) // 7) * 3
        while left:
            left -= len(peer.socket.recv(65536))

    with target.memory() as memory, target.peer(path) as peer, Latencies(target) as others:
        reader = threading.Thread(target=read_all, args=(peer,))
        reader.start()
        start = time.monotonic()
        for _ in range(segments):
            peer.send(segment)
        reader.join()
        took = time.monotonic() - start
    rate = segments * (len(segment) // 7) / took
    print(f"\n{rate:.0f} messages/s through {path} on {loop}: {others}")

    others.check()
    assert memory.growth < ALLOCATOR


def test_tiny_messages_after_our_close_frame_delay_nobody_else(attack: Attack, loop: str) -> None:
    target = attack("quick", loop)
    segment = frame(TEXT, b"t") * (64 * KIB // 7)

    def go_on() -> None:
        with target.peer("/leave") as peer:
            assert peer.read_close() == 1000
            start = time.monotonic()
            while peer.send_anyway(segment):
                pass
            # It is read for an answer, but not for ever.
            assert time.monotonic() - start < 1.0 + TICK + ACROSS

    with Latencies(target) as others:
        in_parallel(*[go_on] * 5)
    print(f"\nto closing sockets on {loop}: {others}")

    others.check()


def test_sockets_that_are_closed_in_a_flood_end_in_order(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)
    flood = frame(TEXT, b"t") * 20_000

    def swept(number: int) -> None:
        with target.peer("/echo") as peer:
            sender = threading.Thread(target=peer.send_anyway, args=(flood,))
            sender.start()
            assert peer.read_close() == 1001
            peer.send_anyway(close_frame(1001))
            sender.join()

    def sweep() -> None:
        with target.peer("/sweep") as peer:
            for _ in range(20):
                time.sleep(0.05)
                peer.send(frame(TEXT, b"all"))
            peer.leave()

    in_parallel(sweep, *(functools.partial(swept, number) for number in range(6)))


def test_10_mib_before_the_verdict_are_not_kept(attack: Attack) -> None:
    target = attack()
    early = frame(BINARY, b"e" * KIB) * (10 * KIB)

    def flood(path: str) -> None:
        with target.peer() as peer:
            peer.send(head(path))
            sender = threading.Thread(target=peer.send_anyway, args=(early,))
            sender.start()
            time.sleep(0.7)
            peer.reset()
            sender.join()

    with target.memory() as memory:
        in_parallel(
            *(functools.partial(flood, f"/auth{kind}?delay=1.0") for kind in ("", "-thread"))
        )

    assert memory.growth < MIB
