"""Many at once, slow ones, and a handler that holds the loop: others live, and nothing is left."""

from __future__ import annotations

import contextlib
import functools
import inspect
import random
import re
import resource
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support import BINARY, PING, TEXT, close_frame, frame, head

from . import server
from .attack import (
    ACROSS,
    KIB,
    LOOPS,
    MIB,
    ROOT,
    TICK,
    Latencies,
    Peer,
    both_loops,
    in_parallel,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.sync.client import ClientConnection

    from .attack import Target
    from .conftest import Attack
    from .server import Report

T = TypeVar("T")

#: How long a handler may outlive its peer.
GRACE = 5.0

#: The default of `sync_threads`.
POOL = 32

#: The main thread, the loop, the watchdog, and one to spare.
OTHER_THREADS = 4


def allow_files(count: int) -> None:
    """Let this process, and the servers it starts, have `count` files open, and some to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 200, hard), hard))


@contextlib.contextmanager
def many(target: Target, path: str, count: int) -> Iterator[list[Peer]]:
    """Open many WebSockets."""
    allow_files(count)
    peers: list[Peer] = []
    try:
        for _ in range(count):
            peers.append(target.peer())
            peers[-1].send(head(path))
        for peer in peers:
            assert peer.status() == 101
        yield peers
    finally:
        for peer in peers:
            peer.socket.close()


# --- slow readers ---------------------------------------------------------------------------------


def test_8_mib_with_a_result_each_reach_a_slow_reader_in_order(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)

    with (
        target.memory() as memory,
        Latencies(target) as others,
        target.peer("/pieces", receive_buffer=64 * KIB) as peer,
    ):
        peer.send(frame(TEXT, b"begin"))
        for number in range(server.PIECES):
            got = peer.read_data()
            assert got.opcode == BINARY
            assert got.payload == server.piece(number)
            time.sleep(0.005)
        peer.leave()
    print(f"\n8 MiB slowly on {loop}: {memory.growth / MIB:+.2f} MiB, {others}")

    others.check()
    # A piece in hand, what waits before a sender is told to, and the allocator.
    assert memory.growth < 2 * MIB


# --- many -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_1000_sockets_on_a_handler_that_blocks_share_the_pool(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)
    threads: list[int] = []

    with many(target, "/work", 1000) as peers:
        start = time.monotonic()
        for number, peer in enumerate(peers):
            peer.send(frame(TEXT, f"{number}: first".encode()))
        for number, peer in enumerate(peers[:100]):
            peer.send(frame(TEXT, f"{number}: second".encode()))
        with Latencies(target) as others:
            for _ in range(5):
                report = target.report()
                threads.append(report["threads"] - report["auth_threads"])
                time.sleep(0.2)
        for number, peer in enumerate(peers):
            assert peer.read_data().payload == f"{number}: first".encode()
        for number, peer in enumerate(peers[:100]):
            assert peer.read_data().payload == f"{number}: second".encode()
        took = time.monotonic() - start
    print(f"\n1,000 on {loop}: {took:.1f} s, at most {max(threads)} threads, {others}")

    others.check()
    assert max(threads) <= POOL + OTHER_THREADS
    assert took < 2 * (1100 * server.WORK / POOL) + ACROSS


#: What a connection may have said before it dies, and how often: any state there is. What keeps the
#: server busy for long is rare, so that there is time for many.
STATES: dict[bytes, int] = {
    b"": 4,
    b"GET /ec": 4,
    head("/auth?delay=0.3"): 4,
    head("/auth-thread?delay=0.01"): 4,
    head("/nowhere"): 4,
    head("/echo"): 8,
    head("/push"): 8,
    head("/leave"): 4,
    head("/ticker"): 8,
    head("/events") + frame(TEXT, b"e") * 50: 4,
    head("/echo") + frame(BINARY, b"e" * 70_000)[:-1]: 4,
    head("/echo") + frame(PING, b"e" * 125) * 100: 4,
    head("/echo") + frame(TEXT, b"e", rsv=4) + b"\x00" * 10_000: 4,
    head("/echo") + close_frame(): 4,
    head("/events") + frame(TEXT, b"e") + close_frame() + frame(TEXT, b"late"): 4,
    head("/work") + frame(TEXT, b"e") * 3: 4,
    **{head(f"/rooms/{name}"): 4 for name in "abc"},
    **{head(f"/rooms/{name}") + frame(TEXT, b"e" * 200) * 3: 4 for name in "abc"},
    head("/echo") + frame(TEXT, b"e") * 5000: 1,
    head("/burst"): 1,
    head("/burst-events") + frame(TEXT, b"e"): 1,
    head("/pieces") + frame(TEXT, b"e"): 1,
}


def end_and_close(peer: Peer) -> None:
    peer.end()
    peer.socket.close()


def close_and_reset(peer: Peer) -> None:
    peer.send_anyway(close_frame())
    peer.reset()


def close_in_order(peer: Peer) -> None:
    peer.send_anyway(close_frame(1001))
    peer.end()


def say_nothing(peer: Peer) -> None:
    """Stay, and answer no ping, until the server has had enough."""


#: How it may die, and how often each way is taken.
WAYS: dict[Callable[[Peer], None], int] = {
    Peer.reset: 4,
    lambda peer: peer.socket.close(): 4,
    end_and_close: 4,
    close_and_reset: 4,
    close_in_order: 4,
    Peer.end: 1,
    Peer.vanish: 1,
    say_nothing: 1,
}

#: Those who kill at the same time, and the peers that each may have waiting to be let go of.
KILLERS = 8
MOST_LEFT = 200


def pick(weights: dict[T, int], dice: random.Random) -> T:
    return dice.choices(list(weights), list(weights.values()))[0]


def open_and_kill(target: Target, dice: random.Random) -> Peer:
    """Bring a connection into any state, and leave it in any way; it may be half open still."""
    peer = target.peer(receive_buffer=dice.choice([4 * KIB, None]))
    with contextlib.suppress(OSError):
        peer.send_anyway(pick(STATES, dice))
        time.sleep(dice.choice([0, 0, 0.001, 0.005]))
        pick(WAYS, dice)(peer)
    return peer


def kill_some(target: Target, count: int, seed: int) -> None:
    """Open and kill `count` connections; each that stays is let go by the server, in time."""
    dice = random.Random(seed)
    left: deque[Peer] = deque()
    for number in range(count):
        peer = open_and_kill(target, dice)
        if peer.socket.fileno() >= 0:
            left.append(peer)
        while len(left) > (MOST_LEFT if number + 1 < count else 0):
            with left.popleft() as peer:
                assert peer.is_gone(), "the server has not let go of a silent peer"


def kill_round(target: Target, count: int, seed: int) -> Report:
    """Open and kill `count` connections, and return what the server holds when all is over."""
    each = (
        functools.partial(kill_some, target, count // KILLERS, seed * KILLERS + number)
        for number in range(KILLERS)
    )
    in_parallel(*each)
    target.wait_idle(10)
    # A handler's task is kept for as long as it may outlive its peer, and no longer.
    wait_until(lambda: target.report(collect=True)["objects"] == 0, GRACE + ACROSS)
    return target.report(collect=True)


@pytest.mark.slow
@both_loops("quick")
def test_10000_connections_killed_in_any_state_leave_nothing_behind(target: Target) -> None:
    allow_files(2 * KILLERS * (MOST_LEFT + 1))
    first = kill_round(target, 1000, seed=1)  # what it needs is kept: caches, pools, threads
    grown, blocks = [], [first["blocks"]]
    # What leaks does so in every round; what the allocator keeps of a peak, only in one.
    for seed in range(2, 6):
        rss = target.rss
        last = kill_round(target, 2500, seed)
        grown.append(target.rss - rss)
        blocks.append(last["blocks"])
    print(f"\nkills: {[size // KIB for size in grown]} KiB more, {blocks} blocks, {last}")

    assert last["fds"] == first["fds"]
    assert last["threads"] <= POOL + 8 + OTHER_THREADS
    assert min(grown) < 2 * MIB
    # An object that each connection leaves behind would be 10,000 more.
    assert blocks[-1] - blocks[0] < 5000


# --- a loop that stands still ---------------------------------------------------------------------


def place_of_the_block() -> str:
    """Return where the watchdog is to point."""
    lines, first = inspect.getsourcelines(server.block)
    number = first + next(i for i, line in enumerate(lines) if "time.sleep(" in line)
    return f"/tests/hostile/server.py:{number} in block (socket "


@pytest.mark.slow
@both_loops("impatient")
def test_a_loop_that_stands_still_costs_no_live_peer_its_socket(
    target: Target,
) -> None:
    # Half a second of silence after a ping is death, so every moment of the heartbeat is hit.
    def live(client: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # counted on the server's side
            for _ in client:
                pass

    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(30):
            client = connect(target.url("/push"), ping_interval=None, compression=None)
            clients.append(stack.enter_context(client))
            reader = threading.Thread(target=live, args=(client,))
            reader.start()
            stack.callback(reader.join)
            stack.callback(client.close)
            time.sleep(0.02)
        with target.peer("/block") as blocker:
            # Once for long; and again and again, with one turn of the loop between.
            for message in ("3 1", "0.9 2"):
                blocker.send(frame(TEXT, message.encode()))
                assert blocker.read_data().payload == b"awake"
            blocker.leave()
        time.sleep(0.5 + 2 * TICK)
        open_still = target.report()["registered"]

    place = re.escape(place_of_the_block())
    log = target.log.replace(str(ROOT), "")
    assert re.search(rf"loop blocked \d\.\d s (and still is )?by {place}", log)
    assert "why=no_pong" not in target.log
    assert open_still == len(clients)


# --- what an idle socket costs --------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_an_idle_socket_costs_less_than_16_kib_and_no_thread(attack: Attack, loop: str) -> None:
    target = attack("fresh", loop)
    with many(target, "/push", 10):
        pass
    target.wait_idle()
    before, rss = target.report(collect=True), target.rss

    with many(target, "/push", 1000):
        after = target.report(collect=True)
        each = (target.rss - rss) / 1000
    target.wait_idle()
    left = target.report(collect=True)
    print(
        f"\n{each / KIB:.2f} KiB per idle socket on {loop}, threads {before['threads']} -> "
        f"{after['threads']}"
    )

    assert after["registered"] == 1000
    assert each < 16 * KIB
    assert after["threads"] <= before["threads"]
    assert left["fds"] == before["fds"]
    assert left["objects"] == 0
