"""A room in which one does not read: the others get everything, in order and in time."""

from __future__ import annotations

import selectors
import threading
import time
from typing import TYPE_CHECKING, Self

import pytest

from tests.support import BINARY, TEXT, close_frame, frame

from .attack import FACTOR, KIB, MIB, PROMPT, LateError, Latencies, crowding, wait_until
from .server import steady_message

if TYPE_CHECKING:
    from .attack import Peer, Target
    from .conftest import Attack

READERS = 100
OUTBOUND_BYTES = MIB

#: Messages in all, and a second: more than the kernel (4 MiB) and we (1 MiB) keep for one peer.
COUNT, RATE = 2400, 400


class Readers:
    """Peers that read, all in one thread, and must get exactly the messages of `/steady`."""

    def __init__(self, target: Target) -> None:
        messages = map(steady_message, range(COUNT))
        frames = (frame(BINARY, length=len(each), key=None) + each for each in messages)
        self._expected = b"".join(frames)
        self._peers = [target.peer("/feed/all") for _ in range(READERS)]
        self._thread = threading.Thread(target=self._read)
        self._over = threading.Event()
        self._failed: BaseException | None = None
        #: Bytes that each has got so far.
        self._got = dict.fromkeys(self._peers, 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._over.set()
        self._thread.join()
        for peer in self._peers:
            peer.socket.close()

    @property
    def have_all(self) -> bool:
        """Whether each has got everything; raises what went wrong on the way."""
        if self._failed is not None:
            raise self._failed
        return all(got == len(self._expected) for got in self._got.values())

    def _read(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                for peer in self._peers:
                    selector.register(peer.socket, selectors.EVENT_READ, peer)
                while not self._over.is_set():
                    for key, _ in selector.select(0.1):
                        self._take(key.data)
        except (AssertionError, OSError) as error:
            self._failed = error

    def _take(self, peer: Peer) -> None:
        data, peer._buffer = peer._buffer or peer.socket.recv(64 * KIB), b""
        assert data, "the server has closed a peer that reads"
        start = self._got[peer]
        assert data == self._expected[start : start + len(data)]
        self._got[peer] = start + len(data)


def send_to_all(target: Target, readers: Readers) -> float:
    """Have all messages sent; return how long after the last one everybody had them."""
    with target.peer("/steady") as peer:
        peer.send(frame(TEXT, f"all {COUNT} {RATE}".encode()))
        peer.socket.settimeout(COUNT / RATE * 4 * crowding())
        assert peer.read_data().payload == b"done"
        late = wait_until(lambda: readers.have_all, 10)
        peer.leave()
    return late


@pytest.mark.slow
def test_one_of_101_that_never_reads_costs_the_others_nothing(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)
    with Readers(target) as readers:  # without the one: what the allocator wants in any case
        send_to_all(target, readers)
    target.wait_idle()

    with Readers(target) as readers, target.peer("/feed/all", receive_buffer=4 * KIB) as slow:
        start = time.monotonic()
        with target.memory() as memory, Latencies(target) as others:
            late = send_to_all(target, readers)
        took = time.monotonic() - start
        assert "why=slow_consumer" in target.log
        # It wakes up in time to be told why, and had the first of them in order until then.
        received = 0
        while (got := slow.read_data()).opcode == BINARY:
            assert got.payload == steady_message(received)
            received += 1
        assert (got.close_code, got.payload[2:]) == (1013, b"slow_consumer")
        slow.send(close_frame(1013))
        assert slow.read_rest() == b""
    print(
        f"\n{COUNT} to {READERS} on {loop} in {took:.1f} s, the last {late * 1000:.0f} ms late; "
        f"{received} to the slow one; {memory.growth / MIB:+.2f} MiB, {others}"
    )

    assert received < COUNT
    # What waits for the slow one, whole and as frames, and the allocator.
    assert memory.growth < 2 * OUTBOUND_BYTES + MIB
    others.check()
    if late > PROMPT * FACTOR * crowding():
        msg = f"the last message came {late:.2f} s late"
        raise LateError(msg)
