from __future__ import annotations

from tests.gate.upgrades import upgrade
from ws_middleware.gate.auth.anonymous import ANONYMOUS, Anonymous


def test_everybody_is_nobody() -> None:
    principal = Anonymous()(upgrade(authorization="Bearer x", cookie="user=ann"))
    assert principal is ANONYMOUS
    assert principal.id == ""
    assert not principal.is_authenticated


def test_it_looks_at_nothing_that_a_browser_sends_by_itself() -> None:
    assert Anonymous().ambient is False
    assert not hasattr(Anonymous(), "sources")


def test_its_repr_is_how_it_is_made() -> None:
    assert repr(Anonymous()) == "Anonymous()"
