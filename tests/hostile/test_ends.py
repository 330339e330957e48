"""How connections end that nobody ends properly: seen, told why, cleaned up, on time."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import time
from typing import IO, TYPE_CHECKING, cast

import pytest

from tests.support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame, head

from .attack import ACROSS, KIB, MIB, ROOT, TICK, Peer, both_loops, in_parallel, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from .attack import Target
    from .conftest import Attack

#: Of the "quick" server.
INTERVAL = TIMEOUT = CLOSE_TIMEOUT = 1.0

DEFAULT_CLOSE_TIMEOUT = 5.0

#: How long a handler may outlive its peer.
GRACE = 5.0

BAD_FRAMES = {
    "a reserved bit": (frame(TEXT, b"x", rsv=4), 1002),
    "no mask": (frame(TEXT, b"x", key=None), 1002),
    "a reserved opcode": (frame(0x3, b"x"), 1002),
    "a ping in two frames": (frame(PING, b"x", fin=False), 1002),
    "no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "too big": (frame(BINARY, length=2**62), 1009),
    "a close code that must not be sent": (close_frame(1005), 1002),
}


# --- the peer goes on sending ---------------------------------------------------------------------


def test_a_peer_that_goes_on_sending_reads_the_close_frame_and_an_end(
    attack: Attack, loop: str
) -> None:
    target = attack(loop=loop)

    def go_on(name: str, pause: float) -> None:
        wrong, code = BAD_FRAMES[name]
        with target.peer("/echo") as peer:
            peer.send(wrong)
            for _ in range(64):
                peer.send(b"\x00" * 4 * KIB)
                time.sleep(pause)
            assert peer.read_frame().close_code == code, name
            assert peer.read_rest() == b"", name  # an end, not ECONNRESET

    for pause in (0, 0, 0, 0, 0.001, 0.005):
        in_parallel(*(functools.partial(go_on, name, pause) for name in BAD_FRAMES))


def test_a_peer_that_goes_on_sending_for_ever_is_cut(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)

    with target.memory() as memory, target.peer("/echo") as peer:
        peer.send(frame(TEXT, b"x", rsv=4))
        sent = 0
        while peer.send_anyway(b"\x00" * 64 * KIB):
            sent += 64 * KIB
            assert sent < 64 * MIB

    assert memory.growth < MIB


# --- the closing handshake ------------------------------------------------------------------------


def say_nothing(peer: Peer) -> None:
    """Leave the close frame unanswered."""


def say_half(peer: Peer) -> None:
    peer.send(close_frame()[:5])


def go_on_pinging(peer: Peer) -> None:
    while peer.send_anyway(frame(PING, b"still here")):
        time.sleep(0.05)


def go_on_talking(peer: Peer) -> None:
    while peer.send_anyway(frame(TEXT, b"and another thing")):
        time.sleep(0.05)


def answer_and_stay(peer: Peer) -> None:
    peer.send(close_frame())
    assert peer.read_rest() == b""


CLOSERS = (say_nothing, say_half, go_on_pinging, go_on_talking, answer_and_stay)


def expect_cut(target: Target, closer: Callable[[Peer], None], close_timeout: float) -> None:
    with target.peer("/leave") as peer:
        start = time.monotonic()
        assert peer.read_close() == 1000
        closer(peer)
        assert peer.is_gone()
        took = time.monotonic() - start
    assert took < close_timeout + TICK + ACROSS, (closer.__name__, took)


@both_loops("quick")
def test_an_unanswered_close_frame_ends_after_close_timeout(target: Target) -> None:
    in_parallel(*(functools.partial(expect_cut, target, each, CLOSE_TIMEOUT) for each in CLOSERS))
    target.wait_idle(CLOSE_TIMEOUT + TICK + ACROSS)


def say_half_and_no_more(target: Target) -> None:
    whole = close_frame(1000, b"bye")
    peers = [target.peer("/push") for _ in whole[1:]]
    for cut, peer in enumerate(peers, 1):
        peer.send(whole[:cut])
    wait_until(
        lambda: target.log.count("code=1011 by=us why=no_pong") == len(peers),
        INTERVAL + TIMEOUT + 2 * TICK + ACROSS,
    )
    for peer in peers:
        assert peer.is_gone()
        peer.socket.close()


def take_its_time(target: Target) -> None:
    with target.peer("/echo") as peer:
        message = frame(TEXT, b"it takes its time")
        for index in range(5):  # longer than a silent peer has, and never a pong
            time.sleep(0.5)
            peer.send(message[index : index + 1])
        peer.send(message[5:])
        assert peer.read_data().payload == b"it takes its time"
        peer.leave()


@both_loops("quick")
def test_any_byte_is_life_and_half_a_close_frame_with_nothing_after_it_is_not(
    target: Target,
) -> None:
    in_parallel(
        functools.partial(say_half_and_no_more, target), functools.partial(take_its_time, target)
    )


# --- the peer is gone -----------------------------------------------------------------------------


def vanish_by_reset(peer: Peer) -> None:
    peer.reset()


def vanish_by_close(peer: Peer) -> None:
    peer.socket.close()


def vanish_by_half(peer: Peer) -> None:
    peer.end()
    assert peer.is_gone()


VANISH = (vanish_by_reset, vanish_by_close, vanish_by_half)


def idle(target: Target) -> Peer:
    return target.peer("/echo")


def idle_after_messages(target: Target) -> Peer:
    peer = target.peer("/events")
    peer.echo("one")
    return peer


def pushed(target: Target) -> Peer:
    return target.peer("/push")


def in_a_header(target: Target) -> Peer:
    peer = target.peer("/echo")
    peer.send(frame(BINARY, b"x" * 70_000)[:5])
    return peer


def in_a_payload(target: Target) -> Peer:
    peer = target.peer("/echo")
    peer.send(frame(BINARY, b"x" * 70_000)[:60_000])
    return peer


def in_a_message(target: Target) -> Peer:
    peer = target.peer("/echo")
    peer.send(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", fin=False))
    return peer


def in_the_authenticator(target: Target) -> Peer:
    peer = target.peer()
    peer.send(head("/auth?delay=30"))
    return peer


def in_an_authenticator_in_a_thread(target: Target) -> Peer:
    peer = target.peer()
    peer.send(head("/auth-thread?delay=0.5"))
    return peer


def in_the_head(target: Target) -> Peer:
    peer = target.peer()
    peer.send(head("/echo")[:-10])
    return peer


STATES = (
    idle,
    idle_after_messages,
    pushed,
    in_a_header,
    in_a_payload,
    in_a_message,
    in_the_authenticator,
    in_an_authenticator_in_a_thread,
    in_the_head,
)


@pytest.mark.parametrize("vanish", VANISH)
@pytest.mark.parametrize("state", STATES)
def test_a_peer_that_vanishes_is_seen_at_once(
    attack: Attack, loop: str, state: Callable[[Target], Peer], vanish: Callable[[Peer], None]
) -> None:
    target = attack(loop=loop)  # no heartbeat comes so soon: nothing but the end itself can tell
    peers = [state(target) for _ in range(5)]
    time.sleep(0.02)
    assert target.report()["sockets"] == 5

    in_parallel(*(functools.partial(vanish, peer) for peer in peers))

    assert target.wait_idle(ACROSS + 0.5) < ACROSS + 0.5
    for peer in peers:
        peer.socket.close()


def fill(peer: Peer) -> Peer:
    """Send more than a handler that takes nothing has room for."""
    peer.send(frame(TEXT, b"not taken") * 100)
    return peer


@pytest.mark.slow
@both_loops("quick")
def test_a_peer_that_vanishes_while_reading_is_paused_is_seen_within_two_intervals(
    target: Target,
) -> None:
    reset, closed, ended = (fill(target.peer("/slow")) for _ in range(3))
    ended.end()  # not to be seen while nobody reads; what follows is
    time.sleep(0.3)
    assert target.report()["registered"] == 3

    vanish_by_reset(reset)
    vanish_by_close(closed)
    vanish_by_close(ended)
    wait_until(lambda: target.report()["registered"] == 0, 2 * INTERVAL + 2 * TICK + ACROSS)
    # Their handlers sleep; they are woken when their grace is over.
    target.wait_idle(GRACE + TICK + ACROSS)


def test_a_peer_that_ends_its_half_with_messages_unhandled_gets_its_answers(
    attack: Attack, loop: str
) -> None:
    target = attack(loop=loop)

    with target.peer("/work") as peer:
        for number in range(5):
            peer.send(frame(TEXT, str(number).encode()))
        peer.send(close_frame())
        peer.end()
        answers = []
        while (got := peer.read_frame()).opcode != CLOSE:
            answers.append(got.payload)
        assert peer.read_rest() == b""
        # Both sides have ended: there is nothing to linger for.
        target.wait_idle(ACROSS)

    assert answers == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("path", ["/auth?delay=0.2", "/auth-thread?delay=0.2"])
def test_a_peer_that_left_before_the_verdict_on_its_bad_frame_is_no_error(
    attack: Attack, loop: str, path: str
) -> None:
    target = attack(loop=loop)
    # So much that nothing is read any more, and nobody sees it go: our answer brings its RST.
    early = frame(TEXT, b"x", rsv=4) + b"\x00" * 20 * KIB

    for _ in range(5):
        with target.peer() as peer:
            peer.send(head(path) + early)

    target.wait_idle(2 * ACROSS)


def test_a_peer_that_resets_while_it_is_written_to_is_no_error(attack: Attack, loop: str) -> None:
    target = attack(loop=loop)

    for path in ("/burst", "/ticker", "/burst-events", "/pieces"):
        for _ in range(5):
            peer = target.peer(path)
            peer.send(frame(TEXT, b"begin"))
            time.sleep(0.01)
            peer.reset()

    target.wait_idle()


# --- the peer is asleep ---------------------------------------------------------------------------


@both_loops("quick")
def test_a_stopped_client_is_gone_after_interval_and_timeout(target: Target) -> None:
    command = [sys.executable, "-m", "tests.hostile.sleeper", target.url("/push")]

    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as sleeper:
        try:
            stdout = cast("IO[str]", sleeper.stdout)
            assert stdout.readline() == "open\n"
            time.sleep(INTERVAL + 0.5)  # it answers pings as long as it is awake
            assert target.report()["registered"] == 1
            sleeper.send_signal(signal.SIGSTOP)
            gone = target.wait_idle(INTERVAL + TIMEOUT + 2 * TICK + ACROSS)
            sleeper.send_signal(signal.SIGCONT)
            # Asleep is not dead: it is told what happened.
            assert stdout.readline() == "1011\n"
        finally:
            sleeper.kill()

    assert gone < INTERVAL + TIMEOUT + 1.0
    assert "code=1011 by=us why=no_pong" in target.log


def test_pongs_that_nobody_asked_for_are_nothing(attack: Attack) -> None:
    target = attack()

    with target.memory() as memory, target.peer("/echo") as peer:
        peer.send(frame(PONG, b"p" * 125) * 10_000)
        peer.echo("still here")
        peer.leave()

    assert memory.growth < MIB
