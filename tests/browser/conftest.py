"""Two people at two browsers, and the demo they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser.support import Demo, Window, find_program, open_window

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def alices_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    with open_window(tmp_path_factory.mktemp("alice")) as window:
        yield window


@pytest.fixture(scope="session")
def bobs_window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    with open_window(tmp_path_factory.mktemp("bob")) as window:
        yield window


@pytest.fixture
def alice(alices_window: Window) -> Window:
    alices_window.close_tabs()
    return alices_window


@pytest.fixture
def bob(bobs_window: Window) -> Window:
    bobs_window.close_tabs()
    return bobs_window


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    find_program("chromium", "chromium-browser")
    with Demo(tmp_path_factory.mktemp("demo")) as demo:
        yield demo
