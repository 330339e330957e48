from __future__ import annotations

import pytest

from ws_middleware.config import Heartbeat
from ws_middleware.core.heartbeat import HeartbeatClock, Pulse

JUST_BEFORE = 0.001


def clock(interval: float = 30.0, timeout: float = 20.0, jitter: float = 0.0) -> HeartbeatClock:
    """Return a clock that began at 100."""
    return HeartbeatClock(Heartbeat(interval, timeout), now=100.0, jitter=jitter)


def test_a_ping_is_due_after_the_interval() -> None:
    heartbeat = clock()
    assert heartbeat.next_deadline() == 130.0
    assert heartbeat.pulse(130.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(130.0) is Pulse.PING


def test_asking_early_changes_nothing() -> None:
    heartbeat = clock()
    assert [heartbeat.pulse(now) for now in (100.0, 110.0, 129.0)] == [None] * 3
    assert heartbeat.next_deadline() == 130.0


def test_a_peer_that_shows_life_is_pinged_at_every_interval() -> None:
    heartbeat = clock()
    pings = []
    for tick in range(100, 400):
        if heartbeat.pulse(float(tick)) is Pulse.PING:
            pings.append(tick)
        heartbeat.received()
    assert pings == list(range(130, 400, 30))


def test_a_peer_without_life_is_dead_at_exactly_interval_and_timeout() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(130.0) is Pulse.PING
    assert heartbeat.next_deadline() == 150.0
    assert heartbeat.pulse(150.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(150.0) is Pulse.DEAD


def test_any_byte_after_the_ping_is_life() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.received()
    assert heartbeat.next_deadline() == 160.0
    assert heartbeat.pulse(159.0) is None
    assert heartbeat.pulse(160.0) is Pulse.PING
    assert heartbeat.next_deadline() == 180.0


def test_bytes_before_the_ping_do_not_put_it_off() -> None:
    heartbeat = clock()
    heartbeat.received()
    assert heartbeat.pulse(130.0) is Pulse.PING
    assert heartbeat.pulse(150.0) is Pulse.DEAD


def test_a_late_ping_gives_the_whole_timeout() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(137.0) is Pulse.PING
    assert heartbeat.pulse(157.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(157.0) is Pulse.DEAD


def test_a_timeout_longer_than_the_interval_counts_from_the_first_unanswered_ping() -> None:
    heartbeat = clock(interval=10.0, timeout=25.0)
    assert heartbeat.pulse(110.0) is Pulse.PING
    assert heartbeat.next_deadline() == 120.0
    assert [heartbeat.pulse(now) for now in (120.0, 130.0)] == [Pulse.PING] * 2
    assert heartbeat.next_deadline() == 135.0
    assert heartbeat.pulse(135.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(135.0) is Pulse.DEAD


def test_death_comes_before_a_ping_that_is_due_at_the_same_time() -> None:
    heartbeat = clock(interval=20.0, timeout=20.0)
    assert heartbeat.pulse(120.0) is Pulse.PING
    assert heartbeat.pulse(140.0) is Pulse.DEAD


@pytest.mark.parametrize(
    ("jitter", "first"),
    [
        pytest.param(0.0, 130.0, id="none"),
        pytest.param(0.5, 122.5, id="half"),
        pytest.param(1.0, 115.0, id="all"),
    ],
)
def test_jitter_only_shortens_and_only_the_first_interval(jitter: float, first: float) -> None:
    heartbeat = clock(jitter=jitter)
    assert heartbeat.next_deadline() == first
    assert heartbeat.pulse(first - JUST_BEFORE) is None
    assert heartbeat.pulse(first) is Pulse.PING
    heartbeat.received()
    assert heartbeat.next_deadline() == first + 30.0


# --- pauses --------------------------------------------------------------------------------------


def test_a_pause_shifts_the_deadline_by_its_length() -> None:
    heartbeat = clock(interval=30.0, timeout=20.0)
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.pause(135.0)
    heartbeat.resume(142.0)
    assert heartbeat.next_deadline() == 157.0
    assert heartbeat.pulse(157.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(157.0) is Pulse.DEAD


def test_pings_go_on_in_a_pause_and_nobody_dies() -> None:
    heartbeat = clock()
    heartbeat.pause(110.0)
    seen = [heartbeat.pulse(float(now)) for now in range(110, 1000)]
    assert Pulse.DEAD not in seen
    assert [i + 110 for i, pulse in enumerate(seen) if pulse] == list(range(130, 1000, 30))


def test_in_a_pause_only_the_ping_is_a_deadline() -> None:
    heartbeat = clock(interval=30.0, timeout=10.0)
    assert heartbeat.pulse(130.0) is Pulse.PING
    assert heartbeat.next_deadline() == 140.0
    heartbeat.pause(131.0)
    assert heartbeat.next_deadline() == 160.0


def test_a_ping_made_in_a_pause_gives_the_whole_timeout_after_it() -> None:
    heartbeat = clock()
    heartbeat.pause(110.0)
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.resume(155.0)
    assert heartbeat.pulse(160.0) is Pulse.PING
    assert heartbeat.pulse(175.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(175.0) is Pulse.DEAD


def test_a_second_ping_in_a_pause_does_not_lengthen_the_deadline() -> None:
    heartbeat = clock(interval=30.0, timeout=40.0)
    assert heartbeat.pulse(130.0) is Pulse.PING  # dead at 170
    heartbeat.pause(150.0)  # 20 s are left
    assert heartbeat.pulse(160.0) is Pulse.PING
    heartbeat.resume(180.0)
    assert heartbeat.pulse(190.0) is Pulse.PING
    assert heartbeat.pulse(200.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(200.0) is Pulse.DEAD


def test_pausing_twice_is_pausing_once() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.pause(135.0)
    heartbeat.pause(139.0)
    heartbeat.resume(142.0)
    assert heartbeat.next_deadline() == 157.0


def test_resuming_without_a_pause_is_nothing() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.resume(145.0)
    assert heartbeat.next_deadline() == 150.0


def test_a_pause_before_the_ping_is_over_does_not_count() -> None:
    heartbeat = clock()
    heartbeat.pause(105.0)
    heartbeat.resume(125.0)
    assert heartbeat.pulse(130.0) is Pulse.PING
    assert heartbeat.next_deadline() == 150.0


def test_life_in_a_pause_ends_the_deadline() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.pause(135.0)
    heartbeat.received()
    heartbeat.resume(300.0)
    assert heartbeat.pulse(300.0) is Pulse.PING
    assert heartbeat.next_deadline() == 320.0


# --- where something else is on its way to the peer ----------------------------------------------


def test_a_ping_that_is_put_off_comes_then_and_the_next_an_interval_after_it() -> None:
    heartbeat = clock()
    heartbeat.put_off(131.0)
    assert heartbeat.pulse(130.0) is None
    assert heartbeat.pulse(131.0) is Pulse.PING
    heartbeat.received()
    assert heartbeat.next_deadline() == 161.0


def test_one_that_is_due_later_anyhow_is_not_put_off() -> None:
    heartbeat = clock()
    heartbeat.put_off(111.0)
    assert heartbeat.next_deadline() == 130.0


def test_putting_a_ping_off_saves_no_dead_peer() -> None:
    heartbeat = clock(interval=10.0, timeout=25.0)
    assert heartbeat.pulse(110.0) is Pulse.PING
    heartbeat.put_off(136.0)
    assert heartbeat.pulse(135.0) is Pulse.DEAD


# --- our own loop --------------------------------------------------------------------------------


def test_a_stall_of_ours_shifts_the_deadline() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.stood_still(8.0)
    assert heartbeat.pulse(158.0 - JUST_BEFORE) is None
    assert heartbeat.pulse(158.0) is Pulse.DEAD


def test_a_stall_shifts_no_ping() -> None:
    heartbeat = clock()
    heartbeat.stood_still(8.0)
    assert heartbeat.next_deadline() == 130.0


def test_a_stall_in_a_pause_counts_once() -> None:
    heartbeat = clock()
    assert heartbeat.pulse(130.0) is Pulse.PING
    heartbeat.pause(135.0)  # 15 s are left
    heartbeat.stood_still(5.0)
    heartbeat.resume(142.0)
    assert heartbeat.next_deadline() == 157.0
    assert heartbeat.pulse(157.0) is Pulse.DEAD
