"""The pytest plugin: the fixture `ws_connect`, and a clean end for every test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .connecting import Connector, close_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ws_connect"]


@pytest.fixture
def ws_connect() -> Iterator[Connector]:
    """`ws_middleware.testing.connect`, with one clock for the whole test: `ws_connect.advance`."""
    with Connector() as connector:
        yield connector


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Close what a test that used plain `connect` has left open."""
    close_leftovers()
