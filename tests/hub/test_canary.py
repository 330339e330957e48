from __future__ import annotations

from ws_middleware.hub.canary import Canary


def test_a_beat_that_comes_back_is_a_sign_of_life() -> None:
    canary = Canary(100.0)
    for now in range(100, 160, 5):
        canary.hear(canary.beat(), now + 0.1)
        assert not canary.is_deaf
        assert canary.last_heard == now + 0.1


def test_two_beats_in_a_row_that_do_not_are_deafness() -> None:
    canary = Canary(100.0)
    heard = canary.beat()
    canary.hear(heard, 100.1)
    canary.beat()
    assert not canary.is_deaf  # asked for just now
    canary.beat()
    assert not canary.is_deaf
    canary.beat()
    assert canary.is_deaf
    assert canary.last_heard == 100.1


def test_an_old_beat_is_no_sign_of_life() -> None:
    canary = Canary(100.0)
    old = canary.beat()
    for _ in range(3):
        canary.beat()
    canary.hear(old, 120.0)
    assert canary.is_deaf
    canary.hear(10**9, 120.0)
    assert canary.is_deaf


def test_after_a_restart_the_count_begins_anew() -> None:
    canary = Canary(100.0)
    for _ in range(4):
        canary.beat()
    canary.restart(130.0)
    assert not canary.is_deaf
    assert canary.last_heard == 130.0
    canary.beat()
    canary.beat()
    assert not canary.is_deaf
    canary.beat()
    assert canary.is_deaf
